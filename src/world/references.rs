//! Which VirtualServices send requests to a host.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Mesh, World};
use crate::istio::{Host, Protocol, VirtualService, host_covers};

/// Namespace and name of an object.
type Name = (String, String);

/// Which VirtualServices send requests where, so that a DestinationRule finds those who use it.
#[derive(Debug, Default)]
pub(super) struct References {
    by_destination: HashMap<Host, BTreeSet<Name>>,
    destinations: HashMap<Name, BTreeSet<Host>>,
}

impl References {
    pub(super) fn apply(&mut self, object: &VirtualService, mesh: &Mesh) {
        let name = (object.metadata.namespace.clone(), object.metadata.name.clone());
        self.delete(&name.0, &name.1);
        let written = Protocol::ALL.into_iter().flat_map(|own| object.spec.routes(own));
        let written = written.flat_map(|route| &route.route).map(|to| &to.destination.host);
        let hosts =
            written.map(|host| Host::resolve(host, &name.0, &mesh.domain)).collect::<BTreeSet<_>>();
        for host in &hosts {
            self.by_destination.entry(host.clone()).or_default().insert(name.clone());
        }
        if !hosts.is_empty() {
            self.destinations.insert(name, hosts);
        }
    }

    pub(super) fn delete(&mut self, namespace: &str, name: &str) {
        let name = (namespace.to_owned(), name.to_owned());
        for host in self.destinations.remove(&name).into_iter().flatten() {
            let Some(names) = self.by_destination.get_mut(&host) else { continue };
            names.remove(&name);
            if names.is_empty() {
                self.by_destination.remove(&host);
            }
        }
    }
}

impl World {
    /// The VirtualServices, delegates included, of which some route names `host`, or a host that the wildcard `host` covers, as
    /// a destination; sorted by namespace and name.
    pub fn users_of(&self, host: &Host) -> Vec<&VirtualService> {
        let index = &self.references.by_destination;
        let names = if host.as_str().starts_with('*') {
            let covered = index.iter().filter(|(own, _)| host_covers(host.as_str(), own.as_str()));
            covered.flat_map(|(_, names)| names).collect::<BTreeSet<_>>()
        } else {
            index.get(host).into_iter().flatten().collect()
        };
        names
            .into_iter()
            .filter_map(|(namespace, name)| self.virtual_service(namespace, name))
            .collect()
    }

    /// Whether any Pod of `namespace` carries all of `labels`.
    pub fn has_pods(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let Some(query) = self.labels.query(labels.iter()) else { return false };
        self.pods.of_namespace(namespace).any(|pod| self.labels.satisfies(pod.labels, &query))
    }
}
