//! What carries requests after a write: each entry of the new object with a share, and what it may cost the writer.

use hashbrown::HashMap;

use super::{Base, Change, Class, Flow, NOTHING, Side};
use crate::istio::{FieldPath, Host, Protocol, RouteDestination};
use crate::policy::rule::{Case, Gravity};
use crate::policy::verdict::Reference;
use crate::policy::words::percent;

/// An entry that carries requests from now on: of the new object, or of what serves in its place.
#[derive(Debug, Clone, Copy)]
pub struct Carried<'a> {
    /// The requests; where the entry carries several kinds, those for which it matters most.
    pub flow: &'a Flow,
    /// The destination's number.
    pub destination: usize,
    /// The entry's part of the route's requests, from 0 to 1.
    pub share: f64,
    /// The entry as written; `None` for plain routing.
    pub written: Option<&'a RouteDestination>,
    /// Whether this write gives the destination more than it had.
    pub rises: bool,
    /// What it may cost the writer that something is wrong with it.
    pub gravity: Gravity,
    at: Place<'a>,
    /// The namespace in which its host is completed.
    namespace: &'a str,
}

/// Where an entry stands: in which object (`None` for the one under review), list, route, and place of the route.
type Place<'a> = (Option<&'a str>, Protocol, usize, usize);

impl<'a> Carried<'a> {
    /// The route that it stands in: of which object (`None` for the one under review), of which list, at which place.
    pub fn route(&self) -> (Option<&'a str>, Protocol, usize) {
        (self.at.0, self.at.1, self.at.2)
    }

    /// Whether something else than the object under review serves the requests.
    pub fn is_elsewhere(&self) -> bool {
        self.at.0.is_some()
    }

    /// The subset as written.
    pub fn subset(&self) -> &'a str {
        self.written.map_or("", |written| written.destination.subset.as_str())
    }

    /// The port as written.
    pub fn port(&self) -> Option<i64> {
        self.written.and_then(|written| written.destination.port.number)
    }

    /// The namespace in which its host is completed.
    pub fn namespace(&self) -> &'a str {
        self.namespace
    }

    /// Takes another entry of the same route in, where one finding speaks of both.
    pub fn join(&mut self, other: &Self) {
        self.share += other.share;
        self.rises |= other.rises;
        if other.gravity == Gravity::Full {
            self.gravity = Gravity::Full;
        }
    }

    /// The entry's place in the new object; where it stands elsewhere, the field that makes it serve.
    pub fn path(&self) -> FieldPath {
        match self.at {
            (None, protocol, route, entry) => protocol.path(route).field("route").index(entry),
            _ => self.flow.path(self.destination),
        }
    }

    /// The place of a field of the entry's destination, likewise.
    pub fn destination_path(&self, field: &str) -> FieldPath {
        match self.is_elsewhere() {
            true => self.path(),
            false => self.path().field("destination").field(field),
        }
    }

    /// Its share as messages say it: of what, where something else serves the requests from now on.
    pub fn said(&self) -> String {
        let share = percent(self.share).into_owned();
        match (self.at, &self.flow.next) {
            ((None, ..), _) => share,
            ((_, protocol, route, entry), Base::InForce(name)) => format!(
                "{share} of what VirtualService {name} serves from now on ({} there)",
                protocol.path(route).field("route").index(entry)
            ),
            _ => format!("{share} of what falls to plain routing"),
        }
    }

    /// What a message says behind text that is to be written: where, if not in the object under review.
    pub fn there(&self) -> String {
        match (&self.flow.next, self.is_elsewhere()) {
            (Base::InForce(name), true) => format!(" in VirtualService {name} first, then this"),
            _ => String::new(),
        }
    }

    /// What a finding rests on, because it says that something else serves the requests.
    pub fn rests_on(&self) -> Option<Reference> {
        let name = self.at.0?;
        let namespace = match &self.flow.next {
            Base::InForce(_) => name.split('/').next().unwrap_or_default(),
            _ => self.namespace,
        };
        Some(Reference::VirtualServices { namespace: namespace.to_owned() })
    }
}

