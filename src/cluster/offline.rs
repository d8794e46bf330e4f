//! A world from files: what a cluster would have made of them, such as the Pods of a Deployment.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::files::Document;
use super::read::{self, Condition, Meta, null_as_default};
use super::repair;
use super::resources::kind_of;
use crate::world::{
    EndpointSlice, INJECTED, Kind, Mesh, Object, Pod, PodStatus, Service, ServicePort,
    SliceEndpoint, World,
};

/// More Pods than this one workload is never given: enough to count shares, too few to fill the memory.
const MOST_REPLICAS: i64 = 1000;

/// The world that these objects make up when a cluster has settled: every kind counts as listed, the template of a
/// workload stands for its Pods where none are given, and a Service has the endpoints that its selector finds.
///
/// An object without a namespace is in `default_namespace`. Of two with the same name the later one counts. Namespaces count as
/// listed unless labels decide which of them istiod reads and those of one that holds something are missing.
pub fn world(mesh: Mesh, documents: &[Document], default_namespace: &str) -> World {
    let mut world = World::new(mesh);
    // Files seldom hold the Nodes, and then nobody knows where the Pods are.
    let has_nodes = documents.iter().any(|own| own.value["kind"] == Kind::Node.name());
    let mut cast = Cast { has_nodes, ..Cast::default() };
    for document in documents {
        let mut value = document.value.clone();
        complete(&mut value, default_namespace);
        cast.see(&value);
        match read::object(value) {
            Some(Object::Pod(pod)) => world.apply(Object::Pod(cast.settled(pod))),
            Some(Object::Namespace(mut namespace)) => {
                // The API server puts it on every one.
                let label = "kubernetes.io/metadata.name".to_owned();
                namespace.labels.insert(label, namespace.name.clone());
                world.apply(Object::Namespace(namespace));
            }
            // Nobody writes the status of what is to be made.
            Some(Object::Waypoint(mut waypoint)) if document.value.get("status").is_none() => {
                waypoint.set_ready();
                world.apply(Object::Waypoint(waypoint));
            }
            Some(object) => world.apply(object),
            None => {}
        }
    }
    for pod in cast.stand_ins() {
        let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
        let mut labels = pod.labels.clone();
        if is_injected(&world, &pod) {
            labels.insert(INJECTED.to_owned(), "istio".to_owned());
        }
        // A template speaks for its workload's age; its Pods are nobody's workload.
        world.apply(Object::Pod(Pod {
            labels,
            is_controlled: true,
            status: Some(PodStatus { is_ready: pod.is_ready, ..PodStatus::default() }),
            namespace,
            name,
            ..Pod::default()
        }));
        cast.pods.insert((pod.namespace.clone(), pod.name.clone()), pod);
    }
    for slice in cast.slices() {
        world.apply(Object::EndpointSlice(slice));
    }
    // Files that do not say which labels a namespace has leave open whether istiod reads it.
    let is_described = world.undescribed_namespaces().is_empty();
    let known = Kind::ALL.into_iter().filter(|&kind| is_described || kind != Kind::Namespace);
    known.for_each(|kind| world.set_listed(kind));
    world
}

/// Whether Istio's injector gives a Pod of a template a sidecar, as far as labels say.
///
/// Source: `manifests/charts/istio-control/istio-discovery/templates/mutatingwebhook.yaml`.
fn is_injected(world: &World, pod: &GivenPod) -> bool {
    let labels = world.namespace_labels(&pod.namespace);
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    let is_told = match label("istio-injection") {
        Some(value) => value == "enabled",
        None => label("istio.io/rev").is_some(),
    };
    match pod.labels.get("sidecar.istio.io/inject").map(String::as_str) {
        Some("true") => true,
        Some(_) => false,
        None => is_told,
    }
}

/// Reads any object, in `default_namespace` where it names none; `None` as for [`read::object`].
pub fn object_in(mut value: Value, default_namespace: &str) -> Option<Object> {
    complete(&mut value, default_namespace);
    read::object(value)
}

