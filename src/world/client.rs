//! Who sends requests, as far as look-ups depend on it.

use std::collections::BTreeMap;

/// A client namespace that has no DestinationRules of its own: what every other namespace of the mesh sees.
pub const ANY_NAMESPACE: &str = "";

/// A proxy that sends requests, as far as Istio's look-ups tell proxies apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    /// The namespace of its Pod, which decides which objects it sees: of a gateway, too, and never the Gateway object's;
    /// [`ANY_NAMESPACE`] for one that has no rules of its own.
    pub namespace: String,
    /// The labels of its Pod: selectors of DestinationRules and `sourceLabels` look at them.
    pub labels: BTreeMap<String, String>,
    /// The Gateway it serves, `namespace/name`; `None` for a sidecar and a waypoint.
    pub gateway: Option<String>,
    /// The waypoint it is, `namespace/name`; `None` for a sidecar and at a gateway.
    pub waypoint: Option<String>,
}

impl Client {
    /// A sidecar in `namespace` whose labels nothing selects.
    pub fn in_namespace(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..Self::default() }
    }

    /// Whether it stands in a client's own pod.
    pub fn is_sidecar(&self) -> bool {
        self.gateway.is_none() && self.waypoint.is_none()
    }

    /// A sidecar in a namespace without rules of its own.
    pub fn anywhere() -> Self {
        Self::in_namespace(ANY_NAMESPACE)
    }
}
