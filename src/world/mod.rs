//! What the cluster holds, as far as a verdict needs it: small tables, fed one object at a time.
//!
//! Reading an object into the world cannot fail, deletes go by name, and every query answers from memory. Who feeds it
//! (watches, a live read, files) is not known here.

mod client;
mod delegates;
mod deliveries;
mod destination_rules;
mod discovery;
mod endpoints;
mod entries;
mod gateways;
mod history;
mod host_map;
mod labels;
mod listeners;
mod merged;
mod mesh;
mod nodes;
mod pods;
mod references;
mod remember;
mod routing;
mod selection;
mod selector;
mod services;
mod sidecars;
mod table;
mod virtual_services;
mod waypoints;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub use client::{ANY_NAMESPACE, Client};
pub use delegates::NoDelegate;
pub use deliveries::{Driver, Revision};
pub use destination_rules::{ChangedRules, Rules};
pub use endpoints::{EndpointGroup, Endpoints, GroupId, LabelledCount};
pub use history::{Memory, Recalled, Reign, Remembered, RouteHistory};
pub use listeners::Listener;
pub use merged::EffectiveRule;
pub use mesh::Mesh;
pub use nodes::Node;
pub use routing::{ChangedRouting, Routing};
pub use selector::{LabelSelector, Operator, Requirement, SelectorError};
pub use services::{EndpointSlice, HostKind, Service, ServicePort, SliceEndpoint};
pub use virtual_services::MESH;
pub use waypoints::INJECTED;
pub use workloads::{Age, Workload};

use crate::delivery::{Canary, Rollout};
use crate::istio::{
    DestinationRule, Gateway, ServiceEntry, Sidecar, Timestamp, VirtualService, Waypoint,
    WorkloadEntry,
};

