//! WorkloadEntries, and the endpoints that a ServiceEntry lists itself.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::metadata::Metadata;
use super::shape::null_as_default;

/// A machine outside of Kubernetes, or an endpoint that a ServiceEntry lists itself: both have these fields.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntrySpec {
    /// An IP, a host name or the path of a socket.
    #[serde(deserialize_with = "null_as_default")]
    pub address: String,
    /// What selectors and subsets select by.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// `region/zone/subzone`.
    #[serde(deserialize_with = "null_as_default")]
    pub locality: String,
    /// The network it is in; empty for the mesh's own.
    #[serde(deserialize_with = "null_as_default")]
    pub network: String,
    /// Its own number for ports by their name.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: BTreeMap<String, u32>,
}

impl WorkloadEntrySpec {
    /// Whether only a host that is resolved by DNS can use it: its address is no IP.
    ///
    /// Source: `pilot/pkg/serviceregistry/serviceentry/conversion.go` `convertWorkloadEntryToWorkloadInstance`.
    pub fn is_only_for_dns(&self) -> bool {
        !self.address.is_empty() && self.address.parse::<std::net::IpAddr>().is_err()
    }
}

/// The parts of a WorkloadEntry that a verdict reads.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct WorkloadEntry {
    /// Name, namespace, and labels, which count like those of the spec.
    pub metadata: Metadata,
    /// What it says.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: WorkloadEntrySpec,
    /// What its agent reports.
    #[serde(deserialize_with = "null_as_default")]
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "null_as_default")]
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(deserialize_with = "null_as_default")]
    r#type: String,
    #[serde(deserialize_with = "null_as_default")]
    status: String,
}

impl WorkloadEntry {
    /// Its labels: those of the spec, and over them those of its metadata.
    ///
    /// Source: `pilot/pkg/serviceregistry/serviceentry/conversion.go` `ConvertWorkloadEntry`.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.spec.labels.clone();
        labels.extend(self.metadata.labels.clone());
        labels
    }

    /// Whether Istio sends requests to it: nobody checks its health, or its agent says that it is well.
    ///
    /// Source: `pilot/pkg/serviceregistry/serviceentry/conversion.go` `isHealthy`.
    pub fn is_healthy(&self) -> bool {
        // What Go's `strconv.ParseBool` takes for true.
        let is_checked = matches!(
            self.metadata.annotations.has_health_checks.as_str(),
            "1" | "t" | "T" | "TRUE" | "true" | "True"
        );
        let healthy = |own: &Condition| own.r#type == "Healthy" && own.status == "True";
        !is_checked || self.status.conditions.iter().any(healthy)
    }
}

/// The labels of a `workloadSelector`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceEntrySelector {
    /// `labels`; empty selects everything in the namespace.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
}
