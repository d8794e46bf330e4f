//! Canaries and Rollouts, and what they drive.

use std::collections::{BTreeMap, BTreeSet};

use super::World;
use super::table::Table;
use crate::delivery::{Canary, Rollout, TargetReference};
use crate::istio::Metadata;

/// Who drives an object.
#[derive(Debug, Clone, Copy)]
pub enum Driver<'a> {
    /// Flagger, for this Canary.
    Flagger(&'a Canary),
    /// Argo Rollouts, for this Rollout.
    ArgoRollouts(&'a Rollout),
}

/// Canaries and Rollouts, and which of them names what.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    canaries: Table<Canary>,
    rollouts: Table<Rollout>,
    /// By the name of the VirtualService that Flagger makes: the Canaries of its namespace.
    apexes: Table<BTreeSet<String>>,
    /// By VirtualService: namespace and name of the Rollouts that name it.
    weighed: Table<BTreeSet<(String, String)>>,
    /// By DestinationRule: the Rollouts of its namespace that name it.
    relabelled: Table<BTreeSet<String>>,
}

/// Adds to the set that stands there.
fn add<T: Ord>(table: &mut Table<BTreeSet<T>>, namespace: &str, name: &str, value: T) {
    match table.get_mut(namespace, name) {
        Some(known) => drop(known.insert(value)),
        None => drop(table.insert(namespace, name, BTreeSet::from([value]))),
    }
}

/// Takes out of the set that stands there; nothing is left of an empty one.
fn remove<T: Ord>(table: &mut Table<BTreeSet<T>>, namespace: &str, name: &str, value: &T) {
    let Some(known) = table.get_mut(namespace, name) else { return };
    known.remove(value);
    if known.is_empty() {
        table.remove(namespace, name);
    }
}

impl Deliveries {
    pub(super) fn apply_canary(&mut self, canary: Canary) {
        let Metadata { namespace, name, .. } = &canary.metadata;
        self.delete_canary(namespace, name);
        add(&mut self.apexes, namespace, canary.apex(), name.clone());
        let (namespace, name) = (namespace.clone(), name.clone());
        self.canaries.insert(&namespace, &name, canary);
    }

    pub(super) fn delete_canary(&mut self, namespace: &str, name: &str) {
        let Some(known) = self.canaries.remove(namespace, name) else { return };
        remove(&mut self.apexes, namespace, known.apex(), &name.to_owned());
    }

    pub(super) fn apply_rollout(&mut self, rollout: Rollout) {
        let (namespace, name) = (rollout.metadata.namespace.clone(), rollout.metadata.name.clone());
        self.delete_rollout(&namespace, &name);
        for (at, named) in rollout.virtual_services() {
            add(&mut self.weighed, at, named, (namespace.clone(), name.clone()));
        }
        if let Some(named) = rollout.destination_rule() {
            add(&mut self.relabelled, &namespace, &named.name, name.clone());
        }
        self.rollouts.insert(&namespace, &name, rollout);
    }

    pub(super) fn delete_rollout(&mut self, namespace: &str, name: &str) {
        let Some(known) = self.rollouts.remove(namespace, name) else { return };
        let own = (namespace.to_owned(), name.to_owned());
        for (at, named) in known.virtual_services() {
            remove(&mut self.weighed, at, named, &own);
        }
        if let Some(named) = known.destination_rule() {
            remove(&mut self.relabelled, namespace, &named.name, &own.1);
        }
    }

    pub(super) fn canary_names(&self) -> Vec<(String, String)> {
        self.canaries.names()
    }

    pub(super) fn rollout_names(&self) -> Vec<(String, String)> {
        self.rollouts.names()
    }

    /// The Canary that an object says it belongs to.
    fn owner(&self, namespace: &str, metadata: &Metadata) -> Option<&Canary> {
        let mut own = metadata.owner_references.iter();
        own.find_map(|own| {
            let is_canary = own.kind == "Canary" && own.api_version.starts_with("flagger.app/");
            is_canary.then(|| self.canaries.get(namespace, &own.name)).flatten()
        })
    }
}

