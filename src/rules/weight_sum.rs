use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::istio::{Protocol, Route, RouteDestination};
use std::collections::BTreeMap;

use crate::policy::words::{list, number, percent};
use crate::policy::{Action, Case, Class, Report, Rule, Share, Stage, fractions};

/// The weights of several destinations add up to 100.
///
/// Reads: the weights of each route. Nothing is looked up.
///
/// Why: Istio takes any weights and divides by their sum, so `9` and `1` send 10 % where 1 % was meant, and a weight that is
/// indented one step too far counts as 0. Almost always a sum other than 100 is a slip.
///
/// A single destination gets everything whatever its weight, and is not judged. A sum that was wrong before this write and is
/// not further off now is a warning.
///
/// Refused: `v1: 9, v2: 1`.
///
/// Passes: `v1: 99, v2: 1`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct WeightSum {
    /// What the weights add up to, or `relative` where any sum is meant.
    total: Total,
}

/// What weights add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Total {
    /// This number.
    Sum(u32),
    /// Anything: weights are relative.
    Relative(Relative),
}

/// The word for "any sum".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Relative {
    /// Weights count in relation to each other.
    Relative,
}

impl Default for Total {
    fn default() -> Self {
        Self::Sum(100)
    }
}

impl Rule for WeightSum {
    const ID: &'static str = "weight-sum";
    const ACTION: Action = Action::Deny;
    const STAGE: Stage = Stage::Text;

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let Total::Sum(wanted) = self.total else { return };
        for protocol in Protocol::ALL {
            for (index, route) in case.object.spec.routes(protocol).iter().enumerate() {
                if route.route.len() < 2 {
                    continue;
                }
                let total = route.total_weight();
                // Weights that no server takes are another rule's business.
                let is_negative =
                    |written: &RouteDestination| written.weight.is_some_and(|own| own < 0);
                if total == u64::from(wanted)
                    || !(1..=u64::from(u32::MAX)).contains(&total)
                    || route.route.iter().any(is_negative)
                {
                    continue;
                }
                let path = protocol.path(index).field("route");
                let key = (protocol.field(), route.target_hash());
                report.violation(
                    path,
                    || message(case, (protocol, index), total, wanted),
                    key,
                    total.abs_diff(wanted.into()) as f64,
                );
            }
        }
    }
}

fn message(case: &Case<'_>, at: (Protocol, usize), total: u64, wanted: u32) -> String {
    /// More shares nobody reads in one message.
    const MOST_NAMED: usize = 16;
    let route = &case.object.spec.routes(at.0)[at.1];
    let count = route.route.len();
    if count > MOST_NAMED {
        return format!(
            "the weights of these {count} destinations add up to {total}, not {wanted}: Istio divides by the sum\n  Passes: weights that add up to {wanted} and give each destination the share that it has now."
        );
    }
    let fractions = fractions(route);
    let named = route.route.iter().map(|written| match written.destination.subset.as_str() {
        "" => written.destination.host.as_str(),
        subset => subset,
    });
    let named = named.collect::<Vec<_>>();
    let shares = named
        .iter()
        .zip(&fractions)
        .map(|(name, &share)| format!("{name} would get {}", percent(share)));
    let shares = list(&shares.collect::<Vec<_>>());
    let omitted = route.route.iter().zip(&named).filter(|(written, _)| written.weight.is_none());
    let omitted = omitted.map(|(_, &name)| name.to_owned()).collect::<Vec<_>>();
    let hint = match omitted.as_slice() {
        [] => String::new(),
        names => format!(
            "\n  {} has no weight, which counts as 0; is it indented under destination?",
            list(names)
        ),
    };
    let suggestions = suggestions(route, &fractions, wanted);
    let passing = suggestions.into_iter().filter(|(weights, _)| allows(case, at, weights));
    let passing = passing.map(|(weights, why)| format!("{}{why}", say(&named, &weights)));
    let mut passing = passing.collect::<Vec<_>>();
    passing.dedup_by(|b, a| b.starts_with(a.as_str()));
    let next = match passing.is_empty() {
        true => small_step(case, at, wanted),
        false => passing.join(", or "),
    };
    format!(
        "the weights add up to {total}, not {wanted}: Istio divides by the sum, so {shares}{hint}\n  Passes: {next}"
    )
}

/// Whether `canary-step` has nothing against these weights.
fn allows(case: &Case<'_>, at: (Protocol, usize), weights: &[u64]) -> bool {
    let Some(change) = case.change else { return true };
    let Some(after) = change.flows_of(at).find_map(|flow| flow.after.as_ref()) else { return true };
    let total = weights.iter().sum::<u64>().max(1) as f64;
    let share = |own: &Share| (own.destination, weights[own.entry] as f64 / total);
    let shares = after.shares.iter().map(share).collect::<Vec<_>>();
    change.allows(&case.policy.spec().step, at, &shares)
}

/// What passes where the shares that were meant are too large a step as well.
fn small_step(case: &Case<'_>, at: (Protocol, usize), wanted: u32) -> String {
    let step = &case.policy.spec().step;
    let mut canaries: BTreeMap<String, f64> = BTreeMap::new();
    if let Some(change) = case.change {
        let flows = change.flows_of(at).filter(|flow| !flow.is_targeted());
        let moved = flows.flat_map(|flow| &flow.movements);
        for own in moved.filter(|own| own.rises() && own.class == Class::Canary) {
            let to = change.destinations.get(own.destination);
            let limit = step.limit(own.from * 100.0);
            let most = canaries.entry(to.short_name().to_owned()).or_insert(limit);
            *most = most.min(limit);
        }
    }
    let most = canaries.values().copied().fold(100.0, f64::min) * f64::from(wanted) / 100.0;
    let together = if canaries.len() > 1 { " together" } else { "" };
    let upto = if step.ladder.is_empty() { "up to " } else { "" };
    let names = list(&canaries.into_keys().collect::<Vec<_>>());
    format!(
        "weights that add up to {wanted}, with {upto}{} for {names}{together}: as written it is too large a step as well",
        number((most + 1e-6).floor())
    )
}

fn say(named: &[&str], weights: &[u64]) -> String {
    let parts = named.iter().zip(weights).map(|(name, weight)| format!("{name}: {weight}"));
    parts.collect::<Vec<_>>().join(", ")
}

/// Weights that add up: all but the largest as written, and the same shares as now; and what to say of the latter.
fn suggestions(route: &Route, fractions: &[f64], wanted: u32) -> Vec<(Vec<u64>, &'static str)> {
    let wanted = u64::from(wanted);
    let written = route.route.iter().map(|written| written.effective_weight()).collect::<Vec<_>>();
    let largest =
        (0..written.len()).max_by_key(|&at| (written[at], std::cmp::Reverse(at))).unwrap_or(0);
    let mut found = Vec::new();
    let others = written.iter().sum::<u64>() - written[largest];
    // A total that was meant to be 1000 is not mended by taking 900 from the largest.
    if let Some(rest) = wanted.checked_sub(others).filter(|rest| rest * 2 >= written[largest]) {
        let mut weights = written;
        weights[largest] = rest;
        found.push((weights, ""));
    }
    let mut rounded =
        fractions.iter().map(|share| (share * wanted as f64).round() as u64).collect::<Vec<_>>();
    let rest = wanted.checked_sub(rounded.iter().sum::<u64>() - rounded[largest]);
    if let Some(rest) = rest {
        rounded[largest] = rest;
        found.push((rounded, " for the shares as written"));
    }
    found
}
