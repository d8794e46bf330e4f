use std::collections::BTreeMap;

use serde::Deserialize;

use super::metadata::Metadata;
use super::shape::null_as_default;

/// A named part of a host's endpoints: those that carry all of `labels`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Subset {
    /// `subsets[].name`.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// `subsets[].labels`; empty selects every endpoint of the host.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
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
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRuleSpec {
    /// The host as written; resolved in the DestinationRule's own namespace.
    #[serde(deserialize_with = "null_as_default")]
    pub host: String,
    /// The subsets that routes may name.
    #[serde(deserialize_with = "null_as_default")]
    pub subsets: Vec<Subset>,
    /// The namespaces that see it; empty means the mesh default, which is everywhere.
    #[serde(deserialize_with = "null_as_default")]
    pub export_to: Vec<String>,
    /// Limits the rule to client pods with these labels.
    pub workload_selector: Option<serde::de::IgnoredAny>,
}

impl DestinationRule {
    /// Whether only clients of its own namespace may use it (`exportTo` is exactly that namespace).
    pub fn is_private(&self) -> bool {
        let own = |namespace: &String| namespace == "." || *namespace == self.metadata.namespace;
        self.spec.workload_selector.is_some()
            || matches!(self.spec.export_to.as_slice(), [one] if own(one))
    }

    /// Whether clients in `namespace` may use it, as far as `exportTo` says.
    pub fn is_exported_to(&self, namespace: &str) -> bool {
        let own = namespace == self.metadata.namespace;
        self.spec.export_to.is_empty()
            || self
                .spec
                .export_to
                .iter()
                .any(|to| to == "*" || to == namespace || (to == "." && own))
    }
}
