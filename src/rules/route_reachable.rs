use std::collections::BTreeSet;

use hashbrown::{HashMap, HashSet};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{Arrival, Condition, HiddenBy, Host, Protocol, Reach, Route, RouteDestination};
use crate::policy::words::percent;
use crate::policy::{Action, Case, Report, Rule, Stage, fractions};

/// A route can be reached.
///
/// Reads: the `match`, the order and the destinations of all routes. Nothing is looked up.
///
/// Why: routes are tried from the top, and the first one that matches takes the request. Refuses a route behind one that takes
/// everything, or behind one with the same match, when its destinations differ: what it says never happens. The common mistake
/// is a split written as two routes, `[v1 90], [v2 10]`: v1 gets 100 %, whatever its weight, and v2 nothing. A header route
/// behind a catch-all is another. In TLS and TCP a more specific name or address range is reached wherever it stands, except
/// behind a TCP route for any address.
///
/// A warning where the destinations are the same, where the route in front takes only a wider path, where it takes only nearly
/// everything (`/.*`, any `user-agent`) or only the requests of some clients (`port`, `gateways`, `sourceLabels`), where no
/// request can satisfy the match, where the stored object had it already, and for a lowering: a catch-all to the stable version
/// put in front of everything is a rollback.
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
        let too_far = too_far(case);
        for protocol in Protocol::ALL {
            check_list(case, protocol, &too_far, report);
        }
    }
}

/// The routes that give a canary more than one write may: another rule refuses them, and what is said here must pass there, too.
fn too_far(case: &Case<'_>) -> HashSet<(Protocol, usize)> {
    let steps = case.change.map(|change| change.steps(&case.policy.spec().step));
    let flows = steps.into_iter().flat_map(|own| {
        let alone = own.too_far.into_iter().map(|(flow, _)| flow);
        alone.chain(own.together).collect::<Vec<_>>()
    });
    let places = flows.filter_map(|flow| {
        let after = flow.after.as_ref().filter(|after| after.is_own)?;
        Some((flow.protocol, after.route))
    });
    places.collect()
}

fn check_list(
    case: &Case<'_>,
    protocol: Protocol,
    too_far: &HashSet<(Protocol, usize)>,
    report: &mut Report<'_>,
) {
    let spec = &case.object.spec;
    let routes = spec.routes(protocol);
    let arrival = Arrival::anywhere(spec, &case.review.namespace).of_protocol(protocol);
    let (strict, usual) = Reach::readings(routes, protocol, &arrival);
    let mut targets = Targets { case, routes, known: HashMap::new() };
    for (index, route) in routes.iter().enumerate() {
        if strict.of_route[index].is_empty() {
            report.warning(
                protocol.path(index).field("match"),
                "never reached: no request can satisfy this match\n  An absent header reads as empty for withoutHeaders; gateways must be among spec.gateways.".to_owned(),
            );
        } else if let Some(by) = strict.hidden_by(index) {
            let same = targets.are_the_same(by.route, index);
            let hidden = Hidden { case, protocol, by, index, front: &routes[by.route], route };
            let is_too_far = too_far.contains(&(protocol, by.route));
            hidden.report(&strict, same, is_too_far, report);
        } else if let Some((usual, by)) =
            usual.as_ref().and_then(|usual| Some((usual, usual.hidden_by(index)?)))
        {
            if !targets.are_the_same(by.route, index) {
                let (path, front) = (protocol.path(index), protocol.path(by.route));
                let next = if usual.is_as_wide(index, by.route) {
                    "a narrower match there, or the object without this route".to_owned()
                } else {
                    format!("{path} in front of it, or a narrower match there")
                };
                let message = format!(
                    "hardly ever reached: {front} takes nearly every request that this route is for\n  Passes without a warning: {next}."
                );
                report.warning(path, message);
            }
        } else if let Some(front) = strict.dead_for_some(index)
            && !targets.are_the_same(front, index)
        {
            let message = format!(
                "never reached by some clients: {} takes every request from those that its match names (port, gateways, source)\n  Passes without a warning: {} in front of it.",
                protocol.path(front),
                protocol.path(index)
            );
            report.warning(protocol.path(index), message);
        }
    }
}

/// A route that is never reached.
struct Hidden<'a> {
    case: &'a Case<'a>,
    protocol: Protocol,
    by: HiddenBy,
    index: usize,
    front: &'a Route,
    route: &'a Route,
}