/// Whose hash the Pods of a Rollout carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revision {
    /// The version that its Rollout calls stable.
    Stable,
    /// The version that it is rolling out.
    Canary,
}

/// The label by which Argo Rollouts tells the Pods of its versions apart (`pkg/apis/rollouts/v1alpha1/types.go`
/// `DefaultRolloutUniqueLabelKey`).
const POD_TEMPLATE_HASH: &str = "rollouts-pod-template-hash";

impl World {
    /// Which version of its Rollout a subset of `namespace` selects, by the hash among its labels; `None` without a hash, and where
    /// no Rollout says what it means.
    pub fn revision(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Option<Revision> {
        let hash = labels.get(POD_TEMPLATE_HASH).filter(|hash| !hash.is_empty())?;
        let mut rollouts = self.deliveries.rollouts.of_namespace(namespace).map(|(_, own)| own);
        rollouts.find_map(|own| match &own.status {
            status if status.stable_rs == *hash => Some(Revision::Stable),
            status if status.current_pod_hash == *hash && !status.stable_rs.is_empty() => {
                Some(Revision::Canary)
            }
            _ => None,
        })
    }

    /// Whether Argo Rollouts has written a hash into these labels of a subset, or into the selector of this Service, given by
    /// namespace and name.
    pub fn has_hash(
        &self,
        (namespace, service): (&str, &str),
        labels: Option<&BTreeMap<String, String>>,
    ) -> bool {
        let selector = self.service(namespace, service).map(|service| &service.selector);
        [labels, selector].into_iter().flatten().any(|own| own.contains_key(POD_TEMPLATE_HASH))
    }

    /// The first Canary by name, other than `own`, that rolls out the same workload.
    pub fn rival_of(
        &self,
        namespace: &str,
        own: &str,
        target: &TargetReference,
    ) -> Option<&Canary> {
        let is_same = |other: &TargetReference| {
            let is_kind = other.kind == target.kind || other.kind.is_empty();
            other.name == target.name && is_kind
        };
        let all = self.deliveries.canaries.of_namespace(namespace);
        let others =
            all.filter(|(name, other)| name.as_str() != own && is_same(&other.spec.target_ref));
        others.min_by_key(|(name, _)| name.as_str()).map(|(_, other)| other)
    }

    /// Who writes the weights of a VirtualService: the Rollout that names it, the Canary that it belongs to, or the one that is
    /// called so. `written` are the versions of the object that are at hand. Of several Rollouts it is the first by name.
    pub fn driver_of_weights<'a>(
        &self,
        namespace: &str,
        name: &str,
        written: impl Iterator<Item = &'a Metadata>,
    ) -> Option<Driver<'_>> {
        let own = &self.deliveries;
        let rollout = own.weighed.get(namespace, name).and_then(BTreeSet::first);
        let rollout = rollout.and_then(|(at, name)| own.rollouts.get(at, name));
        let named = own.apexes.get(namespace, name).and_then(BTreeSet::first);
        let canary = || {
            let mut written = written;
            let by_reference = written.find_map(|own_metadata| own.owner(namespace, own_metadata));
            by_reference.or_else(|| own.canaries.get(namespace, named?))
        };
        rollout.map(Driver::ArgoRollouts).or_else(|| canary().map(Driver::Flagger))
    }

    /// Who writes the subsets of a DestinationRule, likewise.
    pub fn driver_of_subsets<'a>(
        &self,
        namespace: &str,
        name: &str,
        mut written: impl Iterator<Item = &'a Metadata>,
    ) -> Option<Driver<'_>> {
        let own = &self.deliveries;
        let rollout = own.relabelled.get(namespace, name).and_then(BTreeSet::first);
        let rollout = rollout.and_then(|name| own.rollouts.get(namespace, name));
        let mut canary = || written.find_map(|own_metadata| own.owner(namespace, own_metadata));
        rollout.map(Driver::ArgoRollouts).or_else(|| canary().map(Driver::Flagger))
    }
}
