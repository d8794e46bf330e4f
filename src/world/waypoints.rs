//! Waypoints, and which hosts are reached through them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::host_map::HostMap;
use super::table::Table;
use super::{Client, HostKind, World};
use crate::istio::{Host, UseWaypoint, VirtualService, Waypoint};

/// The label that the injector gives every pod with a sidecar, and nobody gives another one.
///
/// Source: `manifests/charts/istio-control/istio-discovery/files/injection-template.yaml`.
pub const INJECTED: &str = "security.istio.io/tlsMode";

/// In a namespace with more Services than these a wildcard is looked at for these only.
const MOST_SERVICES: usize = 512;

/// Every Gateway of the Gateway API, and where pods with a sidecar run.
#[derive(Debug, Default)]
pub(super) struct Waypoints {
    objects: Table<Waypoint>,
    /// How many of them requests to Services may go through.
    serving: usize,
    /// How many pods with a sidecar a namespace has.
    injected: BTreeMap<String, usize>,
}

impl Waypoints {
    pub(super) fn apply(&mut self, object: Waypoint) {
        let (namespace, name) = (object.metadata.namespace.clone(), object.metadata.name.clone());
        self.delete(&namespace, &name);
        self.serving += usize::from(object.serves_services());
        self.objects.insert(&namespace, &name, object);
    }

    pub(super) fn delete(&mut self, namespace: &str, name: &str) {
        let old = self.objects.remove(namespace, name);
        self.serving -= usize::from(old.is_some_and(|old| old.serves_services()));
    }

    pub(super) fn names(&self) -> Vec<(String, String)> {
        self.objects.names()
    }

    /// Those of a namespace, in no order.
    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &Waypoint> {
        self.objects.of_namespace(namespace).map(|(_, own)| own)
    }

    /// A pod is there now.
    pub(super) fn add_pod<'a>(
        &mut self,
        namespace: &str,
        labels: impl IntoIterator<Item = &'a str>,
    ) {
        if !labels.into_iter().any(|key| key == INJECTED) {
            return;
        }
        match self.injected.get_mut(namespace) {
            Some(count) => *count += 1,
            None => drop(self.injected.insert(namespace.to_owned(), 1)),
        }
    }

    /// A pod is there no more.
    pub(super) fn remove_pod<'a>(
        &mut self,
        namespace: &str,
        labels: impl IntoIterator<Item = &'a str>,
    ) {
        if !labels.into_iter().any(|key| key == INJECTED) {
            return;
        }
        let Some(count) = self.injected.get_mut(namespace) else { return };
        *count -= 1;
        if *count == 0 {
            self.injected.remove(namespace);
        }
    }
}

impl Client {
    /// A waypoint. What is looked up for it does not depend on its labels.
    ///
    /// Source: `pilot/pkg/networking/core/cluster_waypoint.go` `buildWaypointInboundVIP` (a selector counts for outbound only).
    pub fn at(waypoint: &Waypoint) -> Self {
        let (namespace, name) = (&waypoint.metadata.namespace, &waypoint.metadata.name);
        Self { waypoint: Some(format!("{namespace}/{name}")), ..Self::in_namespace(namespace) }
    }
}

impl World {
    /// Whether requests to any Service may go through a waypoint.
    pub fn has_waypoints(&self) -> bool {
        self.waypoints.serving > 0
    }

    /// The waypoint through which clients in ambient mode reach `host`: the one that its Service or ServiceEntry names, or else
    /// its Namespace. Sidecars go through none.
    ///
    /// Source: `pilot/pkg/serviceregistry/ambient/waypoints.go` `fetchWaypointForService`.
    pub fn waypoint_of(&self, host: &Host) -> Option<&Waypoint> {
        if !self.has_waypoints() {
            return None;
        }
        let (namespace, own) = match self.host(host)? {
            HostKind::Service(service) => {
                (&service.namespace, Cow::Borrowed(&service.use_waypoint))
            }
            // `services.go` `serviceServiceBuilder`: ambient mode knows no Service of type ExternalName.
            HostKind::Alias(_) => return None,
            HostKind::ServiceEntry(entry) => {
                let own = UseWaypoint::of(&entry.metadata.labels);
                (&entry.metadata.namespace, Cow::Owned(own))
            }
        };
        let labels = self.namespaces.get(namespace);
        let said = match own.as_ref() {
            UseWaypoint::Unsaid => Cow::Owned(UseWaypoint::of(labels?)),
            _ => own,
        };
        let UseWaypoint::Named(name, at) = said.as_ref() else { return None };
        let at = at.as_deref().unwrap_or(namespace);
        let waypoint = self.waypoints.objects.get(at, name)?;
        (waypoint.serves_services() && waypoint.admits(namespace, labels)).then_some(waypoint)
    }

