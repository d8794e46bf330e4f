//! What istiod was told about the mesh.

/// The mesh-wide settings that change what a name means and who sees what. They are istiod's flags, its environment and its
/// `MeshConfig`, and must say the same as there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// istiod's `--domain`.
    pub domain: String,
    /// `meshConfig.rootNamespace`.
    pub root_namespace: String,
    /// istiod's `REVISION`: VirtualServices and DestinationRules with another `istio.io/rev` label do not exist for it.
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
    /// Whether other clusters' endpoints belong to the mesh: then what is absent here may be there.
    pub is_multi_cluster: bool,
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
            is_multi_cluster: false,
        }
    }
}
