//! ServiceEntries and WorkloadEntries.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::labels::{LabelSets, SetId};
use super::nodes::{LocalityId, Nodes};
use super::table::Table;
use crate::istio::{ServiceEntry, WorkloadEntry, WorkloadEntrySpec, host_covers};

/// The label that says which network an endpoint is in.
pub(super) const NETWORK: &str = "topology.istio.io/network";

/// Labels that say where an endpoint is, before its Node is asked; the first one that is there counts.
pub(super) const LOCALITIES: [&str; 2] = ["topology.istio.io/locality", "istio-locality"];

/// An endpoint that is no Pod: listed by a ServiceEntry, or a WorkloadEntry.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) labels: SetId,
    pub(super) locality: Option<LocalityId>,
    /// Only a host that is resolved by DNS can use it.
    pub(super) is_only_for_dns: bool,
}

impl Machine {
    fn of(
        spec: &WorkloadEntrySpec,
        mut carried: BTreeMap<String, String>,
        labels: &mut LabelSets,
        nodes: &mut Nodes,
    ) -> Self {
        if !spec.network.is_empty() {
            carried.entry(NETWORK.to_owned()).or_insert_with(|| spec.network.clone());
        }
        Self {
            labels: labels.acquire(&carried),
            locality: nodes.acquire_locality(&spec.locality),
            is_only_for_dns: spec.is_only_for_dns(),
        }
    }

    fn release(&self, labels: &mut LabelSets, nodes: &mut Nodes) {
        labels.release(self.labels);
        nodes.release_locality(self.locality);
    }
}

/// A WorkloadEntry as it is kept.
#[derive(Debug)]
pub(super) struct KeptWorkload {
    pub(super) machine: Machine,
    /// The names of the ports for which it has a number of its own.
    pub(super) ports: Box<[String]>,
    pub(super) is_healthy: bool,
    /// Its label `istio.io/rev`.
    revision: Option<Box<str>>,
}

#[derive(Debug)]
struct KeptEntry {
    entry: ServiceEntry,
    endpoints: Box<[Machine]>,
}

/// ServiceEntries and WorkloadEntries.
#[derive(Debug, Default)]
pub(super) struct Entries {
    entries: Table<KeptEntry>,
    /// Namespace and name of the ServiceEntries by host, wildcards included.
    by_host: HashMap<String, BTreeSet<(String, String)>>,
    wildcards: BTreeSet<String>,
    workloads: Table<KeptWorkload>,
}

impl Entries {
    pub(super) fn apply(&mut self, entry: ServiceEntry, labels: &mut LabelSets, nodes: &mut Nodes) {
        let (namespace, name) = (entry.metadata.namespace.clone(), entry.metadata.name.clone());
        let endpoints = entry.spec.endpoints.iter();
        let endpoints =
            endpoints.map(|own| Machine::of(own, own.labels.clone(), labels, nodes)).collect();
        self.delete(&namespace, &name, labels, nodes);
        for host in &entry.spec.hosts {
            if host.starts_with('*') {
                self.wildcards.insert(host.clone());
            }
            self.by_host.entry(host.clone()).or_default().insert((namespace.clone(), name.clone()));
        }
        self.entries.insert(&namespace, &name, KeptEntry { entry, endpoints });
    }

    pub(super) fn delete(
        &mut self,
        namespace: &str,
        name: &str,
        labels: &mut LabelSets,
        nodes: &mut Nodes,
    ) {
        let Some(KeptEntry { entry, endpoints }) = self.entries.remove(namespace, name) else {
            return;
        };
        endpoints.iter().for_each(|own| own.release(labels, nodes));
        for host in &entry.spec.hosts {
            let Some(names) = self.by_host.get_mut(host) else { continue };
            names.remove(&(namespace.to_owned(), name.to_owned()));
            if names.is_empty() {
                self.by_host.remove(host);
                self.wildcards.remove(host);
            }
        }
    }

    pub(super) fn apply_workload(
        &mut self,
        entry: &WorkloadEntry,
        labels: &mut LabelSets,
        nodes: &mut Nodes,
    ) {
        let machine = Machine::of(&entry.spec, entry.labels(), labels, nodes);
        let is_healthy = entry.is_healthy();
        let ports = entry.spec.ports.keys().cloned().collect();
        let revision = entry.metadata.labels.get("istio.io/rev").map(|own| own.as_str().into());
        let kept = KeptWorkload { machine, ports, is_healthy, revision };
        let (namespace, name) = (&entry.metadata.namespace, &entry.metadata.name);
        if let Some(old) = self.workloads.insert(namespace, name, kept) {
            old.machine.release(labels, nodes);
        }
    }

    pub(super) fn delete_workload(
        &mut self,
        namespace: &str,
        name: &str,
        labels: &mut LabelSets,
        nodes: &mut Nodes,
    ) {
        if let Some(old) = self.workloads.remove(namespace, name) {
            old.machine.release(labels, nodes);
        }
    }

    /// The ServiceEntries that name exactly `host`, the oldest first: it says what the host is.
    ///
    /// Source: `pilot/pkg/model/push_context.go` `initServiceRegistry`.
    pub(super) fn of_host(&self, host: &str) -> Vec<&ServiceEntry> {
        let names = self.by_host.get(host).into_iter().flatten();
        let mut found = names
            .filter_map(|(namespace, name)| self.entries.get(namespace, name))
            .map(|kept| &kept.entry)
            .collect::<Vec<_>>();
        let age = |entry: &&ServiceEntry| {
            let metadata = &entry.metadata;
            (metadata.creation_timestamp, metadata.name.clone(), metadata.namespace.clone())
        };
        if found.len() > 1 {
            found.sort_by_key(age);
        }
        found
    }

    /// The endpoints that `entry` lists itself.
    pub(super) fn listed(&self, entry: &ServiceEntry) -> &[Machine] {
        let kept = self.entries.get(&entry.metadata.namespace, &entry.metadata.name);
        kept.map_or(&[], |kept| &kept.endpoints)
    }

    /// The most specific wildcard that covers `host`.
    pub(super) fn wildcard_of(&self, host: &str) -> Option<&str> {
        let covering = self.wildcards.iter().filter(|own| host_covers(own, host));
        covering.max_by_key(|own| own.len()).map(String::as_str)
    }

    /// Every host that a ServiceEntry adds, in no order.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.by_host.keys().map(String::as_str)
    }

    /// The ServiceEntries of one namespace, in no order.
    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &ServiceEntry> {
        self.entries.of_namespace(namespace).map(|(_, kept)| &kept.entry)
    }

    pub(super) fn names(&self) -> Vec<(String, String)> {
        self.entries.names()
    }

    pub(super) fn workload_names(&self) -> Vec<(String, String)> {
        self.workloads.names()
    }

    pub(super) fn has_workloads(&self, namespace: &str) -> bool {
        self.workloads.of_namespace(namespace).next().is_some()
    }

    /// The WorkloadEntries of a namespace to which istiod of `revision` lets requests be sent.
    pub(super) fn healthy_workloads(
        &self,
        namespace: &str,
        revision: &str,
    ) -> impl Iterator<Item = &KeptWorkload> {
        let all = self.workloads.of_namespace(namespace).map(|(_, own)| own);
        all.filter(move |own| {
            let is_seen = own.revision.as_deref().is_none_or(|own| own == revision);
            own.is_healthy && (is_seen || revision.is_empty())
        })
    }
}
