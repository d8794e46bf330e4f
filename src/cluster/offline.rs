use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::files::Document;
use super::read::{self, Meta, null_as_default};
use super::repair;
use super::resources::kind_of;
use crate::world::{EndpointSlice, Kind, Mesh, Object, Pod, Service, SliceEndpoint, World};

/// More Pods than this one workload is never given: enough to count shares, too few to fill the memory.
const MOST_REPLICAS: i64 = 1000;

/// The world that these objects make up when a cluster has settled: every kind counts as listed, the template of a
/// workload stands for its Pods where none are given, and a Service has the endpoints that its selector finds.
///
/// An object without a namespace is in `default_namespace`. Of two with the same name the later one counts.
pub fn world(mesh: Mesh, documents: &[Document], default_namespace: &str) -> World {
    let mut world = World::empty(mesh);
    let mut cast = Cast::default();
    for document in documents {
        let mut value = document.value.clone();
        complete(&mut value, default_namespace);
        cast.see(&value);
        if let Some(object) = read::object(value) {
            world.apply(object);
        }
    }
    for pod in cast.stand_ins() {
        let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
        // A template speaks for its workload's age; its Pods are nobody's workload.
        let pod_object =
            Pod { labels: pod.labels.clone(), is_controlled: true, created: None, namespace, name };
        world.apply(Object::Pod(pod_object));
        cast.pods.insert((pod.namespace.clone(), pod.name.clone()), pod);
    }
    for slice in cast.slices() {
        world.apply(Object::EndpointSlice(slice));
    }
    world
}

/// Reads any object, in `default_namespace` where it names none; `None` as for [`read::object`].
pub fn object_in(mut value: Value, default_namespace: &str) -> Option<Object> {
    complete(&mut value, default_namespace);
    read::object(value)
}

/// Puts the default namespace where none is written.
fn complete(value: &mut Value, namespace: &str) {
    if value["kind"] == "Namespace" {
        return;
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        let own = metadata.entry("namespace").or_insert(Value::Null);
        if own.as_str().is_none_or(str::is_empty) {
            *own = Value::String(namespace.to_owned());
        }
    }
}

/// Who takes part: what decides which endpoints there are.
#[derive(Default)]
struct Cast {
    pods: BTreeMap<(String, String), GivenPod>,
    workloads: BTreeMap<(String, String, String), Workload>,
    services: BTreeMap<(String, String), Selecting>,
    /// Services that have an EndpointSlice of their own.
    sliced: BTreeSet<(String, String)>,
}

struct GivenPod {
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
    is_ready: bool,
    /// It ran to its end: no slice names it any more.
    is_over: bool,
}