    /// What is reached through a waypoint of that which a VirtualService of `namespace` means by `hosts`, with the number of the
    /// host that means it, in their order: the host itself; of a wildcard the Services of that namespace, sorted, and of those no
    /// more than can be looked at.
    pub fn through_waypoints(
        &self,
        hosts: &[Host],
        namespace: &str,
    ) -> Vec<(usize, Host, &Waypoint)> {
        if !self.has_waypoints() {
            return Vec::new();
        }
        let mut wildcards = HostMap::default();
        let mut found = Vec::new();
        for (at, host) in hosts.iter().enumerate() {
            if host.as_str().starts_with('*') {
                wildcards.insert(host.as_str(), at);
            }
            found.extend(self.waypoint_of(host).map(|own| (at, host.clone(), own)));
        }
        if wildcards.is_empty() {
            return found;
        }
        let mut names = self.service_names(namespace).collect::<Vec<_>>();
        names.sort_unstable();
        for name in names.into_iter().take(MOST_SERVICES) {
            let called = Host::resolve(name, namespace, &self.mesh.domain);
            let Some(own) = self.waypoint_of(&called) else { continue };
            let covering = wildcards.covering(called.as_str());
            found.extend(covering.map(|(_, &at)| (at, called.clone(), own)));
        }
        found.sort_by_key(|(at, ..)| *at);
        found
    }

    /// Whether a waypoint has a cluster for `destination`: it serves it itself, or a VirtualService that names one of its hosts,
    /// `written` or another one, sends requests there. A wildcard names none.
    ///
    /// Source: `pilot/pkg/networking/core/waypoint.go` `filterWaypointOutboundServices`.
    pub fn is_led(
        &self,
        waypoint: &Client,
        destination: &Host,
        written: (&VirtualService, &str),
    ) -> bool {
        let serves =
            |host: &Host| self.waypoint_of(host).is_some_and(|own| Client::at(own) == *waypoint);
        let names = |object: &VirtualService, at: &str| {
            let hosts = object.spec.hosts.iter();
            let mut hosts = hosts.map(|host| Host::resolve(host, at, &self.mesh.domain));
            object.spec.is_for_mesh() && hosts.any(|host| serves(&host))
        };
        let sends = |(object, at): (&VirtualService, &str)| {
            let mut roots = self.roots_of(at, &object.metadata.name);
            names(object, at) || roots.any(|root| names(root, &root.metadata.namespace))
        };
        serves(destination) || sends(written) || {
            let mut others = self.users_of(destination).into_iter();
            others.any(|own| sends((own, &own.metadata.namespace)))
        }
    }

    /// Whether a pod with a sidecar is known to run in `namespace`; with [`super::ANY_NAMESPACE`], anywhere. Where other
    /// clusters belong to the mesh, one may run there.
    pub fn has_injected_pods(&self, namespace: &str) -> bool {
        let injected = &self.waypoints.injected;
        self.mesh.is_multi_cluster
            || match namespace {
                super::ANY_NAMESPACE => !injected.is_empty(),
                namespace => injected.contains_key(namespace),
            }
    }

    /// Whether the pods of a namespace are in ambient mode, as far as its label says.
    pub fn is_ambient(&self, namespace: &str) -> bool {
        let mode =
            self.namespaces.get(namespace).and_then(|own| own.get("istio.io/dataplane-mode"));
        mode.is_some_and(|mode| mode == "ambient")
    }
}
