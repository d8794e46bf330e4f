use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::istio::{Protocol, Route};
use crate::policy::words::{list, percent};
use crate::policy::{Action, Case, Report, Rule, Stage, fractions};

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
                let total = route.total_weight();
                // Weights that no server takes are another rule's business.
                let is_readable = (1..=u64::from(u32::MAX)).contains(&total)
                    && route
                        .route
                        .iter()
                        .all(|written| written.weight.is_none_or(|weight| weight >= 0));
                if route.route.len() < 2 || total == u64::from(wanted) || !is_readable {
                    continue;
                }
                let path = protocol.path(index).field("route");
                let key = format!("{} {:?}", protocol.field(), route.targets());
                report.violation(
                    path,
                    || message(route, total, wanted),
                    key,
                    total.abs_diff(wanted.into()) as f64,
                );
            }
        }
    }
}

fn message(route: &Route, total: u64, wanted: u32) -> String {
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
    format!(
        "the weights add up to {total}, not {wanted}: Istio divides by the sum, so {shares}{hint}\n  Passes: {}",
        suggestions(route, &named, &fractions, wanted).join(", or ")
    )
}

/// Weights that add up: all but the largest as written, and the same shares as now.
fn suggestions(route: &Route, named: &[&str], fractions: &[f64], wanted: u32) -> Vec<String> {
    let say = |weights: &[u64]| {
        let parts = named.iter().zip(weights).map(|(name, weight)| format!("{name}: {weight}"));
        parts.collect::<Vec<_>>().join(", ")
    };
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
        found.push(say(&weights));
    }
    let mut rounded =
        fractions.iter().map(|share| (share * wanted as f64).round() as u64).collect::<Vec<_>>();
    let rest = wanted.checked_sub(rounded.iter().sum::<u64>() - rounded[largest]);
    if let Some(rest) = rest {
        rounded[largest] = rest;
        found.push(format!("{} for the shares as written", say(&rounded)));
    }
    found.dedup_by(|b, a| b.starts_with(a.as_str()));
    found
}
