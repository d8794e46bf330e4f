//! The core: what is asked, what is known, what is answered. Pure: no waiting, no clock, no files, no client.
//!
//! [`evaluate`] is the product. The webhook, the command line and the tests differ only in who fills its three arguments.

mod backend;
mod change;
mod lookup;
mod names;
mod parameters;
mod redefinition;
mod review;
mod rule;
mod selector;
mod settings;
mod verdict;
pub mod words;

pub use backend::Backend;
pub use change::{
    Asked, Base, Carried, Change, Class, Clients, Destination, Destinations, Flow, Movement,
    Relabelled, Share, Shares, Side, Steps, Takers, Why, fractions,
};
pub use lookup::Target;
pub use names::thing;
pub use parameters::{Factor, Percentage};
pub use redefinition::{Redefinition, Selection, Shift, Use};
pub use review::{Operation, Review, Write};
pub use rule::{Case, Definition, Entry, Gravity, Report, Rule, Stage};
pub use selector::{LabelSelector, Operator, Requirement};
pub use settings::{
    DryRun, Mode, Policies, Policy, PolicyError, PolicyMatch, PolicySpec, Roles, Step,
};
pub use verdict::{Action, Basis, Finding, Reference, Verdict};

use std::collections::HashMap;

use self::rule::Reported;
use self::settings::ActiveRule;
use crate::istio::{DestinationRule, VirtualService};
use crate::world::{Kind, World};

/// The kinds that tell what a destination is and who is stable, whichever rules are in force.
const EVIDENCE: [Kind; 12] = [
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::ServiceEntry,
    Kind::WorkloadEntry,
    Kind::Sidecar,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Pod,
    Kind::Deployment,
    Kind::ReplicaSet,
    Kind::StatefulSet,
    Kind::DaemonSet,
];

/// Judges one write; the first step that applies decides.
///
/// Rollbacks come before everything that could be missing or broken: a lowering passes with an empty world, a stale one, or
/// none at all.
pub fn evaluate(policy: &Policy, review: &Review, world: &World) -> Verdict {
    let mut verdict = decide(policy, review, world);
    let downgrade = match policy.spec().mode {
        Mode::Enforce => return verdict,
        Mode::Warn => Action::Warn,
        Mode::Audit => Action::Audit,
    };
    verdict.would_deny = verdict.findings.iter().any(|finding| finding.action == Action::Deny);
    for finding in &mut verdict.findings {
        finding.action = finding.action.max(downgrade);
    }
    verdict
}

fn decide(policy: &Policy, review: &Review, world: &World) -> Verdict {
    if review.is_housekeeping() {
        return Verdict::allow(Basis::NotJudged);
    }
    let Some((seen, why)) = review.across_revisions(&world.mesh().revision) else {
        return decide_write(policy, review, world);
    };
    let mut verdict = decide_write(policy, &seen, world);
    for finding in &mut verdict.findings {
        // What would pass stays the last line.
        let end_of_first = finding.message.find('\n').unwrap_or(finding.message.len());
        finding.message.insert_str(end_of_first, &format!("\n  {why}"));
    }
    verdict
}

fn decide_write(policy: &Policy, review: &Review, world: &World) -> Verdict {
    match &review.operation {
        Operation::VirtualService(write) if write.is_unchanged() => {
            Verdict::allow(Basis::Unchanged)
        }
        Operation::DestinationRule(write) if write.is_unchanged() => {
            Verdict::allow(Basis::Unchanged)
        }
        Operation::VirtualService(write) => match write.written() {
            Some(new) => decide_routes(policy, review, new, world),
            None => decide_removal(policy, review, world),
        },
        Operation::DestinationRule(write) => decide_definition(policy, review, write, world),
        Operation::Unreadable { kind: Kind::VirtualService, path, reason } => {
            unreadable(policy, path, reason)
        }
        // Only a server without Istio's CRDs stores such a DestinationRule, and nobody reads it there.
        Operation::Unreadable { .. } | Operation::NotOurs => Verdict::allow(Basis::NotJudged),
    }
}

