//! Pods and EndpointSlices, joined by name, whichever comes first.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::labels::{LabelSets, SetId};
use super::nodes::{NodeId, Nodes};
use super::{Pod, PodStatus, table::Table};

/// Where a Pod's labels are found; shared by the Pod itself and by the EndpointSlices that name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PodSlot(u32);

/// Four more bytes here are four bytes for each of a hundred thousand Pods.
#[derive(Debug, Default)]
struct Slot {
    /// The table's own key: a hundred thousand names are not kept twice.
    name: Arc<str>,
    labels: Option<SetId>,
    uses: u32,
    seat: Seat,
    /// `status.podIP` where it is an IPv4 address, else 0.0.0.0, which no Pod has.
    ip: [u8; 4],
}

/// On which Node a Pod runs, and whether it answers, in one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seat(u32);

impl Default for Seat {
    fn default() -> Self {
        Self(Self::UNREAD)
    }
}

impl Seat {
    const READY: u32 = 1 << 31;
    /// Only the labels have been read.
    const UNREAD: u32 = Self::READY - 1;
    /// On some Node.
    const SOMEWHERE: u32 = Self::READY - 2;
    /// On no Node yet.
    const NOWHERE: u32 = Self::READY - 3;

    fn of(node: Option<Option<NodeId>>, is_ready: bool) -> Self {
        let at = match node {
            Some(Some(node)) => node.0,
            Some(None) => Self::NOWHERE,
            None => Self::SOMEWHERE,
        };
        Self(at | if is_ready { Self::READY } else { 0 })
    }

    fn at(self) -> u32 {
        self.0 & !Self::READY
    }

    fn is_ready(self) -> Option<bool> {
        (self.at() != Self::UNREAD).then_some(self.0 & Self::READY != 0)
    }

    /// Its Node, `Some(None)` where it has none; `None` where that is not known.
    fn place(self) -> Option<Option<NodeId>> {
        match self.at() {
            Self::UNREAD | Self::SOMEWHERE => None,
            _ => Some(self.node()),
        }
    }

    fn node(self) -> Option<NodeId> {
        (self.at() < Self::NOWHERE).then_some(NodeId(self.at()))
    }
}

/// A Pod as an endpoint is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) labels: SetId,
    /// Its Node, `Some(None)` where it has none; `None` where that is not known.
    pub(super) node: Option<Option<NodeId>>,
    /// Whether a ServiceEntry's selector takes it: it runs, is ready, has an address and is not on its way out. `None` where
    /// that has not been read.
    pub(super) is_ready: Option<bool>,
}

/// Who asks for an address, and which Pods have it.
#[derive(Debug, Default)]
struct Wanted {
    uses: u32,
    pods: Vec<PodSlot>,
}

/// The labels of every Pod, by number, so that counting the endpoints of a Service is a walk over an array.
#[derive(Debug, Default)]
pub(super) struct Pods {
    names: Table<PodSlot, Arc<str>>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The few that have no IPv4 address.
    ipv6: HashMap<u32, Ipv6Addr>,
    /// Addresses that EndpointSlices list without saying which Pod that is, by namespace.
    wanted: HashMap<String, HashMap<IpAddr, Wanted>>,
}

impl Pods {
    pub(super) fn apply(&mut self, pod: &Pod, labels: &mut LabelSets, nodes: &mut Nodes) {
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
        // What was read of its metadata alone says nothing about the rest.
        if let Some(status) = &pod.status {
            let node = status.node.as_deref();
            let node = node.map(|name| (!name.is_empty()).then(|| nodes.acquire(name)));
            let slot = &mut self.slots[at.0 as usize];
            let old = std::mem::replace(&mut slot.seat, Seat::of(node, status.is_ready));
            if let Some(node) = old.node() {
                nodes.release(node);
            }
            self.set_address(at, &pod.namespace, status);
        }
    }

    pub(super) fn delete(
        &mut self,
        namespace: &str,
        name: &str,
        labels: &mut LabelSets,
        nodes: &mut Nodes,
    ) {
        let Some(&at) = self.names.get(namespace, name) else { return };
        let slot = &mut self.slots[at.0 as usize];
        if let Some(set) = slot.labels.take() {
            labels.release(set);
            if let Some(node) = std::mem::take(&mut slot.seat).node() {
                nodes.release(node);
            }
            self.set_address(at, namespace, &PodStatus::default());
            self.release(at, namespace);
        }
    }

