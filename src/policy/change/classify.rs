use std::cmp::Ordering;

use super::destinations::{Context, Destination, Destinations};
use super::{Base, Flow, NOTHING, Side, Written};
use crate::policy::names::Role;

/// A destination whose share of some requests changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Movement {
    /// The destination's number.
    pub destination: usize,
    /// Its share before, from 0 to 1, requests that reach it through an overlapping destination included.
    pub from: f64,
    /// Its share after, counted the same way.
    pub to: f64,
    /// What a rise is; meaningless for a fall.
    pub class: Class,
}

impl Movement {
    /// Whether the share grows.
    pub fn rises(&self) -> bool {
        self.to > self.from
    }

    /// By how much the share grows, from 0 to 1.
    pub fn rise(&self) -> f64 {
        (self.to - self.from).max(0.0)
    }
}

/// What a rising share is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The stable side takes back what a canary had: a lowering.
    Stable,
    /// A destination that had nothing takes over, and it is the older one: a rollback.
    Rollback,
    /// A canary gets more.
    Canary,
    /// Nobody can say which side is the stable one.
    Unknown,
    /// The serving side is dead and this one is alive.
    Evacuation,
    /// A new route to something that is no version of what served these requests.
    Addition,
}

impl Class {
    /// Whether it passes in every state of the cluster.
    pub fn is_harmless(self) -> bool {
        matches!(self, Self::Stable | Self::Rollback | Self::Evacuation)
    }
}

/// Fills in the movements of every flow.
pub(super) fn movements(
    flows: &mut [Flow],
    destinations: &mut Destinations,
    context: &Context<'_>,
    written: Written,
) {
    if !context.is_blind {
        add_hidden_subsets(flows, destinations, context);
    }
    destinations.settle_roles();
    let (families, destinations) = (families(flows), &*destinations);
    let kin = Kin { families, destinations, domain: &context.world.mesh().domain };
    let wider = flows
        .iter()
        .filter(|flow| flow.condition.is_catch_all())
        .filter_map(|flow| Some((flow.protocol, flow.base.clone(), flow.before.clone()?)))
        .collect::<Vec<_>>();
    for flow in flows {
        let (Some(before), Some(after)) = (&flow.before, &flow.after) else { continue };
        if before.shares == after.shares {
            continue;
        }
        let answers = before.shares.iter().any(|share| share.fraction > NOTHING);
        let wide = wider.iter().find(|(protocol, base, _)| {
            *protocol == flow.protocol && *base == flow.base && flow.falls
        });
        let mixture = mixture(flow, before, after, destinations);
        let shares = (0..destinations.len())
            .map(|at| (effective(before, at, destinations), effective(after, at, destinations)));
        let shares = shares.collect::<Vec<_>>();
        let changed = |at: &usize| {
            let (from, to) = shares[*at];
            (to - from).abs() > NOTHING && (Some(*at) != mixture || after.share(*at) > NOTHING)
        };
        let changed = (0..shares.len()).filter(changed).collect::<Vec<_>>();
        let weighing = Weighing {
            shares: &shares,
            mixture,
            destinations,
            written,
            kin: &kin,
            wide: wide.map(|(_, _, side)| side),
        };
        let movements = changed.iter().map(|&at| {
            let (from, to) = shares[at];
            let class = if to > from { weighing.class(at) } else { Class::Stable };
            let class = match class {
                _ if to > from && !answers => Class::Addition,
                Class::Canary | Class::Unknown | Class::Rollback
                    if is_addition(flow, before, at, &kin) =>
                {
                    // What falls to an unchanged route because its own was removed is no shift to it.
                    if flow.falls { Class::Stable } else { Class::Addition }
                }
                Class::Canary | Class::Unknown if weighing.is_evacuation(before, at) => {
                    Class::Evacuation
                }
                class => class,
            };
            Movement { destination: at, from, to, class }
        });
        flow.movements = movements.collect();
    }
}

