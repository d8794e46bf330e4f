//! What a movement is: a canary's rise, a rollback, an evacuation, an addition, or nobody can tell.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use hashbrown::HashSet;

use super::chronicle::Told;
use super::destinations::{Context, Destinations};
use super::kin::{self, Clan, Relations};
use super::shares::Shares;
use super::{Base, Flow, NOTHING, Since};
use crate::policy::names::Role;
use crate::world::{Memory, Recalled, Reign};

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
    /// What the history of the route says of the destination, where that decided what a rise is.
    pub memory: Option<Memory>,
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

/// So many shares are weighed in all; beyond, only the greatest of each route. It takes thousands of routes in front of one with
/// tens of thousands of destinations to get there.
const MOST_WEIGHED: usize = 500_000;
const GREATEST: usize = 64;

/// Fills in the movements of every flow; says whether small shares, or what many destinations have in common, were left out.
pub(super) fn movements(
    flows: &mut [&mut Flow],
    destinations: &mut Destinations,
    context: &Context<'_>,
    written: Since,
) -> bool {
    if !context.is_blind {
        add_hidden_subsets(flows, destinations, context);
    }
    destinations.settle_roles();
    let destinations = &*destinations;
    let domain = &context.world.mesh().domain;
    let lists = kin::distinct(flows.iter().map(|flow| &**flow));
    let relations = Relations::new(&lists, destinations, domain);
    let answers =
        |shares: &Shares| shares.carrying().any(|share| !relations.is_dead(share.destination));
    let answered = lists.iter().filter(|shares| answers(shares)).map(|shares| shares.id());
    let answered = answered.collect::<HashSet<_>>();
    let mut weighed = 0;
    for flow in flows {
        flow.is_answered =
            flow.before.as_ref().is_some_and(|before| answered.contains(&before.shares.id()));
        let (Some(before), Some(after)) = (&flow.before, &flow.after) else { continue };
        if before.shares == after.shares {
            continue;
        }
        weighed += before.shares.len() + after.shares.len();
        let (was, is) = if weighed <= MOST_WEIGHED {
            (before.shares.clone(), after.shares.clone())
        } else {
            (before.shares.greatest(GREATEST), after.shares.greatest(GREATEST))
        };
        flow.movements =
            Weighing::new(flow, &was, &is, destinations, &relations, written, context).movements();
    }
    weighed > MOST_WEIGHED || relations.is_partial()
}

/// A destination that selects a whole host reaches subsets that no route names; they are compared, too.
fn add_hidden_subsets(flows: &[&mut Flow], destinations: &mut Destinations, context: &Context<'_>) {
    let lists = kin::distinct(flows.iter().map(|flow| &**flow));
    let is_whole = |at: &usize| {
        let own = destinations.get(*at);
        own.is_known && own.labels.as_ref().is_some_and(|labels| labels.is_empty())
    };
    let whole = lists.into_iter().flat_map(Shares::destinations);
    let whole = whole.filter(is_whole).collect::<BTreeSet<_>>();
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

/// The destination that is a mixture of versions and not one beside them: a whole Service, on plain routing or as the only
/// destination of the stored route where the new one tells its subsets apart.
fn mixture(
    flow: &Flow,
    before: &Shares,
    after: &Shares,
    destinations: &Destinations,
) -> Option<usize> {
    let [one] = &before[..] else { return None };
    let whole = destinations.get(one.destination);
    let tells_apart = || {
        whole.subset.is_empty()
            && whole.endpoints.is_some()
            && after.of(one.destination) <= NOTHING
            && !after.is_empty()
            && after.iter().all(|own| destinations.get(own.destination).host == whole.host)
    };
    let is_mixture = match flow.base {
        Base::Plain(_) => true,
        Base::Stored => tells_apart(),
        Base::InForce(_) | Base::Nothing => false,
    };
    is_mixture.then_some(one.destination)
}

/// Tells what happens to each destination of one flow, and which side is stable: from roles, age and weight.
struct Weighing<'a> {
    flow: &'a Flow,
    before: &'a Shares,
    after: &'a Shares,
    /// What is reached before or after, sorted: destination, share before, share after.
    shares: Vec<(usize, f64, f64)>,
    /// The destination that stands for plain routing.
    mixture: Option<usize>,
    /// The destinations that are weighed against each other. On plain routing a subset that contains another one is a mixture
    /// as well.
    leaves: Vec<(usize, f64, f64)>,
    /// Those of them that lose.
    losers: Clan<'a>,
    /// Those that carried something, as written.
    carried: Clan<'a>,
    destinations: &'a Destinations,
    relations: &'a Relations,
    written: Since,
    /// Who carried these requests before, and where to ask what that means.
    reigns: Option<(Cow<'a, [Reign]>, Told<'a>)>,
}

