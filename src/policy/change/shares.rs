//! A route's shares: weights over their sum.

use std::ops::Deref;
use std::sync::Arc;

use super::NOTHING;
use crate::istio::Route;

/// Part of a route's traffic that goes to one destination.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// The destination's number.
    pub destination: usize,
    /// Its place in `route`.
    pub entry: usize,
    /// From 0 to 1.
    pub fraction: f64,
}

/// The shares of a route as written, in its order: a list that is cheap to hand on, and that answers for each destination.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shares(Arc<Tallied>);

#[derive(Debug, Default, PartialEq)]
struct Tallied {
    listed: Vec<Share>,
    /// Each destination once, sorted by number: all of its entries together, and the place of the first one.
    totals: Vec<Share>,
}

impl Shares {
    pub(super) fn new(listed: Vec<Share>) -> Self {
        let mut totals = listed.clone();
        totals.sort_by_key(|share| (share.destination, share.entry));
        totals.dedup_by(|next, kept| {
            let is_same = next.destination == kept.destination;
            if is_same {
                kept.fraction += next.fraction;
            }
            is_same
        });
        Self(Arc::new(Tallied { listed, totals }))
    }

    /// The share of a destination: all of its entries together.
    pub fn of(&self, destination: usize) -> f64 {
        self.total(destination).map_or(0.0, |share| share.fraction)
    }

    /// The place of the destination's first entry.
    pub fn entry(&self, destination: usize) -> Option<usize> {
        self.total(destination).map(|share| share.entry)
    }

    /// Each destination that carries something, once, sorted by number.
    pub fn carrying(&self) -> impl Iterator<Item = &Share> + Clone {
        self.0.totals.iter().filter(|share| share.fraction > NOTHING)
    }

    /// The destinations, each once, sorted by number.
    pub(super) fn destinations(&self) -> impl Iterator<Item = usize> {
        self.0.totals.iter().map(|share| share.destination)
    }

    /// Equal for copies of one list: what has been looked at once need not be looked at again.
    pub(super) fn id(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// Only the greatest `most` of them.
    pub(super) fn greatest(&self, most: usize) -> Self {
        let mut listed = self.0.totals.clone();
        if listed.len() > most {
            listed.select_nth_unstable_by(most, |a, b| b.fraction.total_cmp(&a.fraction));
            listed.truncate(most);
        }
        Self::new(listed)
    }

    fn total(&self, destination: usize) -> Option<&Share> {
        let totals = &self.0.totals;
        let at = totals.binary_search_by_key(&destination, |share| share.destination).ok()?;
        Some(&totals[at])
    }
}

impl Deref for Shares {
    type Target = [Share];

    fn deref(&self) -> &[Share] {
        &self.0.listed
    }
}

impl<'a> IntoIterator for &'a Shares {
    type Item = &'a Share;
    type IntoIter = std::slice::Iter<'a, Share>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.listed.iter()
    }
}

/// The shares of a route's destinations: a single one gets everything whatever its weight, of several each gets its weight
/// over the sum, and an omitted weight is 0.
///
/// Source: `pilot/pkg/networking/core/route/route.go` (weighted clusters).
pub fn fractions(route: &Route) -> Vec<f64> {
    if route.route.len() == 1 {
        return vec![1.0];
    }
    let total = route.total_weight();
    let of = |weight: u64| if total == 0 { 0.0 } else { weight as f64 / total as f64 };
    route.route.iter().map(|destination| of(destination.effective_weight())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(yaml: &str) -> Route {
        serde_saphyr::from_str(yaml).expect("a route")
    }

    #[test]
    fn shares_are_weights_over_their_sum() {
        for (text, want) in [
            ("{route: [{destination: {host: a}, weight: 10}]}", vec![1.0]),
            ("{route: [{destination: {host: a}, weight: 0}]}", vec![1.0]),
            (
                "{route: [{destination: {host: a}, weight: 100}, {destination: {host: b}}]}",
                vec![1.0, 0.0],
            ),
            (
                "{route: [{destination: {host: a}, weight: 950}, {destination: {host: b}, weight: 50}]}",
                vec![0.95, 0.05],
            ),
            (
                "{route: [{destination: {host: a}, weight: 0}, {destination: {host: b}}]}",
                vec![0.0, 0.0],
            ),
            (
                "{route: [{destination: {host: a}, weight: 2147483647}, {destination: {host: b}, weight: 2147483647}]}",
                vec![0.5, 0.5],
            ),
        ] {
            assert_eq!(fractions(&route(text)), want, "{text}");
        }
    }
}