struct Selecting {
    service: Service,
    publishes_unready: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Workload {
    #[serde(deserialize_with = "null_as_default")]
    metadata: Meta,
    #[serde(deserialize_with = "null_as_default")]
    spec: WorkloadSpec,
    #[serde(deserialize_with = "null_as_default")]
    status: WorkloadStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WorkloadSpec {
    replicas: Option<i64>,
    #[serde(deserialize_with = "null_as_default")]
    selector: Selector,
    #[serde(deserialize_with = "null_as_default")]
    template: Template,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    #[serde(deserialize_with = "null_as_default")]
    match_labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Template {
    #[serde(deserialize_with = "null_as_default")]
    metadata: Meta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WorkloadStatus {
    replicas: Option<i64>,
    ready_replicas: Option<i64>,
    /// A DaemonSet counts nodes.
    desired_number_scheduled: Option<i64>,
    number_ready: Option<i64>,
}

impl Workload {
    fn wanted(&self) -> i64 {
        self.spec.replicas.or(self.status.desired_number_scheduled).unwrap_or(1)
    }

    fn ready(&self) -> i64 {
        let status = &self.status;
        let counted = status.ready_replicas.or(status.number_ready);
        // A server leaves `readyReplicas` out where it is 0.
        let silent = status.replicas.is_some_and(|replicas| replicas > 0).then_some(0);
        counted.or(silent).unwrap_or_else(|| self.wanted())
    }

    /// By what a Pod is recognised as one of its own.
    fn selects(&self) -> &BTreeMap<String, String> {
        match &self.spec.selector.match_labels {
            labels if labels.is_empty() => &self.spec.template.metadata.labels,
            labels => labels,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodState {
    #[serde(deserialize_with = "null_as_default")]
    metadata: Meta,
    #[serde(deserialize_with = "null_as_default")]
    status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    #[serde(deserialize_with = "null_as_default")]
    phase: String,
    #[serde(deserialize_with = "null_as_default")]
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(deserialize_with = "null_as_default")]
    r#type: String,
    #[serde(deserialize_with = "null_as_default")]
    status: String,
}

impl From<PodState> for GivenPod {
    fn from(PodState { metadata, status }: PodState) -> Self {
        let is_over = matches!(status.phase.as_str(), "Succeeded" | "Failed");
        let unready = |own: &Condition| own.r#type == "Ready" && own.status != "True";
        let is_ready = !is_over
            && status.phase != "Pending"
            && metadata.deletion_timestamp.is_none()
            && !status.conditions.iter().any(unready);
        let Meta { name, namespace, labels, .. } = metadata;
        Self { namespace, name, labels, is_ready, is_over }
    }
}

fn carries(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl Cast {
    fn see(&mut self, value: &Value) {
        let text = |field: &str| value[field].as_str().unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if kind == "Rollout" && api_version.starts_with("argoproj.io/") {
            return self.see_workload(kind, value);
        }
        match kind_of(api_version, kind) {
            Some(Kind::Pod) => {
                let pod = GivenPod::from(repair::read::<PodState>(value.clone()));
                self.pods.insert((pod.namespace.clone(), pod.name.clone()), pod);
            }
            Some(Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet | Kind::DaemonSet) => {
                self.see_workload(kind, value);
            }
            Some(Kind::Service) => {
                let Some(Object::Service(service)) = read::object(value.clone()) else { return };
                let publishes_unready = value["spec"]["publishNotReadyAddresses"] == true;
                let key = (service.namespace.clone(), service.name.clone());
                self.services.insert(key, Selecting { service, publishes_unready });
            }
            Some(Kind::EndpointSlice) => {
                let Some(Object::EndpointSlice(slice)) = read::object(value.clone()) else {
                    return;
                };
                self.sliced.insert((slice.namespace, slice.service));
            }
            _ => {}
        }
    }

    fn see_workload(&mut self, kind: &str, value: &Value) {
        let workload = repair::read::<Workload>(value.clone());
        let metadata = &workload.metadata;
        let key = (metadata.namespace.clone(), kind.to_owned(), metadata.name.clone());
        self.workloads.insert(key, workload);
    }

    /// Whether the Pods of `workload` are told by another one: a ReplicaSet's by its Deployment, a Rollout's by its
    /// ReplicaSets, of which it has two at work in the middle of a release.
    fn is_told_elsewhere(&self, kind: &str, workload: &Workload) -> bool {
        let namespace = &workload.metadata.namespace;
        let deployment = |own: &Workload| {
            let owner = own.metadata.controller().filter(|owner| owner.kind == "Deployment")?;
            self.workloads.get(&(namespace.clone(), owner.kind.clone(), owner.name.clone()))
        };
        match kind {
            "ReplicaSet" => deployment(workload).is_some(),
            "Rollout" => self.workloads.iter().any(|((at, kind, _), own)| {
                let owner = own.metadata.controller();
                at == namespace
                    && kind == "ReplicaSet"
                    && owner.is_some_and(|owner| {
                        owner.kind == "Rollout" && owner.name == workload.metadata.name
                    })
            }),
            _ => false,
        }
    }

    fn pods_in(&self, namespace: &str) -> impl Iterator<Item = &GivenPod> {
        let from = (namespace.to_owned(), String::new());
        let here = self.pods.range(from..).map(|(_, pod)| pod);
        here.take_while(move |pod| pod.namespace == namespace)
    }

    /// The Pods that templates stand for.
    fn stand_ins(&self) -> Vec<GivenPod> {
        let mut pods = Vec::new();
        for ((namespace, kind, name), workload) in &self.workloads {
            let labels = &workload.spec.template.metadata.labels;
            let has_pods =
                self.pods_in(namespace).any(|pod| carries(&pod.labels, workload.selects()));
            if labels.is_empty() || has_pods || self.is_told_elsewhere(kind, workload) {
                continue;
            }
            let ready = workload.ready();
            let stand_in = |index| GivenPod {
                namespace: namespace.clone(),
                // No real name has a slash in it.
                name: format!("{kind}/{name}/{index}"),
                labels: labels.clone(),
                is_ready: index < ready,
                is_over: false,
            };
            pods.extend((0..workload.wanted().min(MOST_REPLICAS)).map(stand_in));
        }
        pods
    }

    /// The EndpointSlices that the endpoint controller would write.
    fn slices(&self) -> Vec<EndpointSlice> {
        let derived = self.services.iter().filter(|(key, own)| {
            let service = &own.service;
            !self.sliced.contains(key)
                && service.external_name.is_none()
                && !service.selector.is_empty()
        });
        let slice = |((namespace, name), own): (&(String, String), &Selecting)| {
            let selected = self
                .pods_in(namespace)
                .filter(|pod| !pod.is_over && carries(&pod.labels, &own.service.selector));
            let endpoint = |pod: &GivenPod| SliceEndpoint {
                pod: Some(pod.name.clone()),
                ready: pod.is_ready || own.publishes_unready,
            };
            EndpointSlice {
                namespace: namespace.clone(),
                name: format!("{name}-derived"),
                service: name.clone(),
                is_ipv6: false,
                endpoints: selected.map(endpoint).collect(),
            }
        };
        derived.map(slice).collect()
    }
}
