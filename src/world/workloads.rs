//! Workloads: how old what runs in a Pod is.

use std::collections::{BTreeMap, BTreeSet};

use super::endpoints::is_topology;
use super::labels::{LabelSets, SetId};
use super::table::Table;
use super::{Kind, Pod, Service, World};
use crate::istio::{Host, Timestamp};

/// The parts of a Deployment, ReplicaSet, StatefulSet or DaemonSet that a verdict reads.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Which of the four.
    pub kind: Kind,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `spec.template.metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// The name of the controlling owner, for a ReplicaSet that has one.
    pub owner: Option<String>,
    /// `spec.replicas` is 0: an old ReplicaSet that is only kept for its history.
    pub is_empty: bool,
    /// `spec.template.spec.containers[].image`.
    pub images: Vec<String>,
}

/// How old what a destination selects is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Age {
    /// When the oldest of the workloads was created.
    pub workload: Option<Timestamp>,
    /// When the ReplicaSet that now carries its Pods was created, which is when its present version was deployed.
    pub revision: Option<Timestamp>,
    /// When the Service was created: all that is left where the workload is gone.
    pub service: Option<Timestamp>,
}

#[derive(Debug)]
struct Kept {
    labels: SetId,
    created: Option<Timestamp>,
    owner: Option<String>,
    is_empty: bool,
    images: Box<[String]>,
}

/// Workloads, one table per kind.
#[derive(Debug, Default)]
pub(super) struct Workloads(BTreeMap<Kind, Table<Kept>>);

impl Workloads {
    pub(super) fn apply(&mut self, workload: Workload, labels: &mut LabelSets) {
        let Workload { kind, namespace, name, labels: carried, created, owner, is_empty, images } =
            workload;
        let images = images.into_boxed_slice();
        let kept = Kept { labels: labels.acquire(&carried), created, owner, is_empty, images };
        if let Some(old) = self.0.entry(kind).or_default().insert(&namespace, &name, kept) {
            labels.release(old.labels);
        }
    }

    /// A Pod that nobody controls is a workload of its own.
    pub(super) fn apply_pod(&mut self, pod: Pod, labels: &mut LabelSets) {
        let Pod { namespace, name, labels: carried, created, is_controlled, .. } = pod;
        if is_controlled {
            return self.delete(Kind::Pod, &namespace, &name, labels);
        }
        let kind = Kind::Pod;
        self.apply(
            Workload {
                kind,
                namespace,
                name,
                labels: carried,
                created,
                owner: None,
                is_empty: false,
                images: Vec::new(),
            },
            labels,
        );
    }

    pub(super) fn delete(
        &mut self,
        kind: Kind,
        namespace: &str,
        name: &str,
        labels: &mut LabelSets,
    ) {
        if let Some(old) = self.0.get_mut(&kind).and_then(|table| table.remove(namespace, name)) {
            labels.release(old.labels);
        }
    }

    pub(super) fn names(&self, kind: Kind) -> Vec<(String, String)> {
        self.0.get(&kind).map(Table::names).unwrap_or_default()
    }
}

impl World {
    /// The age of what the Service of `host` selects with `labels`; nothing is known of other hosts.
    pub fn age(&self, host: &Host, labels: &BTreeMap<String, String>) -> Age {
        let Some(service) = self.selecting_service(host) else { return Age::default() };
        let alone = Age { service: service.created, ..Age::default() };
        let Some(query) = self.template_query(service, labels) else { return alone };
        let matching = |kind| self.matching(kind, &service.namespace, &query);
        let owners = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::Pod];
        let workload =
            owners.into_iter().flat_map(matching).filter_map(|(_, kept)| kept.created).min();
        let current = matching(Kind::ReplicaSet).filter(|(_, kept)| !kept.is_empty);
        // A rollout in progress has two: the younger one is what will stay. Of several workloads the oldest speaks.
        let mut revisions: BTreeMap<&str, Timestamp> = BTreeMap::new();
        for (name, kept) in current {
            let Some(created) = kept.created else { continue };
            let of = revisions.entry(kept.owner.as_deref().unwrap_or(name)).or_insert(created);
            *of = created.max(*of);
        }
        Age { workload, revision: revisions.values().min().copied(), ..alone }
    }

    /// The images of the workloads that the Service of `host` selects with `labels`, sorted, with a blank between; empty where
    /// none is known. A ReplicaSet speaks where nothing else is selected.
    pub fn images(&self, host: &Host, labels: &BTreeMap<String, String>) -> String {
        let Some(service) = self.selecting_service(host) else { return String::new() };
        let Some(query) = self.template_query(service, labels) else { return String::new() };
        let matching = |kind| self.matching(kind, &service.namespace, &query);
        let owners = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet];
        let mut images = owners.into_iter().flat_map(matching).peekable();
        let images: BTreeSet<&str> = if images.peek().is_some() {
            images.flat_map(|(_, kept)| &kept.images).map(String::as_str).collect()
        } else {
            let current = matching(Kind::ReplicaSet).filter(|(_, kept)| !kept.is_empty);
            current.flat_map(|(_, kept)| &kept.images).map(String::as_str).collect()
        };
        images.into_iter().collect::<Vec<_>>().join(" ")
    }

    /// The Service of `host`, if it selects Pods.
    fn selecting_service(&self, host: &Host) -> Option<&Service> {
        let (name, namespace) = host.service(&self.mesh.domain)?;
        self.service(namespace, name).filter(|service| !service.selector.is_empty())
    }

    /// What the template of a workload that `service` selects with `labels` carries; `None` where nothing does.
    fn template_query(
        &self,
        service: &Service,
        labels: &BTreeMap<String, String>,
    ) -> Option<Vec<u32>> {
        let carried = labels.iter().filter(|(key, _)| !is_topology(key));
        self.labels.query(service.selector.iter().chain(carried))
    }

    fn matching<'a>(
        &'a self,
        kind: Kind,
        namespace: &'a str,
        query: &'a [u32],
    ) -> impl Iterator<Item = (&'a String, &'a Kept)> {
        let table = self.workloads.0.get(&kind).into_iter();
        let own = table.flat_map(move |table| table.of_namespace(namespace));
        own.filter(move |(_, kept)| self.labels.satisfies(kept.labels, query))
    }
}
