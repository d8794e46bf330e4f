//! What Istio does and what the gate believes it does, in the same words, and the difference.

mod compare;
mod connection;
mod listeners;
mod ours;
mod request;
mod theirs;

use std::collections::BTreeMap;

pub(crate) use self::compare::{Asked, differences};
pub(crate) use self::connection::{Addresses, addresses};
pub(crate) use self::ours::{Ours, Taken};
pub(crate) use self::request::Request;
pub(crate) use self::theirs::Theirs;

/// A cluster of Envoy, as far as it is compared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClusterView {
    /// How Envoy finds its endpoints: `EDS`, `STRICT_DNS`, `ORIGINAL_DST` ...
    pub(crate) discovery: String,
    /// The DestinationRule that it was made from, `namespace/name`.
    pub(crate) rule: Option<String>,
    /// Endpoints that get requests.
    pub(crate) healthy: usize,
    /// In seconds; the tests use it as a mark, see [`crate::platform::Istiod::push_all`].
    pub(crate) connect_timeout: f64,
}

/// The routes of one host.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    pub(crate) entries: Vec<Entry>,
    /// Whether no request gets behind the last entry.
    pub(crate) is_complete: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// `name` of the route in its VirtualService; `default` for a Service's own routing.
    pub(crate) route: String,
    /// The VirtualService, `namespace/name`.
    pub(crate) source: Option<String>,
    pub(crate) answer: Answer,
    /// Where copies go, and which part of the requests is copied.
    pub(crate) mirrors: Shares,
}

/// Cluster names and parts from 0 to 1; equal clusters are added up, parts of 0 are left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shares(pub(crate) BTreeMap<String, f64>);

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Clusters(Shares),
    /// A redirect or a response of the proxy's own.
    Itself,
}

impl Shares {
    /// All of it to one cluster.
    pub(crate) fn whole(cluster: String) -> Self {
        Self([(cluster, 1.0)].into())
    }

    pub(crate) fn add(&mut self, cluster: String, part: f64) {
        *self.0.entry(cluster).or_insert(0.0) += part;
    }
}

impl PartialEq for Shares {
    fn eq(&self, Self(theirs): &Self) -> bool {
        self.0.len() == theirs.len()
            && self.0.iter().all(|(name, share)| {
                theirs.get(name).is_some_and(|their| (share - their).abs() < 1e-6)
            })
    }
}

impl std::fmt::Display for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shares = self.0.iter().map(|(name, share)| format!("{:.2} % {name}", share * 100.0));
        f.write_str(&shares.collect::<Vec<_>>().join(" + "))
    }
}
