//! Nodes, and the localities that their labels say.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::labels::Interner;

/// The parts of a Node that a verdict reads.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`, of which those of region, zone and subzone count.
    pub labels: BTreeMap<String, String>,
}

impl Node {
    /// Where its Pods are, `region/zone/subzone`; empty where its labels do not say.
    ///
    /// Source: `pilot/pkg/serviceregistry/kube/controller/controller.go` `getPodLocality`.
    fn locality(&self) -> String {
        let first = |keys: &[&str]| {
            let values = keys.iter().filter_map(|key| self.labels.get(*key));
            values.map(String::as_str).find(|value| !value.is_empty()).unwrap_or_default()
        };
        let region =
            first(&["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]);
        let zone =
            first(&["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]);
        let subzone = first(&["topology.istio.io/subzone"]);
        if region.is_empty() && zone.is_empty() && subzone.is_empty() {
            return String::new();
        }
        format!("{region}/{zone}/{subzone}")
    }
}

/// The number of a Node's name, whether the Node itself has been seen or only a Pod that runs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeId(pub(super) u32);

/// The number of a locality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LocalityId(u32);

#[derive(Debug, Default)]
struct Entry {
    name: Arc<str>,
    locality: Option<LocalityId>,
    is_known: bool,
    uses: u32,
}

/// Nodes by name and by number, and the localities that they and machines outside of Kubernetes are in.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    ids: HashMap<Arc<str>, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    localities: Interner<String>,
}

impl Nodes {
    pub(super) fn apply(&mut self, node: &Node) {
        let at = self.acquire(&node.name);
        let locality = self.acquire_locality(&node.locality());
        let entry = &mut self.entries[at.0 as usize];
        let old = std::mem::replace(&mut entry.locality, locality);
        // The Node itself is one use; the one of a former self is given back.
        let was_known = std::mem::replace(&mut entry.is_known, true);
        self.release_locality(old);
        if was_known {
            self.release(at);
        }
    }

    pub(super) fn delete(&mut self, name: &str) {
        let Some(&at) = self.ids.get(name) else { return };
        let entry = &mut self.entries[at as usize];
        if std::mem::take(&mut entry.is_known) {
            let old = entry.locality.take();
            self.release_locality(old);
            self.release(NodeId(at));
        }
    }

    /// The number of the Node called `name`, used once more.
    pub(super) fn acquire(&mut self, name: &str) -> NodeId {
        if let Some(&at) = self.ids.get(name) {
            self.entries[at as usize].uses += 1;
            return NodeId(at);
        }
        let name = Arc::<str>::from(name);
        let entry = Entry { name: Arc::clone(&name), uses: 1, ..Entry::default() };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 Nodes")
            }
        };
        self.ids.insert(name, at);
        NodeId(at)
    }

    /// The Node is used once less.
    pub(super) fn release(&mut self, at: NodeId) {
        let entry = &mut self.entries[at.0 as usize];
        entry.uses -= 1;
        if entry.uses == 0 {
            let name = std::mem::take(&mut entry.name);
            self.ids.remove(&name);
            self.free.push(at.0);
        }
    }

    /// The number of a locality, used once more; `None` for one that says nothing.
    pub(super) fn acquire_locality(&mut self, locality: &str) -> Option<LocalityId> {
        (!locality.is_empty()).then(|| LocalityId(self.localities.acquire(locality.to_owned()).0))
    }

    /// The locality is used once less.
    pub(super) fn release_locality(&mut self, locality: Option<LocalityId>) {
        if let Some(LocalityId(id)) = locality {
            self.localities.release(id);
        }
    }

    /// Where the Pods of a Node are; `None` where the Node is not known or its labels do not say.
    pub(super) fn locality_of(&self, at: NodeId) -> Option<LocalityId> {
        self.entries[at.0 as usize].locality
    }

    /// A locality as it is written: `region/zone/subzone`.
    pub(super) fn locality(&self, id: LocalityId) -> &str {
        self.localities.get(id.0).map_or("", String::as_str)
    }

    /// The name of a Node.
    pub(super) fn name(&self, at: NodeId) -> &str {
        &self.entries[at.0 as usize].name
    }

    pub(super) fn names(&self) -> Vec<(String, String)> {
        let known = self.entries.iter().filter(|entry| entry.is_known);
        known.map(|entry| (String::new(), entry.name.to_string())).collect()
    }

    /// How many Nodes and localities are kept.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.ids.len(), self.localities.len())
    }
}
