//! Which VirtualServices send requests to a host.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Mesh, World};
use crate::istio::{Host, Protocol, VirtualService, host_covers};

/// Namespace and name of an object.
type Name = (String, String);

/// Which VirtualServices send requests, or copies of them, where, so that a DestinationRule finds those who use it.
#[derive(Debug, Default)]
pub(super) struct References {
    by_destination: HashMap<Host, BTreeSet<Name>>,
    destinations: HashMap<Name, BTreeSet<Host>>,
}

impl References {
    pub(super) fn apply(&mut self, object: &VirtualService, mesh: &Mesh) {
        let name = (object.metadata.namespace.clone(), object.metadata.name.clone());
        self.delete(&name.0, &name.1);
        let routes = Protocol::ALL.into_iter().flat_map(|own| object.spec.routes(own));
        let written = routes.flat_map(|route| {
            let shares = route.route.iter().map(|to| &to.destination);
            shares.chain(route.mirrored().map(|mirror| mirror.to))
        });
        let hosts = written.map(|to| Host::resolve(&to.host, &name.0, &mesh.domain));
        let hosts = hosts.collect::<BTreeSet<_>>();
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
    /// a destination or for its mirror; also by the name of an ExternalName Service that stands for it. Sorted by namespace
    /// and name.
    pub fn users_of(&self, host: &Host) -> Vec<&VirtualService> {
        let index = &self.references.by_destination;
        let aliases = self.services.aliases_of(host.as_str());
        let aliases =
            aliases.map(|(namespace, name)| Host::resolve(name, namespace, &self.mesh.domain));
        let mut names =
            aliases.filter_map(|alias| index.get(&alias)).flatten().collect::<BTreeSet<_>>();
        if host.as_str().starts_with('*') {
            let covered = index.iter().filter(|(own, _)| host_covers(host.as_str(), own.as_str()));
            names.extend(covered.flat_map(|(_, names)| names));
        } else {
            names.extend(index.get(host).into_iter().flatten());
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Kind, Object, Service};

    #[test]
    fn a_service_that_stands_for_a_host_finds_its_users_as_long_as_it_does() {
        let mut world = World::empty(Mesh::default());
        let route = "{metadata: {namespace: shop, name: pay}, spec: {hosts: [pay], http: [{route: [{destination: {host: pay}}]}]}}";
        let object = serde_saphyr::from_str::<VirtualService>(route).expect("a VirtualService");
        world.apply(Object::VirtualService(Box::new(object)));
        let service = |target: Option<&str>| {
            Object::Service(Service {
                namespace: "shop".to_owned(),
                name: "pay".to_owned(),
                external_name: target.map(str::to_owned),
                ..Service::default()
            })
        };
        let users = |world: &World, host: &str| world.users_of(&Host::literal(host)).len();
        world.apply(service(Some("pay.example.com")));
        assert_eq!((users(&world, "pay.example.com"), users(&world, "*.example.com")), (1, 1));
        world.apply(service(Some("pay.example.org")));
        assert_eq!((users(&world, "pay.example.com"), users(&world, "pay.example.org")), (0, 1));
        world.apply(service(None));
        assert_eq!((users(&world, "pay.example.org"), users(&world, "*")), (0, 1));
        world.apply(service(Some("pay.example.com")));
        world.delete(Kind::Service, "shop", "pay");
        assert_eq!(users(&world, "pay.example.com"), 0);
    }
}
