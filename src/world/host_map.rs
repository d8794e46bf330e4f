//! A map by host in which names may be wildcards.

use std::collections::{BTreeMap, HashMap};

/// Things by host, where a host may begin with `*` and then stands for all names with the same end.
#[derive(Debug)]
pub(super) struct HostMap<T> {
    exact: HashMap<String, T>,
    /// By what follows the `*`.
    wildcard: HashMap<String, T>,
    /// How many keys of `wildcard` have a length: those are the ends of a name that are worth a look.
    lengths: BTreeMap<usize, usize>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), lengths: BTreeMap::new() }
    }
}

impl<T> HostMap<T> {
    /// What is kept for exactly this host.
    pub(super) fn get(&self, host: &str) -> Option<&T> {
        match host.strip_prefix('*') {
            Some(end) => self.wildcard.get(end),
            None => self.exact.get(host),
        }
    }

    pub(super) fn get_mut(&mut self, host: &str) -> Option<&mut T> {
        match host.strip_prefix('*') {
            Some(end) => self.wildcard.get_mut(end),
            None => self.exact.get_mut(host),
        }
    }

    pub(super) fn insert(&mut self, host: &str, value: T) {
        match host.strip_prefix('*') {
            Some(end) => {
                if self.wildcard.insert(end.to_owned(), value).is_none() {
                    *self.lengths.entry(end.len()).or_default() += 1;
                }
            }
            None => drop(self.exact.insert(host.to_owned(), value)),
        }
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty()
    }

    pub(super) fn remove(&mut self, host: &str) {
        let Some(end) = host.strip_prefix('*') else {
            self.exact.remove(host);
            return;
        };
        if self.wildcard.remove(end).is_some()
            && let Some(count) = self.lengths.get_mut(&end.len())
        {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&end.len());
            }
        }
    }

    /// What is kept for `host` and for every wildcard that covers it, the most specific one first. With each goes a number that
    /// names its key among those that cover `host`, and is the greater, the more specific the key is.
    ///
    /// Source: `pilot/pkg/model/config.go` `MostSpecificHostMatch`, `pkg/config/host/names.go` `MoreSpecific`.
    pub(super) fn covering<'a, 'h>(
        &'a self,
        host: &'h str,
    ) -> impl Iterator<Item = (usize, &'a T)> + use<'a, 'h, T> {
        let (exact, end) = match host.strip_prefix('*') {
            Some(end) => (None, end),
            None => (self.exact.get(host), host),
        };
        let wildcards = self.lengths.range(..=end.len()).rev().filter_map(move |(&length, _)| {
            let value = self.wildcard.get(end.get(end.len() - length..)?)?;
            Some((length, value))
        });
        exact.map(|value| (usize::MAX, value)).into_iter().chain(wildcards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_comes_first() {
        let mut map = HostMap::default();
        for host in ["*", "*.com", "*.foo.com", "*foo.com", "a.foo.com", "*.bar.com"] {
            map.insert(host, host.to_owned());
        }
        for (host, want) in [
            ("a.foo.com", vec!["a.foo.com", "*.foo.com", "*foo.com", "*.com", "*"]),
            ("foo.com", vec!["*foo.com", "*.com", "*"]),
            ("*.foo.com", vec!["*.foo.com", "*foo.com", "*.com", "*"]),
            ("b.bar.com", vec!["*.bar.com", "*.com", "*"]),
            ("ä", vec!["*"]),
            ("", vec!["*"]),
        ] {
            let found = map.covering(host).map(|(_, value)| value.as_str()).collect::<Vec<_>>();
            assert_eq!(found, want, "{host}");
        }
        map.remove("*.com");
        map.remove("*.com");
        map.remove("a.foo.com");
        let found = map.covering("a.foo.com").map(|(_, value)| value.as_str());
        assert_eq!(found.collect::<Vec<_>>(), ["*.foo.com", "*foo.com", "*"]);
    }
}
