//! How a write moves traffic: which requests were served by whom before, and by whom after it.
//!
//! Traffic is compared, not list entries: for each kind of requests that the old or the new object tells apart, the first old
//! route that takes them is compared with the first new one. So renaming, re-ordering, inserting and removing routes is seen
//! for what it does.

mod base;
mod carried;
mod classify;
mod clients;
mod destinations;
mod relabelled;
mod table;

pub use carried::Carried;
pub use classify::{Class, Movement};
pub(super) use clients::users;
pub use clients::{Asked, Clients, Why};
pub use destinations::{Destination, Destinations};
pub use relabelled::Relabelled;
pub(super) use relabelled::relabelled;
pub use table::{Share, fractions};

use self::base::Audience;
use self::destinations::Context;
use self::table::{RouteTable, kinds_of_traffic};
use super::review::Review;
use super::settings::PolicySpec;
use crate::istio::{Condition, FieldPath, Host, Protocol, Timestamp};
use crate::world::{Client, World};

/// Shares smaller than this do not count: they are what floating point leaves over.
const NOTHING: f64 = 1e-9;

/// What the requests were served by before the write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// The object as it is stored.
    Stored,
    /// Another VirtualService that is in force for the host, `namespace/name`.
    InForce(String),
    /// The Service's own routing: all of its endpoints.
    Plain(Host),
    /// Nobody.
    Nothing,
}

/// One kind of requests, before and after.
#[derive(Debug)]
pub struct Flow {
    /// Which list of the object it stands in.
    pub protocol: Protocol,
    /// Which requests.
    pub condition: Condition,
    /// Who said what happens to them before.
    pub base: Base,
    /// Who served them before; `None` where nobody did.
    pub before: Option<Side>,
    /// Who serves them from now on; `None` where nobody does.
    pub after: Option<Side>,
    /// Whether a route for exactly these requests was there before and is there still.
    pub existed: bool,
    /// Whether they had a route of their own before, and a wider one serves them now.
    pub falls: bool,
    /// The destinations whose share changes.
    pub movements: Vec<Movement>,
}

/// Who serves a kind of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// The route's place in its list.
    pub route: usize,
    /// The route's shares as written.
    pub shares: Vec<Share>,
}

impl Side {
    /// The share of a destination, as written: all of its entries together.
    pub fn share(&self, destination: usize) -> f64 {
        let own = self.shares.iter().filter(|share| share.destination == destination);
        own.map(|share| share.fraction).sum()
    }

    /// The place of the destination's first entry.
    pub fn entry(&self, destination: usize) -> Option<usize> {
        self.shares.iter().find(|share| share.destination == destination).map(|share| share.entry)
    }
}

impl Flow {
    /// Whether only clients that opted in meet it.
    pub fn is_targeted(&self) -> bool {
        self.condition.is_targeted()
    }

    /// Whether it ends up somewhere else than before.
    pub fn moves(&self) -> bool {
        !self.movements.is_empty() || self.before.is_some() != self.after.is_some()
    }

    /// The place of a destination in the new object: its entry, or the route.
    pub fn path(&self, destination: usize) -> FieldPath {
        let Some(after) = &self.after else {
            return FieldPath::spec().field(self.protocol.field());
        };
        let route = self.protocol.path(after.route);
        match after.entry(destination) {
            Some(entry) => route.field("route").index(entry),
            None => route,
        }
    }
}

/// How a write moves traffic.
#[derive(Debug)]
pub struct Change {
    /// Every destination of the old and the new object.
    pub destinations: Destinations,
    /// Every kind of requests that either object tells apart, also where nothing moves.
    pub flows: Vec<Flow>,
    /// The clients whose requests the VirtualService routes, as far as they can differ in what they see.
    pub clients: Vec<Client>,
}

impl Change {
    /// Compares the two objects of `review`; `is_blind` leaves the world out, so that only the objects themselves are evidence.
    /// `None` where the review has no object.
    pub(super) fn of(
        review: &Review,
        policy: &PolicySpec,
        world: &World,
        is_blind: bool,
    ) -> Option<Self> {
        let new = review.object()?;
        let clients = clients::of(new, &review.namespace, world);
        let context = Context {
            world,
            roles: &policy.roles,
            clients: &clients,
            namespace: &review.namespace,
            is_blind,
        };
        let mut destinations = Destinations::default();
        let mut flows = Vec::new();
        let audiences = base::audiences(review, new, world, is_blind);
        for protocol in Protocol::ALL {
            let after =
                RouteTable::of(&new.spec, protocol, &review.namespace, &mut destinations, &context);
            for audience in &audiences {
                let Some(before) = audience.table(
                    review,
                    protocol,
                    !after.routes.is_empty(),
                    &mut destinations,
                    &context,
                ) else {
                    continue;
                };
                flows.extend(compare(protocol, audience, &before, &after));
            }
        }
        let written = review.old_object().and_then(|old| old.metadata.spec_written());
        classify::movements(&mut flows, &mut destinations, &context, written);
        Some(Self { destinations, flows, clients })
    }