/// A destination that selects a whole host reaches subsets that no route names; they are compared, too.
fn add_hidden_subsets(flows: &[Flow], destinations: &mut Destinations, context: &Context<'_>) {
    let sides = flows.iter().flat_map(|flow| [&flow.before, &flow.after]).flatten();
    let mut whole =
        sides.flat_map(|side| &side.shares).map(|share| share.destination).collect::<Vec<_>>();
    whole.sort_unstable();
    whole.dedup();
    whole
        .retain(|&at| destinations.get(at).labels.as_ref().is_some_and(|labels| labels.is_empty()));
    for at in whole {
        let host = destinations.get(at).host.clone();
        let rules = context.clients.iter();
        let rules = rules.flat_map(|client| context.world.destination_rules(&host, client));
        let names =
            rules.flat_map(|rule| rule.spec.subsets.iter().map(|subset| subset.name.clone()));
        for name in names.collect::<Vec<_>>() {
            destinations.add_resolved(host.clone(), &name, context);
        }
    }
}

/// The share of requests that reach what a destination selects, directly or through an overlapping one.
fn effective(side: &Side, at: usize, destinations: &Destinations) -> f64 {
    let carrying = side.shares.iter().filter(|share| share.fraction > 0.0);
    let share = carrying
        .map(|share| share.fraction * destinations.overlap(at, share.destination))
        .sum::<f64>();
    share.min(1.0)
}

/// Pairs of destinations that stand together in one weighted route, old or new.
fn families(flows: &[Flow]) -> Vec<(usize, usize)> {
    let sides = flows.iter().flat_map(|flow| [&flow.before, &flow.after]).flatten();
    let mut pairs = sides
        .flat_map(|side| {
            side.shares
                .iter()
                .flat_map(|a| side.shares.iter().map(|b| (a.destination, b.destination)))
        })
        .filter(|(a, b)| a < b)
        .collect::<Vec<_>>();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// Which destinations are versions or parts of one thing.
struct Kin<'a> {
    /// Pairs that stand together in a weighted route, sorted.
    families: Vec<(usize, usize)>,
    destinations: &'a Destinations,
    domain: &'a str,
}

impl Kin<'_> {
    /// Whether they are the same, stand together in a weighted route, or have hosts of one family.
    fn are(&self, a: usize, b: usize) -> bool {
        a == b
            || self.families.binary_search(&(a.min(b), a.max(b))).is_ok()
            || self.destinations.are_one_family(a, b, self.domain)
    }
}

/// A route for requests that had none of their own, to something that is no version of what served them.
fn is_addition(flow: &Flow, before: &Side, at: usize, kin: &Kin<'_>) -> bool {
    let mut carrying = before.shares.iter().filter(|share| share.fraction > NOTHING);
    !flow.existed && !carrying.any(|share| kin.are(at, share.destination))
}

/// The destination that is a mixture of versions and not one beside them: a whole Service, on plain routing or as the only
/// destination of the stored route where the new one tells its subsets apart.
fn mixture(flow: &Flow, before: &Side, after: &Side, destinations: &Destinations) -> Option<usize> {
    let [one] = before.shares.as_slice() else { return None };
    let whole = destinations.get(one.destination);
    let tells_apart = || {
        whole.subset.is_empty()
            && whole.endpoints.is_some()
            && after.share(one.destination) <= NOTHING
            && !after.shares.is_empty()
            && after.shares.iter().all(|own| destinations.get(own.destination).host == whole.host)
    };
    let is_mixture = match flow.base {
        Base::Plain(_) => true,
        Base::Stored => tells_apart(),
        Base::InForce(_) | Base::Nothing => false,
    };
    is_mixture.then_some(one.destination)
}

/// Tells which side is stable, from roles, age and weight.
struct Weighing<'a> {
    /// Before and after, by destination.
    shares: &'a [(f64, f64)],
    /// The destination that stands for plain routing.
    mixture: Option<usize>,
    destinations: &'a Destinations,
    written: Written,
    kin: &'a Kin<'a>,
    /// Who served what has no route of its own.
    wide: Option<&'a Side>,
}