/// The kinds of objects that the world is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `networking.istio.io` VirtualService.
    VirtualService,
    /// `networking.istio.io` DestinationRule.
    DestinationRule,
    /// `networking.istio.io` ServiceEntry.
    ServiceEntry,
    /// `networking.istio.io` WorkloadEntry.
    WorkloadEntry,
    /// `networking.istio.io` Gateway.
    Gateway,
    /// `gateway.networking.k8s.io` Gateway, which a waypoint is one of.
    Waypoint,
    /// `networking.istio.io` Sidecar: what proxies may call.
    Sidecar,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io` EndpointSlice.
    EndpointSlice,
    /// `v1` Pod: labels, Node, address, and whether it is ready.
    Pod,
    /// `v1` Node: labels only.
    Node,
    /// `v1` Namespace: labels only.
    Namespace,
    /// `apps` Deployment: age and template labels.
    Deployment,
    /// `apps` ReplicaSet: age and template labels.
    ReplicaSet,
    /// `apps` StatefulSet: age and template labels.
    StatefulSet,
    /// `apps` DaemonSet: age and template labels.
    DaemonSet,
    /// `flagger.app` Canary: what Flagger drives.
    Canary,
    /// `argoproj.io` Rollout: what Argo Rollouts drives.
    Rollout,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 18] = [
        Self::VirtualService,
        Self::DestinationRule,
        Self::ServiceEntry,
        Self::WorkloadEntry,
        Self::Gateway,
        Self::Waypoint,
        Self::Sidecar,
        Self::Service,
        Self::EndpointSlice,
        Self::Pod,
        Self::Node,
        Self::Namespace,
        Self::Deployment,
        Self::ReplicaSet,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::Canary,
        Self::Rollout,
    ];

    /// What messages and metrics call it: as `kind:` spells it, but for a waypoint, which calls itself a Gateway, too.
    pub fn name(self) -> &'static str {
        match self {
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::Gateway => "Gateway",
            Self::Waypoint => "Waypoint",
            Self::Sidecar => "Sidecar",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Canary => "Canary",
            Self::Rollout => "Rollout",
        }
    }
}

/// An object of the world, reduced to what a verdict reads.
#[derive(Debug, Clone)]
pub enum Object {
    /// See [`VirtualService`].
    VirtualService(Box<VirtualService>),
    /// See [`DestinationRule`].
    DestinationRule(Box<DestinationRule>),
    /// See [`ServiceEntry`].
    ServiceEntry(Box<ServiceEntry>),
    /// See [`WorkloadEntry`].
    WorkloadEntry(Box<WorkloadEntry>),
    /// See [`Gateway`].
    Gateway(Box<Gateway>),
    /// See [`Waypoint`].
    Waypoint(Box<Waypoint>),
    /// See [`Sidecar`].
    Sidecar(Box<Sidecar>),
    /// See [`Service`].
    Service(Service),
    /// See [`EndpointSlice`].
    EndpointSlice(EndpointSlice),
    /// See [`Pod`].
    Pod(Pod),
    /// See [`Node`].
    Node(Node),
    /// See [`Namespace`].
    Namespace(Namespace),
    /// See [`Workload`]; its kind is one of the four of `apps`.
    Workload(Workload),
    /// See [`Canary`].
    Canary(Box<Canary>),
    /// See [`Rollout`].
    Rollout(Box<Rollout>),
}

/// The parts of a Pod that a verdict reads; whether it is a ready endpoint of a Service, the EndpointSlices say.
#[derive(Debug, Clone, Default)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// Whether another object controls it; a Pod that nobody controls is a workload of its own.
    pub is_controlled: bool,
    /// What its status says; `None` where only its metadata was read, which changes nothing of what was known.
    pub status: Option<PodStatus>,
}

/// Where a Pod runs and whether it answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodStatus {
    /// `spec.nodeName`, empty before it is scheduled; `None` where nobody has said.
    pub node: Option<String>,
    /// `status.podIP`.
    pub ip: Option<IpAddr>,
    /// It has an address, runs, is ready and is not on its way out: what a ServiceEntry's `workloadSelector` asks of it.
    pub is_ready: bool,
}

/// The parts of a Namespace that a verdict reads.
#[derive(Debug, Clone, Default)]
pub struct Namespace {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
}

/// How much the world keeps, for metrics and for the proof that churn does not leak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Pods whose labels are known.
    pub pods: usize,
    /// Nodes, those of which only a Pod has told included.
    pub nodes: usize,
    /// Different localities.
    pub localities: usize,
    /// Pods that are kept, those of which only an EndpointSlice has told included.
    pub slots: usize,
    /// EndpointSlices.
    pub slices: usize,
    /// Different sets of labels.
    pub label_sets: usize,
    /// Different labels.
    pub label_pairs: usize,
}

/// What the cluster holds at one instant.
#[derive(Debug, Default)]
pub struct World {
    mesh: Mesh,
    listed: BTreeSet<Kind>,
    is_blank: bool,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    virtual_services: virtual_services::VirtualServices,
    delegates: delegates::Delegates,
    references: references::References,
    destination_rules: destination_rules::DestinationRules,
    entries: entries::Entries,
    nodes: nodes::Nodes,
    gateways: gateways::Gateways,
    waypoints: waypoints::Waypoints,
    sidecars: sidecars::Sidecars,
    services: services::Services,
    labels: labels::LabelSets,
    pods: pods::Pods,
    workloads: workloads::Workloads,
    deliveries: deliveries::Deliveries,
    history: history::History,
    unread: discovery::Unread,
}

impl World {
    /// An empty world of which nothing is known yet.
    pub fn new(mesh: Mesh) -> Self {
        Self { mesh, ..Self::default() }
    }

    /// A world that is known to hold nothing: every kind counts as listed.
    pub fn empty(mesh: Mesh) -> Self {
        Self { mesh, listed: Kind::ALL.into(), ..Self::default() }
    }

    /// No world at all: only what is written can be judged, and nothing counts as absent.
    pub fn blank(mesh: Mesh) -> Self {
        Self { is_blank: true, ..Self::empty(mesh) }
    }

    /// Whether nothing may be looked up here.
    pub fn is_blank(&self) -> bool {
        self.is_blank
    }

    /// The mesh-wide settings.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Changes the mesh-wide settings: names are completed, rules merged, and what istiod reads sorted out, anew.
    pub fn set_mesh(&mut self, mesh: Mesh) {
        let old = std::mem::replace(&mut self.mesh, mesh);
        if (&old.discovery_selectors, &old.revision)
            != (&self.mesh.discovery_selectors, &self.mesh.revision)
        {
            self.sift_all();
        }
        for object in self.virtual_services.take() {
            self.apply(Object::VirtualService(Box::new(object)));
        }
        for object in self.destination_rules.take() {
            self.apply(Object::DestinationRule(Box::new(object)));
        }
    }

    /// Whether all objects of `kind` have been seen; before that, absence means nothing.
    pub fn knows(&self, kind: Kind) -> bool {
        self.listed.contains(&kind)
    }

    /// Says that all objects of `kind` have been seen.
    pub fn set_listed(&mut self, kind: Kind) {
        self.listed.insert(kind);
    }

    /// Puts an object in, or replaces the one of the same kind, namespace and name.
    pub fn apply(&mut self, object: Object) {
        let Some(object) = self.sift(object) else { return };
        match object {
            Object::VirtualService(object) => {
                self.delegates.apply(&object);
                self.references.apply(&object, &self.mesh);
                let (old, new) = self.virtual_services.apply(*object, &self.mesh);
                self.remember(old.as_deref().map(|old| &old.object), &new.object);
            }
            Object::DestinationRule(object) => {
                let (turned, written) = (self.turned_by(&object), object.metadata.spec_written());
                self.destination_rules.apply(*object, &self.mesh);
                self.remember_turn(turned, written);
            }
            Object::ServiceEntry(object) => {
                self.entries.apply(*object, &mut self.labels, &mut self.nodes);
            }
            Object::WorkloadEntry(object) => {
                self.entries.apply_workload(&object, &mut self.labels, &mut self.nodes);
            }
            Object::Waypoint(object) => self.waypoints.apply(*object),
            Object::Service(object) => self.services.apply(object),
            Object::Gateway(object) => {
                let (pods, labels) = (&self.pods, &self.labels);
                let all = pods.iter().map(|(namespace, set)| (namespace, labels.map(set)));
                self.gateways.apply(*object, all);
            }
            Object::Sidecar(object) => self.sidecars.apply(*object),
            Object::EndpointSlice(object) => self.services.apply_slice(object, &mut self.pods),
            Object::Pod(object) => {
                self.forget_pod(&object.namespace, &object.name);
                self.gateways.add_pod(&object.namespace, &object.labels);
                let labels = object.labels.keys().map(String::as_str);
                self.waypoints.add_pod(&object.namespace, labels);
                self.pods.apply(&object, &mut self.labels, &mut self.nodes);
                self.workloads.apply_pod(object, &mut self.labels);
            }
            Object::Node(object) => self.nodes.apply(&object),
            Object::Namespace(Namespace { name, labels }) => {
                if self.namespaces.insert(name.clone(), labels.clone()) != Some(labels) {
                    self.sift_namespace(&name);
                }
            }
            Object::Workload(object) => self.workloads.apply(object, &mut self.labels),
            Object::Canary(object) => self.deliveries.apply_canary(*object),
            Object::Rollout(object) => self.deliveries.apply_rollout(*object),
        }
    }

    /// Takes an object out; one that is not there is no error. A Namespace and a Node have no namespace.
    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str) {
        self.unread.remove(kind, namespace, name);
        match kind {
            Kind::VirtualService => {
                self.delegates.delete(namespace, name);
                self.references.delete(namespace, name);
                if let Some(old) = self.virtual_services.delete(namespace, name) {
                    self.remember_last(&old.object);
                }
            }
            Kind::DestinationRule => self.destination_rules.delete(namespace, name, &self.mesh),
            Kind::ServiceEntry => {
                self.entries.delete(namespace, name, &mut self.labels, &mut self.nodes);
            }
            Kind::Gateway => self.gateways.delete(namespace, name),
            Kind::Waypoint => self.waypoints.delete(namespace, name),
            Kind::Sidecar => self.sidecars.delete(namespace, name),
            Kind::WorkloadEntry => {
                self.entries.delete_workload(namespace, name, &mut self.labels, &mut self.nodes);
            }
            Kind::Service => self.services.delete(namespace, name),
            Kind::EndpointSlice => self.services.delete_slice(namespace, name, &mut self.pods),
            Kind::Pod => {
                self.forget_pod(namespace, name);
                self.pods.delete(namespace, name, &mut self.labels, &mut self.nodes);
                self.workloads.delete(kind, namespace, name, &mut self.labels);
            }
            Kind::Node => self.nodes.delete(name),
            Kind::Namespace => {
                self.namespaces.remove(name);
                self.sift_namespace(name);
            }
            Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet | Kind::DaemonSet => {
                self.workloads.delete(kind, namespace, name, &mut self.labels);
            }
            Kind::Canary => self.deliveries.delete_canary(namespace, name),
            Kind::Rollout => self.deliveries.delete_rollout(namespace, name),
        }
    }

    /// Namespace (empty for Namespaces and Nodes) and name of every object of `kind`: what a relist compares itself with.
    pub fn names(&self, kind: Kind) -> Vec<(String, String)> {
        let mut names = self.unread.names(kind);
        names.extend(match kind {
            Kind::VirtualService => self.virtual_services.names(),
            Kind::DestinationRule => self.destination_rules.names(),
            Kind::ServiceEntry => self.entries.names(),
            Kind::WorkloadEntry => self.entries.workload_names(),
            Kind::Gateway => self.gateways.names(),
            Kind::Waypoint => self.waypoints.names(),
            Kind::Sidecar => self.sidecars.names(),
            Kind::Service => self.services.names(),
            Kind::EndpointSlice => self.services.slice_names(),
            Kind::Pod => self.pods.names(),
            Kind::Node => self.nodes.names(),
            Kind::Namespace => {
                self.namespaces.keys().map(|name| (String::new(), name.clone())).collect()
            }
            Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet | Kind::DaemonSet => {
                self.workloads.names(kind)
            }
            Kind::Canary => self.deliveries.canary_names(),
            Kind::Rollout => self.deliveries.rollout_names(),
        });
        names
    }

    /// What is counted of a Pod by its labels is no more.
    fn forget_pod(&mut self, namespace: &str, name: &str) {
        let Some(set) = self.pods.find(namespace, name) else { return };
        self.waypoints.remove_pod(namespace, self.labels.pairs(set).map(|(key, _)| key));
        if !self.gateways.select_nothing() {
            self.gateways.remove_pod(namespace, &self.labels.map(set));
        }
    }

    /// How much is kept.
    pub fn statistics(&self) -> Statistics {
        let (label_sets, label_pairs) = self.labels.sizes();
        let (pods, slots) = self.pods.sizes();
        let slices = self.services.slice_count();
        let (nodes, localities) = self.nodes.sizes();
        Statistics { pods, nodes, localities, slots, slices, label_sets, label_pairs }
    }

    /// The labels of a namespace; `None` where it is not known.
    pub fn namespace_labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(namespace)
    }

    /// The labels that the endpoints of a group carry themselves, in no order that means anything.
    pub fn labels(&self, group: GroupId) -> Vec<(&str, &str)> {
        group.labels.map(|set| self.labels.pairs(set).collect()).unwrap_or_default()
    }
}
