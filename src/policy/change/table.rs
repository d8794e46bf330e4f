//! The routes of several VirtualServices, and of their delegates, as the one list in which Istio tries them.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};

use hashbrown::HashMap;

use super::Base;
use super::destinations::{Context, Destinations};
use super::shares::{Share, Shares, fractions};
use crate::istio::{
    Arrival, Condition, ConditionIndex, Host, Protocol, Reading, Route, Specificity,
    VirtualService, delegate,
};
use crate::world::{MESH, World};

/// A VirtualService that is tried for some requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed<'a> {
    pub(super) object: &'a VirtualService,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    /// Whether it is the object under review.
    pub(super) is_own: bool,
}

/// How the lists of several VirtualServices become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// In the mesh the first one that leaves a proxy any route is in force there.
    ///
    /// Source: `pilot/pkg/networking/core/httproute.go` (the first one wins).
    FirstWins,
    /// On a gateway all are tried, one after the other, catch-alls last.
    ///
    /// Source: `pilot/pkg/networking/core/gateway.go` (merge), `route.go` `SortVHostRoutes`.
    CatchAllsLast,
    /// At a waypoint all are tried, one after the other, and what one of them leaves over is answered by nobody.
    ///
    /// Source: `pilot/pkg/networking/core/listener_waypoint.go` `buildWaypointInboundHTTPRouteConfig`.
    OneAfterAnother,
    /// TCP and TLS: all are tried, one after the other, but the most specific one of those that fit takes a connection.
    ///
    /// Source: `pilot/pkg/networking/core/tls.go`, and see [`crate::istio::Specificity`].
    MostSpecific,
}

/// What is asked of a table: which list, where, and with which version of the object under review.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) protocol: Protocol,
    /// `mesh`, or the full name of a gateway.
    pub(super) gateway: &'a str,
    /// The namespace of the waypoint where requests arrive, and the host that is called.
    pub(super) waypoint: Option<(&'a str, &'a str)>,
    /// The port that is arrived at, where it is known and matters.
    pub(super) port: Option<i64>,
    /// Namespace and name of the object under review.
    pub(super) own: (&'a str, &'a str),
    /// The object under review in this version, for the roots that name it as their delegate.
    pub(super) own_object: Option<&'a VirtualService>,
}

impl Question<'_> {
    /// Whether a name that one route asks for is left out of all later ones.
    fn takes_names_once(&self) -> bool {
        self.protocol == Protocol::Tls && self.gateway != MESH
    }
}

/// The routes that requests meet, of all VirtualServices that are tried for them, ready to be asked who serves what.
#[derive(Debug)]
pub(super) struct RouteTable {
    pub(super) routes: Vec<TableRoute>,
    pub(super) conditions: ConditionIndex,
    /// For which proxies each VirtualService leaves a route.
    layers: ConditionIndex,
    named: HashMap<String, Vec<usize>>,
}

#[derive(Debug)]
pub(super) struct TableRoute {
    pub(super) name: String,
    pub(super) conditions: Vec<Condition>,
    pub(super) shares: Shares,
    /// Whether it stands in the object under review.
    pub(super) is_own: bool,
    /// Its place in the list where it stands; that of the root's route, for a delegate's.
    pub(super) place: usize,
    /// Its place in the list where it is written.
    pub(super) written_at: usize,
    /// Whether a route of the object under review hands on to it.
    pub(super) is_delegated: bool,
    /// Who says what it says.
    pub(super) base: Base,
    layer: usize,
}

/// What asks for no address and no name.
const LEAST: Reverse<Specificity> = Reverse((0, 0));

/// A route on its way into a table.
struct Found<'a> {
    route: Cow<'a, Route>,
    /// In which its hosts are completed.
    namespace: &'a str,
    is_own: bool,
    place: usize,
    written_at: usize,
    is_delegated: bool,
    base: Base,
}