/// A VirtualService that is to be stored.
fn decide_routes(policy: &Policy, review: &Review, new: &VirtualService, world: &World) -> Verdict {
    let judge = Judge { policy, review, world };
    let mut findings = judge.text(new, Stage::Broken);
    if findings.iter().any(|finding| finding.action == Action::Deny) {
        findings.extend(judge.text(new, Stage::Text));
        return Verdict::of(Basis::Broken, findings);
    }
    findings.extend(judge.text(new, Stage::Text));

    let missing = EVIDENCE.into_iter().filter(|&kind| !world.knows(kind)).collect::<Vec<_>>();
    let is_blind = !missing.is_empty();
    let Some(change) = Change::of(review, policy.spec(), world, is_blind) else {
        return Verdict::allow(Basis::NotJudged);
    };
    if !is_blind {
        findings.extend(judge.traffic(new, &change, Stage::Load));
    }
    if !change.moves() {
        return Verdict::of(Basis::Text, findings);
    }
    let harmless = change.is_harmless();
    if is_blind && !harmless {
        return Verdict::undecided(missing);
    }
    if !is_blind {
        findings.extend(judge.traffic(new, &change, Stage::Traffic));
        if review.old_object().is_none() {
            findings.extend(judge.traffic(new, &change, Stage::Presence));
        }
    }
    if harmless {
        for finding in &mut findings {
            finding.action = finding.action.max(Action::Warn);
        }
        return Verdict::of(
            if change.is_evacuation() { Basis::Evacuation } else { Basis::Lowering },
            findings,
        );
    }
    Verdict::of(Basis::Rules, findings)
}

/// A VirtualService that goes away.
fn decide_removal(policy: &Policy, review: &Review, world: &World) -> Verdict {
    let Some(old) = review.old_object().filter(|_| !world.is_blank()) else {
        return Verdict::allow(Basis::NotJudged);
    };
    let missing = EVIDENCE.into_iter().filter(|&kind| !world.knows(kind)).collect::<Vec<_>>();
    let is_blind = !missing.is_empty();
    let Some(change) = Change::of(review, policy.spec(), world, is_blind) else {
        return Verdict::allow(Basis::NotJudged);
    };
    if is_blind {
        // Only where a policy wants deletions refused is there anything to wait for.
        let waits = policy
            .rules
            .iter()
            .any(|rule| rule.entry.stage == Stage::Presence && rule.action == Action::Deny);
        return if waits { Verdict::undecided(missing) } else { Verdict::allow(Basis::Blind) };
    }
    let judge = Judge { policy, review, world };
    let mut findings = judge.traffic(old, &change, Stage::Presence);
    if !change.moves() || change.is_harmless() {
        for finding in &mut findings {
            finding.action = finding.action.max(Action::Warn);
        }
    }
    Verdict::of(Basis::Rules, findings)
}

/// A DestinationRule that comes, changes or goes.
fn decide_definition(
    policy: &Policy,
    review: &Review,
    write: &Write<DestinationRule>,
    world: &World,
) -> Verdict {
    if world.is_blank() {
        return Verdict::allow(Basis::Text);
    }
    let missing = EVIDENCE.into_iter().filter(|&kind| !world.knows(kind)).collect::<Vec<_>>();
    if !missing.is_empty() {
        let adds = write.stored().zip(write.written()).is_some_and(|(old, new)| new.keeps(old));
        return if adds { Verdict::allow(Basis::Text) } else { Verdict::undecided(missing) };
    }
    let (namespace, name) = (review.namespace.as_str(), review.name.as_str());
    // What the API server says is stored now counts, also where the watch has not brought it yet.
    let before = world.with_destination_rule(write.stored(), namespace, name);
    let after = world.with_destination_rule(write.written(), namespace, name);
    let redefinition = Redefinition::of(
        review,
        (write.stored(), write.written()),
        (before.rules(), after.rules()),
        policy,
        world,
    );
    let case = Definition { review, redefinition: &redefinition, world, policy };
    let mut found = Vec::new();
    let asked = policy
        .rules
        .iter()
        .filter(|rule| rule.entry.stage == Stage::Definition && rule.action != Action::Off);
    for rule in asked {
        rule.check
            .check_definition(&case, &mut Report::new(rule.entry.id, rule.action, &mut found));
    }
    let findings = found.into_iter().map(|reported| reported.finding).collect();
    Verdict::of(Basis::Rules, findings)
}

