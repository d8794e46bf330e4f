//! What Istio does and what the gate believes it does, in the same words, and the difference.

mod compare;
mod ours;
mod request;
mod theirs;

use std::collections::BTreeMap;

pub(crate) use self::compare::{Asked, differences};
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
}

#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Cluster names and shares from 0 to 1; equal clusters are added up, shares of 0 are left out.
    Clusters(BTreeMap<String, f64>),
    /// A redirect or a response of the proxy's own.
    Itself,
}

impl PartialEq for Answer {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Clusters(own), Self::Clusters(theirs)) => {
                own.len() == theirs.len()
                    && own.iter().all(|(name, share)| {
                        theirs.get(name).is_some_and(|their| (share - their).abs() < 1e-6)
                    })
            }
            (Self::Itself, Self::Itself) => true,
            _ => false,
        }
    }
}
