//! The comparison itself: which requests the two tables tell apart, and who takes them before and after.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use super::base::Audience;
use super::table::{RouteTable, TableRoute};
use super::{Base, Flow, Side};
use crate::istio::{Condition, Protocol};

/// The flows of one list for one audience.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Those that a route of the object under review serves from now on, or that nobody serves any more.
    pub(super) flows: Vec<Flow>,
    /// Those that it served and that something else serves from now on.
    pub(super) elsewhere: Vec<Flow>,
    /// Not everything was compared, because there was too much: where conditions meet, or which of them cover others.
    pub(super) is_partial: bool,
}

/// What a flow is told from others by: two kinds of requests that fare alike are one.
#[derive(PartialEq, Eq, Hash)]
struct Fate {
    before: Option<usize>,
    after: Option<usize>,
    existed: bool,
    falls: bool,
    is_targeted: bool,
    is_catch_all: bool,
}

pub(super) fn compare(
    protocol: Protocol,
    audience: &Audience<'_>,
    before: &RouteTable,
    after: &RouteTable,
) -> Compared {
    let (kinds, is_partial) = kinds_of_traffic(before, after);
    let mut compared = Compared { is_partial, ..Compared::default() };
    let mut seen = HashSet::new();
    let wide = before.serving(&Condition::default());
    for condition in kinds {
        let then = after.serving(&condition);
        let first = before.serving(&condition);
        // Where conditions cannot be compared (two regular expressions), the name still tells which route it was.
        let by_name = || before.named(&after.routes.get(then?)?.name, &condition);
        let first = first.or_else(by_name);
        let (was, is) = (first.map(|at| &before.routes[at]), then.map(|at| &after.routes[at]));
        let is_same_name =
            is.zip(was).is_some_and(|(is, was)| !is.name.is_empty() && is.name == was.name);
        let had_its_own = before.has(&condition);
        let fate = Fate {
            before: first,
            after: then,
            existed: (had_its_own && after.has(&condition)) || is_same_name,
            falls: had_its_own
                && then.is_some_and(|then| after.conditions.place_of(&condition) != Some(then)),
            is_targeted: condition.is_targeted(),
            is_catch_all: condition.is_catch_all(),
        };
        let (existed, falls) = (fate.existed, fate.falls);
        if (first.is_none() && then.is_none()) || !seen.insert(fate) {
            continue;
        }
        let is_own = is.is_some_and(|is| is.is_own);
        let is_untouched =
            !is_own && was.zip(is).is_some_and(|(was, is)| !was.is_own && was.shares == is.shares);
        if is_untouched {
            continue;
        }
        let side = |route: &TableRoute| Side {
            route: route.place,
            shares: route.shares.clone(),
            is_own: route.is_own,
            written_at: route.written_at,
            is_delegated: route.is_delegated,
        };
        let flow = Flow {
            protocol,
            existed,
            falls,
            base: was.map_or(Base::Nothing, |was| was.base.clone()),
            next: is.map_or(Base::Nothing, |is| is.base.clone()),
            gone: audience.gone,
            before: was.map(side),
            after: is.map(side),
            wide: wide.filter(|_| falls).map(|at| side(&before.routes[at])),
            condition,
            movements: Vec::new(),
            is_answered: false,
        };
        if is_own || is.is_none() {
            compared.flows.push(flow);
        } else {
            compared.elsewhere.push(flow);
        }
    }
    compared.is_partial |= before.is_partial() || after.is_partial();
    compared
}

/// So many pairs of conditions are looked at for requests that satisfy both, and so many such kinds are compared. Beyond, only
/// the conditions themselves are: work must stay in proportion to what is written.
const MOST_PAIRS: usize = 65_536;
const MOST_CROSSED: usize = 8_192;

/// The kinds of traffic that two tables tell apart: every condition of either, and where an old one and a new one meet. Whether
/// the latter were too many is said beside them.
///
/// Two conditions that stand in both tables in the same order need not be crossed: what satisfies both is served by the same
/// one of them as before.
fn kinds_of_traffic(before: &RouteTable, after: &RouteTable) -> (Vec<Condition>, bool) {
    let distinct = |table: &RouteTable| {
        let mut seen = HashSet::new();
        let all = table.routes.iter().flat_map(|route| &route.conditions);
        all.filter(|own| seen.insert(*own)).cloned().collect::<Vec<_>>()
    };
    let (old, new) = (distinct(before), distinct(after));
    let places = old.iter().enumerate().map(|(at, own)| (own, at)).collect::<HashMap<_, _>>();
    let stays = in_order(&new.iter().map(|own| places.get(own).copied()).collect::<Vec<_>>());
    let kept = stays.iter().zip(&new).filter(|(stays, _)| **stays).map(|(_, own)| own);
    let kept = kept.collect::<HashSet<_>>();
    let moved_old = old.iter().filter(|own| !kept.contains(own)).collect::<Vec<_>>();
    let moved_new = new.iter().filter(|own| !kept.contains(own)).collect::<Vec<_>>();

    let mut all = new.clone();
    let known = new.iter().collect::<HashSet<_>>();
    all.extend(old.iter().filter(|own| !known.contains(own)).cloned());
    let pairs = moved_old.len() * new.len() + moved_new.len() * old.len();
    if pairs > MOST_PAIRS {
        return (all, true);
    }
    let known = all.iter().cloned().collect::<HashSet<_>>();
    let mut crossed = BTreeMap::new();
    let of_old = moved_old.iter().flat_map(|a| new.iter().map(move |b| (*a, b)));
    let of_new = moved_new.iter().flat_map(|b| old.iter().map(move |a| (a, *b)));
    for (a, b) in of_old.chain(of_new) {
        if a == b || a.is_catch_all() || b.is_catch_all() || a.excludes(b) {
            continue;
        }
        if let Some(both) = a.intersection(b).filter(|both| !known.contains(both)) {
            crossed.insert(both, ());
        }
        if crossed.len() > MOST_CROSSED {
            return (all, true);
        }
    }
    all.extend(crossed.into_keys());
    (all, false)
}

/// Which elements belong to a longest rising subsequence; those without a number belong to none.
fn in_order(numbers: &[Option<usize>]) -> Vec<bool> {
    // The last element of the best run so far of each length.
    let mut ends: Vec<usize> = Vec::new();
    let mut before = vec![None; numbers.len()];
    for (at, number) in numbers.iter().enumerate() {
        let Some(number) = number else { continue };
        let length = ends.partition_point(|&end| numbers[end] < Some(*number));
        before[at] = length.checked_sub(1).map(|last| ends[last]);
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let mut is_in = vec![false; numbers.len()];
    let mut next = ends.last().copied();
    while let Some(at) = next {
        is_in[at] = true;
        next = before[at];
    }
    is_in
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_its_order_is_found() {
        for (numbers, want) in [
            (vec![Some(0), Some(1), Some(2)], vec![true, true, true]),
            (vec![Some(2), Some(0), Some(1)], vec![false, true, true]),
            (vec![None, Some(0), None, Some(1)], vec![false, true, false, true]),
            (vec![Some(1), Some(0)], vec![false, true]),
            (vec![], vec![]),
        ] {
            assert_eq!(in_order(&numbers), want, "{numbers:?}");
        }
    }
}
