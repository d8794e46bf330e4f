//! Gateways and the pods that serve them.

use std::collections::{BTreeMap, HashMap};

use super::World;
use super::table::Table;
use crate::istio::Gateway;

/// Labels as Kubernetes writes them.
type Labels = BTreeMap<String, String>;

/// Gateways, and the pods that serve them.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    objects: Table<Gateway>,
    /// Per selector that some Gateway has: how many have it, and which pods it selects.
    selected: HashMap<Labels, Selected>,
}

#[derive(Debug, Default)]
struct Selected {
    gateways: usize,
    /// How many pods there are of a namespace and with exactly these labels.
    pods: BTreeMap<(String, Labels), usize>,
}

impl Gateways {
    /// `pods` are all that are known: a selector that nobody had before is held against them.
    pub(super) fn apply<'a>(
        &mut self,
        gateway: Gateway,
        pods: impl Iterator<Item = (&'a str, Labels)>,
    ) {
        let (namespace, name) = (gateway.metadata.namespace.clone(), gateway.metadata.name.clone());
        self.delete(&namespace, &name);
        let selector = gateway.spec.selector.clone();
        self.objects.insert(&namespace, &name, gateway);
        if selector.is_empty() {
            return;
        }
        if let Some(selected) = self.selected.get_mut(&selector) {
            selected.gateways += 1;
            return;
        }
        let mut selected = Selected { gateways: 1, ..Selected::default() };
        for (namespace, labels) in pods.filter(|(_, labels)| contains(labels, &selector)) {
            *selected.pods.entry((namespace.to_owned(), labels)).or_default() += 1;
        }
        self.selected.insert(selector, selected);
    }

    pub(super) fn delete(&mut self, namespace: &str, name: &str) {
        let Some(gateway) = self.objects.remove(namespace, name) else { return };
        let Some(selected) = self.selected.get_mut(&gateway.spec.selector) else { return };
        selected.gateways -= 1;
        if selected.gateways == 0 {
            self.selected.remove(&gateway.spec.selector);
        }
    }

    /// A pod is there now.
    pub(super) fn add_pod(&mut self, namespace: &str, labels: &Labels) {
        for (_, selected) in self.selecting(labels) {
            *selected.pods.entry((namespace.to_owned(), labels.clone())).or_default() += 1;
        }
    }

    /// A pod is there no more.
    pub(super) fn remove_pod(&mut self, namespace: &str, labels: &Labels) {
        for (_, selected) in self.selecting(labels) {
            let key = (namespace.to_owned(), labels.clone());
            let Some(count) = selected.pods.get_mut(&key) else { continue };
            *count -= 1;
            if *count == 0 {
                selected.pods.remove(&key);
            }
        }
    }

    /// Whether no selector has to be held against pods.
    pub(super) fn select_nothing(&self) -> bool {
        self.selected.is_empty()
    }

    /// Those of one namespace, in no order.
    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &Gateway> {
        self.objects.of_namespace(namespace).map(|(_, gateway)| gateway)
    }

    pub(super) fn names(&self) -> Vec<(String, String)> {
        self.objects.names()
    }

    fn selecting(&mut self, labels: &Labels) -> impl Iterator<Item = (&Labels, &mut Selected)> {
        self.selected.iter_mut().filter(|(selector, _)| contains(labels, selector))
    }
}

fn contains(labels: &Labels, selector: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl World {
    /// The Gateway `name` of `namespace`.
    pub fn gateway(&self, namespace: &str, name: &str) -> Option<&Gateway> {
        self.gateways.objects.get(namespace, name)
    }

    /// Namespace and labels of the pods that serve a Gateway, pods that do not differ counted once. Pods of any namespace serve
    /// it; what its selector says decides, and where it has none, nobody knows.
    ///
    /// Source: `pilot/pkg/model/push_context.go` `mergeGateways`.
    pub fn gateway_pods(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Iterator<Item = (&str, &Labels)> {
        let gateway = self.gateway(namespace, name);
        let selected = gateway.and_then(|own| self.gateways.selected.get(&own.spec.selector));
        let pods = selected.into_iter().flat_map(|selected| selected.pods.keys());
        pods.map(|(namespace, labels)| (namespace.as_str(), labels))
    }
}
