use std::sync::Arc;

use super::labels::{LabelSets, SetId};
use super::{Pod, table::Table};

/// Where a Pod's labels are found; shared by the Pod itself and by the EndpointSlices that name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PodSlot(u32);

#[derive(Debug, Default)]
struct Slot {
    /// The table's own key: a hundred thousand names are not kept twice.
    name: Arc<str>,
    labels: Option<SetId>,
    uses: u32,
}

/// The labels of every Pod, by number, so that counting the endpoints of a Service is a walk over an array.
#[derive(Debug, Default)]
pub(super) struct Pods {
    names: Table<PodSlot, Arc<str>>,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Pods {
    pub(super) fn apply(&mut self, pod: &Pod, labels: &mut LabelSets) {
        let set = labels.acquire(&pod.labels);
        let at = match self.names.get(&pod.namespace, &pod.name) {
            Some(&slot) => slot,
            None => self.add(&pod.namespace, &pod.name),
        };
        let slot = &mut self.slots[at.0 as usize];
        match slot.labels.replace(set) {
            Some(old) => labels.release(old),
            None => slot.uses += 1,
        }
    }

    pub(super) fn delete(&mut self, namespace: &str, name: &str, labels: &mut LabelSets) {
        let Some(&at) = self.names.get(namespace, name) else { return };
        if let Some(set) = self.slots[at.0 as usize].labels.take() {
            labels.release(set);
            self.release(at, namespace);
        }
    }

    /// The slot of a Pod that an EndpointSlice names, known already or not.
    pub(super) fn refer(&mut self, namespace: &str, name: &str) -> PodSlot {
        let slot = match self.names.get(namespace, name) {
            Some(&slot) => slot,
            None => self.add(namespace, name),
        };
        self.slots[slot.0 as usize].uses += 1;
        slot
    }

    /// An EndpointSlice names the Pod no more.
    pub(super) fn release(&mut self, at: PodSlot, namespace: &str) {
        let slot = &mut self.slots[at.0 as usize];
        slot.uses -= 1;
        if slot.uses == 0 {
            self.names.remove(namespace, &std::mem::take(&mut slot.name));
            self.free.push(at.0);
        }
    }

    /// The labels of the Pod in a slot; `None` where only its EndpointSlice has arrived.
    pub(super) fn labels(&self, at: PodSlot) -> Option<SetId> {
        self.slots[at.0 as usize].labels
    }

    /// The labels of a Pod that is known.
    pub(super) fn find(&self, namespace: &str, name: &str) -> Option<SetId> {
        self.labels(*self.names.get(namespace, name)?)
    }

    /// Namespace and labels of every Pod that is known.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, SetId)> {
        let all = self
            .names
            .namespaces()
            .flat_map(|(namespace, pods)| pods.values().map(move |&slot| (namespace, slot)));
        all.filter_map(|(namespace, slot)| Some((namespace, self.labels(slot)?)))
    }

    pub(super) fn names(&self) -> Vec<(String, String)> {
        let known = |(namespace, name): &(String, String)| {
            self.names.get(namespace, name).is_some_and(|&slot| self.labels(slot).is_some())
        };
        self.names.names().into_iter().filter(known).collect()
    }

    /// How many Pods are known, and how many slots are in use.
    pub(super) fn sizes(&self) -> (usize, usize) {
        let known = self.slots.iter().filter(|slot| slot.labels.is_some()).count();
        (known, self.slots.len() - self.free.len())
    }

    /// How many Pods of one namespace carry a label set that `wanted` takes.
    pub(super) fn count(&self, namespace: &str, wanted: impl Fn(SetId) -> bool) -> u32 {
        let pods = self.names.of_namespace(namespace).filter_map(|(_, &slot)| self.labels(slot));
        pods.filter(|&set| wanted(set)).map(|_| 1).sum()
    }

    fn add(&mut self, namespace: &str, name: &str) -> PodSlot {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 Pods")
        });
        let name = Arc::<str>::from(name);
        self.slots[at as usize] = Slot { name: Arc::clone(&name), ..Slot::default() };
        self.names.insert_as(namespace, name, PodSlot(at));
        PodSlot(at)
    }
}