    /// Whether any request ends up somewhere else than before.
    pub fn moves(&self) -> bool {
        self.flows.iter().any(Flow::moves)
    }

    /// Whether every share that rises belongs to a side that may always rise: a lowering, a rollback, an evacuation.
    pub fn is_harmless(&self) -> bool {
        let harmless = |flow: &Flow| {
            let arrives = flow.before.is_none() && flow.after.is_some();
            (!arrives || flow.after.as_ref().is_some_and(|after| self.only_returns(after)))
                && flow
                    .movements
                    .iter()
                    .filter(|moved| moved.rises())
                    .all(|moved| moved.class.is_harmless())
        };
        self.flows.iter().all(harmless)
    }

    /// Whether `side` sends requests that nobody answered only to what this write rolls back to elsewhere.
    fn only_returns(&self, side: &Side) -> bool {
        let mut carrying = side.shares.iter().filter(|share| share.fraction > NOTHING).peekable();
        carrying.peek().is_some()
            && carrying.all(|share| {
                let mut own = self
                    .movements()
                    .filter(|(_, moved)| moved.rises() && moved.destination == share.destination)
                    .peekable();
                own.peek().is_some() && own.all(|(_, moved)| moved.class.is_harmless())
            })
    }

    /// Whether any rise is an evacuation.
    pub fn is_evacuation(&self) -> bool {
        self.movements().any(|(_, moved)| moved.class == Class::Evacuation)
    }

    /// Every share that changes, with the requests that it is a share of.
    pub fn movements(&self) -> impl Iterator<Item = (&Flow, &Movement)> {
        self.flows.iter().flat_map(|flow| flow.movements.iter().map(move |moved| (flow, moved)))
    }

    /// Whether requests that somebody answers now would be hurt if `destination` did not answer: its host has a ready endpoint,
    /// or whoever serves these requests now has one. On a first install nothing has.
    pub fn is_live(&self, flow: &Flow, destination: usize, world: &World) -> bool {
        let host_serves =
            |host: &Host| world.endpoints(host).is_some_and(|endpoints| endpoints.ready() > 0);
        let answered = |before: &Side| before.shares.iter().any(|share| share.fraction > NOTHING);
        if flow.before.as_ref().is_some_and(|before| !before.shares.is_empty() && !answered(before))
        {
            return false; // weights that add up to 0: nobody is answered now
        }
        if host_serves(&self.destinations.get(destination).host) {
            return true;
        }
        match (&flow.base, &flow.before) {
            (Base::InForce(_), _) => true,
            (Base::Plain(host), _) => host_serves(host),
            (_, Some(before)) => {
                let carrying = before.shares.iter().filter(|share| share.fraction > NOTHING);
                carrying
                    .map(|share| self.destinations.get(share.destination))
                    .any(Destination::serves)
            }
            (_, None) => false,
        }
    }
}

fn compare(
    protocol: Protocol,
    audience: &Audience<'_>,
    before: &RouteTable,
    after: &RouteTable,
) -> Vec<Flow> {
    let side = |table: &RouteTable, route: usize| Side {
        route,
        shares: table.routes[route].shares.clone(),
    };
    let flow = |condition: Condition| {
        let then = after.serving(&condition);
        let first = before.serving(&condition);
        if audience.is_appended
            && first.is_some_and(|first| {
                !before.serves_as_catch_all(first, &condition)
                    || then.is_none_or(|then| after.serves_as_catch_all(then, &condition))
            })
        {
            // The VirtualService that is there keeps these requests.
            return None;
        }
        // Where conditions cannot be compared (two regular expressions), the name still tells which route it was.
        let first = first.or_else(|| before.named(&after.routes.get(then?)?.name, &condition));
        let existed = (before.has(&condition) && after.has(&condition))
            || then.zip(first).is_some_and(|(then, first)| {
                !after.routes[then].name.is_empty()
                    && after.routes[then].name == before.routes[first].name
            });
        Some(Flow {
            protocol,
            existed,
            falls: before.has(&condition)
                && then.is_some_and(|then| !after.routes[then].conditions.contains(&condition)),
            base: if first.is_some() { audience.base.clone() } else { Base::Nothing },
            before: first.map(|route| side(before, route)),
            after: then.map(|route| side(after, route)),
            condition,
            movements: Vec::new(),
        })
    };
    let flows = kinds_of_traffic(before, after).into_iter().filter_map(flow);
    flows.filter(|flow| flow.before.is_some() || flow.after.is_some()).collect()
}

/// When the present split was written.
type Written = Option<Timestamp>;
