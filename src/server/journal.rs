//! The log line of a verdict, or of none.

use super::gate::Judged;
use super::metrics::Outcome;
use super::refusal::Refusal;
use crate::policy::{Mode, Review};
use crate::world::Kind;

/// One line for each verdict: loud where somebody was refused, or would have been had the policy meant it.
pub(super) fn record(review: &Review, operation: &'static str, judged: &Judged) {
    let Judged { verdict, policy, mode } = judged;
    let (basis, dry_run) = (verdict.basis.name(), review.dry_run);
    let Review { namespace, name, user, .. } = review;
    let kind = review.kind().map_or("", Kind::name);
    let outcome = Outcome::of(verdict);
    if outcome != Outcome::Deny && !verdict.would_deny {
        let verdict = outcome.name();
        tracing::debug!(verdict, basis, operation, kind, namespace, name, user, dry_run, "judged");
        return;
    }
    let mut rules = verdict.findings.iter().map(|finding| finding.rule).collect::<Vec<_>>();
    rules.dedup();
    let rules = rules.join(",");
    let first = verdict.findings.first().map(ToString::to_string).unwrap_or_default();
    let reason = first.lines().next().unwrap_or_default();
    if outcome == Outcome::Deny {
        tracing::warn!(
            operation, kind, namespace, name, user, dry_run, rules, basis, policy, reason,
            "refused"
        );
    } else {
        let mode = match mode {
            Mode::Enforce => "Enforce",
            Mode::Warn => "Warn",
            Mode::Audit => "Audit",
        };
        tracing::info!(
            operation,
            kind,
            namespace,
            name,
            user,
            dry_run,
            rules,
            basis,
            policy,
            mode,
            reason,
            "would have been refused"
        );
    }
}

/// A write that was understood, and got no verdict.
pub(super) fn without_verdict(review: &Review, operation: &'static str, refusal: &Refusal) {
    let Review { namespace, name, user, dry_run, .. } = review;
    let kind = review.kind().map_or("", Kind::name);
    tracing::info!(operation, kind, namespace, name, user, dry_run, error = %refusal, "no verdict");
}

/// A request of which nobody can say what it was about.
pub(super) fn unread(refusal: &Refusal) {
    tracing::info!(error = %refusal, "no verdict");
}
