//! What istiod was told about the mesh.

use super::LabelSelector;

/// The mesh-wide settings that change what a name means and who sees what. They are istiod's flags, its environment and its
/// `MeshConfig`, and must say the same as there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// istiod's `--domain`.
    pub domain: String,
    /// `meshConfig.rootNamespace`.
    pub root_namespace: String,
    /// istiod's `REVISION`: Istio's objects with another `istio.io/rev` label do not exist for it.
    pub revision: String,
    /// `meshConfig.defaultVirtualServiceExportTo`; empty means `*`.
    pub default_virtual_service_export_to: Vec<String>,
    /// `meshConfig.defaultDestinationRuleExportTo`; empty means `*`.
    pub default_destination_rule_export_to: Vec<String>,
    /// `meshConfig.defaultServiceExportTo`; empty means `*`.
    pub default_service_export_to: Vec<String>,
    /// istiod's `CLUSTER_ID`: the value of the label `topology.istio.io/cluster` on every endpoint of this cluster.
    pub cluster: String,
    /// istiod's `ENABLE_ENHANCED_DESTINATIONRULE_MERGE`: whether `exportTo` is compared before DestinationRules are merged.
    pub has_enhanced_merge: bool,
    /// `meshConfig.discoverySelectors`: what is in a namespace whose labels satisfy none of them does not exist for istiod; empty
    /// means that it reads all namespaces.
    pub discovery_selectors: Vec<LabelSelector>,
    /// Whether other clusters' endpoints belong to the mesh: then what is absent here may be there.
    pub is_multi_cluster: bool,
}

impl Mesh {
    /// The labels that `discoverySelectors` ask a namespace for, in words.
    pub fn wanted_labels(&self) -> String {
        let all = self.discovery_selectors.iter().map(ToString::to_string);
        all.collect::<Vec<_>>().join(" or ")
    }
}

impl Default for Mesh {
    /// What istiod does without a flag, a variable or a `MeshConfig`.
    fn default() -> Self {
        Self {
            domain: "cluster.local".to_owned(),
            root_namespace: "istio-system".to_owned(),
            revision: "default".to_owned(),
            default_virtual_service_export_to: Vec::new(),
            default_destination_rule_export_to: Vec::new(),
            default_service_export_to: Vec::new(),
            cluster: "Kubernetes".to_owned(),
            has_enhanced_merge: true,
            discovery_selectors: Vec::new(),
            is_multi_cluster: false,
        }
    }
}
