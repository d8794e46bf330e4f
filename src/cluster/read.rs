use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::repair;
use super::resources::kind_of;
use crate::istio::{DestinationRule, Gateway, ServiceEntry, Timestamp, VirtualService};
use crate::world::{
    EndpointSlice, Kind, Namespace, Object, Pod, Service, ServicePort, SliceEndpoint, Workload,
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
        Kind::Gateway => Object::Gateway(Box::new(source.read::<Gateway>())),
        Kind::Service => Object::Service(source.read::<RawService>().into()),
        Kind::EndpointSlice => Object::EndpointSlice(source.read::<RawSlice>().into()),
        Kind::Pod => Object::Pod(source.read::<RawPod>().into()),
        Kind::Namespace => {
            let RawPod { metadata: Meta { name, labels, .. } } = source.read();
            Object::Namespace(Namespace { name, labels })
        }
        Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet | Kind::DaemonSet => {
            Object::Workload(source.read::<RawWorkload>().into_workload(kind))
        }
    };
    (!name(&object).1.is_empty()).then_some(object)
}

/// Namespace and name of an object; a Namespace has no namespace.
pub(super) fn name(object: &Object) -> (&str, &str) {
    match object {
        Object::VirtualService(object) => (&object.metadata.namespace, &object.metadata.name),
        Object::DestinationRule(object) => (&object.metadata.namespace, &object.metadata.name),
        Object::ServiceEntry(object) => (&object.metadata.namespace, &object.metadata.name),
        Object::Gateway(object) => (&object.metadata.namespace, &object.metadata.name),
        Object::Service(object) => (&object.namespace, &object.name),
        Object::EndpointSlice(object) => (&object.namespace, &object.name),
        Object::Pod(object) => (&object.namespace, &object.name),
        Object::Namespace(object) => ("", &object.name),
        Object::Workload(object) => (&object.namespace, &object.name),
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
    pub(super) creation_timestamp: Option<Timestamp>,
    pub(super) deletion_timestamp: Option<Timestamp>,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) owner_references: Vec<Owner>,
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
struct RawPod {
    #[serde(deserialize_with = "null_as_default")]
    metadata: Meta,
}

impl From<RawPod> for Pod {
    fn from(RawPod { metadata }: RawPod) -> Self {
        let is_controlled = metadata.controller().is_some();
        let Meta { name, namespace, labels, creation_timestamp: created, .. } = metadata;
        Self { namespace, name, labels, created, is_controlled }
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
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Port {
    #[serde(deserialize_with = "null_as_default")]
    port: i64,
    #[serde(deserialize_with = "null_as_default")]
    name: String,
}

impl From<RawService> for Service {
    fn from(RawService { metadata, spec }: RawService) -> Self {
        let ports =
            spec.ports.into_iter().map(|Port { port: number, name }| ServicePort { number, name });
        Self {
            namespace: metadata.namespace,
            name: metadata.name,
            selector: spec.selector,
            ports: ports.collect(),
            external_name: spec.external_name.filter(|_| spec.r#type == "ExternalName"),
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
    endpoints: Vec<RawEndpoint>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawEndpoint {
    #[serde(deserialize_with = "null_as_default")]
    conditions: Conditions,
    #[serde(deserialize_with = "null_as_default")]
    target_ref: Target,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
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
    fn from(RawSlice { mut metadata, address_type, endpoints }: RawSlice) -> Self {
        let endpoint = |RawEndpoint { conditions, target_ref }| SliceEndpoint {
            pod: Some(target_ref)
                .filter(|target: &Target| target.kind == "Pod" && !target.name.is_empty())
                .map(|target| target.name),
            // Istio asks for `ready` first, so one that is ready counts although it is terminating, as a Service with
            // `publishNotReadyAddresses` makes it (`endpointslice.go` `endpointHealthStatus`).
            ready: conditions.ready.unwrap_or(true),
        };
        Self {
            namespace: metadata.namespace,
            name: metadata.name,
            service: metadata.labels.remove(SERVICE_NAME).unwrap_or_default(),
            is_ipv6: address_type == "IPv6",
            endpoints: endpoints.into_iter().map(endpoint).collect(),
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
    template: RawPod,
}

impl RawWorkload {
    fn into_workload(self, kind: Kind) -> Workload {
        let owner = self.metadata.controller().map(|owner| owner.name.clone());
        Workload {
            kind,
            namespace: self.metadata.namespace,
            name: self.metadata.name,
            labels: self.spec.template.metadata.labels,
            created: self.metadata.creation_timestamp,
            owner,
            is_empty: self.spec.replicas == Some(0),
        }
    }
}
