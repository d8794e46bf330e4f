use schemars::JsonSchema;
use serde::Deserialize;

use crate::delivery::{Canary, Rollout};
use crate::istio::Metadata;
use crate::policy::words::{number, percent};
use crate::policy::{
    Action, Base, Case, Class, Flow, Movement, Ownership, Reference, Report, Role, Rule, Stage,
};
use crate::world::{Driver, Kind};

/// Nobody raises a canary by hand that Flagger or Argo Rollouts drives.
///
/// Reads: the shares of every route, old and new, and who writes. Looks up the Canary that owns the VirtualService or is called
/// like it, and the Rollout that names it.
///
/// Why: the controller takes the weight that somebody wrote for its own. Flagger goes on from there, and promotes the canary
/// when the weight has reached its maximum; with `stepWeights` a weight that is none of them makes it jump to 100. Argo Rollouts
/// writes its own weight back within a second. Either way nobody analysed what the users got in between.
///
/// Not asked about a VirtualService that is new, nor about the controllers themselves: what their own accounts write to what they
/// drive passes, and what other rules find in it is a warning. A rollback by hand is always admitted, whatever drives the
/// VirtualService; a partial one in front of Flagger is warned about. Routes that only clients with a certain header, cookie,
/// query parameter or label take are not asked about either.
///
/// Refused: a person's `podinfo-primary: 40, podinfo-canary: 60` in the middle of Flagger's analysis at 80 and 20.
///
/// Passes: the same through the Canary's `spec.analysis`, or `kubectl argo rollouts promote` for a Rollout; and by hand
/// `podinfo-primary: 100, podinfo-canary: 0`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct ManagedWeights {}

/// So many are said in words; nobody reads more of them.
const MOST_SAID: usize = 64;

impl Rule for ManagedWeights {
    const ID: &'static str = "managed-weights";
    const ACTION: Action = Action::Deny;
    const STAGE: Stage = Stage::Traffic;
    const READS: &'static [Kind] = &[Kind::Canary, Kind::Rollout];

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let (Some(change), Some(Ownership { driver, is_own: false })) =
            (case.change, case.ownership)
        else {
            return;
        };
        let is_own = |flow: &Flow| flow.after.as_ref().is_some_and(|after| after.is_own);
        // Where it was not in force before there is no weight yet that the controller could take for its own.
        let was_own = |flow: &Flow| flow.base == Base::Stored && !flow.is_targeted();
        let flows = change.flows.iter().filter(|flow| was_own(flow) && is_own(flow));
        let moved = flows.flat_map(|flow| flow.movements.iter().map(move |moved| (flow, moved)));
        let is_canary = |moved: &Movement| moved.rises() && moved.class == Class::Canary;
        let mut raised = moved.clone().filter(|(_, moved)| is_canary(moved)).peekable();
        if raised.peek().is_some() {
            for (flow, moved) in raised.take(MOST_SAID) {
                let label = change.destinations.get(moved.destination).label();
                let (from, to) = (percent(moved.from), percent(moved.to));
                let goes = format!("{label} would go from {from} to {to} by hand");
                let (message, rests_on) = match driver {
                    Driver::Flagger(canary) => refused_for_flagger(&goes, canary, moved),
                    Driver::ArgoRollouts(rollout) => refused_for_argo(&goes, rollout),
                };
                report.shift(flow.path(moved.destination), message, vec![rests_on]);
            }
            return;
        }
        let Driver::Flagger(canary) = driver else { return };
        let is_lowered = |flow: &Flow, moved: &Movement| {
            let role = change.destinations.get(moved.destination).role;
            let keeps = flow.after.as_ref().map_or(0.0, |own| own.share(moved.destination));
            role == Some(Role::Canary) && !moved.rises() && keeps > 0.0
        };
        let mut lowered = moved.filter(|(flow, moved)| is_lowered(flow, moved));
        if let Some((flow, moved)) = lowered.next() {
            report.warning(flow.path(moved.destination), lowered_for_flagger(canary, moved));
        }
    }
}

fn full(own: &Metadata) -> String {
    format!("{}/{}", own.namespace, own.name)
}

fn refused_for_flagger(goes: &str, canary: &Canary, moved: &Movement) -> (String, Reference) {
    let own = &canary.metadata;
    let steps = &canary.spec.analysis.step_weights;
    let is_step = steps.iter().any(|step| (step - moved.to * 100.0).abs() < 0.5);
    let then = match (steps.is_empty(), canary.spec.analysis.step_weight) {
        (false, _) if !is_step => {
            "Flagger reads the weight back, and from one that is none of its stepWeights it jumps to 100 %".to_owned()
        }
        (true, Some(step)) => format!(
            "Flagger reads the weight back and goes on from there in steps of {} %, up to promotion",
            number(step)
        ),
        _ => "Flagger reads the weight back and goes on from there, up to promotion".to_owned(),
    };
    let message = format!(
        "{goes}, and Canary {} drives it: {then}\n  Passes: kubectl -n {} edit canary {} (spec.analysis) for other steps; by hand a lower weight, best 0.",
        full(own),
        own.namespace,
        own.name
    );
    (message, Reference::Canaries { namespace: own.namespace.clone() })
}

fn refused_for_argo(goes: &str, rollout: &Rollout) -> (String, Reference) {
    let own = &rollout.metadata;
    let message = format!(
        "{goes}, and Rollout {} drives it: its controller writes its own weight back within a second\n  Passes: kubectl argo rollouts promote {} -n {} for the next step; by hand a lower weight.",
        full(own),
        own.name,
        own.namespace
    );
    (message, Reference::Rollouts { namespace: own.namespace.clone() })
}

fn lowered_for_flagger(canary: &Canary, moved: &Movement) -> String {
    let then = match canary.spec.analysis.step_weights.is_empty() {
        true => "goes on from there with the next step",
        false => "may jump to 100 % from a weight that is none of its stepWeights",
    };
    format!(
        "Canary {} drives it: Flagger reads {} back and {then}\n  Passes without a warning: the canary at 0, from where it starts again.",
        full(&canary.metadata),
        percent(moved.to)
    )
}
