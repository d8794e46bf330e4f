use clap::Args;

use crate::cluster::{MeshConfigName, Reading};
use crate::world::{LabelSelector, Mesh};

/// What Istio was told about the mesh, as flags: they win over what its ConfigMap says.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The mesh, as istiod was told")]
pub(super) struct MeshArguments {
    /// The mesh's domain: istiod's --domain.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    domain: String,
    /// The mesh's root namespace: meshConfig.rootNamespace [default: istio-system].
    #[arg(long, value_name = "NAMESPACE")]
    root_namespace: Option<String>,
    /// istiod's revision: objects with another istio.io/rev label do not exist for it.
    #[arg(long, value_name = "REVISION", default_value = "default")]
    revision: String,
    /// The namespace of istiod and of its ConfigMap [default: the root namespace].
    #[arg(long, value_name = "NAMESPACE")]
    istio_namespace: Option<String>,
    /// Who sees a VirtualService without exportTo: meshConfig.defaultVirtualServiceExportTo [default: *].
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    default_virtual_service_export_to: Vec<String>,
    /// Who sees a DestinationRule without exportTo: meshConfig.defaultDestinationRuleExportTo [default: *].
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    default_destination_rule_export_to: Vec<String>,
    /// Who sees a Service without exportTo: meshConfig.defaultServiceExportTo [default: *].
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    default_service_export_to: Vec<String>,
    /// Which namespaces istiod reads, by their labels, such as env=prod; may be given several times, and then any of them suffices:
    /// meshConfig.discoverySelectors [default: all namespaces].
    #[arg(long, value_name = "SELECTOR")]
    discovery_selector: Vec<LabelSelector>,
    /// istiod's CLUSTER_ID.
    #[arg(long, value_name = "ID", default_value = "Kubernetes")]
    cluster_id: String,
    /// istiod runs with ENABLE_ENHANCED_DESTINATIONRULE_MERGE=false.
    #[arg(long)]
    plain_destination_rule_merge: bool,
    /// Other clusters' endpoints belong to the mesh, too: what is absent here may be there.
    #[arg(long)]
    multi_cluster: bool,
}

impl MeshArguments {
    /// The ConfigMap that says what no flag does.
    pub(super) fn config(&self) -> MeshConfigName {
        let root = self.root_namespace.as_deref().unwrap_or("istio-system");
        let namespace = self.istio_namespace.as_deref().unwrap_or(root);
        MeshConfigName::of(namespace, &self.revision)
    }

    /// The settings in force: flags, else the ConfigMap, else Istio's defaults.
    pub(super) fn settings(&self, reading: &Reading) -> Mesh {
        let config = match reading {
            Reading::Found(config) => config.as_ref().clone(),
            Reading::Absent | Reading::Unknown(_) => Default::default(),
        };
        // Where they cannot be used the log says so.
        let selectors = config.discovery_selectors().unwrap_or_default();
        let first = |flag: &[String], config: Vec<String>| {
            if flag.is_empty() { config } else { flag.to_vec() }
        };
        let default = Mesh::default();
        let root = Some(config.root_namespace).filter(|root| !root.is_empty());
        Mesh {
            domain: self.domain.clone(),
            root_namespace: self.root_namespace.clone().or(root).unwrap_or(default.root_namespace),
            revision: self.revision.clone(),
            default_virtual_service_export_to: first(
                &self.default_virtual_service_export_to,
                config.default_virtual_service_export_to,
            ),
            default_destination_rule_export_to: first(
                &self.default_destination_rule_export_to,
                config.default_destination_rule_export_to,
            ),
            default_service_export_to: first(
                &self.default_service_export_to,
                config.default_service_export_to,
            ),
            discovery_selectors: match self.discovery_selector.as_slice() {
                [] => selectors,
                own => own.to_vec(),
            },
            cluster: self.cluster_id.clone(),
            has_enhanced_merge: !self.plain_destination_rule_merge,
            is_multi_cluster: self.multi_cluster,
        }
    }
}
