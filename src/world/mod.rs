//! What the cluster holds, as far as a verdict needs it: small tables, fed one object at a time.
//!
//! Reading an object into the world cannot fail, deletes go by name, and every query answers from memory. Who feeds it
//! (watches, a live read, files) is not known here.

mod client;
mod delegates;
mod destination_rules;
mod endpoints;
mod host_map;
mod labels;
mod merged;
mod mesh;
mod pods;
mod references;
mod services;
mod table;
mod virtual_services;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};

pub use client::{ANY_NAMESPACE, Client};
pub use delegates::NoDelegate;
pub use destination_rules::{ChangedRules, Rules};
pub use endpoints::{EndpointGroup, Endpoints, GroupId};
pub use merged::EffectiveRule;
pub use mesh::Mesh;
pub use services::{EndpointSlice, HostKind, Service, ServicePort, SliceEndpoint};
pub use workloads::{Age, Workload};

use crate::istio::{DestinationRule, ServiceEntry, Timestamp, VirtualService};

/// The kinds of objects that the world is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `networking.istio.io` VirtualService.
    VirtualService,
    /// `networking.istio.io` DestinationRule.
    DestinationRule,
    /// `networking.istio.io` ServiceEntry.
    ServiceEntry,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io` EndpointSlice.
    EndpointSlice,
    /// `v1` Pod: labels only.
    Pod,
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
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::VirtualService,
        Self::DestinationRule,
        Self::ServiceEntry,
        Self::Service,
        Self::EndpointSlice,
        Self::Pod,
        Self::Namespace,
        Self::Deployment,
        Self::ReplicaSet,
        Self::StatefulSet,
        Self::DaemonSet,
    ];

    /// The name as `kind:` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::ServiceEntry => "ServiceEntry",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::Namespace => "Namespace",
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
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
    /// See [`Service`].
    Service(Service),
    /// See [`EndpointSlice`].
    EndpointSlice(EndpointSlice),
    /// See [`Pod`].
    Pod(Pod),
    /// See [`Namespace`].
    Namespace(Namespace),
    /// See [`Workload`]; its kind is one of the four of `apps`.
    Workload(Workload),
}

/// The parts of a Pod that a verdict reads; whether it is ready, its EndpointSlices say.
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
    service_entries: table::Table<ServiceEntry>,
    services: services::Services,
    labels: labels::LabelSets,
    pods: pods::Pods,
    workloads: workloads::Workloads,
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
        match object {
            Object::VirtualService(object) => {
                self.delegates.apply(&object);
                self.references.apply(&object, &self.mesh);
                self.virtual_services.apply(*object, &self.mesh);
            }
            Object::DestinationRule(object) => self.destination_rules.apply(*object, &self.mesh),
            Object::ServiceEntry(object) => {
                let (namespace, name) =
                    (object.metadata.namespace.clone(), object.metadata.name.clone());
                self.service_entries.insert(&namespace, &name, *object);
            }
            Object::Service(object) => self.services.apply(object),
            Object::EndpointSlice(object) => {
                self.services.apply_slice(object, &mut self.pods, &mut self.labels)
            }
            Object::Pod(object) => {
                self.pods.apply(&object, &mut self.labels);
                self.workloads.apply_pod(object, &mut self.labels);
            }
            Object::Namespace(object) => {
                self.namespaces.insert(object.name, object.labels);
            }
            Object::Workload(object) => self.workloads.apply(object, &mut self.labels),
        }
    }

    /// Takes an object out; one that is not there is no error. A Namespace has no namespace.
    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str) {
        match kind {
            Kind::VirtualService => {
                self.delegates.delete(namespace, name);
                self.references.delete(namespace, name);
                self.virtual_services.delete(namespace, name);
            }
            Kind::DestinationRule => self.destination_rules.delete(namespace, name, &self.mesh),
            Kind::ServiceEntry => drop(self.service_entries.remove(namespace, name)),
            Kind::Service => self.services.delete(namespace, name),
            Kind::EndpointSlice => {
                self.services.delete_slice(namespace, name, &mut self.pods, &mut self.labels)
            }
            Kind::Pod => {
                self.pods.delete(namespace, name, &mut self.labels);
                self.workloads.delete(kind, namespace, name, &mut self.labels);
            }
            Kind::Namespace => drop(self.namespaces.remove(name)),
            Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet | Kind::DaemonSet => {
                self.workloads.delete(kind, namespace, name, &mut self.labels);
            }
        }
    }

    /// Namespace (empty for Namespaces) and name of every object of `kind`: what a relist compares itself with.
    pub fn names(&self, kind: Kind) -> Vec<(String, String)> {
        match kind {
            Kind::VirtualService => self.virtual_services.names(),
            Kind::DestinationRule => self.destination_rules.names(),
            Kind::ServiceEntry => self.service_entries.names(),
            Kind::Service => self.services.names(),
            Kind::EndpointSlice => self.services.slice_names(),
            Kind::Pod => self.pods.names(),
            Kind::Namespace => {
                self.namespaces.keys().map(|name| (String::new(), name.clone())).collect()
            }
            Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet | Kind::DaemonSet => {
                self.workloads.names(kind)
            }
        }
    }

    /// How much is kept.
    pub fn statistics(&self) -> Statistics {
        let (label_sets, label_pairs) = self.labels.sizes();
        let (pods, slots) = self.pods.sizes();
        let slices = self.services.slice_count();
        Statistics { pods, slots, slices, label_sets, label_pairs }
    }

    /// The labels of a namespace; `None` where it is not known.
    pub fn namespace_labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(namespace)
    }

    /// The labels of an interned set, sorted by key.
    pub fn labels(&self, group: GroupId) -> Vec<(&str, &str)> {
        match group {
            GroupId::Labels(set) => self.labels.pairs(set).collect(),
            GroupId::Listed { .. } => Vec::new(),
        }
    }
}