    fn set_address(&mut self, at: PodSlot, namespace: &str, status: &PodStatus) {
        let old = self.address(at);
        if old == status.ip {
            return;
        }
        self.slots[at.0 as usize].ip = [0; 4];
        self.ipv6.remove(&at.0);
        match status.ip {
            Some(IpAddr::V4(ip)) => self.slots[at.0 as usize].ip = ip.octets(),
            Some(IpAddr::V6(ip)) => drop(self.ipv6.insert(at.0, ip)),
            None => {}
        }
        let Some(wanted) = self.wanted.get_mut(namespace) else { return };
        if let Some(old) = old.and_then(|old| wanted.get_mut(&old)) {
            old.pods.retain(|own| *own != at);
        }
        if let Some(new) = status.ip.and_then(|new| wanted.get_mut(&new)) {
            new.pods.push(at);
        }
    }

    fn address(&self, at: PodSlot) -> Option<IpAddr> {
        match self.slots[at.0 as usize].ip {
            [0, 0, 0, 0] => self.ipv6.get(&at.0).copied().map(IpAddr::V6),
            ip => Some(IpAddr::V4(Ipv4Addr::from(ip))),
        }
    }

    /// An EndpointSlice lists these addresses without saying which Pods have them.
    pub(super) fn want(&mut self, namespace: &str, addresses: impl Iterator<Item = IpAddr>) {
        let mut new: HashMap<IpAddr, Vec<PodSlot>> = HashMap::new();
        for address in addresses {
            let wanted = self.wanted.entry(namespace.to_owned()).or_default();
            let wanted = wanted.entry(address).or_default();
            wanted.uses += 1;
            if wanted.uses == 1 {
                new.insert(address, Vec::new());
            }
        }
        if new.is_empty() {
            return;
        }
        // One walk for all of a slice; such slices are written by hand and few.
        for (_, &at) in self.names.of_namespace(namespace) {
            if let Some(pods) = self.address(at).and_then(|address| new.get_mut(&address)) {
                pods.push(at);
            }
        }
        let Some(wanted) = self.wanted.get_mut(namespace) else { return };
        for (address, pods) in new {
            if let Some(own) = wanted.get_mut(&address) {
                own.pods = pods;
            }
        }
    }

    /// Takes back what [`Pods::want`] asked for.
    pub(super) fn unwant(&mut self, namespace: &str, addresses: impl Iterator<Item = IpAddr>) {
        let Some(wanted) = self.wanted.get_mut(namespace) else { return };
        for address in addresses {
            if let Some(own) = wanted.get_mut(&address) {
                own.uses -= 1;
                if own.uses == 0 {
                    wanted.remove(&address);
                }
            }
        }
        if wanted.is_empty() {
            self.wanted.remove(namespace);
        }
    }

    /// The Pods of `namespace` that run and have this address, which [`Pods::want`] has asked for.
    ///
    /// Source: `pilot/pkg/serviceregistry/kube/controller/endpointslice.go` `getPod`.
    pub(super) fn with_address(
        &self,
        namespace: &str,
        address: IpAddr,
    ) -> impl Iterator<Item = Seen> {
        let own = self.wanted.get(namespace).and_then(|wanted| wanted.get(&address));
        let pods = own.into_iter().flat_map(|own| &own.pods);
        pods.filter_map(|&at| self.seen(at)).filter(|seen| seen.is_ready == Some(true))
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

    /// The Pod in a slot; `None` where only its EndpointSlice has arrived.
    pub(super) fn seen(&self, at: PodSlot) -> Option<Seen> {
        let Slot { labels, seat, .. } = &self.slots[at.0 as usize];
        labels.map(|labels| Seen { labels, node: seat.place(), is_ready: seat.is_ready() })
    }

    /// The Pods of one namespace, in no order.
    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = Seen> {
        self.names.of_namespace(namespace).filter_map(|(_, &slot)| self.seen(slot))
    }

    /// The labels of a Pod that is known.
    pub(super) fn find(&self, namespace: &str, name: &str) -> Option<SetId> {
        self.slots[self.names.get(namespace, name)?.0 as usize].labels
    }

    /// Namespace and labels of every Pod that is known.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, SetId)> {
        let all = self
            .names
            .namespaces()
            .flat_map(|(namespace, pods)| pods.values().map(move |&slot| (namespace, slot)));
        all.filter_map(|(namespace, slot)| Some((namespace, self.slots[slot.0 as usize].labels?)))
    }

    pub(super) fn names(&self) -> Vec<(String, String)> {
        let known = |(namespace, name): &(String, String)| {
            self.names.get(namespace, name).is_some_and(|&slot| self.seen(slot).is_some())
        };
        self.names.names().into_iter().filter(known).collect()
    }

    /// How many Pods are known, and how many slots are in use.
    pub(super) fn sizes(&self) -> (usize, usize) {
        let known = self.slots.iter().filter(|slot| slot.labels.is_some()).count();
        (known, self.slots.len() - self.free.len())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_grown_by_nothing() {
        assert_eq!(size_of::<Slot>(), 32);
    }
}
