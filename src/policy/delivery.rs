//! A Canary or a Rollout at its own admission: how the release that it describes would go.

use super::names::fits;
use super::review::{Operation, Review, Write};
use super::rule::{Report, Reported, Tells};
use super::settings::Policy;
use super::verdict::{Basis, Verdict};
use super::{Stage, excuse, soften, told};
use crate::delivery::{CanaryPlan, RolloutPlan};
use crate::istio::Judged;
use crate::world::World;

/// What is judged: how a release goes.
#[derive(Debug, Clone, Copy)]
pub enum Plan<'a> {
    /// By Flagger.
    Canary(&'a CanaryPlan),
    /// By Argo Rollouts.
    Rollout(&'a RolloutPlan),
}

/// What a rule for Canaries and Rollouts looks at.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The write.
    pub review: &'a Review,
    /// The object to judge: the new one, and the stored one when the ratchet asks what was there before.
    pub plan: Plan<'a>,
    /// What the cluster holds.
    pub world: &'a World,
    /// The policy in force.
    pub policy: &'a Policy,
}

/// Judges a write of a Canary or a Rollout.
///
/// Nobody waits for anything here: what is not listed yet is not looked up. Such a write moves no traffic by itself, and the
/// controllers' own ones (finalizers, a default of the replicas) are never refused.
pub(super) fn decide(policy: &Policy, review: &Review, world: &World) -> Verdict {
    let controllers = &policy.spec().controllers;
    let (new, old, accounts) = match &review.operation {
        Operation::Canary(write) => (
            written(write).map(Plan::Canary),
            write.stored().map(Plan::Canary),
            &controllers.flagger,
        ),
        Operation::Rollout(write) => (
            written(write).map(Plan::Rollout),
            write.stored().map(Plan::Rollout),
            &controllers.argo_rollouts,
        ),
        _ => return Verdict::allow(Basis::NotJudged),
    };
    let Some(new) = new else {
        let is_deletion = review.verb() == "DELETE";
        let basis = if is_deletion { Basis::NotJudged } else { Basis::Unchanged };
        return Verdict::allow(basis);
    };
    let ask = |plan, tells: Tells<'_>| {
        let case = Delivery { review, plan, world, policy };
        let mut found = Vec::<Reported>::new();
        for rule in policy.asked(Stage::Delivery).filter(|rule| tells.asks(rule.entry.id)) {
            let mut report = Report::new(rule.entry.id, rule.action, tells, &mut found);
            rule.check.check_delivery(&case, &mut report);
        }
        found
    };
    let mut found = ask(new, Tells::First);
    if let Some(old) = old.filter(|_| !found.is_empty()) {
        let rules = found.iter().map(|own| own.finding.rule).collect();
        excuse(&mut found, ask(old, Tells::Nothing(&rules)));
    }
    for (at, more) in told(&mut found) {
        found[at].finding.counts(more);
    }
    let mut findings = found.into_iter().map(|own| own.finding).collect::<Vec<_>>();
    if accounts.iter().any(|account| fits(account, &review.user)) {
        soften(&mut findings);
        return Verdict::of(Basis::Driver, findings);
    }
    Verdict::of(Basis::Rules, findings)
}

/// What is to be stored, where that is something new.
fn written<T: Judged>(write: &Write<T>) -> Option<&T> {
    write.written().filter(|_| !write.is_unchanged())
}
