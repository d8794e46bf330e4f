//! ServiceEntries: hosts that are no Services.

use serde::Deserialize;

use super::metadata::Metadata;
use super::shape::null_as_default;
use super::workload_entry::{ServiceEntrySelector, WorkloadEntrySpec};

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
    /// Whether its hosts are part of the mesh.
    #[serde(deserialize_with = "null_as_default")]
    pub location: Location,
    /// The endpoints it lists itself.
    #[serde(deserialize_with = "null_as_default")]
    pub endpoints: Vec<WorkloadEntrySpec>,
    /// Selects Pods and WorkloadEntries instead of listing endpoints.
    pub workload_selector: Option<ServiceEntrySelector>,
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
    /// The port's name.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// Its protocol; see [`super::PortProtocol::named`].
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
}

/// `ServiceEntry.spec.location`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Location {
    /// Services that the mesh does not run.
    #[default]
    #[serde(rename = "MESH_EXTERNAL")]
    External,
    /// Services like any other of the mesh, on machines for instance.
    #[serde(other)]
    Internal,
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
    /// The name that the client asks for is resolved when it asks; only for wildcard hosts, which then have no subsets.
    #[serde(rename = "DYNAMIC_DNS")]
    DynamicDns,
    /// Endpoints come from DNS; every other spelling of Istio's is one of its DNS kinds.
    #[serde(other)]
    Dns,
}
