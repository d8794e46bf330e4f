//! What carries requests after a write: each entry of the new object with a share, and what it may cost the writer.

use std::collections::{BTreeMap, HashMap};

use super::{Change, Class, Flow, NOTHING};
use crate::istio::{FieldPath, Host, Protocol, RouteDestination};
use crate::policy::rule::{Case, Gravity};

/// An entry of the new object that carries requests.
#[derive(Debug, Clone, Copy)]
pub struct Carried<'a> {
    /// The requests; where the entry carries several kinds, those for which it matters most.
    pub flow: &'a Flow,
    /// The destination's number.
    pub destination: usize,
    /// The entry's part of the route's requests, from 0 to 1.
    pub share: f64,
    /// The entry as written.
    pub written: &'a RouteDestination,
    /// Whether this write gives the destination more than it had.
    pub rises: bool,
    /// What it may cost the writer that something is wrong with it.
    pub gravity: Gravity,
    at: (Protocol, usize, usize),
}

impl Carried<'_> {
    /// The route that it stands in.
    pub fn route(&self) -> (Protocol, usize) {
        (self.at.0, self.at.1)
    }

    /// Takes another entry of the same route in, where one finding speaks of both.
    pub fn join(&mut self, other: &Self) {
        self.share += other.share;
        self.rises |= other.rises;
        if other.gravity == Gravity::Full {
            self.gravity = Gravity::Full;
        }
    }

    /// The entry's place.
    pub fn path(&self) -> FieldPath {
        let (protocol, route, entry) = self.at;
        protocol.path(route).field("route").index(entry)
    }
}

impl<'a> Case<'a> {
    /// Every entry of the object that carries requests, each once.
    ///
    /// A finding about it is only a warning where the write gives it no more than it had, where it is a side that may always
    /// rise, and where no request that is answered now could be hurt.
    pub fn carried(&self) -> Vec<Carried<'a>> {
        let Some(change) = self.change else { return Vec::new() };
        let mut found: BTreeMap<(Protocol, usize, usize), Carried<'a>> = BTreeMap::new();
        let mut serving = HashMap::new();
        let mut host_serves = |host: &'a Host| {
            *serving.entry(host).or_insert_with(|| {
                self.world.endpoints(host).is_some_and(|endpoints| endpoints.ready() > 0)
            })
        };
        for flow in &change.flows {
            let Some(after) = &flow.after else { continue };
            if !after.is_own {
                continue;
            }
            for share in after.shares.iter().filter(|share| share.fraction > NOTHING) {
                let at = (flow.protocol, after.route, share.entry);
                let written =
                    &self.object.spec.routes(flow.protocol)[after.route].route[share.entry];
                let rises = flow.before.as_ref().is_none_or(|before| {
                    after.share(share.destination) > before.share(share.destination) + NOTHING
                });
                let gravity = gravity(change, flow, share.destination, rises, &mut host_serves);
                let own = Carried {
                    flow,
                    destination: share.destination,
                    share: share.fraction,
                    written,
                    rises,
                    gravity,
                    at,
                };
                let worse = |known: &Carried<'_>| {
                    (gravity == Gravity::Full, rises)
                        > (known.gravity == Gravity::Full, known.rises)
                };
                match found.get(&at) {
                    Some(known) if !worse(known) => {}
                    _ => drop(found.insert(at, own)),
                }
            }
        }
        found.into_values().collect()
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
            || (moved.class == Class::Unknown
                && moved.from > NOTHING
                && flow.base == super::Base::Stored)
    });
    if rises && !is_harmless && change.is_live(flow, destination, host_serves) {
        Gravity::Full
    } else {
        Gravity::WarnOnly
    }
}