impl<'a> Case<'a> {
    /// Every entry that carries requests from now on, each once: of the object, and of what serves in its place, as far as that
    /// gets more than it had.
    ///
    /// A finding about it is only a warning where the write gives it no more than it had, where it is a side that may always
    /// rise, and where no request that is answered now could be hurt.
    pub fn carried(&self) -> impl Iterator<Item = Carried<'a>> {
        self.carried.iter().copied()
    }

    /// Works out [`Self::carried`], once for all rules.
    pub(in crate::policy) fn find_carried(&self) -> Vec<Carried<'a>> {
        let Some(change) = self.change else { return Vec::new() };
        let mut found: Vec<Carried<'a>> = Vec::new();
        // Where in it each entry of a route stands, behind the place where the route begins.
        let mut places: Vec<Option<usize>> = Vec::new();
        let mut begins = HashMap::new();
        let mut serving = HashMap::new();
        let mut host_serves = |host: &'a Host| {
            *serving.entry(host).or_insert_with(|| {
                self.world.endpoints(host).is_some_and(|endpoints| endpoints.ready() > 0)
            })
        };
        for flow in change.all() {
            let Some(after) = &flow.after else { continue };
            let Some((place, namespace, entries)) = self.written(flow, after) else { continue };
            let route = (place, flow.protocol, after.written_at);
            let begin = *begins.entry(route).or_insert_with(|| {
                let begin = places.len();
                // Plain routing writes no entry.
                places.resize(begin + entries.len().max(after.shares.len()), None);
                begin
            });
            for share in after.shares.iter().filter(|share| share.fraction > NOTHING) {
                let at = (place, flow.protocol, after.written_at, share.entry);
                let rises = flow.before.as_ref().is_none_or(|before| {
                    after.share(share.destination) > before.share(share.destination) + NOTHING
                });
                if place.is_some() && !rises {
                    continue;
                }
                let gravity = gravity(change, flow, share.destination, rises, &mut host_serves);
                let own = Carried {
                    flow,
                    destination: share.destination,
                    share: share.fraction,
                    written: entries.get(share.entry),
                    rises,
                    gravity,
                    at,
                    namespace,
                };
                let worse = |known: &Carried<'_>| {
                    (gravity == Gravity::Full, rises)
                        > (known.gravity == Gravity::Full, known.rises)
                };
                let Some(slot) = places.get_mut(begin + share.entry) else { continue };
                match slot {
                    Some(known) if worse(&found[*known]) => found[*known] = own,
                    Some(_) => {}
                    unknown => {
                        *unknown = Some(found.len());
                        found.push(own);
                    }
                }
            }
        }
        found.sort_by_key(|own| own.at);
        found
    }

    /// Where the route that serves is written: in which object, which namespace, which entries it has.
    fn written(
        &self,
        flow: &'a Flow,
        after: &Side,
    ) -> Option<(Option<&'a str>, &'a str, &'a [RouteDestination])> {
        let own = self.review.namespace.as_str();
        if after.is_own {
            let route = self.object.spec.routes(flow.protocol).get(after.written_at)?;
            return Some((None, own, &route.route));
        }
        match &flow.next {
            Base::InForce(full) => {
                let (namespace, name) = full.split_once('/')?;
                let object = self.world.virtual_service(namespace, name)?;
                let route = object.spec.routes(flow.protocol).get(after.written_at)?;
                Some((Some(full), namespace, &route.route))
            }
            Base::Plain(host) => Some((Some(host.as_str()), own, &[])),
            Base::Stored | Base::Nothing => None,
        }
    }

    /// The gravity of something that is merely absent: in a dry run the objects of the same run do not exist yet.
    pub fn if_absent(&self, gravity: Gravity) -> Gravity {
        if self.review.dry_run && !self.policy.spec().dry_run.enforce_references {
            Gravity::WarnOnly
        } else {
            gravity
        }
    }
}

fn gravity<'a>(
    change: &'a Change,
    flow: &'a Flow,
    destination: usize,
    rises: bool,
    host_serves: &mut impl FnMut(&'a Host) -> bool,
) -> Gravity {
    let own = flow.movement(destination).filter(|moved| moved.rises());
    let is_harmless = own.is_some_and(|moved| {
        moved.class.is_harmless()
            || (moved.class == Class::Unknown && moved.from > NOTHING && flow.base == Base::Stored)
    });
    if rises && !is_harmless && change.is_live(flow, destination, host_serves) {
        Gravity::Full
    } else {
        Gravity::WarnOnly
    }
}