impl<'a> Weighing<'a> {
    fn new(
        flow: &'a Flow,
        before: &'a Shares,
        after: &'a Shares,
        destinations: &'a Destinations,
        relations: &'a Relations,
        written: Since,
        context: &'a Context<'_>,
    ) -> Self {
        let (from, to) = (relations.effective(before), relations.effective(after));
        let shares = joined(&from, &to);
        let mixture = mixture(flow, before, after, destinations);
        let mut leaves = shares.clone();
        leaves.retain(|&(at, ..)| {
            Some(at) != mixture && !(mixture.is_some() && relations.contains_another(at))
        });
        let losers = leaves.iter().filter(|(_, from, to)| *to < *from - NOTHING);
        let losers = Clan::new(relations, losers.map(|(at, ..)| *at).collect());
        let carried =
            Clan::new(relations, before.carrying().map(|share| share.destination).collect());
        Self {
            flow,
            before,
            after,
            shares,
            mixture,
            leaves,
            losers,
            carried,
            destinations,
            relations,
            written,
            reigns: context
                .chronicle
                .as_ref()
                .and_then(|own| Some((own.of_flow(flow)?, own.told()))),
        }
    }

    fn movements(&self) -> Vec<Movement> {
        let common = Common {
            is_against_stable: self.losers.members().any(|at| self.role(at) == Some(Role::Stable)),
            is_against_canaries: !self.losers.is_empty()
                && self.losers.members().all(|at| self.role(at) == Some(Role::Canary)),
            heaviest: self.heaviest(self.leaves.iter().map(|&(at, had, _)| (at, had))),
            loser: self.heaviest(self.losers.members().map(|at| (at, self.had(at)))),
            rest: self
                .mixture
                .map_or(0.0, |_| 1.0 - self.leaves.iter().map(|(_, from, _)| from).sum::<f64>()),
            alive: self.carried.members().filter(|&at| !self.relations.is_dead(at)).count(),
        };
        let changed = self.shares.iter().filter(|&&(at, from, to)| {
            (to - from).abs() > NOTHING && (Some(at) != self.mixture || self.after.of(at) > NOTHING)
        });
        let moved = changed.map(|&(at, from, to)| {
            let (class, memory) = match to > from {
                true => self.rise(at, from, &common),
                false => (Class::Stable, None),
            };
            Movement { destination: at, from, to, class, memory }
        });
        moved.collect()
    }

    fn rise(&self, at: usize, had: f64, common: &Common) -> (Class, Option<Memory>) {
        if self.carried.is_empty() {
            return (Class::Addition, None);
        }
        let (class, memory) = self.class(at, had, common);
        let class = match class {
            Class::Canary | Class::Unknown | Class::Rollback
                if (!self.flow.existed || self.is_way_out()) && !self.carried.has_kin_of(at) =>
            {
                // A route for requests that had none of their own, to something that is no version of what served them. But
                // what falls to an unchanged route because its own was removed is no shift to it.
                if self.flow.falls { Class::Stable } else { Class::Addition }
            }
            Class::Canary | Class::Unknown if self.is_evacuation(at, common) => Class::Evacuation,
            class => class,
        };
        (class, memory)
    }

    /// Whether these requests left the mesh, and no VirtualService said how: the first one that does builds a way for them,
    /// through an egress gateway for instance.
    fn is_way_out(&self) -> bool {
        let is_external = |at| self.destinations.get(at).is_external;
        matches!(self.flow.base, Base::Plain(_)) && self.carried.members().all(is_external)
    }

    fn role(&self, at: usize) -> Option<Role> {
        self.destinations.get(at).role
    }

    fn had(&self, at: usize) -> f64 {
        let found = self.shares.binary_search_by_key(&at, |(own, ..)| *own);
        found.map_or(0.0, |found| self.shares[found].1)
    }

