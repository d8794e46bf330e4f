//! DestinationRules: hosts, subsets and who sees them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::metadata::Metadata;
use super::shape::null_as_default;
use super::traffic_policy::TrafficPolicy;

/// A named part of a host's endpoints: those that carry all of `labels`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// `subsets[].name`.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// `subsets[].labels`; empty selects every endpoint of the host.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// `subsets[].trafficPolicy`; the fields that it sets win over the rule's own.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// The parts of a DestinationRule that a verdict reads.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct DestinationRule {
    /// Name, namespace, age.
    pub metadata: Metadata,
    /// What it says.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: DestinationRuleSpec,
}

/// `DestinationRule.spec`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRuleSpec {
    /// The host as written; resolved in the DestinationRule's own namespace.
    #[serde(deserialize_with = "null_as_default")]
    pub host: String,
    /// The subsets that routes may name.
    #[serde(deserialize_with = "null_as_default")]
    pub subsets: Vec<Subset>,
    /// How requests are spread over the endpoints, for all ports and subsets that say nothing else.
    pub traffic_policy: Option<TrafficPolicy>,
    /// The namespaces that see it; empty means the mesh default, which is everywhere. As a set it also decides what is merged.
    #[serde(deserialize_with = "null_as_default")]
    pub export_to: Vec<String>,
    /// Limits the rule to client pods of its own namespace with these labels.
    pub workload_selector: Option<WorkloadSelector>,
}

/// Istio's `WorkloadSelector`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// Labels that a pod must carry, all of them; none at all selects every pod.
    #[serde(deserialize_with = "null_as_default")]
    pub match_labels: BTreeMap<String, String>,
}

impl WorkloadSelector {
    /// Whether it selects a pod with these labels.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl DestinationRule {
    /// Whether it still says all that `old` said of who finds which subset: it is for the same clients and host, and has every
    /// subset of `old` with the same labels.
    pub fn keeps(&self, old: &Self) -> bool {
        let (own, was) = (&self.spec, &old.spec);
        let has = |subset: &Subset| {
            own.subsets.iter().find(|own| own.name == subset.name).map(|own| &own.labels)
                == Some(&subset.labels)
        };
        own.host == was.host
            && own.export_to == was.export_to
            && own.workload_selector == was.workload_selector
            && was.subsets.iter().all(has)
    }

    /// Whether `exportTo` lets clients in `namespace` use it; those with a selector are for their own namespace only.
    pub fn is_exported_to(&self, namespace: &str) -> bool {
        let own = namespace == self.metadata.namespace;
        let to = &self.spec.export_to;
        if self.spec.workload_selector.is_some() {
            return own;
        }
        to.is_empty() || to.iter().any(|to| to == "*" || to == namespace || (to == "." && own))
    }
}