/// Puts the default namespace where none is written.
fn complete(value: &mut Value, namespace: &str) {
    if value["kind"] == "Namespace" || value["kind"] == "Node" {
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
    has_nodes: bool,
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
    /// It has been deleted and still shuts down: no endpoint unless the Service wants unready ones, too.
    is_leaving: bool,
    /// The names of its containers' ports; `None` where no container is written.
    ports: Option<BTreeSet<String>>,
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
    #[serde(deserialize_with = "null_as_default")]
    spec: PodSpec,
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
    spec: PodSpec,
    #[serde(deserialize_with = "null_as_default")]
    status: RawPodStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodSpec {
    #[serde(deserialize_with = "null_as_default")]
    containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Container {
    #[serde(deserialize_with = "null_as_default")]
    ports: Vec<ContainerPort>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerPort {
    #[serde(deserialize_with = "null_as_default")]
    name: String,
}

impl PodSpec {
    fn ports(&self) -> Option<BTreeSet<String>> {
        let is_written = !self.containers.is_empty();
        let ports = self.containers.iter().flat_map(|own| &own.ports).map(|port| port.name.clone());
        is_written.then(|| ports.collect())
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawPodStatus {
    #[serde(deserialize_with = "null_as_default")]
    phase: String,
    #[serde(deserialize_with = "null_as_default")]
    conditions: Vec<Condition>,
}

impl From<PodState> for GivenPod {
    fn from(PodState { metadata, spec, status }: PodState) -> Self {
        let is_over = matches!(status.phase.as_str(), "Succeeded" | "Failed");
        let is_leaving = metadata.deletion_timestamp.is_some();
        let unready = |own: &Condition| own.r#type == "Ready" && own.status != "True";
        let is_ready = !is_over
            && status.phase != "Pending"
            && !is_leaving
            && !status.conditions.iter().any(unready);
        let Meta { name, namespace, labels, .. } = metadata;
        Self { namespace, name, labels, is_ready, is_over, is_leaving, ports: spec.ports() }
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

    /// A given Pod in a cluster that has settled: where nothing is said about its state it is ready.
    fn settled(&self, mut pod: Pod) -> Pod {
        let key = (pod.namespace.clone(), pod.name.clone());
        let status = pod.status.get_or_insert_default();
        status.node = status.node.take().filter(|_| self.has_nodes);
        status.is_ready = self.pods.get(&key).is_some_and(|own| own.is_ready);
        pod
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
            let ports = workload.spec.template.spec.ports();
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
                is_leaving: false,
                ports: ports.clone(),
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
        derived.flat_map(|((namespace, name), own)| self.slices_of(namespace, name, own)).collect()
    }

    /// Pods that lack a named port stand in a slice without it.
    fn slices_of(&self, namespace: &str, name: &str, own: &Selecting) -> Vec<EndpointSlice> {
        let mut by_ports: BTreeMap<Vec<String>, Vec<SliceEndpoint>> = BTreeMap::new();
        let selected = self
            .pods_in(namespace)
            .filter(|pod| !pod.is_over && carries(&pod.labels, &own.service.selector))
            .filter(|pod| !pod.is_leaving || own.publishes_unready);
        for pod in selected {
            let has = |target: &String| pod.ports.as_ref().is_none_or(|own| own.contains(target));
            let serves = |port: &&ServicePort| port.target.as_ref().is_none_or(has);
            let ports = own.service.ports.iter().filter(serves).map(|port| port.name.clone());
            by_ports.entry(ports.collect()).or_default().push(SliceEndpoint {
                pod: Some(pod.name.clone()),
                address: None,
                ready: pod.is_ready || own.publishes_unready,
            });
        }
        let slice = |(at, (ports, endpoints))| EndpointSlice {
            namespace: namespace.to_owned(),
            name: format!("{name}-derived-{at}"),
            service: name.to_owned(),
            is_ipv6: false,
            ports,
            endpoints,
        };
        by_ports.into_iter().enumerate().map(slice).collect()
    }
}
