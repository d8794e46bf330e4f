//! Services, their ports and their names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use super::pods::{PodSlot, Pods};
use super::table::Table;
use super::{Client, World};
use crate::istio::{Host, PortProtocol, ServiceEntry, Timestamp, UseWaypoint, host_covers};

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
    /// `clusterIP: None`: sidecars connect to the address that the client chose, so subsets and weights mean nothing to them.
    pub is_headless: bool,
    /// `internalTrafficPolicy: Local`: a client reaches only endpoints on its own node.
    pub is_node_local: bool,
    /// The annotation `networking.istio.io/exportTo`; empty means the mesh default, which is everywhere.
    pub export_to: Vec<String>,
    /// What its labels say of a waypoint.
    pub use_waypoint: UseWaypoint,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
}

/// One of a Service's ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// `port`.
    pub number: i64,
    /// `name`; empty where there is only one.
    pub name: String,
    /// `targetPort` where it is a name: a Pod or machine without a port of that name is no endpoint of this port.
    pub target: Option<String>,
    /// What it carries.
    pub protocol: PortProtocol,
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
    /// The names of `ports`, which are those of the Service's ports; empty for one without a name.
    pub ports: Vec<String>,
    /// `endpoints`, without those that are terminating: Istio does not even count them as unready.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One endpoint of an EndpointSlice.
#[derive(Debug, Clone, Default)]
pub struct SliceEndpoint {
    /// The Pod's name, where `targetRef` names one.
    pub pod: Option<String>,
    /// `addresses[0]`; matters where no Pod is named.
    pub address: Option<IpAddr>,
    /// Whether Istio sends it requests: `conditions.ready` is true or absent.
    pub ready: bool,
}

/// A slice as it is kept: Pods by number.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) is_ipv6: bool,
    pub(super) ports: Box<[String]>,
    /// Pods, and whether they are ready.
    pub(super) pods: Box<[(PodSlot, bool)]>,
    /// Addresses of which nobody says whose they are.
    pub(super) addresses: Box<[(IpAddr, bool)]>,
}

/// Services and their EndpointSlices.
#[derive(Debug, Default)]
pub(super) struct Services {
    services: Table<Service>,
    /// Slices by namespace and Service, then by slice name.
    slices: Table<HashMap<String, Slice>>,
    /// The Service of each slice.
    owners: Table<String>,
    /// Namespace and name of the Services of `type: ExternalName`, by the host that they stand for.
    aliases: HashMap<String, BTreeSet<(String, String)>>,
}

impl Services {
    pub(super) fn apply(&mut self, service: Service) {
        let (namespace, name) = (service.namespace.clone(), service.name.clone());
        self.delete(&namespace, &name);
        if let Some(target) = &service.external_name {
            let of_target = self.aliases.entry(target.clone()).or_default();
            of_target.insert((namespace.clone(), name.clone()));
        }
        self.services.insert(&namespace, &name, service);
    }

    pub(super) fn delete(&mut self, namespace: &str, name: &str) {
        let old = self.services.remove(namespace, name);
        let Some(target) = old.and_then(|old| old.external_name) else { return };
        let Some(of_target) = self.aliases.get_mut(&target) else { return };
        of_target.remove(&(namespace.to_owned(), name.to_owned()));
        if of_target.is_empty() {
            self.aliases.remove(&target);
        }
    }

