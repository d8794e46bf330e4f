//! How a write moves traffic: which requests were served by whom before, and by whom after it.
//!
//! Traffic is compared, not list entries: for each kind of requests that the old or the new object tells apart, the first old
//! route that takes them is compared with the first new one. So renaming, re-ordering, inserting and removing routes is seen
//! for what it does.

mod asked;
mod base;
mod bound;
mod carried;
mod chronicle;
mod classify;
mod clients;
mod compare;
mod destinations;
mod kin;
mod relabelled;
mod shares;
mod steps;
mod table;
mod takers;

pub use asked::{Asked, Why};
pub use carried::Carried;
pub use classify::{Class, Movement};
pub use clients::Clients;
pub use destinations::{Destination, Destinations};
pub use relabelled::Relabelled;
pub use shares::{Share, Shares, fractions};
pub use steps::Steps;
pub use takers::{Lack, Takers};

pub(super) use clients::users;
pub(super) use relabelled::relabelled;

use self::base::{Routings, Written};
use self::chronicle::Chronicle;
use self::destinations::Context;
use self::table::{Question, RouteTable};
use super::ownership::Parts;
use super::review::Review;
use super::settings::PolicySpec;
use crate::istio::{Condition, FieldPath, Host, Protocol, Timestamp, VirtualService};
use crate::world::{Client, Driver, World};

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
    /// Who says what happens to them from now on: [`Base::Stored`] is the object under review.
    pub next: Base,
    /// Who served them before; `None` where nobody did.
    pub before: Option<Side>,
    /// Who serves them from now on; `None` where nobody does.
    pub after: Option<Side>,
    /// The field of the object under review that no longer says that it routes them: `hosts`, `gateways`, `exportTo`.
    pub gone: Option<&'static str>,
    /// Who served what had no route of its own, where these requests have none any more.
    wide: Option<Side>,
    /// Whether a route for exactly these requests was there before and is there still.
    pub existed: bool,
    /// Whether they had a route of their own before, and a wider one serves them now.
    pub falls: bool,
    /// The destinations whose share changes, sorted by number.
    pub movements: Vec<Movement>,
    /// Whether anybody who served them before may answer: not all of them are known to be dead.
    is_answered: bool,
}

/// Who serves a kind of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// The route's place in the list of the object where it stands; that of the root's route, for a delegate's.
    pub route: usize,
    /// The route's shares as written.
    pub shares: Shares,
    /// Whether it is a route of the object under review.
    pub is_own: bool,
    /// The route's place in the list where it is written: a delegate's own, where one serves.
    pub written_at: usize,
    /// Whether a route of the object under review hands these requests on to it.
    pub is_delegated: bool,
}

impl Side {
    /// The share of a destination, as written: all of its entries together.
    pub fn share(&self, destination: usize) -> f64 {
        self.shares.of(destination)
    }