impl RouteTable {
    pub(super) fn of(
        listed: &[Listed<'_>],
        plain: Option<&Host>,
        order: Order,
        asked: Question<'_>,
        destinations: &mut Destinations,
        context: &Context<'_>,
    ) -> Self {
        let mut routes = Vec::new();
        let mut is_closed = false;
        let mut group = 0;
        let mut names = HashSet::new();
        for (layer, &object) in listed.iter().enumerate() {
            if is_closed {
                break; // what is never tried says nothing of anybody
            }
            let arrival = Arrival::at(asked.gateway, object.namespace)
                .of_protocol(asked.protocol)
                .at_waypoint(asked.waypoint)
                .on_port(asked.port);
            let layer = if order == Order::OneAfterAnother { 0 } else { layer };
            for found in found(object, asked, context.world) {
                let shares = shares(&found, destinations, context);
                let route = |conditions: Vec<Condition>| TableRoute {
                    name: found.route.name.clone(),
                    conditions,
                    shares: shares.clone(),
                    is_own: found.is_own,
                    place: found.place,
                    written_at: found.written_at,
                    is_delegated: found.is_delegated,
                    base: found.base.clone(),
                    layer,
                };
                if order == Order::CatchAllsLast && listed.len() > 1 {
                    // Each alternative is a route of its own there, and what ends a list is sorted behind the others.
                    let alternatives = alternatives(&found.route, &arrival);
                    let ends = alternatives.last().is_some_and(|(_, ends)| *ends);
                    routes.extend(
                        alternatives
                            .into_iter()
                            .map(|(own, ends)| ((usize::from(ends), LEAST), route(vec![own]))),
                    );
                    if ends {
                        break;
                    }
                } else {
                    let own = if asked.takes_names_once() {
                        Condition::alternatives_once(&found.route, &arrival, &mut names)
                    } else {
                        Condition::alternatives(&found.route, &arrival, Reading::Usual)
                    };
                    is_closed |= own.iter().any(|own| match order {
                        Order::FirstWins => own.of_proxy().is_catch_all(),
                        _ => own.is_catch_all(),
                    });
                    if order != Order::MostSpecific {
                        routes.push(((0, LEAST), route(own)));
                        continue;
                    }
                    let parts = own.into_iter().flat_map(Condition::by_specificity);
                    let parts = parts.collect::<Vec<_>>();
                    // In TCP nothing gets in front of a route that asks for no range: where it is one, it ends the list.
                    let is_last = parts.iter().any(|(rank, _)| Reverse(*rank) == LEAST);
                    let parts = parts.into_iter();
                    routes.extend(
                        parts.map(|(rank, own)| ((group, Reverse(rank)), route(vec![own]))),
                    );
                    group += usize::from(is_last && asked.protocol == Protocol::Tcp);
                }
            }
        }
        routes.sort_by_key(|(rank, _)| *rank);
        let mut routes = routes.into_iter().map(|(_, route)| route).collect::<Vec<_>>();
        if let Some(host) = plain.filter(|_| !is_closed) {
            let destination = destinations.add_resolved(host.clone(), "", context);
            routes.push(TableRoute {
                name: String::new(),
                conditions: vec![Condition::default()],
                shares: Shares::new(vec![Share { destination, entry: 0, fraction: 1.0 }]),
                is_own: false,
                place: 0,
                written_at: 0,
                is_delegated: false,
                base: Base::Plain(host.clone()),
                layer: listed.len(),
            });
        }
        Self::new(routes, order)
    }

    fn new(routes: Vec<TableRoute>, order: Order) -> Self {
        let all = routes
            .iter()
            .enumerate()
            .flat_map(|(at, route)| route.conditions.iter().map(move |own| (at, own)));
        let conditions = ConditionIndex::new(all);
        let mut layers = BTreeSet::new();
        if matches!(order, Order::FirstWins | Order::OneAfterAnother) {
            layers.extend(routes.iter().flat_map(|route| {
                route.conditions.iter().map(|own| (route.layer, own.of_proxy()))
            }));
        }
        let layers = ConditionIndex::new(layers.iter().map(|(layer, proxies)| (*layer, proxies)));
        let mut named: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, route) in routes.iter().enumerate().filter(|(_, route)| !route.name.is_empty()) {
            named.entry(route.name.clone()).or_default().push(at);
        }
        Self { routes, conditions, layers, named }
    }

