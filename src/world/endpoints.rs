//! The endpoints of hosts, and the labels that istiod adds to them.

use std::collections::HashMap;

use super::World;
use super::entries::Machine;
use super::labels::SetId;
use super::nodes::{LocalityId, NodeId};
use super::pods::{PodSlot, Seen};
use super::services::{Service, ServicePort, Slice};
use crate::istio::{Resolution, ServiceEntry};

/// Endpoints that cannot be told apart by their labels, those that istiod adds included where somebody asks for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId {
    /// The labels that they carry themselves; `None` for none.
    pub(super) labels: Option<SetId>,
    pub(super) locality: Option<LocalityId>,
    pub(super) node: Option<NodeId>,
}

impl GroupId {
    /// The same group where only `detail` is looked at.
    fn coarse(self, detail: Detail) -> Self {
        Self {
            labels: self.labels,
            locality: self.locality.filter(|_| detail > Detail::Labels),
            node: self.node.filter(|_| detail > Detail::Places),
        }
    }
}

/// How finely endpoints are told apart: more groups than are asked for would cost time for nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Detail {
    #[default]
    Labels,
    /// By region, zone and subzone, too.
    Places,
    /// By Node, too.
    Nodes,
}

/// Endpoints with equal labels, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointGroup {
    /// Which ones.
    pub id: GroupId,
    /// How many Istio sends requests to.
    pub ready: u32,
    /// How many are known and not ready.
    pub unready: u32,
}

/// The endpoints of a host, or a selection of them, grouped by labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Sorted by id.
    pub groups: Vec<EndpointGroup>,
    /// Ready endpoints whose Pod, or its Node, has not been seen yet: nobody can say whether a subset selects them.
    pub unknown_ready: u32,
    pub(super) detail: Detail,
}

impl Endpoints {
    /// How many of them are ready.
    pub fn ready(&self) -> u32 {
        self.groups.iter().map(|group| group.ready).sum::<u32>() + self.unknown_ready
    }

    /// How many are known and not ready.
    pub fn unready(&self) -> u32 {
        self.groups.iter().map(|group| group.unready).sum()
    }

    /// How many ready endpoints this and `other` have in common.
    pub fn common_ready(&self, other: &Self) -> u32 {
        let detail = self.detail.min(other.detail);
        let ready = |of: &Self| {
            let mut ready: HashMap<GroupId, u32> = HashMap::new();
            for group in &of.groups {
                *ready.entry(group.id.coarse(detail)).or_default() += group.ready;
            }
            ready
        };
        let theirs = ready(other);
        let both = ready(self).into_iter().filter_map(|(id, own)| Some(own.min(*theirs.get(&id)?)));
        both.sum()
    }
}

/// Endpoints with the same values for some labels, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledCount {
    /// The labels that were asked for and that they have.
    pub labels: Vec<(String, String)>,
    /// How many Istio sends requests to.
    pub ready: u32,
    /// How many are known and not ready.
    pub unready: u32,
}

/// Labels that istiod adds to endpoints by itself (`pilot/pkg/serviceregistry/util/label/label.go`).
pub(super) fn is_topology(label: &str) -> bool {
    label.starts_with("topology.kubernetes.io/")
        || label.starts_with("topology.istio.io/")
        || label == HOSTNAME
}

pub(super) const HOSTNAME: &str = "kubernetes.io/hostname";

/// A Pod with this label is being emptied, whatever the value, and gets no new requests (istiod's `PILOT_DRAINING_LABEL`).
const DRAINING: &str = "istio.io/draining";

/// Which of the ports of a host are asked about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Port {
    Number(i64),
    Any,
    /// An endpoint that serves none of them counts, too.
    EvenNone,
}

impl Port {
    pub(super) fn of(number: Option<i64>) -> Self {
        number.map_or(Self::Any, Self::Number)
    }
}

/// The same by the name that slices know.
#[derive(Clone, Copy)]
pub(super) enum Ports<'a> {
    One(&'a str),
    Any,
    EvenNone,
}

/// Counts endpoints by group.
pub(super) struct Tally<'a> {
    world: &'a World,
    detail: Detail,
    counts: HashMap<GroupId, (u32, u32)>,
    unknown_ready: u32,
}

impl<'a> Tally<'a> {
    pub(super) fn new(world: &'a World, detail: Detail) -> Self {
        Self { world, detail, counts: HashMap::new(), unknown_ready: 0 }
    }

    fn count(&mut self, id: GroupId, is_ready: bool) {
        let (ready, unready) = self.counts.entry(id).or_default();
        *(if is_ready { ready } else { unready }) += 1;
    }

    fn pod(&mut self, seen: Option<Seen>, is_ready: bool) {
        let Some(Seen { labels, node, .. }) = seen else {
            self.unknown_ready += u32::from(is_ready);
            return;
        };
        let labels = Some(labels);
        let mut id = GroupId { labels, ..GroupId::default() };
        if self.detail > Detail::Labels {
            let Some(node) = node else {
                self.unknown_ready += u32::from(is_ready);
                return;
            };
            id.locality = node.and_then(|node| self.world.nodes.locality_of(node));
            id.node = node;
        }
        self.count(id.coarse(self.detail), is_ready);
    }