/// What the CRD's schema would refuse is broken for everyone.
fn unreadable(policy: &Policy, path: &crate::istio::FieldPath, reason: &str) -> Verdict {
    let rule = policy
        .rules
        .iter()
        .find(|rule| rule.entry.stage == Stage::Broken)
        .map_or("structure", |rule| rule.entry.id);
    let message = format!(
        "{reason}; no API server with Istio's CRDs stores this\n  Passes: the same object with this field in the shape that `kubectl explain virtualservice.{path}` shows.",
        path = path.as_str().split('[').next().unwrap_or_default()
    );
    let finding =
        Finding { rule, action: Action::Deny, path: path.clone(), message, rests_on: Vec::new() };
    Verdict::of(Basis::Broken, vec![finding])
}

/// Asks the rules of one policy about one review.
struct Judge<'a> {
    policy: &'a Policy,
    review: &'a Review,
    world: &'a World,
}

impl Judge<'_> {
    /// The findings of the rules that read only text. What the stored object had already, and this write does not make worse,
    /// is a warning.
    fn text(&self, new: &VirtualService, stage: Stage) -> Vec<Finding> {
        let mut found = self.ask(new, None, stage);
        if let Some(old) = self.review.old_object().filter(|_| !found.is_empty()) {
            let mut before: HashMap<(&str, String), Vec<f64>> = HashMap::new();
            for Reported { finding, key, severity, .. } in self.ask(old, None, stage) {
                before.entry((finding.rule, key)).or_default().push(severity);
            }
            found.retain_mut(|reported| {
                // The key is of no use to anybody after this.
                let key = (reported.finding.rule, std::mem::take(&mut reported.key));
                let Some(excuses) = before.get_mut(&key) else { return true };
                let excused = excuses.iter().position(|&old| old >= reported.severity - 1e-9);
                // Each old violation excuses one of the new object: a second one of its kind is new.
                if let Some(at) = excused {
                    excuses.swap_remove(at);
                    if reported.is_advice {
                        return false;
                    }
                    reported.finding.action = reported.finding.action.max(Action::Warn);
                    reported.finding.message.push_str("\n  It was so before this write.");
                }
                true
            });
        }
        found.into_iter().map(|reported| reported.finding).collect()
    }

    /// The findings of the rules that are asked with the change at hand.
    fn traffic(&self, object: &VirtualService, change: &Change, stage: Stage) -> Vec<Finding> {
        self.ask(object, Some(change), stage).into_iter().map(|reported| reported.finding).collect()
    }

    fn ask(&self, object: &VirtualService, change: Option<&Change>, stage: Stage) -> Vec<Reported> {
        let case =
            Case { review: self.review, object, change, world: self.world, policy: self.policy };
        let mut found = Vec::new();
        // A rule that reads text may have something to say without looking anything up, and asks by itself.
        let can_look = |rule: &ActiveRule| {
            stage <= Stage::Text || rule.entry.reads.is_empty() || !self.world.is_blank()
        };
        let asked = self
            .policy
            .rules
            .iter()
            .filter(|rule| rule.entry.stage == stage && rule.action != Action::Off);
        for rule in asked.filter(|rule| can_look(rule)) {
            let mut report = Report::new(rule.entry.id, rule.action, &mut found);
            rule.check.check(&case, &mut report);
            report.finish();
        }
        found
    }
}