    /// What a rise is, and what the history of the route has to say of it where that decides.
    fn class(&self, at: usize, had: f64, common: &Common) -> (Class, Option<Memory>) {
        let own = self.destinations.get(at);
        let takes_over = if had > NOTHING { Class::Stable } else { Class::Rollback };
        let is_unmeasured = |mixture| {
            let is_unknown = own.endpoints.as_ref().is_none_or(|own| own.unknown_ready > 0);
            own.labels.is_none() || is_unknown || self.relations.is_dead(mixture)
        };
        // A role is a part in one rollout: it says nothing against strangers.
        let counts = || self.losers.is_empty() || had > NOTHING || self.losers.has_kin_of(at);
        let role = own.role.filter(|_| counts());
        if self.mixture.is_some_and(is_unmeasured) {
            // Nobody knows how much of plain routing reaches what nobody has defined, or what has no endpoint.
            return (Class::Unknown, None);
        }
        let by_role = match role {
            Some(Role::Stable) => Some(Class::Stable),
            Some(Role::Canary) => Some(Class::Canary),
            None if common.is_against_stable => Some(Class::Canary),
            None if common.is_against_canaries => Some(takes_over),
            None => None,
        };
        if let Some(class) = by_role {
            return (class, None);
        }
        let by_evidence = || (self.by_age_and_weight(at, had, common), None);
        let Some(recalled) = self.recall(at) else { return by_evidence() };
        let against = common.loser.and_then(|loser| self.recall(loser));
        let against = against.as_ref();
        match recalled.memory {
            // It came after what serves again by now, and not for long: that was a way back, and this is none.
            Memory::WasStable(_)
                if !recalled.is_proven
                    && against.is_some_and(|against| against.order < recalled.order) =>
            {
                by_evidence()
            }
            memory @ Memory::WasStable(_) => (takes_over, Some(memory)),
            // What carries most goes on as it is.
            Memory::WasAnother { .. } if common.heaviest == Some(at) => by_evidence(),
            // It is another version than the one that was stable; whoever is stable now has to be known to be.
            memory if against.is_some_and(|own| own.memory == Memory::WasStable(None)) => {
                (Class::Canary, Some(memory))
            }
            // Nor is what it would take over from: it may be the way out.
            Memory::WasAnother { .. } => (Class::Unknown, None),
        }
    }

    fn recall(&self, at: usize) -> Option<Recalled> {
        let (reigns, told) = self.reigns.as_ref()?;
        let own = self.destinations.get(at);
        let destination = (&own.host, &*own.subset);
        let recalled = told.world.recall(reigns, self.written, destination, own.labels.as_ref())?;
        let is_told = !told.only_ways_back || matches!(recalled.memory, Memory::WasStable(_));
        is_told.then_some(recalled)
    }

    /// What a rise is where no role and no history tells.
    fn by_age_and_weight(&self, at: usize, had: f64, common: &Common) -> Class {
        let own = self.destinations.get(at);
        let takes_over = if had > NOTHING { Class::Stable } else { Class::Rollback };
        let heaviest = match common.heaviest {
            Some(heaviest) if heaviest == at => {
                let others = self.leaves.iter().map(|&(other, had, _)| (other, had));
                self.heaviest(others.filter(|&(other, _)| other != at))
            }
            heaviest => heaviest,
        };
        let top = heaviest.map_or(0.0, |other| self.had(other)).max(common.rest);
        let against = common.loser.or(heaviest);
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
        let (Some(wide), Some(against)) = (&self.flow.wide, against) else { return false };
        wide.share(at) > wide.share(against) + NOTHING
    }

    /// The side that loses is dead, and the one that gains is alive.
    fn is_evacuation(&self, at: usize, common: &Common) -> bool {
        let carries = self.before.of(at) > NOTHING;
        let others = self.carried.members().count() - usize::from(carries);
        // This one is alive: where it carries, it is one of those that are counted.
        self.relations.is_alive(at) && others > 0 && common.alive == usize::from(carries)
    }

    /// The one that carried most of these, each with what it had.
    fn heaviest(&self, of: impl Iterator<Item = (usize, f64)>) -> Option<usize> {
        let carrying = of.filter(|&(_, had)| had > NOTHING);
        // Of equals the older one speaks for all of them.
        let heaviest = carrying.reduce(|(a, x), (b, y)| {
            let older = || {
                self.destinations.get(b).compare_age(self.destinations.get(a))
                    == Some(Ordering::Less)
            };
            let takes = y > x + NOTHING || ((x - y).abs() <= NOTHING && older());
            if takes { (b, y) } else { (a, x) }
        });
        heaviest.map(|(at, _)| at)
    }
}

/// What is reached before or after: destination, share before, share after. All three are sorted by destination.
fn joined(from: &[(usize, f64)], to: &[(usize, f64)]) -> Vec<(usize, f64, f64)> {
    let mut found = Vec::with_capacity(from.len().max(to.len()));
    let (mut a, mut b) = (0, 0);
    loop {
        let (was, is) = (from.get(a), to.get(b));
        let Some(at) = was.into_iter().chain(is).map(|own| own.0).min() else { return found };
        let share = |of: Option<&(usize, f64)>| of.filter(|own| own.0 == at).map(|own| own.1);
        let (was, is) = (share(was), share(is));
        a += usize::from(was.is_some());
        b += usize::from(is.is_some());
        found.push((at, was.unwrap_or(0.0), is.unwrap_or(0.0)));
    }
}

/// What is the same for every destination of a flow that rises.
struct Common {
    is_against_stable: bool,
    is_against_canaries: bool,
    /// Who carried most.
    heaviest: Option<usize>,
    /// Who carried most of those that lose.
    loser: Option<usize>,
    /// The part of plain routing that reaches no destination that is named.
    rest: f64,
    /// How many of those that carried something are not known to be dead.
    alive: usize,
}