    fn machine(&mut self, machine: &Machine) {
        let Machine { labels, locality, .. } = *machine;
        let id = GroupId { labels: Some(labels), locality, node: None };
        self.count(id.coarse(self.detail), true);
    }

    /// The endpoints in the slices of a Service, for one port or for several.
    pub(super) fn slices(&mut self, service: &Service, ports: Ports<'_>) {
        let of_port = |slice: &&Slice| match ports {
            Ports::One(name) => slice.ports.iter().any(|own| own == name),
            // A slice for none of the Service's ports makes no endpoint of it.
            Ports::Any => {
                service.ports.is_empty()
                    || service.ports.iter().any(|port| slice.ports.contains(&port.name))
            }
            Ports::EvenNone => true,
        };
        let slices = self.world.services.slices(&service.namespace, &service.name).filter(of_port);
        let has_ipv4 = slices.clone().any(|slice| !slice.is_ipv6);
        // While slices are rearranged a Pod stands in two of them for a moment; it is one endpoint, ready if either says so.
        let mut pods: HashMap<PodSlot, bool> = HashMap::new();
        let mut addresses = HashMap::new();
        for slice in slices.filter(|slice| !(has_ipv4 && slice.is_ipv6)) {
            for &(pod, is_ready) in &slice.pods {
                *pods.entry(pod).or_default() |= is_ready;
            }
            for &(address, is_ready) in &slice.addresses {
                *addresses.entry(address).or_default() |= is_ready;
            }
        }
        for (pod, is_ready) in pods {
            self.pod(self.world.pods.seen(pod), is_ready);
        }
        for (address, is_ready) in addresses {
            let mut owners = self.world.pods.with_address(&service.namespace, address);
            match (owners.next(), owners.next()) {
                (None, _) => self.count(GroupId::default(), is_ready),
                (Some(owner), None) => self.pod(Some(owner), is_ready),
                // Several Pods on the address of their Node: istiod takes any of them.
                (Some(_), Some(_)) => self.pod(None, is_ready),
            }
        }
    }

    /// The WorkloadEntries that a Service selects.
    ///
    /// Source: `pilot/pkg/serviceregistry/kube/controller/controller.go` `serviceInstancesFromWorkloadInstances`.
    pub(super) fn machines_of_service(&mut self, service: &Service, ports: Ports<'_>) {
        if service.selector.is_empty() || service.is_headless {
            return;
        }
        let Some(query) = self.world.labels.query(service.selector.iter()) else { return };
        let asked = |own: &&ServicePort| match ports {
            Ports::One(name) => own.name == name,
            Ports::Any | Ports::EvenNone => true,
        };
        let targets =
            service.ports.iter().filter(asked).map(|own| own.target.as_ref()).collect::<Vec<_>>();
        let revision = self.world.mesh.revision.as_str();
        for own in self.world.entries.healthy_workloads(&service.namespace, revision) {
            let serves =
                |target: &Option<&String>| target.is_none_or(|name| own.ports.contains(name));
            if !own.machine.is_only_for_dns
                && self.world.labels.satisfies(own.machine.labels, &query)
                && targets.iter().any(serves)
            {
                self.machine(&own.machine);
            }
        }
    }

    /// What a ServiceEntry lists or selects.
    ///
    /// Source: `pilot/pkg/serviceregistry/serviceentry/conversion.go` `services`.
    pub(super) fn entry(&mut self, entry: &ServiceEntry) {
        let is_dns = entry.spec.resolution == Resolution::Dns;
        let Some(selector) = &entry.spec.workload_selector else {
            let listed = self.world.entries.listed(entry);
            // Without DNS a host name is no address to send anything to.
            for own in listed.iter().filter(|own| is_dns || !own.is_only_for_dns) {
                self.machine(own);
            }
            return;
        };
        let namespace = entry.metadata.namespace.as_str();
        let Some(query) = self.world.labels.query(selector.labels.iter()) else { return };
        let selects = |labels| self.world.labels.satisfies(labels, &query);
        let revision = self.world.mesh.revision.as_str();
        for own in self.world.entries.healthy_workloads(namespace, revision) {
            if (is_dns || !own.machine.is_only_for_dns) && selects(own.machine.labels) {
                self.machine(&own.machine);
            }
        }
        for seen in self.world.pods.of_namespace(namespace) {
            if !selects(seen.labels) {
                continue;
            }
            match seen.is_ready {
                Some(true) => self.pod(Some(seen), true),
                Some(false) => {}
                None => self.unknown_ready += 1,
            }
        }
    }

    pub(super) fn finish(self) -> Endpoints {
        let is_draining = |id: &GroupId| {
            let value = id.labels.and_then(|set| self.world.labels.value(set, DRAINING));
            value.is_some_and(|value| !value.is_empty())
        };
        let groups = self.counts.into_iter().filter(|(id, _)| !is_draining(id));
        let mut groups = groups
            .map(|(id, (ready, unready))| EndpointGroup { id, ready, unready })
            .collect::<Vec<_>>();
        groups.sort_by_key(|group| group.id);
        Endpoints { groups, unknown_ready: self.unknown_ready, detail: self.detail }
    }
}
