//! What a subset selects among the endpoints of a host.

use std::collections::{BTreeMap, BTreeSet};

use super::endpoints::{
    Detail, EndpointGroup, Endpoints, GroupId, HOSTNAME, LabelledCount, Port, Ports, Tally,
    is_topology,
};
use super::entries::{LOCALITIES, NETWORK};
use super::pods::Seen;
use super::{HostKind, Kind, World};
use crate::istio::{Host, Resolution, ServiceEntry};

/// The id of the cluster, as a label of its endpoints.
const CLUSTER: &str = "topology.istio.io/cluster";

impl World {
    /// The endpoints of `host`, for whichever of its ports; `None` where Kubernetes does not know them: there is no such host, or
    /// DNS or the client itself finds them.
    pub fn endpoints(&self, host: &Host) -> Option<Endpoints> {
        self.members(host, Port::Any, Detail::Labels)
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
        self.selected_by(host, labels, Port::of(port), Detail::Labels)
    }

    fn selected_by(
        &self,
        host: &Host,
        labels: &BTreeMap<String, String>,
        port: Port,
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
        (all.ready() > 0 || !self.may_be_elsewhere(labels)).then_some(all)
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

    /// Whether these labels ask for a cluster or a network that is not known to be this one: the id of the cluster is a setting
    /// with a default, `meshNetworks` is not read, and nobody here knows the endpoints of other clusters.
    pub fn may_be_elsewhere(&self, labels: &BTreeMap<String, String>) -> bool {
        let is_other = |key: &str, here: &str| labels.get(key).is_some_and(|own| own != here);
        is_other(CLUSTER, &self.mesh.cluster)
            || is_other(NETWORK, self.network().unwrap_or_default())
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
            CLUSTER if !self.mesh.cluster.is_empty() => &self.mesh.cluster,
            HOSTNAME => id.node.map_or_else(|| own(key), |node| self.nodes.name(node)),
            NETWORK => match own(key) {
                "" => self.network().unwrap_or_default(),
                network => network,
            },
            _ => own(key),
        }
    }

    fn members(&self, host: &Host, port: Port, detail: Detail) -> Option<Endpoints> {
        let mut tally = Tally::new(self, detail);
        match self.host(host)? {
            HostKind::Service(service) => {
                let ports = match port {
                    Port::Any => Ports::Any,
                    Port::EvenNone => Ports::EvenNone,
                    Port::Number(number) => {
                        let own = service.ports.iter().find(|own| own.number == number);
                        let Some(own) = own else { return Some(Endpoints::default()) };
                        Ports::One(&own.name)
                    }
                };
                tally.slices(service, ports);
                tally.machines_of_service(service, ports);
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

    /// How many ready endpoints of `host` carry all of `labels` and stand in some slice, even if that is for no port of the Service:
    /// Pods that lack a named port.
    pub fn ready_on_no_port(&self, host: &Host, labels: &BTreeMap<String, String>) -> u32 {
        let all = self.selected_by(host, labels, Port::EvenNone, Detail::Labels);
        all.map_or(0, |all| all.ready())
    }

    /// All endpoints of `host`, for whichever of its ports, by the values that they have for these labels, those that istiod adds
    /// included: labels, ready, unready. Empty where nothing is known.
    pub fn endpoints_by(&self, host: &Host, keys: &BTreeSet<&str>) -> Vec<LabelledCount> {
        let detail = keys.iter().map(|key| self.detail(key)).max().unwrap_or_default();
        let all = self.members(host, Port::Any, detail).unwrap_or_default();
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
        let chosen = self.selected_by(host, labels, Port::of(port), Detail::Nodes)?;
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
