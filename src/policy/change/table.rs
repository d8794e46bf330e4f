use std::collections::BTreeSet;

use super::destinations::{Context, Destinations};
use crate::istio::{Condition, Protocol, Route, VirtualServiceSpec};

/// Part of a route's traffic that goes to one destination.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// The destination's number.
    pub destination: usize,
    /// Its place in `route`.
    pub entry: usize,
    /// From 0 to 1.
    pub fraction: f64,
}

/// The shares of a route's destinations: a single one gets everything whatever its weight, of several each gets its weight
/// over the sum, and an omitted weight is 0.
///
/// Source: `pilot/pkg/networking/core/route/route.go` (weighted clusters).
pub fn fractions(route: &Route) -> Vec<f64> {
    if route.route.len() == 1 {
        return vec![1.0];
    }
    let total = route.total_weight();
    let of = |weight: u64| if total == 0 { 0.0 } else { weight as f64 / total as f64 };
    route.route.iter().map(|destination| of(destination.effective_weight())).collect()
}

/// The routes of one protocol of one object, ready to be asked who serves what.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    pub(super) routes: Vec<TableRoute>,
}

#[derive(Debug)]
pub(super) struct TableRoute {
    pub(super) name: String,
    pub(super) conditions: Vec<Condition>,
    pub(super) shares: Vec<Share>,
}

impl RouteTable {
    pub(super) fn of(
        spec: &VirtualServiceSpec,
        protocol: Protocol,
        namespace: &str,
        destinations: &mut Destinations,
        context: &Context<'_>,
    ) -> Self {
        let route = |route: &Route| {
            let fractions = fractions(route).into_iter().zip(&route.route).enumerate();
            let shares = fractions.map(|(entry, (fraction, written))| Share {
                destination: destinations.add(&written.destination, namespace, context),
                entry,
                fraction,
            });
            let shares = shares.collect();
            TableRoute {
                name: route.name.clone(),
                conditions: Condition::of_route(route, &spec.gateways),
                shares,
            }
        };
        Self { routes: spec.routes(protocol).iter().map(route).collect() }
    }

    /// What a Service does without any VirtualService: everything goes to all of its endpoints.
    pub(super) fn plain(destination: usize) -> Self {
        let shares = vec![Share { destination, entry: 0, fraction: 1.0 }];
        Self {
            routes: vec![TableRoute {
                name: String::new(),
                conditions: vec![Condition::default()],
                shares,
            }],
        }
    }

    /// The first route that takes all of the traffic under `condition`.
    pub(super) fn serving(&self, condition: &Condition) -> Option<usize> {
        self.routes
            .iter()
            .position(|route| route.conditions.iter().any(|own| own.covers(condition)))
    }

    /// Whether a route takes these requests only because it takes everything.
    pub(super) fn serves_as_catch_all(&self, route: usize, condition: &Condition) -> bool {
        let mut covering = self.routes[route].conditions.iter().filter(|own| own.covers(condition));
        covering.all(Condition::is_catch_all)
    }

    /// The route that this name had, where `condition` became no wider than it was.
    pub(super) fn named(&self, name: &str, condition: &Condition) -> Option<usize> {
        if name.is_empty() || condition.is_catch_all() {
            return None;
        }
        self.routes.iter().position(|route| {
            route.name == name && !route.conditions.iter().any(|own| condition.covers(own))
        })
    }

    pub(super) fn has(&self, condition: &Condition) -> bool {
        self.routes.iter().any(|route| route.conditions.contains(condition))
    }

    fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.routes.iter().flat_map(|route| &route.conditions)
    }
}

/// The kinds of traffic that two tables tell apart: every condition of either, and, while that stays small, where two of
/// them meet.
pub(super) fn kinds_of_traffic(before: &RouteTable, after: &RouteTable) -> Vec<Condition> {
    /// Above this many conditions only themselves are compared: the work must stay linear in what a person can write, and
    /// controllers have been seen to write hundreds of routes.
    const MOST_CROSSED: usize = 24;
    let mut seen = BTreeSet::new();
    let own =
        after.conditions().chain(before.conditions()).filter(|&condition| seen.insert(condition));
    let mut all = own.cloned().collect::<Vec<_>>();
    if all.len() <= MOST_CROSSED {
        let mut crossed = Vec::new();
        for (at, first) in all.iter().enumerate() {
            let meet = |second: &Condition| {
                first.intersection(second).filter(|both| both != first && both != second)
            };
            crossed.extend(all[at + 1..].iter().filter_map(meet));
        }
        crossed.retain(|both| !all.contains(both));
        crossed.sort();
        crossed.dedup();
        all.extend(crossed);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(yaml: &str) -> Route {
        serde_saphyr::from_str(yaml).expect("a route")
    }

    #[test]
    fn shares_are_weights_over_their_sum() {
        for (text, want) in [
            ("{route: [{destination: {host: a}, weight: 10}]}", vec![1.0]),
            ("{route: [{destination: {host: a}, weight: 0}]}", vec![1.0]),
            (
                "{route: [{destination: {host: a}, weight: 100}, {destination: {host: b}}]}",
                vec![1.0, 0.0],
            ),
            (
                "{route: [{destination: {host: a}, weight: 950}, {destination: {host: b}, weight: 50}]}",
                vec![0.95, 0.05],
            ),
            (
                "{route: [{destination: {host: a}, weight: 0}, {destination: {host: b}}]}",
                vec![0.0, 0.0],
            ),
            (
                "{route: [{destination: {host: a}, weight: 2147483647}, {destination: {host: b}, weight: 2147483647}]}",
                vec![0.5, 0.5],
            ),
        ] {
            assert_eq!(fractions(&route(text)), want, "{text}");
        }
    }
}
