//! Objects of every kind, cut down to what a verdict reads.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::repair;
use super::resources::kind_of;
use crate::delivery::{Canary, Rollout};
use crate::istio::{
    DestinationRule, Gateway, PortProtocol, ServiceEntry, Sidecar, Timestamp, UseWaypoint,
    VirtualService, Waypoint, WorkloadEntry,
};
use crate::world::{
    EndpointSlice, Kind, Namespace, Node, Object, Pod, PodStatus, Service, ServicePort,
    SliceEndpoint, Workload,
};

/// Reads any object into the parts that a verdict needs; `None` for a kind that no verdict reads and for an object without
/// a name. A field of a wrong type counts as absent: what is in the cluster already cannot be refused any more.
pub fn object(value: Value) -> Option<Object> {
    let text = |field| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let kind = kind_of(text("apiVersion"), text("kind"))?;
    of_kind(kind, Source::Value(value))
}

/// Reads an object whose kind is known from where it was found: the items of a list do not say it.
pub(super) fn json(kind: Kind, text: &str) -> Option<Object> {
    of_kind(kind, Source::Text(text))
}

/// What an object is read from.
enum Source<'a> {
    Text(&'a str),
    Value(Value),
}

impl Source<'_> {
    fn read<T: DeserializeOwned + Default>(self) -> T {
        let value = match self {
            Source::Text(text) => match serde_json::from_str(text) {
                Ok(object) => return object,
                Err(_) => serde_json::from_str(text).unwrap_or_default(),
            },
            Source::Value(value) => value,
        };
        repair::read(value)
    }
}

fn of_kind(kind: Kind, source: Source<'_>) -> Option<Object> {
    let object = match kind {
        Kind::VirtualService => Object::VirtualService(Box::new(source.read::<VirtualService>())),
        Kind::DestinationRule => {
            Object::DestinationRule(Box::new(source.read::<DestinationRule>()))
        }
        Kind::ServiceEntry => Object::ServiceEntry(Box::new(source.read::<ServiceEntry>())),
        Kind::WorkloadEntry => Object::WorkloadEntry(Box::new(source.read::<WorkloadEntry>())),
        Kind::Gateway => Object::Gateway(Box::new(source.read::<Gateway>())),
        Kind::Waypoint => Object::Waypoint(Box::new(source.read::<Waypoint>())),
        Kind::Sidecar => Object::Sidecar(Box::new(source.read::<Sidecar>())),
        Kind::Service => Object::Service(source.read::<RawService>().into()),
        Kind::EndpointSlice => Object::EndpointSlice(source.read::<RawSlice>().into()),
        Kind::Pod => Object::Pod(source.read::<RawPod>().into()),
        Kind::Node => {
            let RawNamed { metadata: Meta { name, labels, .. } } = source.read();
            Object::Node(Node { name, labels })
        }
        Kind::Namespace => {
            let RawNamed { metadata: Meta { name, labels, .. } } = source.read();
            Object::Namespace(Namespace { name, labels })
        }
        Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet | Kind::DaemonSet => {
            Object::Workload(source.read::<RawWorkload>().into_workload(kind))
        }
        Kind::Canary => Object::Canary(Box::new(source.read::<Canary>())),
        Kind::Rollout => Object::Rollout(Box::new(source.read::<Rollout>())),
    };
    (!name(&object).1.is_empty()).then_some(object)
}

/// Namespace and name of an object; a Namespace and a Node have no namespace.
pub(super) fn name(object: &Object) -> (&str, &str) {
    match object {
        Object::VirtualService(object) => (&object.metadata.namespace, &object.metadata.name),
        Object::DestinationRule(object) => (&object.metadata.namespace, &object.metadata.name),
        Object::ServiceEntry(object) => (&object.metadata.namespace, &object.metadata.name),
        Object::WorkloadEntry(object) => (&object.metadata.namespace, &object.metadata.name),
        Object::Gateway(object) => (&object.metadata.namespace, &object.metadata.name),
        Object::Waypoint(object) => (&object.metadata.namespace, &object.metadata.name),
        Object::Sidecar(object) => (&object.metadata.namespace, &object.metadata.name),
        Object::Service(object) => (&object.namespace, &object.name),
        Object::EndpointSlice(object) => (&object.namespace, &object.name),
        Object::Pod(object) => (&object.namespace, &object.name),
        Object::Node(object) => ("", &object.name),
        Object::Namespace(object) => ("", &object.name),
        Object::Workload(object) => (&object.namespace, &object.name),
        Object::Canary(object) => (&object.metadata.namespace, &object.metadata.name),
        Object::Rollout(object) => (&object.metadata.namespace, &object.metadata.name),
    }
}

