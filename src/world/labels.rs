//! Sets of labels, each kept once and counted.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;

/// Counts how often a value is used and gives it a small number; the number is free again when nobody uses it.
#[derive(Debug)]
pub(super) struct Interner<T> {
    ids: HashMap<Arc<T>, u32>,
    entries: Vec<Option<(Arc<T>, u32)>>,
    free: Vec<u32>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { ids: HashMap::new(), entries: Vec::new(), free: Vec::new() }
    }
}

impl<T: std::hash::Hash + Eq> Interner<T> {
    /// The number of `value`, used once more; `true` where it is new.
    pub(super) fn acquire(&mut self, value: T) -> (u32, bool) {
        if let Some(&id) = self.ids.get(&value) {
            if let Some((_, uses)) = &mut self.entries[id as usize] {
                *uses += 1;
            }
            return (id, false);
        }
        let value = Arc::new(value);
        let id = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 label sets")
        });
        self.entries[id as usize] = Some((Arc::clone(&value), 1));
        self.ids.insert(value, id);
        (id, true)
    }

    /// Used once less; gives the value back when that was the last use.
    pub(super) fn release(&mut self, id: u32) -> Option<Arc<T>> {
        let (value, uses) = self.entries[id as usize].as_mut()?;
        *uses -= 1;
        if *uses > 0 {
            return None;
        }
        let value = Arc::clone(value);
        self.ids.remove(&value);
        self.entries[id as usize] = None;
        self.free.push(id);
        Some(value)
    }

    pub(super) fn get(&self, id: u32) -> Option<&T> {
        self.entries.get(id as usize)?.as_ref().map(|(value, _)| value.as_ref())
    }

    /// How many values are in use.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    fn find<Q: std::hash::Hash + Eq + ?Sized>(&self, value: &Q) -> Option<u32>
    where
        Arc<T>: std::borrow::Borrow<Q>,
    {
        self.ids.get(value).copied()
    }
}

/// The number of an interned set of labels, counted from 1: an optional one takes no more space in a table of Pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SetId(NonZeroU32);

impl SetId {
    fn of(at: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(at))
    }

    fn at(self) -> u32 {
        self.0.get() - 1
    }
}

/// Interned label sets with reference counts: Pods of one ReplicaSet share one entry, and an entry that nobody uses any
/// more is gone, so that churn does not leak.
#[derive(Debug, Default)]
pub(super) struct LabelSets {
    pairs: Interner<(String, String)>,
    sets: Interner<Box<[u32]>>,
}

impl LabelSets {
    /// The set of these labels, used once more.
    pub(super) fn acquire(&mut self, labels: &BTreeMap<String, String>) -> SetId {
        let pairs =
            labels.iter().map(|(key, value)| self.pairs.acquire((key.clone(), value.clone())).0);
        let mut pairs = pairs.collect::<Vec<_>>();
        pairs.sort_unstable();
        let (id, is_new) = self.sets.acquire(pairs.clone().into_boxed_slice());
        if !is_new {
            // The set already holds a use of each pair.
            for pair in pairs {
                self.pairs.release(pair);
            }
        }
        SetId::of(id)
    }

    /// The set is used once less.
    pub(super) fn release(&mut self, set: SetId) {
        if let Some(pairs) = self.sets.release(set.at()) {
            for &pair in pairs.iter() {
                self.pairs.release(pair);
            }
        }
    }

    /// The labels of a set, in no order that means anything.
    pub(super) fn pairs(&self, set: SetId) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.sets.get(set.at()).map(|pairs| &pairs[..]).unwrap_or_default();
        pairs
            .iter()
            .filter_map(|&pair| self.pairs.get(pair))
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value of the label `key` in a set.
    pub(super) fn value(&self, set: SetId, key: &str) -> Option<&str> {
        self.pairs(set).find(|(own, _)| *own == key).map(|(_, value)| value)
    }

    /// The labels of a set as Kubernetes writes them.
    pub(super) fn map(&self, set: SetId) -> BTreeMap<String, String> {
        self.pairs(set).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// What to look for in a set to find all of `labels`; `None` where no set holds one of them.
    pub(super) fn query<'a>(
        &self,
        labels: impl Iterator<Item = (&'a String, &'a String)>,
    ) -> Option<Vec<u32>> {
        labels.map(|(key, value)| self.pairs.find(&(key.clone(), value.clone()))).collect()
    }

    /// Whether the set holds everything that `query` asks for.
    pub(super) fn satisfies(&self, set: SetId, query: &[u32]) -> bool {
        self.sets
            .get(set.at())
            .is_some_and(|pairs| query.iter().all(|pair| pairs.binary_search(pair).is_ok()))
    }

    /// How many sets and pairs are in use.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.sets.len(), self.pairs.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn what_nobody_uses_is_gone() {
        let mut sets = LabelSets::default();
        let first = sets.acquire(&labels(&[("app", "reviews"), ("version", "v1")]));
        let same = sets.acquire(&labels(&[("version", "v1"), ("app", "reviews")]));
        let other = sets.acquire(&labels(&[("app", "reviews"), ("version", "v2")]));
        assert_eq!(first, same);
        assert_eq!(sets.sizes(), (2, 3));
        sets.release(first);
        assert_eq!(sets.sizes(), (2, 3));
        sets.release(same);
        assert_eq!(sets.sizes(), (1, 2));
        sets.release(other);
        assert_eq!(sets.sizes(), (0, 0));
    }

    #[test]
    fn a_set_satisfies_what_it_contains() {
        let mut sets = LabelSets::default();
        let set = sets.acquire(&labels(&[("app", "reviews"), ("version", "v1")]));
        for (asked, want) in [
            (labels(&[]), true),
            (labels(&[("version", "v1")]), true),
            (labels(&[("version", "v2")]), false),
            (labels(&[("app", "reviews"), ("version", "v1")]), true),
        ] {
            let found = sets.query(asked.iter()).is_some_and(|query| sets.satisfies(set, &query));
            assert_eq!(found, want, "{asked:?}");
        }
    }
}
