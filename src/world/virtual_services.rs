//! VirtualServices by host, and who sees them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::host_map::HostMap;
use super::table::Table;
use super::{Client, Mesh, World};
use crate::istio::{Host, Timestamp, VirtualService, full_gateway, host_covers};

/// What `gateways` calls the sidecars.
pub const MESH: &str = "mesh";

/// VirtualServices, also by host.
#[derive(Debug, Default)]
pub(super) struct VirtualServices {
    objects: Table<Arc<Kept>>,
    /// By host in lower case; only those that have hosts and are of this revision. The oldest first.
    by_host: HostMap<Vec<Arc<Kept>>>,
    /// By gateway, `mesh` among them; only those that route connections.
    connecting: HashMap<String, BTreeMap<Age, Arc<Kept>>>,
}

/// The order in which Istio sorts them: by creation, name and namespace.
type Age = (Timestamp, String, String);

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) object: VirtualService,
    binding: Binding,
}

/// What a VirtualService is bound to, with names completed.
#[derive(Debug)]
pub(super) struct Binding {
    hosts: Vec<Host>,
    gateways: Vec<String>,
    export_to: ExportTo,
    is_in_revision: bool,
}

/// A VirtualService with its binding: one of the world, or one that a write would put there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound<'a> {
    pub(super) object: &'a VirtualService,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) binding: &'a Binding,
}

/// Who sees a VirtualService.
#[derive(Debug)]
enum ExportTo {
    Everybody,
    Nobody,
    Namespaces(BTreeSet<String>),
}

/// The order in which Istio tries the VirtualServices of a host: those for the client's own namespace only, those exported to it by
/// name, those for everybody; in each class the oldest first.
///
/// Source: `pilot/pkg/model/virtualservice.go` `SelectVirtualServices`, `push_context.go` `VirtualServicesForGateway`.
pub(super) type Turn<'a> = (Class, (Timestamp, &'a str, &'a str));

/// See [`Turn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Private,
    Exported,
    Public,
}

impl Binding {
    pub(super) fn of(object: &VirtualService, namespace: &str, mesh: &Mesh) -> Self {
        let spec = &object.spec;
        let hosts = spec.hosts.iter().map(|host| Host::resolve(host, namespace, &mesh.domain));
        let gateways = spec.gateways.iter().map(|gateway| full_gateway(gateway, namespace));
        let gateways =
            if spec.gateways.is_empty() { vec![MESH.to_owned()] } else { gateways.collect() };
        let to = if spec.export_to.is_empty() {
            &mesh.default_virtual_service_export_to
        } else {
            &spec.export_to
        };
        let named = |name: &str| to.iter().any(|to| to == name);
        // Source: `push_context.go` `initVirtualServices`; `.` was replaced by the namespace before.
        let export_to = if to.is_empty() || named("*") {
            ExportTo::Everybody
        } else if named("~") {
            ExportTo::Nobody
        } else {
            let to = to.iter().map(|to| if to == "." { namespace } else { to });
            ExportTo::Namespaces(to.map(str::to_owned).collect())
        };
        let is_in_revision = object.metadata.is_in_revision(&mesh.revision);
        Self { hosts: hosts.collect(), gateways, export_to, is_in_revision }
    }

    /// Under which hosts it is found: a VirtualService's hosts are compared in lower case (`route.go`
    /// `separateVSHostsAndServices`).
    pub(super) fn keys(&self) -> BTreeSet<String> {
        self.hosts.iter().map(|host| host.as_str().to_lowercase()).collect()
    }

    /// Whether it names exactly this host, in this case.
    pub(super) fn names(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| own.as_str() == host)
    }

    /// Whether one of its hosts, in this case, is this one or a wildcard for it.
    pub(super) fn covers(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| host_covers(own.as_str(), host))
    }

    /// Whether one of its hosts, in this case, and one of `others` have names in common.
    pub(super) fn meets<'a>(&self, mut others: impl Iterator<Item = &'a str>) -> bool {
        others.any(|other| {
            let mut own = self.hosts.iter().map(Host::as_str);
            own.any(|own| host_covers(own, other) || host_covers(other, own))
        })
    }

    /// The full names of its hosts, with their case.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter()
    }

    /// Whether it is bound to this gateway.
    pub(super) fn is_bound_to(&self, gateway: &str) -> bool {
        self.gateways.iter().any(|own| own == gateway)
    }
}

/// Whether it has a list for connections.
pub(super) fn routes_connections(object: &VirtualService) -> bool {
    !(object.spec.tcp.is_empty() && object.spec.tls.is_empty())
}

impl Kept {
    fn age(&self) -> Age {
        let metadata = &self.object.metadata;
        let (created, ..) = metadata.by_age();
        (created, metadata.name.clone(), metadata.namespace.clone())
    }

