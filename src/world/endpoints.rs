use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::entries::{LOCALITIES, Machine, NETWORK};
use super::labels::SetId;
use super::nodes::{LocalityId, NodeId};
use super::pods::{PodSlot, Seen};
use super::services::{Service, Slice};
use super::{HostKind, Kind, World};
use crate::istio::{Host, Resolution, ServiceEntry};

/// Endpoints that cannot be told apart by their labels, those that istiod adds included where somebody asks for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId {
    /// The labels that they carry themselves; `None` for none.
    labels: Option<SetId>,
    locality: Option<LocalityId>,
    node: Option<NodeId>,
}

impl GroupId {
    /// The labels that they carry themselves.
    pub(super) fn labels(self) -> Option<SetId> {
        self.labels
    }

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
enum Detail {
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
    detail: Detail,
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

const HOSTNAME: &str = "kubernetes.io/hostname";

/// A Pod with this label is being emptied, whatever the value, and gets no new requests (istiod's `PILOT_DRAINING_LABEL`).
const DRAINING: &str = "istio.io/draining";

/// Counts endpoints by group.
struct Tally<'a> {
    world: &'a World,
    detail: Detail,
    counts: HashMap<GroupId, (u32, u32)>,
    unknown_ready: u32,
}

impl<'a> Tally<'a> {
    fn new(world: &'a World, detail: Detail) -> Self {
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

    /// The endpoints in the slices of a Service, for one port or for any.
    fn slices(&mut self, service: &Service, port: Option<&str>) {
        let of_port = |slice: &&Slice| match port {
            Some(name) => slice.ports.iter().any(|own| own == name),
            // A slice for none of the Service's ports makes no endpoint of it.
            None => {
                service.ports.is_empty()
                    || service.ports.iter().any(|port| slice.ports.contains(&port.name))
            }
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
    fn machines_of_service(&mut self, service: &Service, port: Option<&str>) {
        if service.selector.is_empty() || service.is_headless {
            return;
        }
        let Some(query) = self.world.labels.query(service.selector.iter()) else { return };
        let ports = service.ports.iter().filter(|own| port.is_none_or(|name| own.name == name));
        let targets = ports.map(|own| own.target.as_ref()).collect::<Vec<_>>();
        for own in self.world.entries.healthy_workloads(&service.namespace) {
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
    fn entry(&mut self, entry: &ServiceEntry) {
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
        for own in self.world.entries.healthy_workloads(namespace) {
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

    fn finish(self) -> Endpoints {
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

impl World {
    /// The endpoints of `host`, for whichever of its ports; `None` where Kubernetes does not know them: there is no such host, or
    /// DNS or the client itself finds them.
    pub fn endpoints(&self, host: &Host) -> Option<Endpoints> {
        self.members(host, None, Detail::Labels)
    }

    /// The endpoints of `host` that carry all of `labels` and serve `port`, the number of one of its ports; `None` there asks
    /// about every port. `None` where that is not known, for instance because nobody has seen the Nodes yet.
    ///
    /// The labels are those of the Pod, WorkloadEntry or listed endpoint and those that istiod adds: region, zone, subzone,
    /// cluster, network, and the name of the Node.
    pub fn selected(
        &self,
        host: &Host,
        labels: &BTreeMap<String, String>,
        port: Option<i64>,
    ) -> Option<Endpoints> {
        self.selected_by(host, labels, port, Detail::Labels)
    }

    fn selected_by(
        &self,
        host: &Host,
        labels: &BTreeMap<String, String>,
        port: Option<i64>,
        least: Detail,
    ) -> Option<Endpoints> {
        let asked = labels.keys().map(|key| self.detail(key)).max().unwrap_or_default();
        let detail = asked.max(least);
        if labels.is_empty() {
            return self.members(host, port, detail);
        }
        if self.has_no_labels(host) {
            return Some(Endpoints { detail, ..Endpoints::default() });
        }
        let may_be_in_a_network = |key: &String| key == NETWORK && self.network().is_none();
        if (asked > Detail::Labels && !self.knows(Kind::Node))
            || labels.keys().any(may_be_in_a_network)
        {
            return None;
        }
        let mut all = self.members(host, port, detail)?;
        let (added, carried) = labels.iter().partition::<Vec<_>, _>(|(key, _)| is_topology(key));
        let query = self.labels.query(carried.iter().copied());
        all.groups.retain(|group| {
            let set = group.id.labels;
            let carries = query.as_ref().is_some_and(|query| {
                query.is_empty() || set.is_some_and(|set| self.labels.satisfies(set, query))
            });
            carries && added.iter().all(|(key, value)| self.added(group.id, key) == value.as_str())
        });
        Some(all)
    }

    /// How finely endpoints are told apart to say whether they carry the label `key`.
    fn detail(&self, key: &str) -> Detail {
        match key {
            HOSTNAME => Detail::Nodes,
            "topology.kubernetes.io/region"
            | "topology.kubernetes.io/zone"
            | "topology.istio.io/subzone" => Detail::Places,
            _ => Detail::Labels,
        }
    }

    /// Whether `host` has endpoints that never carry a label: those that DNS finds by the name of the host, so that Istio makes
    /// no cluster for a subset with labels.
    fn has_no_labels(&self, host: &Host) -> bool {
        let Some(HostKind::ServiceEntry(entry)) = self.host(host) else { return false };
        let spec = &entry.spec;
        let is_found_by_name = spec.endpoints.is_empty() && spec.workload_selector.is_none();
        match spec.resolution {
            Resolution::Dns => is_found_by_name,
            Resolution::DynamicDns => true,
            Resolution::Static | Resolution::None => false,
        }
    }

    /// The network of every endpoint that does not name one: a label of the root namespace. Without it `meshNetworks` may still
    /// say something, which is not read.
    fn network(&self) -> Option<&str> {
        let labels = self.namespace_labels(&self.mesh.root_namespace)?;
        labels.get(NETWORK).map(String::as_str).filter(|network| !network.is_empty())
    }

    /// The value of a label that istiod adds, on the endpoints of a group; empty where they lack it.
    ///
    /// Source: `pilot/pkg/serviceregistry/util/label/label.go` `AugmentLabels`.
    fn added(&self, id: GroupId, key: &str) -> &str {
        let own = |key| id.labels.and_then(|set| self.labels.value(set, key)).unwrap_or_default();
        let place = |at: usize, key| {
            let written = LOCALITIES.iter().map(|key| own(key)).find(|value| !value.is_empty());
            // Labels cannot hold a slash, so a label writes dots.
            let part = match written {
                Some(written) if written.contains('/') => written.split('/').nth(at),
                Some(written) => written.split('.').nth(at),
                None => id.locality.and_then(|id| self.nodes.locality(id).split('/').nth(at)),
            };
            part.filter(|part| !part.is_empty()).unwrap_or_else(|| own(key))
        };
        match key {
            "topology.kubernetes.io/region" => place(0, key),
            "topology.kubernetes.io/zone" => place(1, key),
            "topology.istio.io/subzone" => place(2, key),
            "topology.istio.io/cluster" if !self.mesh.cluster.is_empty() => &self.mesh.cluster,
            HOSTNAME => id.node.map_or_else(|| own(key), |node| self.nodes.name(node)),
            NETWORK => match own(key) {
                "" => self.network().unwrap_or_default(),
                network => network,
            },
            _ => own(key),
        }
    }

    fn members(&self, host: &Host, port: Option<i64>, detail: Detail) -> Option<Endpoints> {
        let mut tally = Tally::new(self, detail);
        match self.host(host)? {
            HostKind::Service(service) => {
                let port = match port {
                    None => None,
                    Some(number) => {
                        let own = service.ports.iter().find(|own| own.number == number);
                        let Some(own) = own else { return Some(Endpoints::default()) };
                        Some(own.name.as_str())
                    }
                };
                tally.slices(service, port);
                tally.machines_of_service(service, port);
            }
            HostKind::Alias(_) => {
                let target = self.alias_target(host)?;
                // Envoy's cluster is that of the other host, and one step is all that Istio goes.
                return match self.host(&target)? {
                    HostKind::Alias(_) => None,
                    _ => self.members(&target, port, detail),
                };
            }
            HostKind::ServiceEntry(entry) => {
                let is_found_by_name = entry.spec.endpoints.is_empty()
                    && entry.spec.workload_selector.is_none()
                    && entry.spec.resolution == Resolution::Dns;
                if is_found_by_name
                    || matches!(entry.spec.resolution, Resolution::None | Resolution::DynamicDns)
                {
                    return None;
                }
                let namespace = &entry.metadata.namespace;
                let same = |own: &&ServiceEntry| own.metadata.namespace == *namespace;
                for own in self.entries.of_host(host.as_str()).into_iter().filter(same) {
                    tally.entry(own);
                }
            }
        }
        Some(tally.finish())
    }

    /// All endpoints of `host`, for whichever of its ports, by the values that they have for these labels, those that istiod adds
    /// included: labels, ready, unready. Empty where nothing is known.
    pub fn endpoints_by(&self, host: &Host, keys: &BTreeSet<&str>) -> Vec<LabelledCount> {
        let detail = keys.iter().map(|key| self.detail(key)).max().unwrap_or_default();
        let all = self.members(host, None, detail).unwrap_or_default();
        let mut found: BTreeMap<Vec<(String, String)>, (u32, u32)> = BTreeMap::new();
        for EndpointGroup { id, ready, unready } in all.groups {
            let value = |key: &str| match id.labels {
                _ if is_topology(key) => {
                    Some(self.added(id, key)).filter(|value| !value.is_empty())
                }
                Some(set) => self.labels.value(set, key),
                None => None,
            };
            let carried =
                keys.iter().filter_map(|key| Some(((*key).to_owned(), value(key)?.to_owned())));
            let counts = found.entry(carried.collect()).or_default();
            *counts = (counts.0 + ready, counts.1 + unready);
        }
        let counted = |(labels, (ready, unready))| LabelledCount { labels, ready, unready };
        found.into_iter().map(counted).collect()
    }

    /// On how many Nodes `host` has ready endpoints that carry all of `labels` and serve `port`; `None` where that is not known.
    pub fn nodes_with(
        &self,
        host: &Host,
        labels: &BTreeMap<String, String>,
        port: Option<i64>,
    ) -> Option<usize> {
        let chosen = self.selected_by(host, labels, port, Detail::Nodes)?;
        let ready = chosen.groups.iter().filter(|group| group.ready > 0);
        let nodes = ready.map(|group| group.id.node).collect::<BTreeSet<_>>();
        (chosen.unknown_ready == 0 && !nodes.contains(&None)).then_some(nodes.len())
    }

    /// Whether any WorkloadEntry is in `namespace`, where Services may select it like a Pod.
    pub fn has_workload_entries(&self, namespace: &str) -> bool {
        self.entries.has_workloads(namespace)
    }

    /// How many Pods of `namespace` carry all of `labels` and are selected by no Service: perhaps by a slip in their labels.
    pub fn stray_pods(&self, namespace: &str, labels: &BTreeMap<String, String>) -> u32 {
        let Some(query) = self.labels.query(labels.iter()) else { return 0 };
        let selectors =
            self.services.of_namespace(namespace).filter(|service| !service.selector.is_empty());
        let selectors = selectors
            .filter_map(|service| self.labels.query(service.selector.iter()))
            .collect::<Vec<_>>();
        let is_stray = |seen: &Seen| {
            self.labels.satisfies(seen.labels, &query)
                && !selectors.iter().any(|query| self.labels.satisfies(seen.labels, query))
        };
        self.pods.of_namespace(namespace).filter(is_stray).map(|_| 1).sum()
    }
}
