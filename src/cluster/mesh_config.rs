//! The mesh's settings from Istio's ConfigMap.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::GetParams;
use kube::core::Request;
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::client::said;
use super::files::{Document, parse};
use super::index::Index;
use super::read::null_as_default;
use super::repair;
use crate::world::{LabelSelector, Mesh, Requirement, SelectorError};

/// The ConfigMap's key that holds the `MeshConfig`.
const KEY: &str = "mesh";

/// How long one reading may take.
const LIMIT: Duration = Duration::from_secs(5);

/// How often it is read again. Nobody is waiting: what it changes is who sees what, mesh-wide, and Istio takes its time, too.
const AGAIN: Duration = Duration::from_secs(30);

/// The parts of `MeshConfig` that a verdict reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// `rootNamespace`; empty where it is not set.
    #[serde(deserialize_with = "null_as_default")]
    pub root_namespace: String,
    /// `defaultVirtualServiceExportTo`; empty where it is not set.
    #[serde(deserialize_with = "null_as_default")]
    pub default_virtual_service_export_to: Vec<String>,
    /// `defaultDestinationRuleExportTo`; empty where it is not set.
    #[serde(deserialize_with = "null_as_default")]
    pub default_destination_rule_export_to: Vec<String>,
    /// `defaultServiceExportTo`; empty where it is not set.
    #[serde(deserialize_with = "null_as_default")]
    pub default_service_export_to: Vec<String>,
    /// `discoverySelectors`, as they are written.
    #[serde(deserialize_with = "null_as_default")]
    pub discovery_selectors: Vec<Value>,
}

impl MeshConfig {
    /// `discoverySelectors`. What a selector does not have is ignored, as istiod does.
    ///
    /// # Errors
    /// Where one of them is such that istiod does not use any: one that starts then reads all namespaces.
    ///
    /// Source: `pkg/kube/namespace/filter.go` `selectorsChanged`, `pkg/config/mesh/labelselector/labelselector.go`.
    pub fn discovery_selectors(&self) -> Result<Vec<LabelSelector>, SelectorError> {
        self.discovery_selectors.iter().map(selector).collect()
    }
}

fn selector(value: &Value) -> Result<LabelSelector, SelectorError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = value["matchLabels"].as_object().into_iter().flatten();
    let requirement = |value: &Value| {
        let values = value["values"].as_array().into_iter().flatten().map(text);
        let operator = serde_json::from_value(value["operator"].clone())
            .map_err(|_| SelectorError::Operator(text(&value["operator"])))?;
        Ok(Requirement { key: text(&value["key"]), operator, values: values.collect() })
    };
    let expressions = value["matchExpressions"].as_array().into_iter().flatten();
    let selector = LabelSelector {
        match_labels: labels.map(|(key, value)| (key.clone(), text(value))).collect(),
        match_expressions: expressions.map(requirement).collect::<Result<_, _>>()?,
    };
    selector.check()?;
    Ok(selector)
}

/// Where istiod of a revision keeps its `MeshConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshConfigName {
    /// istiod's own namespace, which is the root namespace unless somebody moved that.
    pub namespace: String,
    /// `istio`, or `istio-` and the revision.
    pub name: String,
}

impl MeshConfigName {
    /// The name for a revision.
    ///
    /// Source: `pilot/pkg/bootstrap/mesh.go` `getMeshConfigMapName`.
    pub fn of(namespace: &str, revision: &str) -> Self {
        let name = match revision {
            "" | "default" => "istio".to_owned(),
            revision => format!("istio-{revision}"),
        };
        Self { namespace: namespace.to_owned(), name }
    }
}

impl std::fmt::Display for MeshConfigName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConfigMap {}/{}", self.namespace, self.name)
    }
}

/// What a reading of the ConfigMap came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// It is there.
    Found(Box<MeshConfig>),
    /// There is none, or none with the key `mesh`: Istio then has its defaults.
    Absent,
    /// It may not be read, could not be read, or is no YAML; with the reason.
    Unknown(String),
}