/// Reads `null` like an absent field: Go writes nil maps and slices that way.
pub(super) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    #[serde(deserialize_with = "null_as_default")]
    pub(super) name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) namespace: String,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default")]
    annotations: Annotations,
    pub(super) creation_timestamp: Option<Timestamp>,
    pub(super) deletion_timestamp: Option<Timestamp>,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) owner_references: Vec<Owner>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "networking.istio.io/exportTo", deserialize_with = "null_as_default")]
    export_to: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Owner {
    #[serde(deserialize_with = "null_as_default")]
    pub(super) kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) name: String,
    #[serde(deserialize_with = "null_as_default")]
    controller: bool,
}

impl Meta {
    pub(super) fn controller(&self) -> Option<&Owner> {
        self.owner_references.iter().find(|owner| owner.controller)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawNamed {
    #[serde(deserialize_with = "null_as_default")]
    metadata: Meta,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawPod {
    #[serde(deserialize_with = "null_as_default")]
    metadata: Meta,
    /// Every Pod has one; where only metadata was asked for it is missing.
    spec: Option<PodSpec>,
    #[serde(deserialize_with = "null_as_default")]
    status: RawPodStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    #[serde(deserialize_with = "null_as_default")]
    node_name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPodStatus {
    #[serde(deserialize_with = "null_as_default")]
    phase: String,
    #[serde(rename = "podIP", deserialize_with = "null_as_default")]
    pod_ip: String,
    #[serde(deserialize_with = "null_as_default")]
    conditions: Vec<Condition>,
}

/// One of a Pod's `status.conditions`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    #[serde(deserialize_with = "null_as_default")]
    pub(super) r#type: String,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) status: String,
}

impl From<RawPod> for Pod {
    fn from(RawPod { metadata, spec, status }: RawPod) -> Self {
        let is_controlled = metadata.controller().is_some();
        let ip = status.pod_ip.parse().ok();
        // `pilot/pkg/serviceregistry/kube/controller/pod.go` `shouldPodBeInEndpoints` and `IsPodReady`.
        let is_ready = ip.is_some()
            && !matches!(status.phase.as_str(), "Succeeded" | "Failed")
            && metadata.deletion_timestamp.is_none()
            && status.conditions.iter().any(|own| own.r#type == "Ready" && own.status == "True");
        let status = spec.map(|spec| PodStatus { node: Some(spec.node_name), ip, is_ready });
        let Meta { name, namespace, labels, creation_timestamp: created, .. } = metadata;
        Self { namespace, name, labels, created, is_controlled, status }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawService {
    #[serde(deserialize_with = "null_as_default")]
    metadata: Meta,
    #[serde(deserialize_with = "null_as_default")]
    spec: ServiceSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    #[serde(deserialize_with = "null_as_default")]
    selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default")]
    ports: Vec<Port>,
    #[serde(deserialize_with = "null_as_default")]
    r#type: String,
    external_name: Option<String>,
    #[serde(rename = "clusterIP", deserialize_with = "null_as_default")]
    cluster_ip: String,
    #[serde(deserialize_with = "null_as_default")]
    internal_traffic_policy: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    #[serde(deserialize_with = "null_as_default")]
    port: i64,
    #[serde(deserialize_with = "null_as_default")]
    name: String,
    #[serde(deserialize_with = "named_port")]
    target_port: Option<String>,
    #[serde(deserialize_with = "null_as_default")]
    protocol: String,
    app_protocol: Option<String>,
}

/// A port by its name; a number, also where it is written as a text, is none.
fn named_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        _ => return Ok(None),
    };
    Ok(Some(text).filter(|text| !text.is_empty() && text.parse::<u16>().is_err()))
}

impl From<RawService> for Service {
    fn from(RawService { metadata, spec }: RawService) -> Self {
        let port = |Port { port: number, name, target_port: target, protocol, app_protocol }| {
            let protocol =
                PortProtocol::of_service(number, &name, &protocol, app_protocol.as_deref());
            ServicePort { number, name, target, protocol }
        };
        // `pilot/pkg/serviceregistry/kube/conversion.go` `ConvertService`.
        let export_to = metadata.annotations.export_to.split(',').map(str::trim);
        let export_to = export_to.filter(|to| !to.is_empty()).map(str::to_owned).collect();
        Self {
            namespace: metadata.namespace,
            name: metadata.name,
            selector: spec.selector,
            ports: spec.ports.into_iter().map(port).collect(),
            external_name: spec
                .external_name
                .filter(|name| spec.r#type == "ExternalName" && !name.is_empty()),
            is_headless: spec.cluster_ip == "None",
            is_node_local: spec.internal_traffic_policy == "Local",
            export_to,
            use_waypoint: UseWaypoint::of(&metadata.labels),
            created: metadata.creation_timestamp,
        }
    }
}

/// The label by which an EndpointSlice names its Service.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSlice {
    #[serde(deserialize_with = "null_as_default")]
    metadata: Meta,
    #[serde(deserialize_with = "null_as_default")]
    address_type: String,
    #[serde(deserialize_with = "null_as_default")]
    ports: Vec<SlicePort>,
    #[serde(deserialize_with = "null_as_default")]
    endpoints: Vec<RawEndpoint>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SlicePort {
    #[serde(deserialize_with = "null_as_default")]
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawEndpoint {
    #[serde(deserialize_with = "null_as_default")]
    addresses: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    conditions: Conditions,
    #[serde(deserialize_with = "null_as_default")]
    target_ref: Target,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    terminating: Option<bool>,
}

impl Conditions {
    /// Istio asks for `ready` first, so one that is ready counts although it is terminating, as a Service with
    /// `publishNotReadyAddresses` makes it.
    ///
    /// Source: `pilot/pkg/serviceregistry/kube/controller/endpointslice.go` `endpointHealthStatus`.
    fn is_ready(&self) -> bool {
        self.ready.unwrap_or(true)
    }

    /// Without a word about it an endpoint that is not ready counts as terminating.
    fn is_gone(&self) -> bool {
        !self.is_ready() && self.terminating.unwrap_or(true)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Target {
    #[serde(deserialize_with = "null_as_default")]
    kind: String,
    #[serde(deserialize_with = "null_as_default")]
    name: String,
}

impl From<RawSlice> for EndpointSlice {
    fn from(RawSlice { mut metadata, address_type, ports, endpoints }: RawSlice) -> Self {
        let endpoint = |RawEndpoint { addresses, conditions, target_ref }| SliceEndpoint {
            pod: Some(target_ref)
                .filter(|target: &Target| target.kind == "Pod" && !target.name.is_empty())
                .map(|target| target.name),
            address: addresses.first().and_then(|text: &String| text.parse().ok()),
            ready: Conditions::is_ready(&conditions),
        };
        // Host names are no addresses for Istio (`endpointslice.go` `updateEndpointCacheForSlice`).
        let is_of_names = address_type == "FQDN";
        let endpoints =
            endpoints.into_iter().filter(|own| !is_of_names && !own.conditions.is_gone());
        Self {
            namespace: metadata.namespace,
            name: metadata.name,
            service: metadata.labels.remove(SERVICE_NAME).unwrap_or_default(),
            is_ipv6: address_type == "IPv6",
            ports: ports.into_iter().map(|port| port.name).collect(),
            endpoints: endpoints.map(endpoint).collect(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawWorkload {
    #[serde(deserialize_with = "null_as_default")]
    metadata: Meta,
    #[serde(deserialize_with = "null_as_default")]
    spec: WorkloadSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WorkloadSpec {
    replicas: Option<i64>,
    #[serde(deserialize_with = "null_as_default")]
    template: RawTemplate,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawTemplate {
    #[serde(deserialize_with = "null_as_default")]
    metadata: Meta,
    #[serde(deserialize_with = "null_as_default")]
    spec: TemplateSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TemplateSpec {
    #[serde(deserialize_with = "null_as_default")]
    containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Container {
    #[serde(deserialize_with = "null_as_default")]
    image: String,
}

impl RawWorkload {
    fn into_workload(self, kind: Kind) -> Workload {
        let owner = self.metadata.controller().map(|owner| owner.name.clone());
        let images = self.spec.template.spec.containers.into_iter().map(|own| own.image);
        Workload {
            kind,
            namespace: self.metadata.namespace,
            name: self.metadata.name,
            labels: self.spec.template.metadata.labels,
            created: self.metadata.creation_timestamp,
            owner,
            is_empty: self.spec.replicas == Some(0),
            images: images.filter(|image| !image.is_empty()).collect(),
        }
    }
}
