use std::collections::{BTreeSet, HashMap};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{Arrival, Condition, ConditionIndex, Host, Protocol, Reading, Route};
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
        for protocol in Protocol::ALL {
            check_list(case, protocol, report);
        }
    }
}

fn check_list(case: &Case<'_>, protocol: Protocol, report: &mut Report<'_>) {
    let spec = &case.object.spec;
    let routes = spec.routes(protocol);
    let arrival = Arrival::anywhere(spec, &case.review.namespace).of_protocol(protocol);
    let strict = Conditions::of(routes, protocol, &arrival, Reading::Strict);
    let usual = Conditions::of(routes, protocol, &arrival, Reading::Usual);
    let mut targets = Targets { case, routes, known: HashMap::new() };
    for (index, route) in routes.iter().enumerate() {
        if strict.of_route[index].is_empty() {
            report.warning(
                protocol.path(index).field("match"),
                "never reached: no request can satisfy this match\n  An absent header reads as empty for withoutHeaders; gateways must be among spec.gateways.".to_owned(),
            );
        } else if let Some(by) = strict.hidden_by(index) {
            let same = targets.are_the_same(by.route, index);
            let hidden = Hidden { protocol, by, index, front: &routes[by.route], route };
            hidden.report(&strict, same, report);
        } else if let Some(by) = usual.hidden_by(index) {
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

/// The conditions of a list of routes.
struct Conditions {
    of_route: Vec<Vec<Condition>>,
    /// Those of the routes that answer by themselves: a delegate may leave some of what its root's match takes.
    index: ConditionIndex,
    /// The first routes that take every request of some clients.
    of_proxies: Vec<(usize, Condition)>,
    /// TCP and TLS: a more specific route takes its connections wherever it stands.
    is_by_connection: bool,
}

/// Whether a condition takes connections away from one that covers it and stands in front of it. In TCP a route for any address
/// ends the list.
fn beats(own: &Condition, front: &Condition) -> bool {
    let least = |condition: &Condition| {
        condition.clone().by_specificity().into_iter().map(|(rank, _)| rank).min()
    };
    least(front).is_some_and(|front| front != (0, 0)) && least(own) > least(front)
}

impl Conditions {
    fn of(routes: &[Route], protocol: Protocol, arrival: &Arrival<'_>, reading: Reading) -> Self {
        /// So many are held against each route.
        const MOST_PROXIES: usize = 16;
        let of_route = routes.iter().map(|route| Condition::alternatives(route, arrival, reading));
        let of_route = of_route.collect::<Vec<_>>();
        let answering =
            of_route.iter().enumerate().filter(|(at, _)| routes[*at].delegate.is_none());
        let all = answering.flat_map(|(at, own)| own.iter().map(move |own| (at, own)));
        let index = ConditionIndex::new(all.clone());
        let only_of_proxy =
            |(_, own): &(usize, &Condition)| !own.is_catch_all() && own.of_proxy() == **own;
        let of_proxies = all.filter(only_of_proxy).take(MOST_PROXIES);
        let of_proxies = of_proxies.map(|(at, own)| (at, own.clone())).collect();
        Self { of_route, index, of_proxies, is_by_connection: protocol != Protocol::Http }
    }

    /// The route in front that takes every request of this one.
    fn hidden_by(&self, index: usize) -> Option<HiddenBy> {
        let mut by: Option<HiddenBy> = None;
        for own in &self.of_route[index] {
            let (route, outer) = self.index.first_covering(own)?;
            if route >= index || self.is_by_connection && beats(own, outer) {
                return None;
            }
            let is_plain = outer.is_catch_all() || outer == own;
            by = Some(by.map_or(HiddenBy { route, is_plain }, |known| HiddenBy {
                route: known.route.min(route),
                is_plain: known.is_plain && is_plain,
            }));
        }
        by
    }

    /// Whether a route takes all that the one in front of it takes, so that the other order would only hide the other one.
    fn is_as_wide(&self, index: usize, front: usize) -> bool {
        self.of_route[index].iter().any(|own| self.of_route[front].contains(own))
    }

    /// The route in front that takes all requests of some clients, where this one is for certain requests of any client.
    fn dead_for_some(&self, index: usize) -> Option<usize> {
        let front = self.of_proxies.iter().find(|(route, proxies)| {
            *route < index
                && self.of_route[index].iter().all(|own| {
                    own.of_proxy().is_catch_all() && !own.is_catch_all() && !own.excludes(proxies)
                })
        });
        front.map(|(route, _)| *route)
    }
}

/// The route in front that takes every request of a route.
#[derive(Debug, Clone, Copy)]
struct HiddenBy {
    route: usize,
    /// It takes everything, or exactly the same; otherwise it is only wider.
    is_plain: bool,
}

/// A route that is never reached.
struct Hidden<'a> {
    protocol: Protocol,
    by: HiddenBy,
    index: usize,
    front: &'a Route,
    route: &'a Route,
}

impl Hidden<'_> {
    fn report(&self, conditions: &Conditions, says_the_same: bool, report: &mut Report<'_>) {
        let Self { protocol, by, index, front, route: hidden } = *self;
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
            if weighted && by.is_plain {
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
            message.push_str(&format!(
                "\n  Passes: {path} in front of {front_path}{small}: the first match wins."
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
