//! Which objects istiod reads.

use std::collections::{BTreeMap, BTreeSet};

use super::table::Table;
use super::{Kind, Object, Service, World};
use crate::istio::DestinationRule;

/// The kinds by which look-ups find anything. Pods, EndpointSlices, WorkloadEntries and workloads count only for the Services and
/// ServiceEntries of their own namespace, and a Gateway's Pods serve it wherever they are.
const SIFTED: [Kind; 7] = [
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::ServiceEntry,
    Kind::Gateway,
    Kind::Sidecar,
    Kind::Waypoint,
    Kind::Service,
];

/// Objects that do not exist for istiod, kept for the day on which it reads them.
#[derive(Debug, Default)]
pub(super) struct Unread(BTreeMap<Kind, Table<Object>>);

impl Unread {
    fn insert(&mut self, (kind, namespace, name): Key, object: Object) {
        self.0.entry(kind).or_default().insert(&namespace, &name, object);
    }

    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        self.0.get(&kind)?.get(namespace, name)
    }

    pub(super) fn remove(&mut self, kind: Kind, namespace: &str, name: &str) {
        if let Some(table) = self.0.get_mut(&kind) {
            table.remove(namespace, name);
        }
    }

    /// What is kept of a namespace; nothing is left of it here.
    fn take(&mut self, namespace: &str) -> Vec<Object> {
        let tables = self.0.values_mut();
        tables.flat_map(|table| table.take_namespace(namespace).into_values()).collect()
    }

    pub(super) fn names(&self, kind: Kind) -> Vec<(String, String)> {
        self.0.get(&kind).map(Table::names).unwrap_or_default()
    }

    fn namespaces(&self) -> BTreeSet<String> {
        let all = self.0.values().flat_map(Table::namespaces);
        all.map(|(namespace, _)| namespace.to_owned()).collect()
    }
}

/// Kind, namespace and name.
type Key = (Kind, String, String);

/// What an object is known by, where it is of a kind that is sifted.
fn key(object: &Object) -> Option<Key> {
    let (kind, metadata) = match object {
        Object::VirtualService(own) => (Kind::VirtualService, &own.metadata),
        Object::DestinationRule(own) => (Kind::DestinationRule, &own.metadata),
        Object::ServiceEntry(own) => (Kind::ServiceEntry, &own.metadata),
        Object::Gateway(own) => (Kind::Gateway, &own.metadata),
        Object::Sidecar(own) => (Kind::Sidecar, &own.metadata),
        Object::Waypoint(own) => (Kind::Waypoint, &own.metadata),
        Object::Service(own) => {
            return Some((Kind::Service, own.namespace.clone(), own.name.clone()));
        }
        _ => return None,
    };
    Some((kind, metadata.namespace.clone(), metadata.name.clone()))
}

impl World {
    /// Whether istiod reads what is in `namespace`; `None` where its labels decide that and are not known. No namespace is an
    /// exception, the root namespace included.
    ///
    /// Source: `pkg/kube/namespace/filter.go`; that all of it is filtered: `pilot/pkg/config/kube/crdclient/client.go`
    /// `addCRD`, `pilot/pkg/serviceregistry/kube/controller/controller.go` `NewController`.
    pub fn is_discovered(&self, namespace: &str) -> Option<bool> {
        let selectors = &self.mesh.discovery_selectors;
        if selectors.is_empty() || self.is_blank {
            return Some(true);
        }
        let labels = self.namespace_labels(namespace)?;
        Some(selectors.iter().any(|selector| selector.matches(labels)))
    }

    /// The Service `name` of `namespace` where it is there and istiod does not read it.
    pub fn undiscovered_service(&self, namespace: &str, name: &str) -> Option<&Service> {
        match self.unread.get(Kind::Service, namespace, name)? {
            Object::Service(service) => Some(service),
            _ => None,
        }
    }