impl Hidden<'_> {
    /// How much of a split each of the two could get in one write, at best as written.
    fn weights(&self, a: i64, b: i64) -> Option<(i64, i64)> {
        let Self { case, protocol, by, front, route, .. } = *self;
        let Some(change) = case.change else { return Some((a, b)) };
        let number = |written: &RouteDestination| {
            let to = &written.destination;
            change.destinations.find(&case.resolve(&to.host), &to.subset)
        };
        let (first, second) = (number(&front.route[0])?, number(&route.route[0])?);
        let step = &case.policy.spec().step;
        let most = step.limit(0.0).floor() as i64;
        [(a, b), (100 - most, most), (most, 100 - most)].into_iter().find(|&(a, b)| {
            let shares = [(first, a as f64 / 100.0), (second, b as f64 / 100.0)];
            change.allows(step, (protocol, by.route), &shares)
        })
    }

    fn report(
        &self,
        conditions: &Reach,
        says_the_same: bool,
        is_too_far: bool,
        report: &mut Report<'_>,
    ) {
        let Self { protocol, by, index, front, route: hidden, .. } = *self;
        let path = protocol.path(index);
        let front_path = protocol.path(by.route);
        let why = if conditions.of_route[by.route].iter().any(Condition::is_catch_all) {
            format!("{front_path} takes every request")
        } else if by.is_plain {
            format!("{front_path} has the same match and takes these requests")
        } else {
            format!("{front_path} takes these requests and more")
        };
        if says_the_same {
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
            let weighted =
                first.weight.is_some_and(|weight| weight < 100) || second.weight.is_some();
            let (a, b) = match (first.weight, second.weight) {
                (Some(a), Some(b)) if a + b == 100 => (a, b),
                _ => (90, 10),
            };
            if weighted
                && by.is_plain
                && let Some((a, b)) = self.weights(a, b)
            {
                is_told = true;
                message.push_str(&format!(
                "\n  A split is one route with two destinations: route: [{{destination: {}, weight: {a}}}, {{destination: {}, weight: {b}}}]",
                target(first),
                target(second)
            ));
            }
        }
        if !conditions.is_as_wide(index, by.route) {
            // In front it takes requests from the other one: between versions of one host that is a shift like any other.
            let hosts = |route: &Route| {
                route.route.iter().map(|to| to.destination.host.clone()).collect::<BTreeSet<_>>()
            };
            let is_shift = !conditions.of_route[index].iter().all(Condition::is_targeted)
                && !hosts(front).is_disjoint(&hosts(hidden));
            let small = if is_shift { ", its share in small steps" } else { "" };
            let steps = if is_too_far {
                format!(", and {front_path} in smaller steps")
            } else {
                String::new()
            };
            message.push_str(&format!(
                "\n  Passes: {path} in front of {front_path}{small}{steps}: the first match wins."
            ));
        } else if is_too_far && !is_told {
            let certain = match protocol {
                Protocol::Http => {
                    format!("{front_path} for certain clients only (a header, a cookie), or ")
                }
                Protocol::Tls | Protocol::Tcp => format!("{front_path} "),
            };
            message.push_str(&format!(
                "\n  Passes: {certain}in smaller steps and without this route."
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
}

/// What stands beside a weight: the subset, else the host.
fn name(written: &RouteDestination) -> &str {
    if written.destination.subset.is_empty() {
        &written.destination.host
    } else {
        &written.destination.subset
    }
}

/// A destination in one line, as it would be written.
fn target(written: &RouteDestination) -> String {
    match written.destination.subset.as_str() {
        "" => format!("{{host: {}}}", written.destination.host),
        subset => format!("{{host: {}, subset: {subset}}}", written.destination.host),
    }
}

/// What a route says: shares of resolved hosts and subsets, and how it answers without them.
type Said = (Vec<(Host, String, u64)>, [bool; 3]);

/// What the routes of a list say, each worked out once.
struct Targets<'a> {
    case: &'a Case<'a>,
    routes: &'a [Route],
    known: HashMap<usize, Said>,
}

impl Targets<'_> {
    /// Whether two routes send the same shares to the same places, or both answer without a destination.
    fn are_the_same(&mut self, a: usize, b: usize) -> bool {
        for index in [a, b] {
            if !self.known.contains_key(&index) {
                let said = said(self.case, &self.routes[index]);
                self.known.insert(index, said);
            }
        }
        self.known.get(&a) == self.known.get(&b)
    }
}

fn said(case: &Case<'_>, route: &Route) -> Said {
    let carrying = route.route.iter().zip(fractions(route)).filter(|(_, share)| *share > 0.0);
    let own = carrying.map(|(written, share)| {
        let to = &written.destination;
        let host = Host::resolve(&to.host, &case.review.namespace, &case.world.mesh().domain);
        (host, to.subset.clone(), (share * 1e6).round() as u64)
    });
    let mut own = own.collect::<Vec<_>>();
    own.sort();
    (own, [route.redirect.is_some(), route.direct_response.is_some(), route.delegate.is_some()])
}