    /// The place of the destination's first entry.
    pub fn entry(&self, destination: usize) -> Option<usize> {
        self.shares.entry(destination)
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

    /// The movement of one destination; `None` where its share stays.
    pub fn movement(&self, destination: usize) -> Option<&Movement> {
        let at = self.movements.binary_search_by_key(&destination, |moved| moved.destination);
        at.ok().map(|at| &self.movements[at])
    }

    /// The place of a destination in the new object: its entry, or the route. Where something else serves these requests from
    /// now on, the field that says so.
    pub fn path(&self, destination: usize) -> FieldPath {
        if let Some(gone) = self.gone {
            return FieldPath::spec().field(gone);
        }
        let Some(after) = &self.after else {
            return FieldPath::spec().field(self.protocol.field());
        };
        let route = self.protocol.path(after.route);
        if !after.is_own {
            // A root's own list says so, where a delegate serves; anybody else serves what the list leaves over.
            return match after.is_delegated {
                true => route.field("delegate"),
                false => FieldPath::spec().field(self.protocol.field()),
            };
        }
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
    /// Every kind of requests that either object tells apart, also where nothing moves: served by a route of the new object
    /// from now on, or by nobody.
    pub flows: Vec<Flow>,
    /// What is served by something else from now on: by the next VirtualService in force, by plain routing, or by a delegate.
    pub elsewhere: Vec<Flow>,
    /// The clients whose requests the VirtualService routes or routed, as far as they can differ in what they see.
    pub clients: Vec<Client>,
    /// Whether there was too much to compare all of it: then only what the routes themselves say was, or the greatest shares.
    pub is_partial: bool,
    /// See [`steps::served`].
    served: Vec<((Protocol, usize), usize)>,
}

impl Change {
    /// Compares the two objects of `review`, for a deletion the stored one with what is in force without it. `users` are those of
    /// the new object, for a deletion of the stored one, and `driver` writes its weights; `is_blind` leaves the world out, so that only the objects themselves are
    /// evidence. `None` where the review has no VirtualService.
    pub fn of(
        review: &Review,
        users: &[Clients<'_>],
        driver: Option<Driver<'_>>,
        policy: &PolicySpec,
        world: &World,
        is_blind: bool,
    ) -> Option<Self> {
        let written = Written {
            namespace: &review.namespace,
            name: &review.name,
            old: review.old_object(),
            new: review.object(),
        };
        let object = written.new.or(written.old)?;
        let mut clients = clients::of(users);
        let is_bound_otherwise = |old: &&VirtualService| {
            old.spec.gateways != object.spec.gateways
                || old.spec.export_to != object.spec.export_to
                || (world.has_sidecars() && old.spec.hosts != object.spec.hosts)
        };
        if let Some(old) = written.old.filter(is_bound_otherwise) {
            // Those whom it leaves are served by something else, which its own clients may not see.
            let former = clients::of(&clients::users(old, &review.namespace, world));
            let former = former.into_iter().filter(|own| !clients.contains(own));
            clients.extend(former.collect::<Vec<_>>());
        }
        let parts = Parts::of(driver, &world.mesh().domain);
        let context =
            Context::new(world, (&policy.roles, parts), &clients, &review.namespace, is_blind)
                .remembering(Chronicle::of(written, world));
        let routings = Routings::of(written, world);
        let mut is_partial = false;
        let lists = [written.old, written.new].into_iter().flatten().map(entries);
        let mut destinations = Destinations::with_room(lists.max().unwrap_or_default());
        let (mut flows, mut elsewhere) = (Vec::new(), Vec::new());
        for protocol in Protocol::ALL.into_iter().filter(|own| has_list(*own, written)) {
            let audiences = base::audiences(protocol, written, &routings, world, is_blind);
            is_partial |= audiences.is_partial;
            for audience in &audiences.all {
                let mut table = |listed, own_object| {
                    RouteTable::of(
                        listed,
                        audience.plain.as_ref(),
                        audience.order(protocol),
                        Question {
                            protocol,
                            gateway: &audience.gateway,
                            waypoint: audience.waypoint(),
                            port: audience.port,
                            own: (written.namespace, written.name),
                            own_object,
                        },
                        &mut destinations,
                        &context,
                    )
                };
                let after = table(&audience.after, written.new);
                let before = table(&audience.before, written.old);
                let compared = compare::compare(protocol, audience, &before, &after);
                is_partial |= compared.is_partial;
                flows.extend(compared.flows);
                elsewhere.extend(compared.elsewhere);
            }
        }
        let since = written.old.and_then(|old| old.metadata.spec_written());
        let mut all = flows.iter_mut().chain(&mut elsewhere).collect::<Vec<_>>();
        is_partial |= classify::movements(&mut all, &mut destinations, &context, since);
        drop(context);
        let served = steps::served(&flows);
        Some(Self { destinations, flows, elsewhere, clients, is_partial, served })
    }

    /// Whether any request ends up somewhere else than before.
    pub fn moves(&self) -> bool {
        self.all().any(Flow::moves)
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
        self.all().all(harmless)
    }

    /// Whether `side` sends requests that nobody answered only to what this write rolls back to elsewhere.
    fn only_returns(&self, side: &Side) -> bool {
        let mut carrying = side.shares.carrying().peekable();
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

    /// Every kind of requests, whoever serves it from now on.
    pub fn all(&self) -> impl Iterator<Item = &Flow> {
        self.flows.iter().chain(&self.elsewhere)
    }

    /// Every share that changes, with the requests that it is a share of.
    pub fn movements(&self) -> impl Iterator<Item = (&Flow, &Movement)> {
        self.all().flat_map(|flow| flow.movements.iter().map(move |moved| (flow, moved)))
    }

    /// Whether requests that somebody answers now would be hurt if `destination` did not answer: its host has a ready endpoint,
    /// or whoever serves these requests now has one. On a first install nothing has. `host_serves` tells it of a host.
    fn is_live<'a>(
        &'a self,
        flow: &'a Flow,
        destination: usize,
        host_serves: &mut impl FnMut(&'a Host) -> bool,
    ) -> bool {
        let answered = |before: &Side| before.shares.carrying().next().is_some();
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
            (_, Some(_)) => flow.is_answered,
            (_, None) => false,
        }
    }
}

/// Whether the object under review has a list of this protocol, itself or for a root.
fn has_list(protocol: Protocol, written: Written<'_>) -> bool {
    let mut own = [written.old, written.new].into_iter().flatten();
    own.any(|object| !object.spec.routes(protocol).is_empty())
}

/// How many destinations an object writes in its routes, counted as often as they stand there.
fn entries(object: &VirtualService) -> usize {
    let routes = Protocol::ALL.into_iter().flat_map(|own| object.spec.routes(own));
    routes.map(|route| route.route.len()).sum()
}

/// When the present split was written.
type Since = Option<Timestamp>;