    /// The DestinationRules of `namespace` that istiod does not read because it reads nothing there, in no order.
    pub fn undiscovered_rules(&self, namespace: &str) -> impl Iterator<Item = &DestinationRule> {
        let table = self.unread.0.get(&Kind::DestinationRule);
        let own = table.into_iter().flat_map(move |table| table.of_namespace(namespace));
        own.filter_map(|(_, object)| match object {
            Object::DestinationRule(rule) => Some(rule.as_ref()),
            _ => None,
        })
    }

    /// The namespaces that hold something and whose labels would say whether istiod reads it, were they known.
    pub fn undescribed_namespaces(&self) -> BTreeSet<String> {
        let mut all = self.unread.namespaces();
        all.retain(|namespace| self.is_discovered(namespace).is_none());
        all
    }

    /// Keeps an object that istiod does not read where no look-up finds it; gives back any other.
    pub(super) fn sift(&mut self, object: Object) -> Option<Object> {
        let has_revision = matches!(object, Object::ServiceEntry(_) | Object::Gateway(_));
        if self.mesh.discovery_selectors.is_empty() && !has_revision {
            return Some(object);
        }
        let Some(own) = key(&object) else { return Some(object) };
        let (kind, namespace, name) = (own.0, own.1.as_str(), own.2.as_str());
        if self.is_discovered(namespace) == Some(true) && self.is_in_revision(&object) {
            self.unread.remove(kind, namespace, name);
            return Some(object);
        }
        self.delete(kind, namespace, name);
        self.unread.insert(own, object);
        None
    }

    /// Whether istiod's revision reads the object; the tables of VirtualServices and DestinationRules ask that themselves.
    fn is_in_revision(&self, object: &Object) -> bool {
        match object {
            Object::ServiceEntry(own) => own.metadata.is_in_revision(&self.mesh.revision),
            Object::Gateway(own) => own.metadata.is_in_revision(&self.mesh.revision),
            _ => true,
        }
    }

    /// The labels of `namespace` have changed, or are known at last, or no more.
    pub(super) fn sift_namespace(&mut self, namespace: &str) {
        if self.mesh.discovery_selectors.is_empty() {
            return;
        }
        let objects = match self.is_discovered(namespace) {
            Some(true) => self.unread.take(namespace),
            Some(false) | None => self.read_in(namespace),
        };
        objects.into_iter().for_each(|object| self.apply(object));
    }

    /// What istiod was told has changed.
    pub(super) fn sift_all(&mut self) {
        let read = SIFTED.iter().flat_map(|&kind| self.names(kind));
        let mut namespaces = read.map(|(namespace, _)| namespace).collect::<BTreeSet<_>>();
        namespaces.extend(self.unread.namespaces());
        for namespace in namespaces {
            let mut objects = self.unread.take(&namespace);
            objects.extend(self.read_in(&namespace));
            objects.into_iter().for_each(|object| self.apply(object));
        }
    }

    /// What look-ups find of a namespace.
    fn read_in(&self, namespace: &str) -> Vec<Object> {
        let routes = self.virtual_services.of_namespace(namespace).cloned();
        let routes = routes.map(|own| Object::VirtualService(Box::new(own)));
        let rules = self.destination_rules.of_namespace(namespace).cloned();
        let rules = rules.map(|own| Object::DestinationRule(Box::new(own)));
        let entries = self.entries.of_namespace(namespace).cloned();
        let entries = entries.map(|own| Object::ServiceEntry(Box::new(own)));
        let gateways = self.gateways.of_namespace(namespace).cloned();
        let gateways = gateways.map(|own| Object::Gateway(Box::new(own)));
        let waypoints = self.waypoints.of_namespace(namespace).cloned();
        let waypoints = waypoints.map(|own| Object::Waypoint(Box::new(own)));
        let services = self.services.of_namespace(namespace).cloned().map(Object::Service);
        let sidecars = self.sidecars.of_namespace(namespace).cloned();
        let sidecars = sidecars.map(|own| Object::Sidecar(Box::new(own)));
        let gateways = gateways.chain(waypoints).chain(sidecars);
        routes.chain(rules).chain(entries).chain(gateways).chain(services).collect()
    }
}
