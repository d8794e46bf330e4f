use std::collections::{BTreeMap, HashMap};

use super::World;
use super::labels::SetId;
use super::pods::{PodSlot, Pods};
use super::services::Slice;
use crate::istio::{Host, Resolution, ServiceEntry};

/// Endpoints that cannot be told apart by their labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupId {
    /// Pods with exactly these labels.
    Labels(SetId),
    /// The endpoint `index` that a ServiceEntry or a hand-written slice lists.
    Listed {
        /// Its place in the list.
        index: usize,
    },
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
    /// Ready endpoints whose Pod has not been seen yet: nobody can say whether a subset selects them.
    pub unknown_ready: u32,
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
        let ready = |groups: &[EndpointGroup], id| {
            groups.iter().find(|group| group.id == id).map(|group| group.ready)
        };
        let both = self
            .groups
            .iter()
            .filter_map(|own| ready(&other.groups, own.id).map(|theirs| own.ready.min(theirs)));
        both.sum()
    }
}

pub(super) fn of_slices<'a>(
    slices: impl Iterator<Item = &'a Slice> + Clone,
    pods: &Pods,
) -> Endpoints {
    let has_ipv4 = slices.clone().any(|slice| !slice.is_ipv6);
    let mut counts: HashMap<GroupId, (u32, u32)> = HashMap::new();
    let mut unknown_ready = 0;
    let mut listed = 0;
    // While slices are rearranged a Pod stands in two of them for a moment; it is one endpoint, ready if either says so.
    let mut of_pods: HashMap<PodSlot, bool> = HashMap::new();
    let mut count = |id, is_ready: bool| {
        let (ready, unready) = counts.entry(id).or_default();
        *(if is_ready { ready } else { unready }) += 1;
    };
    for &(pod, is_ready) in
        slices.filter(|slice| !(has_ipv4 && slice.is_ipv6)).flat_map(|slice| &slice.endpoints)
    {
        match pod {
            Some(pod) => *of_pods.entry(pod).or_default() |= is_ready,
            None => {
                count(GroupId::Listed { index: listed }, is_ready);
                listed += 1;
            }
        }
    }
    for (pod, is_ready) in of_pods {
        match pods.labels(pod) {
            Some(set) => count(GroupId::Labels(set), is_ready),
            None => unknown_ready += u32::from(is_ready),
        }
    }
    let groups =
        counts.into_iter().map(|(id, (ready, unready))| EndpointGroup { id, ready, unready });
    let mut groups = groups.collect::<Vec<_>>();
    groups.sort_by_key(|group| group.id);
    Endpoints { groups, unknown_ready }
}

/// Only a static list without a selector says what is there; Kubernetes knows no health of it, so it counts as ready.
pub(super) fn of_service_entry(entry: &ServiceEntry) -> Option<Endpoints> {
    if entry.spec.resolution != Resolution::Static || entry.spec.workload_selector.is_some() {
        return None;
    }
    let group = |index| EndpointGroup { id: GroupId::Listed { index }, ready: 1, unready: 0 };
    Some(Endpoints {
        groups: (0..entry.spec.endpoints.len()).map(group).collect(),
        unknown_ready: 0,
    })
}

/// Labels that istiod adds to endpoints by itself (`pilot/pkg/serviceregistry/util/label/label.go`); no Pod carries them.
pub(super) fn is_topology(label: &str) -> bool {
    label.starts_with("topology.kubernetes.io/")
        || label.starts_with("topology.istio.io/")
        || label == "kubernetes.io/hostname"
}

impl World {
    /// The endpoints of `host` that carry all of `labels` and serve `port`, the number of one of its ports; `None` there asks
    /// about every port. `None` where that is not known, for instance because a label is
    /// one that istiod adds from the node.
    pub fn selected(
        &self,
        host: &Host,
        labels: &BTreeMap<String, String>,
        _port: Option<i64>,
    ) -> Option<Endpoints> {
        let all = self.endpoints(host)?;
        if labels.is_empty() {
            return Some(all);
        }
        if labels.keys().any(|key| is_topology(key)) {
            return None;
        }
        let query = self.labels.query(labels.iter());
        let listed = match self.host(host) {
            Some(super::HostKind::ServiceEntry(entry)) => entry.spec.endpoints.as_slice(),
            _ => &[],
        };
        let carries = |group: &EndpointGroup| match group.id {
            GroupId::Labels(set) => {
                query.as_ref().is_some_and(|query| self.labels.satisfies(set, query))
            }
            GroupId::Listed { index } => listed.get(index).is_some_and(|endpoint| {
                labels.iter().all(|(key, value)| endpoint.labels.get(key) == Some(value))
            }),
        };
        let groups = all.groups.into_iter().filter(carries).collect();
        Some(Endpoints { groups, unknown_ready: all.unknown_ready })
    }

    /// How many Pods of `namespace` carry all of `labels` and are selected by no Service: perhaps by a slip in their labels.
    pub fn stray_pods(&self, namespace: &str, labels: &BTreeMap<String, String>) -> u32 {
        let Some(query) = self.labels.query(labels.iter()) else { return 0 };
        let selectors =
            self.services.of_namespace(namespace).filter(|service| !service.selector.is_empty());
        let selectors = selectors
            .filter_map(|service| self.labels.query(service.selector.iter()))
            .collect::<Vec<_>>();
        let is_stray = |set| {
            self.labels.satisfies(set, &query)
                && !selectors.iter().any(|query| self.labels.satisfies(set, query))
        };
        self.pods.count(namespace, is_stray)
    }
}