impl Weighing<'_> {
    fn class(&self, at: usize) -> Class {
        let own = self.destinations.get(at);
        let had = self.shares[at].0;
        let takes_over = if had > NOTHING { Class::Stable } else { Class::Rollback };
        if self.mixture.is_some() && (own.labels.is_none() || own.endpoints.is_none()) {
            // Nobody knows how much of plain routing reaches what nobody has defined.
            return Class::Unknown;
        }
        let losers =
            self.others(at).filter(|&other| self.shares[other].1 < self.shares[other].0 - NOTHING);
        let losers = losers.collect::<Vec<_>>();
        // A role is a part in one rollout: it says nothing against strangers.
        let counts = || {
            losers.is_empty()
                || had > NOTHING
                || losers.iter().any(|&other| self.kin.are(at, other))
        };
        match own.role.filter(|_| counts()) {
            Some(Role::Stable) => return Class::Stable,
            Some(Role::Canary) => return Class::Canary,
            None => {}
        }
        let role = |role| move |&other: &usize| self.destinations.get(other).role == Some(role);
        if losers.iter().any(role(Role::Stable)) {
            return Class::Canary;
        }
        if !losers.is_empty() && losers.iter().all(role(Role::Canary)) {
            return takes_over;
        }
        let heaviest = self.heaviest(self.others(at));
        let rest = self
            .mixture
            .map_or(0.0, |_| 1.0 - self.leaves().map(|leaf| self.shares[leaf].0).sum::<f64>());
        let top = heaviest.map_or(0.0, |other| self.shares[other].0).max(rest);
        let against = self.heaviest(losers.into_iter()).or(heaviest);
        let age = against.and_then(|other| own.compare_age(self.destinations.get(other)));
        let version = against.and_then(|other| own.compare_versions(self.destinations.get(other)));
        let is_young = own.is_younger_than(self.written) && had <= NOTHING;
        if (is_young || age == Some(Ordering::Greater)) && version == Some(Ordering::Less) {
            // The earlier version, made anew: it may well be the way back.
            return Class::Unknown;
        }
        if is_young {
            // What did not exist when the present split was written cannot be what served before it.
            return Class::Canary;
        }
        let by_weight =
            if (had - top).abs() <= NOTHING { Ordering::Equal } else { had.total_cmp(&top) };
        match (by_weight, age) {
            (Ordering::Greater, Some(Ordering::Greater)) => Class::Unknown,
            (Ordering::Greater, _) => Class::Stable,
            // Versions that share plain routing equally: a tie says nothing of which one is stable.
            (Ordering::Equal, _) if self.mixture.is_some() => Class::Unknown,
            (Ordering::Less | Ordering::Equal, Some(Ordering::Less)) => takes_over,
            (Ordering::Less, None) if self.is_stable_elsewhere(at, against) => takes_over,
            (Ordering::Less, _) => Class::Canary,
            (Ordering::Equal, Some(Ordering::Greater)) => Class::Canary,
            (Ordering::Equal, _) => Class::Unknown,
        }
    }

    /// The greater part of the requests without a route of their own went to it before.
    fn is_stable_elsewhere(&self, at: usize, against: Option<usize>) -> bool {
        let (Some(wide), Some(against)) = (self.wide, against) else { return false };
        wide.share(at) > wide.share(against) + NOTHING
    }

    /// The side that loses is dead, and the one that gains is alive.
    fn is_evacuation(&self, before: &Side, at: usize) -> bool {
        let carrying = before
            .shares
            .iter()
            .filter(|share| share.fraction > NOTHING && share.destination != at);
        let mut carrying =
            carrying.map(|share| self.destinations.get(share.destination)).peekable();
        let alive = self
            .destinations
            .get(at)
            .endpoints
            .as_ref()
            .is_some_and(|endpoints| endpoints.ready() > 0);
        alive && carrying.peek().is_some() && carrying.all(Destination::is_dead)
    }

    /// The destinations that are weighed against each other. On plain routing a subset that contains another one is a mixture
    /// as well.
    fn leaves(&self) -> impl Iterator<Item = usize> {
        let contains_another = |at: usize| {
            self.mixture.is_some()
                && (0..self.shares.len()).any(|other| self.destinations.contains(at, other))
        };
        (0..self.shares.len()).filter(move |&at| Some(at) != self.mixture && !contains_another(at))
    }

    fn others(&self, at: usize) -> impl Iterator<Item = usize> {
        self.leaves().filter(move |&other| other != at)
    }

    /// The one that carried most.
    fn heaviest(&self, of: impl Iterator<Item = usize>) -> Option<usize> {
        let carrying = of.filter(|&at| self.shares[at].0 > NOTHING);
        // Of equals the older one speaks for all of them.
        carrying.reduce(|a, b| {
            let (x, y) = (self.shares[a].0, self.shares[b].0);
            let older = || {
                self.destinations.get(b).compare_age(self.destinations.get(a))
                    == Some(Ordering::Less)
            };
            if y > x + NOTHING || ((x - y).abs() <= NOTHING && older()) { b } else { a }
        })
    }
}
