use std::collections::BTreeMap;

use serde::Deserialize;

use super::metadata::Metadata;
use super::shape::null_as_default;

/// The parts of a ServiceEntry that a verdict reads.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceEntry {
    /// Name and namespace.
    pub metadata: Metadata,
    /// What it says.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: ServiceEntrySpec,
}

/// `ServiceEntry.spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntrySpec {
    /// The hosts it adds to the mesh, taken literally.
    #[serde(deserialize_with = "null_as_default")]
    pub hosts: Vec<String>,
    /// The ports of those hosts.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<ServiceEntryPort>,
    /// How its endpoints are found.
    #[serde(deserialize_with = "null_as_default")]
    pub resolution: Resolution,
    /// The endpoints it lists itself.
    #[serde(deserialize_with = "null_as_default")]
    pub endpoints: Vec<ServiceEntryEndpoint>,
    /// Selects Pods and WorkloadEntries instead of listing endpoints.
    pub workload_selector: Option<serde::de::IgnoredAny>,
    /// The namespaces that see it; empty means the mesh default, which is everywhere.
    #[serde(deserialize_with = "null_as_default")]
    pub export_to: Vec<String>,
}

/// One of a ServiceEntry's ports.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceEntryPort {
    /// The port's number.
    pub number: u32,
}

/// An endpoint that a ServiceEntry lists; it has no health that Kubernetes knows of.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceEntryEndpoint {
    /// What subsets select by.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
}

/// `ServiceEntry.spec.resolution`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Resolution {
    /// Connections go where the client wanted; subsets and weights mean nothing.
    #[default]
    #[serde(rename = "NONE")]
    None,
    /// The listed or selected endpoints.
    #[serde(rename = "STATIC")]
    Static,
    /// Endpoints come from DNS; every other spelling of Istio's is one of its DNS kinds.
    #[serde(other)]
    Dns,
}
