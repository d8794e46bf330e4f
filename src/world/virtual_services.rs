use std::collections::HashMap;

use super::table::Table;
use super::{Mesh, World};
use crate::istio::{Host, VirtualService, full_gateway};

/// VirtualServices, also by host.
#[derive(Debug, Default)]
pub(super) struct VirtualServices {
    objects: Table<Kept>,
    by_host: HashMap<Host, Vec<(String, String)>>,
}

#[derive(Debug)]
struct Kept {
    object: VirtualService,
    hosts: Vec<Host>,
}

impl VirtualServices {
    pub(super) fn apply(&mut self, object: VirtualService, mesh: &Mesh) {
        let (namespace, name) = (object.metadata.namespace.clone(), object.metadata.name.clone());
        self.delete(&namespace, &name);
        let hosts =
            object.spec.hosts.iter().map(|host| Host::resolve(host, &namespace, &mesh.domain));
        let hosts = hosts.collect::<Vec<_>>();
        for host in &hosts {
            self.by_host.entry(host.clone()).or_default().push((namespace.clone(), name.clone()));
        }
        self.objects.insert(&namespace, &name, Kept { object, hosts });
    }

    pub(super) fn delete(&mut self, namespace: &str, name: &str) {
        let Some(object) = self.objects.remove(namespace, name) else { return };
        for host in object.hosts {
            let Some(named) = self.by_host.get_mut(&host) else { continue };
            named.retain(|(at, own)| at != namespace || own != name);
            if named.is_empty() {
                self.by_host.remove(&host);
            }
        }
    }

    pub(super) fn names(&self) -> Vec<(String, String)> {
        self.objects.names()
    }
}

impl World {
    /// The VirtualService `name` of `namespace`.
    pub fn virtual_service(&self, namespace: &str, name: &str) -> Option<&VirtualService> {
        self.virtual_services.objects.get(namespace, name).map(|kept| &kept.object)
    }

    /// The VirtualService in force for `host` at `gateway` (`mesh` for clients in the mesh), leaving out the one that is
    /// under review: private ones first, then the oldest.
    ///
    /// Source: `pilot/pkg/model/push_context.go` `initVirtualServices` (order), `httproute.go` (the first one wins).
    pub fn in_force(
        &self,
        host: &Host,
        gateway: &str,
        except: (&str, &str),
    ) -> Option<&VirtualService> {
        let named = self.virtual_services.by_host.get(host)?.iter();
        let others =
            named.filter(|(namespace, name)| (namespace.as_str(), name.as_str()) != except);
        let objects = others.filter_map(|(namespace, name)| self.virtual_service(namespace, name));
        let seen = objects.filter(|object| {
            // A private one is in force only for its own namespace, which is where the host's own VirtualService lives.
            let to = &object.spec.export_to;
            to.is_empty()
                || object.metadata.namespace == except.0
                || to.iter().any(|to| to == "*" || to == except.0)
        });
        let bound = seen.filter(|object| match gateway {
            "mesh" => object.spec.is_for_mesh(),
            gateway => object
                .spec
                .gateways
                .iter()
                .any(|own| full_gateway(own, &object.metadata.namespace) == gateway),
        });
        bound.min_by_key(|object| {
            let metadata = &object.metadata;
            let is_public = object.spec.export_to.is_empty()
                || object.spec.export_to.iter().any(|to| to == "*");
            (is_public, metadata.creation_timestamp, &metadata.name, &metadata.namespace)
        })
    }
}