    /// Namespace and name of the Services that stand for `host`, or for one that the wildcard `host` covers; in no order.
    pub(super) fn aliases_of<'a>(
        &'a self,
        host: &'a str,
    ) -> Box<dyn Iterator<Item = &'a (String, String)> + 'a> {
        if !host.starts_with('*') {
            return Box::new(self.aliases.get(host).into_iter().flatten());
        }
        let covered = self.aliases.iter().filter(move |(target, _)| host_covers(host, target));
        Box::new(covered.flat_map(|(_, names)| names))
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

    pub(super) fn apply_slice(&mut self, slice: EndpointSlice, pods: &mut Pods) {
        let EndpointSlice { namespace, name, service, is_ipv6, ports, endpoints } = slice;
        // First the new references, then the old ones away: Pods that stay keep their slot.
        let (mut named, mut addresses) = (Vec::new(), Vec::new());
        for SliceEndpoint { pod, address, ready } in endpoints {
            match (pod, address) {
                (Some(pod), _) => named.push((pods.refer(&namespace, &pod), ready)),
                (None, Some(address)) => addresses.push((address, ready)),
                // A host name; Istio takes none from a slice.
                (None, None) => {}
            }
        }
        pods.want(&namespace, addresses.iter().map(|(address, _)| *address));
        let kept = Slice {
            is_ipv6,
            ports: ports.into_boxed_slice(),
            pods: named.into_boxed_slice(),
            addresses: addresses.into_boxed_slice(),
        };
        self.delete_slice(&namespace, &name, pods);
        self.owners.insert(&namespace, &name, service.clone());
        match self.slices.get_mut(&namespace, &service) {
            Some(slices) => drop(slices.insert(name, kept)),
            None => drop(self.slices.insert(&namespace, &service, HashMap::from([(name, kept)]))),
        }
    }

    pub(super) fn delete_slice(&mut self, namespace: &str, name: &str, pods: &mut Pods) {
        let Some(service) = self.owners.remove(namespace, name) else { return };
        let Some(slices) = self.slices.get_mut(namespace, &service) else { return };
        if let Some(old) = slices.remove(name) {
            old.pods.iter().for_each(|(pod, _)| pods.release(*pod, namespace));
            pods.unwant(namespace, old.addresses.iter().map(|(address, _)| *address));
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

impl<'a> HostKind<'a> {
    /// The namespace of the object that makes it known.
    pub fn namespace(self) -> &'a str {
        match self {
            Self::Service(service) | Self::Alias(service) => &service.namespace,
            Self::ServiceEntry(entry) => &entry.metadata.namespace,
        }
    }
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

    /// What `host` is as a destination; `None` where no cluster of Envoy is called so. A Service wins over a ServiceEntry of the
    /// same name, and the oldest ServiceEntry over the others. A wildcard host is another name than those that it covers.
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
        let found = self.entries.of_host(host.as_str());
        found.into_iter().next().map(HostKind::ServiceEntry)
    }

    /// The host whose own routing serves requests for `host` where no VirtualService does: itself, or the wildcard of a
    /// ServiceEntry that covers it.
    pub fn plain_host(&self, host: &Host) -> Option<Host> {
        if self.host(host).is_some() {
            return Some(host.clone());
        }
        let wildcard = self.entries.wildcard_of(host.as_str())?;
        Some(Host::resolve(wildcard, "", &self.mesh.domain))
    }

    /// The host that a Service of `type: ExternalName` stands for: its clusters and DestinationRules are the ones that count.
    /// One step only, as `pilot/pkg/networking/core/route/route.go` `GetDestinationCluster` goes; `None` for any other host.
    pub fn alias_target(&self, host: &Host) -> Option<Host> {
        let Some(HostKind::Alias(service)) = self.host(host) else { return None };
        // A host name with a dot is taken as it is, and so is one without.
        service.external_name.as_deref().map(Host::literal)
    }

    /// The hosts of all ServiceEntries, in no order.
    pub fn service_entry_hosts(&self) -> impl Iterator<Item = &str> {
        self.entries.hosts()
    }

    /// The ServiceEntries that name `host`, the oldest first.
    pub fn service_entries(&self, host: &Host) -> Vec<&ServiceEntry> {
        self.entries.of_host(host.as_str())
    }

    /// Whether `host` is visible to `client`, as far as `exportTo` says: to one of its own namespace, to everybody, or to those
    /// that it names. A host that is not known hides nothing.
    ///
    /// Source: `pilot/pkg/model/push_context.go` `IsServiceVisible`.
    pub fn is_visible(&self, host: &Host, client: &Client) -> bool {
        match self.host(host) {
            Some(HostKind::ServiceEntry(_)) => {
                self.known_as(host).into_iter().any(|own| self.is_seen(own, client))
            }
            known => known.is_none_or(|own| self.is_seen(own, client)),
        }
    }

    /// Whether one of those that are called so is exported to `client`.
    pub(super) fn is_seen(&self, host: HostKind<'_>, client: &Client) -> bool {
        let namespace = host.namespace();
        let written = match host {
            HostKind::Service(service) | HostKind::Alias(service) => &service.export_to,
            HostKind::ServiceEntry(entry) => &entry.spec.export_to,
        };
        let default = &self.mesh.default_service_export_to;
        let export_to = if written.is_empty() { default } else { written };
        let names = |to: &String| {
            to == "*"
                || (to == "." && client.namespace == namespace)
                || (!client.namespace.is_empty() && *to == client.namespace)
        };
        export_to.is_empty() || export_to.iter().any(names)
    }

    /// Everything that is called so: a Service alone, or all ServiceEntries with that host.
    pub(super) fn known_as(&self, host: &Host) -> Vec<HostKind<'_>> {
        match self.host(host) {
            Some(HostKind::ServiceEntry(_)) => {
                let all = self.entries.of_host(host.as_str()).into_iter();
                all.map(HostKind::ServiceEntry).collect()
            }
            own => own.into_iter().collect(),
        }
    }

    /// Whether requests of `client` reach `host` where a VirtualService routes them there: what is visible to it, and, from a
    /// sidecar, also what stands in its own namespace and is exported only to others.
    ///
    /// Source: `pilot/pkg/model/sidecar.go` `collectImportedServices`: a destination's Service is taken from the sidecar's own
    /// namespace first, without asking whom it is exported to. A gateway has only what is visible.
    pub fn is_routable(&self, host: &Host, client: &Client) -> bool {
        let stands_there = || {
            let mut known = self.known_as(host).into_iter();
            known.any(|own| own.namespace() == client.namespace)
        };
        if client.waypoint.is_some()
            && self.waypoint_of(host).is_some_and(|own| Client::at(own) == *client)
        {
            return true;
        }
        self.is_visible(host, client) || (client.is_sidecar() && stands_there())
    }

    /// The namespace whose objects speak for `host`: a Service's own, or its ServiceEntry's.
    pub fn host_namespace<'a>(&'a self, host: &'a Host) -> Option<&'a str> {
        match self.host(host) {
            Some(known) => Some(known.namespace()),
            None => host.service(&self.mesh.domain).map(|(_, namespace)| namespace),
        }
    }
}