    fn bound(&self) -> Bound<'_> {
        let (namespace, name) = (&self.object.metadata.namespace, &self.object.metadata.name);
        Bound { object: &self.object, namespace, name, binding: &self.binding }
    }
}

impl<'a> Bound<'a> {
    /// When it is this one's turn for `client`; `None` where the client does not see it.
    pub(super) fn turn(self, client: &Client) -> Option<Turn<'a>> {
        let gateway = client.gateway.as_deref().unwrap_or(MESH);
        let Binding { export_to, is_in_revision, .. } = self.binding;
        if !is_in_revision || !self.binding.is_bound_to(gateway) {
            return None;
        }
        let class = match export_to {
            ExportTo::Everybody => Class::Public,
            ExportTo::Namespaces(to) if to.contains(&client.namespace) => {
                if client.namespace == self.namespace { Class::Private } else { Class::Exported }
            }
            ExportTo::Namespaces(_) | ExportTo::Nobody => return None,
        };
        let (created, ..) = self.object.metadata.by_age();
        Some((class, (created, self.name, self.namespace)))
    }

    pub(super) fn is(self, namespace: &str, name: &str) -> bool {
        self.name == name && self.namespace == namespace
    }
}

impl VirtualServices {
    /// Puts one in; gives back the one whose place it takes, and itself.
    pub(super) fn apply(
        &mut self,
        object: VirtualService,
        mesh: &Mesh,
    ) -> (Option<Arc<Kept>>, Arc<Kept>) {
        let (namespace, name) = (object.metadata.namespace.clone(), object.metadata.name.clone());
        let old = self.delete(&namespace, &name);
        let binding = Binding::of(&object, &namespace, mesh);
        let kept = Arc::new(Kept { object, binding });
        self.objects.insert(&namespace, &name, Arc::clone(&kept));
        if !kept.binding.is_in_revision {
            return (old, kept);
        }
        for host in kept.binding.keys() {
            let Some(named) = self.by_host.get_mut(&host) else {
                self.by_host.insert(&host, vec![Arc::clone(&kept)]);
                continue;
            };
            let age = kept.object.metadata.by_age();
            let at = named.partition_point(|own| own.object.metadata.by_age() < age);
            named.insert(at, Arc::clone(&kept));
        }
        if routes_connections(&kept.object) {
            for gateway in &kept.binding.gateways {
                let of_gateway = self.connecting.entry(gateway.clone()).or_default();
                of_gateway.insert(kept.age(), Arc::clone(&kept));
            }
        }
        (old, kept)
    }

    pub(super) fn delete(&mut self, namespace: &str, name: &str) -> Option<Arc<Kept>> {
        let object = self.objects.remove(namespace, name)?;
        for host in object.binding.keys() {
            let Some(named) = self.by_host.get_mut(&host) else { continue };
            named.retain(|own| !own.bound().is(namespace, name));
            if named.is_empty() {
                self.by_host.remove(&host);
            }
        }
        for gateway in &object.binding.gateways {
            let Some(of_gateway) = self.connecting.get_mut(gateway) else { continue };
            of_gateway.remove(&object.age());
            if of_gateway.is_empty() {
                self.connecting.remove(gateway);
            }
        }
        Some(object)
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &VirtualService> {
        self.objects.iter().map(|kept| &kept.object)
    }

    /// Those that are bound to this gateway and route connections, the oldest first.
    pub(super) fn connecting(&self, gateway: &str) -> impl Iterator<Item = Bound<'_>> {
        let of_gateway = self.connecting.get(gateway).into_iter();
        of_gateway.flat_map(BTreeMap::values).map(|kept| kept.bound())
    }

    /// All of them; nothing is left here.
    pub(super) fn take(&mut self) -> Vec<VirtualService> {
        let all = std::mem::take(self);
        all.objects.iter().map(|kept| kept.object.clone()).collect()
    }

    /// Those of one namespace, in no order.
    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &VirtualService> {
        self.objects.of_namespace(namespace).map(|(_, kept)| &kept.object)
    }

    pub(super) fn names(&self) -> Vec<(String, String)> {
        self.objects.names()
    }

    /// The VirtualServices of `host` (in lower case) and of the wildcards that cover it, as [`HostMap::covering`] ranks them.
    pub(super) fn covering<'a, 'h>(
        &'a self,
        host: &'h str,
    ) -> impl Iterator<Item = (usize, Bound<'a>)> + use<'a, 'h> {
        let keys = self.by_host.covering(host);
        keys.flat_map(|(rank, named)| named.iter().map(move |kept| (rank, kept.bound())))
    }
}

impl World {
    /// The VirtualService `name` of `namespace`; one of another revision does not exist for Istio.
    pub fn virtual_service(&self, namespace: &str, name: &str) -> Option<&VirtualService> {
        let kept = self.virtual_services.objects.get(namespace, name)?;
        kept.binding.is_in_revision.then_some(&kept.object)
    }
}
