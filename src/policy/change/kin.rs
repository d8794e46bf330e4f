//! Which destinations are versions of the same thing, so that moving requests between them is a shift.

use hashbrown::{HashMap, HashSet};

use super::Flow;
use super::destinations::{Destination, Destinations};
use super::shares::Shares;
use crate::policy::names;
use crate::world::GroupId;

/// What destinations have to do with each other: worked out once for all flows, in time that follows what is written.
#[derive(Debug)]
pub(super) struct Relations {
    /// By destination: its thing's number. Versions and parts of one thing have the same one.
    things: Vec<usize>,
    /// By destination: the weighted routes, old and new, in which it stands. Routes with the same destinations are one.
    families: Lists<usize>,
    /// By destination: which others are reached by requests to it, and by which part of them; itself included.
    reached: Lists<(usize, f64)>,
    /// By destination: whether it selects all that another one selects, and more.
    contains_another: Vec<bool>,
    /// By destination: whether it is known that nobody answers there, and whether it is known that somebody does.
    health: Vec<(bool, bool)>,
    /// There were more destinations alike than are looked at for what they have in common.
    is_partial: bool,
}

/// A list for each destination, all of them in one place.
#[derive(Debug)]
struct Lists<T> {
    /// Where each of them ends.
    ends: Vec<usize>,
    all: Vec<T>,
}

impl<T> Lists<T> {
    fn of(&self, at: usize) -> &[T] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.all[start..self.ends[at]]
    }
}

/// Destinations with endpoints in common are looked for among so many at a time: a Pod has only so many labels to select by.
const MOST_ALIKE: usize = 256;

impl Relations {
    pub(super) fn new(lists: &[&Shares], destinations: &Destinations, domain: &str) -> Self {
        let all = (0..destinations.len()).map(|at| destinations.get(at)).collect::<Vec<_>>();
        let mut is_partial = false;
        Self {
            things: things(&all, destinations, domain),
            families: families(lists, all.len()),
            reached: reached(&all, destinations, &mut is_partial),
            contains_another: containers(&all, destinations, &mut is_partial),
            health: all.iter().map(|own| (own.is_dead(), is_alive(own))).collect(),
            is_partial,
        }
    }

    /// Whether some of what destinations have in common was left out.
    pub(super) fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Whether they are the same, stand together in a weighted route, or are versions of one thing.
    pub(super) fn are_kin(&self, a: usize, b: usize) -> bool {
        if a == b || self.things[a] == self.things[b] {
            return true;
        }
        let (few, many) = (self.families.of(a), self.families.of(b));
        let (few, many) = if few.len() <= many.len() { (few, many) } else { (many, few) };
        few.iter().any(|family| many.binary_search(family).is_ok())
    }

    /// All that is reached by requests with these shares, sorted by number: directly, or by overlapping with a destination.
    pub(super) fn effective(&self, shares: &Shares) -> Vec<(usize, f64)> {
        let mut found = Vec::with_capacity(shares.len());
        for share in shares.carrying() {
            let reached = self.reached.of(share.destination).iter();
            found.extend(reached.map(|&(at, part)| (at, share.fraction * part)));
        }
        found.sort_by_key(|&(at, _)| at);
        found.dedup_by(|next, kept| {
            let is_same = next.0 == kept.0;
            if is_same {
                kept.1 += next.1;
            }
            is_same
        });
        found.iter_mut().for_each(|(_, share)| *share = share.min(1.0));
        found
    }

    pub(super) fn contains_another(&self, at: usize) -> bool {
        self.contains_another[at]
    }

    pub(super) fn is_dead(&self, at: usize) -> bool {
        self.health[at].0
    }

    pub(super) fn is_alive(&self, at: usize) -> bool {
        self.health[at].1
    }
}

/// Some destinations, ready to be asked whether another one is kin of any of them.
#[derive(Debug)]
pub(super) struct Clan<'a> {
    relations: &'a Relations,
    members: Vec<usize>,
    /// Of many members their things and their families, sorted.
    index: Option<(Vec<usize>, Vec<usize>)>,
}

impl<'a> Clan<'a> {
    pub(super) fn new(relations: &'a Relations, members: Vec<usize>) -> Self {
        /// So few are compared one by one.
        const FEW: usize = 8;
        let sorted = |mut all: Vec<usize>| {
            all.dedup();
            all.sort_unstable();
            all.dedup();
            all
        };
        let index = (members.len() > FEW).then(|| {
            let things = members.iter().map(|&at| relations.things[at]).collect();
            let families = members.iter().flat_map(|&at| relations.families.of(at));
            (sorted(things), sorted(families.copied().collect()))
        });
        Self { relations, members, index }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = usize> + '_ {
        self.members.iter().copied()
    }