    /// The first route that takes all of the traffic under `condition`.
    pub(super) fn serving(&self, condition: &Condition) -> Option<usize> {
        let (at, _) = self.conditions.first_covering(condition)?;
        // Where an earlier VirtualService has any route for these proxies, later ones are not tried: it answers 404.
        let in_force = self.layers.first_covering(condition);
        in_force.is_none_or(|(layer, _)| layer == self.routes[at].layer).then_some(at)
    }

    /// Whether there were more conditions that nearly cover each other than are looked at.
    pub(super) fn is_partial(&self) -> bool {
        self.conditions.is_exhausted() || self.layers.is_exhausted()
    }

    /// The route that this name had, where `condition` became no wider than it was.
    pub(super) fn named(&self, name: &str, condition: &Condition) -> Option<usize> {
        if name.is_empty() || condition.is_catch_all() {
            return None;
        }
        let named = self.named.get(name)?.iter().copied();
        named
            .into_iter()
            .find(|&at| !self.routes[at].conditions.iter().any(|own| condition.covers(own)))
    }

    pub(super) fn has(&self, condition: &Condition) -> bool {
        self.conditions.place_of(condition).is_some()
    }
}

/// The routes of one object, those of its delegates in the place of the routes that name them. A delegate that is not there or
/// not exported leaves nothing, and so do its routes that the root's match does not hold.
fn found<'a>(listed: Listed<'a>, asked: Question<'a>, world: &'a World) -> Vec<Found<'a>> {
    let Listed { object, namespace, name, is_own } = listed;
    let base = match is_own {
        true => Base::Stored,
        false => Base::InForce(format!("{namespace}/{name}")),
    };
    let mut all = Vec::new();
    for (place, route) in object.spec.routes(asked.protocol).iter().enumerate() {
        let Some(to) = &route.delegate else {
            let route = Cow::Borrowed(route);
            all.push(Found {
                route,
                namespace,
                is_own,
                place,
                written_at: place,
                is_delegated: false,
                base: base.clone(),
            });
            continue;
        };
        let at = to.namespace_from(namespace);
        let is_under_review = (at, to.name.as_str()) == asked.own;
        let delegate = if is_under_review {
            let own = asked.own_object.filter(|own| own.spec.is_delegate());
            own.filter(|own| world.is_exported(own, at, namespace))
        } else {
            world.delegate(to, namespace).ok()
        };
        let Some(delegate) = delegate else { continue };
        let merged = delegate::merge((route, namespace), (&delegate.spec.http, at));
        for (own_place, merged) in merged.routes {
            all.push(Found {
                route: Cow::Owned(merged),
                namespace: at,
                is_own: is_under_review,
                place: if is_under_review { own_place } else { place },
                written_at: own_place,
                is_delegated: is_own && !is_under_review,
                base: match is_under_review {
                    true => Base::Stored,
                    false => Base::InForce(format!("{at}/{}", to.name)),
                },
            });
        }
    }
    all
}

/// The alternatives of a route, and whether Istio sends nothing behind each; the first such is the last one.
fn alternatives(route: &Route, arrival: &Arrival<'_>) -> Vec<(Condition, bool)> {
    if route.r#match.is_empty() {
        return vec![(Condition::default(), true)];
    }
    let mut all = Vec::new();
    for alternative in &route.r#match {
        let (Some(usual), Some(strict)) = Condition::both(alternative, arrival) else { continue };
        let ends = strict.is_catch_all();
        all.push((usual, ends));
        if ends {
            break;
        }
    }
    all
}

fn shares(found: &Found<'_>, destinations: &mut Destinations, context: &Context<'_>) -> Shares {
    let fractions = fractions(&found.route).into_iter().zip(&found.route.route).enumerate();
    let shares = fractions.map(|(entry, (fraction, written))| Share {
        destination: destinations.add(&written.destination, found.namespace, context),
        entry,
        fraction,
    });
    Shares::new(shares.collect())
}
