//! Which routes of a list are never reached, because others in front of them take their requests.

use super::condition::{Arrival, Condition, ConditionIndex, Reading};
use super::virtual_service::{Protocol, Route};

/// Which requests the routes of a list take, and which of them are left for each.
#[derive(Debug)]
pub struct Reach {
    /// The alternatives of each route.
    pub of_route: Vec<Vec<Condition>>,
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

impl Reach {
    /// Reads a list as Istio is.
    pub fn of(routes: &[Route], protocol: Protocol, arrival: &Arrival<'_>) -> Self {
        let strict = Reading::Strict;
        let of_route = routes.iter().map(|route| Condition::alternatives(route, arrival, strict));
        Self::new(of_route.collect(), routes, protocol)
    }

    /// Reads a list as Istio is, and as clients are; `None` where the latter comes to the same.
    pub fn readings(
        routes: &[Route],
        protocol: Protocol,
        arrival: &Arrival<'_>,
    ) -> (Self, Option<Self>) {
        let read = routes.iter().map(|route| Condition::readings(route, arrival));
        let (usual, strict): (Vec<_>, Vec<_>) = read.unzip();
        let usual = (usual != strict).then(|| Self::new(usual, routes, protocol));
        (Self::new(strict, routes, protocol), usual)
    }

    fn new(of_route: Vec<Vec<Condition>>, routes: &[Route], protocol: Protocol) -> Self {
        /// So many are held against each route.
        const MOST_PROXIES: usize = 16;
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
    pub fn hidden_by(&self, index: usize) -> Option<HiddenBy> {
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
    pub fn is_as_wide(&self, index: usize, front: usize) -> bool {
        self.of_route[index].iter().any(|own| self.of_route[front].contains(own))
    }

    /// The route in front that takes all requests of some clients, where this one is for certain requests of any client.
    pub fn dead_for_some(&self, index: usize) -> Option<usize> {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HiddenBy {
    /// Its place.
    pub route: usize,
    /// It takes everything, or exactly the same; otherwise it is only wider.
    pub is_plain: bool,
}