    pub(super) fn has_kin_of(&self, at: usize) -> bool {
        match &self.index {
            None => self.members.iter().any(|&own| self.relations.are_kin(at, own)),
            Some((things, families)) => {
                let mut own = self.relations.families.of(at).iter();
                things.binary_search(&self.relations.things[at]).is_ok()
                    || own.any(|family| families.binary_search(family).is_ok())
            }
        }
    }
}

fn is_alive(own: &Destination) -> bool {
    own.endpoints.as_ref().is_some_and(|endpoints| endpoints.ready() > 0)
}

/// Hosts that differ at most in a version or role suffix are one thing.
fn things(all: &[&Destination], destinations: &Destinations, domain: &str) -> Vec<usize> {
    let mut numbers: HashMap<(String, String), usize> = HashMap::new();
    let number = |host| {
        let next = numbers.len();
        *numbers.entry(names::thing(host, domain)).or_insert(next)
    };
    let of_hosts = destinations.hosts().map(number).collect::<Vec<_>>();
    all.iter().map(|own| of_hosts[own.host_number]).collect()
}

/// The shares of all flows, before and after, each list once.
pub(super) fn distinct<'a>(flows: impl Iterator<Item = &'a Flow>) -> Vec<&'a Shares> {
    let mut seen = HashSet::new();
    let sides = flows.flat_map(|flow| [&flow.before, &flow.after]).flatten();
    sides.map(|side| &side.shares).filter(|shares| seen.insert(shares.id())).collect()
}

fn families(lists: &[&Shares], count: usize) -> Lists<usize> {
    let together = lists.iter().map(|shares| shares.destinations().collect::<Vec<_>>());
    let mut seen = HashSet::new();
    let mut ends = vec![0; count];
    let mut members = Vec::new();
    for together in together.filter(|together| together.len() > 1) {
        if seen.contains(&together) {
            continue;
        }
        let family = seen.len();
        together.iter().for_each(|&at| ends[at] += 1);
        members.extend(together.iter().map(|&at| (at, family)));
        seen.insert(together);
    }
    let mut end = 0;
    for own in &mut ends {
        end += *own;
        *own = end;
    }
    // Sorted by destination, its families in the order in which they were found.
    members.sort_by_key(|&(at, _)| at);
    Lists { ends, all: members.into_iter().map(|(_, family)| family).collect() }
}

fn reached(
    all: &[&Destination],
    destinations: &Destinations,
    is_partial: &mut bool,
) -> Lists<(usize, f64)> {
    let mut whole = vec![Vec::new(); destinations.hosts().len()];
    let mut selecting: HashMap<(Option<&str>, GroupId), Vec<usize>> = HashMap::new();
    for (at, own) in all.iter().enumerate() {
        if own.subset.is_empty() {
            whole[own.host_number].push(at);
        }
        for group in own.endpoints.iter().flat_map(|endpoints| &endpoints.groups) {
            let alike = selecting.entry((own.namespace(), group.id)).or_default();
            match alike.len() < MOST_ALIKE {
                true => alike.push(at),
                false => *is_partial = true,
            }
        }
    }
    let mut found =
        Lists { ends: Vec::with_capacity(all.len()), all: Vec::with_capacity(all.len()) };
    let mut others = Vec::new();
    for (through, own) in all.iter().enumerate() {
        let groups = own.endpoints.iter().flat_map(|endpoints| &endpoints.groups);
        let alike = groups.filter_map(|group| selecting.get(&(own.namespace(), group.id)));
        others.clear();
        others.extend(alike.flatten().copied());
        others.extend(&whole[own.host_number]);
        others.push(through);
        others.sort_unstable();
        others.dedup();
        let part = |&at: &usize| (at, destinations.overlap(at, through));
        found.all.extend(others.iter().map(part).filter(|(_, part)| *part > 0.0));
        found.ends.push(found.all.len());
    }
    found
}

fn containers(
    all: &[&Destination],
    destinations: &Destinations,
    is_partial: &mut bool,
) -> Vec<bool> {
    // One without labels, or of which nobody knows them, lies in no other one that is told apart by labels.
    let is_labelled =
        |own: &Destination| own.labels.as_ref().is_some_and(|labels| !labels.is_empty());
    let mut of_host = vec![Vec::new(); destinations.hosts().len()];
    for (at, own) in all.iter().enumerate().filter(|(_, own)| is_labelled(own)) {
        let known = &mut of_host[own.host_number];
        match known.len() < MOST_ALIKE {
            true => known.push(at),
            false => *is_partial = true,
        }
    }
    let contains = |(at, own): (usize, &&Destination)| {
        own.labels.is_some()
            && of_host[own.host_number].iter().any(|&other| destinations.contains(at, other))
    };
    all.iter().enumerate().map(contains).collect()
}
