use std::collections::{BTreeMap, HashMap};

use super::labels::LabelSets;
use super::pods::{PodSlot, Pods};
use super::table::Table;
use super::{World, endpoints};
use crate::istio::{Host, ServiceEntry, host_covers};

/// The parts of a Service that a verdict reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `spec.selector`; empty where somebody else writes the EndpointSlices.
    pub selector: BTreeMap<String, String>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.externalName`, for `type: ExternalName` only.
    pub external_name: Option<String>,
}

/// One of a Service's ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// `port`.
    pub number: i64,
    /// `name`; empty where there is only one.
    pub name: String,
}

/// The parts of an EndpointSlice that a verdict reads.
#[derive(Debug, Clone, Default)]
pub struct EndpointSlice {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// The label `kubernetes.io/service-name`.
    pub service: String,
    /// `addressType: IPv6`; the same Pod is then listed a second time in an IPv4 slice of a dual-stack Service.
    pub is_ipv6: bool,
    /// `endpoints`.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One endpoint of an EndpointSlice.
#[derive(Debug, Clone, Default)]
pub struct SliceEndpoint {
    /// The Pod's name, where `targetRef` names one.
    pub pod: Option<String>,
    /// Whether Istio sends it requests: `conditions.ready` is true or absent.
    pub ready: bool,
}

/// A slice as it is kept: Pods by number.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) is_ipv6: bool,
    pub(super) endpoints: Vec<(Option<PodSlot>, bool)>,
}

/// Services and their EndpointSlices.
#[derive(Debug, Default)]
pub(super) struct Services {
    services: Table<Service>,
    /// Slices by namespace and Service, then by slice name.
    slices: Table<HashMap<String, Slice>>,
    /// The Service of each slice.
    owners: Table<String>,
}

impl Services {
    pub(super) fn apply(&mut self, service: Service) {
        let (namespace, name) = (service.namespace.clone(), service.name.clone());
        self.services.insert(&namespace, &name, service);
    }

    pub(super) fn delete(&mut self, namespace: &str, name: &str) {
        self.services.remove(namespace, name);
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(namespace, name)
    }

    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &Service> {
        self.services.of_namespace(namespace).map(|(_, service)| service)
    }

    pub(super) fn names(&self) -> Vec<(String, String)> {
        self.services.names()
    }

    pub(super) fn slice_names(&self) -> Vec<(String, String)> {
        self.owners.names()
    }

    pub(super) fn slice_count(&self) -> usize {
        self.owners.iter().count()
    }

    pub(super) fn slices(
        &self,
        namespace: &str,
        service: &str,
    ) -> impl Iterator<Item = &Slice> + Clone {
        self.slices.get(namespace, service).into_iter().flat_map(HashMap::values)
    }

    pub(super) fn apply_slice(
        &mut self,
        slice: EndpointSlice,
        pods: &mut Pods,
        labels: &mut LabelSets,
    ) {
        let EndpointSlice { namespace, name, service, is_ipv6, endpoints } = slice;
        // First the new references, then the old ones away: Pods that stay keep their slot.
        let kept = endpoints.iter().map(|endpoint| {
            (endpoint.pod.as_deref().map(|pod| pods.refer(&namespace, pod)), endpoint.ready)
        });
        let kept = Slice { is_ipv6, endpoints: kept.collect() };
        self.delete_slice(&namespace, &name, pods, labels);
        self.owners.insert(&namespace, &name, service.clone());
        match self.slices.get_mut(&namespace, &service) {
            Some(slices) => drop(slices.insert(name, kept)),
            None => drop(self.slices.insert(&namespace, &service, HashMap::from([(name, kept)]))),
        }
    }

    pub(super) fn delete_slice(
        &mut self,
        namespace: &str,
        name: &str,
        pods: &mut Pods,
        _labels: &mut LabelSets,
    ) {
        let Some(service) = self.owners.remove(namespace, name) else { return };
        let Some(slices) = self.slices.get_mut(namespace, &service) else { return };
        for (pod, _) in slices.remove(name).into_iter().flat_map(|slice| slice.endpoints) {
            if let Some(pod) = pod {
                pods.release(pod, namespace);
            }
        }
        if slices.is_empty() {
            self.slices.remove(namespace, &service);
        }
    }
}

/// What a host is, as far as the world knows.
#[derive(Debug, Clone, Copy)]
pub enum HostKind<'a> {
    /// A Kubernetes Service with endpoints of its own.
    Service(&'a Service),
    /// A Service that is only another name (`type: ExternalName`).
    Alias(&'a Service),
    /// A host that a ServiceEntry adds.
    ServiceEntry(&'a ServiceEntry),
}

impl World {
    /// The Service `name` of `namespace`.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(namespace, name)
    }

    /// The names of the EndpointSlices of a Service, in no order.
    pub fn slice_names(&self, namespace: &str, service: &str) -> impl Iterator<Item = &str> {
        let slices = self.services.slices.get(namespace, service);
        slices.into_iter().flat_map(HashMap::keys).map(String::as_str)
    }

    /// The names of the Services of `namespace`, in no order.
    pub fn service_names(&self, namespace: &str) -> impl Iterator<Item = &str> {
        self.services.of_namespace(namespace).map(|service| service.name.as_str())
    }

    /// The namespaces that have a Service called `name`, sorted.
    pub fn namespaces_with_service(&self, name: &str) -> Vec<String> {
        let own = self.services.services.iter().filter(|service| service.name == name);
        let mut namespaces = own.map(|service| service.namespace.clone()).collect::<Vec<_>>();
        namespaces.sort();
        namespaces
    }

    /// What `host` is; `None` where nobody serves it. A Service wins over a ServiceEntry of the same name.
    pub fn host(&self, host: &Host) -> Option<HostKind<'_>> {
        if let Some((name, namespace)) = host.service(&self.mesh.domain)
            && let Some(service) = self.services.get(namespace, name)
        {
            let is_alias = service.external_name.is_some();
            return Some(if is_alias {
                HostKind::Alias(service)
            } else {
                HostKind::Service(service)
            });
        }
        let covers = |entry: &&ServiceEntry| {
            entry.spec.hosts.iter().any(|own| host_covers(own, host.as_str()))
        };
        let exact = |entry: &&ServiceEntry| entry.spec.hosts.iter().any(|own| own == host.as_str());
        let best = self
            .service_entries
            .iter()
            .filter(exact)
            .min_by_key(|entry| &entry.metadata.creation_timestamp);
        let best = best.or_else(|| {
            self.service_entries.iter().filter(covers).min_by_key(|entry| &entry.metadata.name)
        });
        best.map(HostKind::ServiceEntry)
    }

    /// The hosts of all ServiceEntries, in no order.
    pub fn service_entry_hosts(&self) -> impl Iterator<Item = &str> {
        self.service_entries.iter().flat_map(|entry| entry.spec.hosts.iter().map(String::as_str))
    }

    /// The namespace whose objects speak for `host`: a Service's own, or its ServiceEntry's.
    pub fn host_namespace<'a>(&'a self, host: &'a Host) -> Option<&'a str> {
        match self.host(host) {
            Some(HostKind::ServiceEntry(entry)) => Some(&entry.metadata.namespace),
            Some(HostKind::Service(service) | HostKind::Alias(service)) => Some(&service.namespace),
            None => host.service(&self.mesh.domain).map(|(_, namespace)| namespace),
        }
    }

    /// The endpoints of `host`; `None` where Kubernetes does not know them: an alias, DNS, a selector over virtual machines.
    pub fn endpoints(&self, host: &Host) -> Option<endpoints::Endpoints> {
        match self.host(host)? {
            HostKind::Service(service) => {
                let slices = self.services.slices(&service.namespace, &service.name);
                Some(endpoints::of_slices(slices, &self.pods))
            }
            HostKind::Alias(_) => None,
            HostKind::ServiceEntry(entry) => endpoints::of_service_entry(entry),
        }
    }
}