/// Reads the settings of a ConfigMap: of `data.mesh`, or where it lies among `documents`.
fn reading(map: &Value, name: &MeshConfigName) -> Reading {
    let Some(text) = map["data"][KEY].as_str() else { return Reading::Absent };
    match parse(&name.to_string(), text) {
        Ok(mut documents) => match documents.pop() {
            Some(document) => Reading::Found(Box::new(repair::read(document.value))),
            None => Reading::Found(Box::default()),
        },
        Err(error) => Reading::Unknown(error.to_string()),
    }
}

/// The settings that a ConfigMap among `documents` holds.
pub fn mesh_config_in(documents: &[Document], name: &MeshConfigName) -> Reading {
    let is_it = |document: &&Document| {
        let (kind, metadata) = (&document.value["kind"], &document.value["metadata"]);
        kind == "ConfigMap"
            && metadata["name"] == name.name.as_str()
            && metadata["namespace"] == name.namespace.as_str()
    };
    documents.iter().rfind(is_it).map_or(Reading::Absent, |document| reading(&document.value, name))
}

/// Reads the settings from the API server. That they may not be read is no error: flags say the same.
pub async fn mesh_config(client: &Client, name: &MeshConfigName) -> Reading {
    let path = format!("/api/v1/namespaces/{}/configmaps", name.namespace);
    let request = match Request::new(path).get(&name.name, &GetParams::default()) {
        Ok(request) => request,
        Err(error) => return Reading::Unknown(error.to_string()),
    };
    match tokio::time::timeout(LIMIT, client.request::<Value>(request)).await {
        Ok(Ok(map)) => reading(&map, name),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Reading::Absent,
        Ok(Err(error)) => Reading::Unknown(said(&error)),
        Err(_) => Reading::Unknown(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

/// Keeps the settings of `index` up to date until told to stop. `settings` joins what was read with what the command line says.
/// What cannot be read any more stays as it was.
pub async fn follow_mesh_config(
    client: Client,
    index: Arc<Index>,
    name: MeshConfigName,
    settings: impl Fn(&Reading) -> Mesh + Send,
    shutdown: CancellationToken,
) {
    let mut last = None;
    loop {
        let reading = mesh_config(&client, &name).await;
        if last.as_ref() != Some(&reading) {
            let keeps = matches!(
                (&last, &reading),
                (Some(Reading::Found(_) | Reading::Absent), Reading::Unknown(_))
            );
            if let (true, Reading::Unknown(reason)) = (keeps, &reading) {
                tracing::warn!(source = %name, reason, "the mesh's settings cannot be read any more; they stay as they were");
            } else {
                let mesh = settings(&reading);
                say(&mesh, &reading, &name);
                index.set_mesh(mesh);
            }
            last = Some(reading);
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Says which settings are in force, and where they come from.
pub fn say(mesh: &Mesh, reading: &Reading, name: &MeshConfigName) {
    let source = match reading {
        Reading::Found(_) => format!("the command line, then {name}"),
        Reading::Absent => format!("the command line; there is no {name}"),
        Reading::Unknown(reason) => {
            format!("the command line; {name} cannot be read: {reason}")
        }
    };
    tracing::info!(
        domain = mesh.domain,
        root_namespace = mesh.root_namespace,
        revision = mesh.revision,
        cluster = mesh.cluster,
        default_virtual_service_export_to = ?mesh.default_virtual_service_export_to,
        default_destination_rule_export_to = ?mesh.default_destination_rule_export_to,
        default_service_export_to = ?mesh.default_service_export_to,
        discovery_selectors = mesh.wanted_labels(),
        enhanced_merge = mesh.has_enhanced_merge,
        multi_cluster = mesh.is_multi_cluster,
        source,
        "the mesh's settings"
    );
    if let Reading::Found(config) = reading
        && let Err(error) = config.discovery_selectors()
    {
        tracing::warn!(
            source = %name,
            %error,
            "istiod cannot use these discoverySelectors and reads all namespaces when it starts; so does the gate"
        );
    }
}
