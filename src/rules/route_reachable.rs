use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{Condition, Protocol, Route};
use crate::policy::words::percent;
use crate::policy::{Action, Case, Report, Rule, Stage, fractions};

/// A route can be reached.
///
/// Reads: the `match`, the order and the destinations of all routes. Nothing is looked up.
///
/// Why: routes are tried from the top, and the first one that matches takes the request. Refuses a route behind one that takes
/// everything, or behind one with the same match, when its destinations differ: what it says never happens. The common mistake
/// is a split written as two routes, `[v1 90], [v2 10]`: v1 gets 100 %, whatever its weight, and v2 nothing. A header route
/// behind a catch-all is another.
///
/// A warning where the destinations are the same, where the route in front takes only a wider path, where the stored object had
/// it already, and for a lowering: a catch-all to the stable version put in front of everything is a rollback.
///
/// Refused: `http: [{route: [{destination: {host: reviews, subset: v1}, weight: 90}]}, {route: [{destination: {host:
/// reviews, subset: v2}, weight: 10}]}]`
///
/// Passes: `http: [{route: [{destination: {host: reviews, subset: v1}, weight: 90}, {destination: {host: reviews,
/// subset: v2}, weight: 10}]}]`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct RouteReachable {}

impl Rule for RouteReachable {
    const ID: &'static str = "route-reachable";
    const ACTION: Action = Action::Deny;
    const STAGE: Stage = Stage::Text;

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        for protocol in Protocol::ALL {
            let routes = case.object.spec.routes(protocol);
            let conditions =
                routes.iter().map(|route| Condition::of_route(route, &case.object.spec.gateways));
            let conditions = conditions.collect::<Vec<_>>();
            for (index, route) in routes.iter().enumerate().skip(1) {
                if let Some(by) = hidden_by(&conditions, index) {
                    check_hidden(
                        case,
                        protocol,
                        (by, index),
                        (&routes[by.route], route),
                        &conditions,
                        report,
                    );
                }
            }
        }
    }
}

/// The route in front that takes every request of a route.
#[derive(Debug, Clone, Copy)]
struct HiddenBy {
    route: usize,
    /// It takes everything, or exactly the same; otherwise it is only wider.
    is_plain: bool,
}

fn hidden_by(conditions: &[Vec<Condition>], index: usize) -> Option<HiddenBy> {
    let mut by: Option<HiddenBy> = None;
    for own in &conditions[index] {
        let covering = conditions[..index].iter().enumerate().find_map(|(route, earlier)| {
            let outer = earlier.iter().find(|outer| outer.covers(own))?;
            Some(HiddenBy { route, is_plain: outer.is_catch_all() || outer == own })
        });
        let covering = covering?;
        by = Some(by.map_or(covering, |known| HiddenBy {
            route: known.route.min(covering.route),
            is_plain: known.is_plain && covering.is_plain,
        }));
    }
    by
}

fn check_hidden(
    case: &Case<'_>,
    protocol: Protocol,
    (by, index): (HiddenBy, usize),
    (front, hidden): (&Route, &Route),
    conditions: &[Vec<Condition>],
    report: &mut Report<'_>,
) {
    let path = protocol.path(index);
    let front_path = protocol.path(by.route);
    let why = if conditions[by.route].iter().any(Condition::is_catch_all) {
        format!("{front_path} takes every request")
    } else if by.is_plain {
        format!("{front_path} has the same match and takes these requests")
    } else {
        format!("{front_path} takes these requests and more")
    };
    if same_destinations(case, front, hidden) {
        report.warning(path, format!("never reached: {why}; it says the same, so nothing is lost\n  Remove one of the two."));
        return;
    }
    let names = |route: &Route| {
        let shares = route.route.iter().zip(fractions(route)).filter(|(_, share)| *share > 0.0);
        let shares =
            shares.map(|(written, share)| format!("{} gets {}", name(written), percent(share)));
        shares.collect::<Vec<_>>().join(" and ")
    };
    let is_split = front.route.len() == 1 && hidden.route.len() == 1;
    let mut message = format!("never reached: {why}");
    let mut is_told = false;
    if is_split {
        let (first, second) = (&front.route[0], &hidden.route[0]);
        message.push_str(&format!(", so {} and {} nothing", names(front), name(second)));
        let weighted = first.weight.is_some_and(|weight| weight < 100) || second.weight.is_some();
        let (a, b) = match (first.weight, second.weight) {
            (Some(a), Some(b)) if a + b == 100 => (a, b),
            _ => (90, 10),
        };
        if weighted && by.is_plain {
            is_told = true;
            message.push_str(&format!(
                "\n  A split is one route with two destinations: route: [{{destination: {}, weight: {a}}}, {{destination: {}, weight: {b}}}]",
                target(first),
                target(second)
            ));
        }
    }
    if !conditions[index].iter().any(|own| conditions[by.route].contains(own)) {
        message.push_str(&format!(
            "\n  Passes: {path} in front of {front_path}: the first match wins."
        ));
    } else if !is_told {
        message.push_str(&format!(
            "\n  Passes: a narrower match for {front_path}, or the object without this route."
        ));
    }
    if by.is_plain {
        let key = format!("{} {:?}", protocol.field(), hidden.targets());
        report.violation(path, message, key, 0.0);
    } else {
        report.warning(path, message);
    }
}

/// What stands beside a weight: the subset, else the host.
fn name(written: &crate::istio::RouteDestination) -> &str {
    if written.destination.subset.is_empty() {
        &written.destination.host
    } else {
        &written.destination.subset
    }
}

/// A destination in one line, as it would be written.
fn target(written: &crate::istio::RouteDestination) -> String {
    match written.destination.subset.as_str() {
        "" => format!("{{host: {}}}", written.destination.host),
        subset => format!("{{host: {}, subset: {subset}}}", written.destination.host),
    }
}

/// Whether two routes send the same shares to the same places, or both answer without a destination.
fn same_destinations(case: &Case<'_>, a: &Route, b: &Route) -> bool {
    let resolved = |route: &Route| {
        let shares = fractions(route);
        let own = route.route.iter().zip(shares).filter(|(_, share)| *share > 0.0).map(
            |(written, share)| {
                let domain = &case.world.mesh().domain;
                let host = crate::istio::Host::resolve(
                    &written.destination.host,
                    &case.review.namespace,
                    domain,
                );
                (host, written.destination.subset.clone(), (share * 1e6).round() as u64)
            },
        );
        let mut own = own.collect::<Vec<_>>();
        own.sort();
        own
    };
    let answers = |route: &Route| {
        (route.redirect.is_some(), route.direct_response.is_some(), route.delegate.is_some())
    };
    resolved(a) == resolved(b) && answers(a) == answers(b)
}
