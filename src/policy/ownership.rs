//! Who drives what is written, and whether it is the driver who writes.

use super::names::{Role, fits};
use super::review::{Operation, Review};
use super::settings::Controllers;
use super::verdict::Reference;
use crate::delivery::{Canary, Rollout};
use crate::istio::{Host, OwnerReference};
use crate::world::{Driver, World};

/// The delivery controller that writes an object.
#[derive(Debug, Clone, Copy)]
pub struct Ownership<'a> {
    /// Which one, and what it is told.
    pub driver: Driver<'a>,
    /// Whether this write is its own: the account is the controller's, and what it is told names the object. Neither is enough by
    /// itself.
    pub is_own: bool,
}

impl<'a> Ownership<'a> {
    /// Of the object of `review`; `None` where nobody is known to drive it.
    pub(super) fn of(review: &Review, controllers: &Controllers, world: &'a World) -> Option<Self> {
        let (namespace, name) = (review.namespace.as_str(), review.name.as_str());
        let driver = match &review.operation {
            Operation::VirtualService(write) => {
                let own = [write.stored(), write.written()].into_iter().flatten();
                world.driver_of_weights(namespace, name, own.map(|own| &own.metadata))
            }
            Operation::DestinationRule(write) => {
                let own = [write.stored(), write.written()].into_iter().flatten();
                world.driver_of_subsets(namespace, name, own.map(|own| &own.metadata))
            }
            _ => None,
        }?;
        let accounts = match driver {
            Driver::Flagger(_) => &controllers.flagger,
            Driver::ArgoRollouts(_) => &controllers.argo_rollouts,
        };
        let is_own = accounts.iter().any(|account| fits(account, &review.user));
        Some(Self { driver, is_own })
    }
}

impl Ownership<'_> {
    /// What would say that this write is a controller's own, where its account is one and nobody is known to drive the object: a
    /// Canary or a Rollout that was made a moment ago.
    pub(super) fn rests_on(review: &Review, controllers: &Controllers) -> Vec<Reference> {
        let is_of = |accounts: &[String]| accounts.iter().any(|own| fits(own, &review.user));
        let namespace = || review.namespace.clone();
        let mut found = Vec::new();
        if is_of(&controllers.flagger) {
            found.push(Reference::Canaries { namespace: namespace() });
        }
        if is_of(&controllers.argo_rollouts) {
            found.push(Reference::Rollouts { namespace: namespace() });
        }
        found
    }

    /// Whether Argo Rollouts clears up: its own mark is on the stored DestinationRule, and the Rollout is gone or names another one.
    /// It takes its hashes out and tries until it has.
    pub(super) fn is_clearing_up(review: &Review, controllers: &Controllers) -> bool {
        let Operation::DestinationRule(write) = &review.operation else { return false };
        let accounts = &controllers.argo_rollouts;
        accounts.iter().any(|account| fits(account, &review.user))
            && write.stored().is_some_and(|old| old.metadata.is_marked_by_argo())
    }

    /// Whether Flagger writes what already belongs to a Canary, by its own word: all that can be told before Canaries are listed.
    pub(super) fn is_flaggers(review: &Review, controllers: &Controllers) -> bool {
        let accounts = &controllers.flagger;
        let stored = review.old_object().map(|old| old.metadata.owner_references.as_slice());
        let is_canary = |own: &OwnerReference| {
            own.kind == "Canary" && own.api_version.starts_with("flagger.app/")
        };
        accounts.iter().any(|account| fits(account, &review.user))
            && stored.unwrap_or_default().iter().any(is_canary)
    }
}

/// The parts that a Canary or a Rollout gives to hosts or subsets.
#[derive(Debug, Default)]
pub(super) struct Parts {
    hosts: Vec<(Host, Role)>,
    subsets: Vec<(String, Role)>,
}

impl Parts {
    /// Of the VirtualService that `driver` writes.
    pub(super) fn of(driver: Option<Driver<'_>>, domain: &str) -> Self {
        match driver {
            None => Self::default(),
            Some(Driver::Flagger(canary)) => Self::of_canary(canary, domain),
            Some(Driver::ArgoRollouts(rollout)) => Self::of_rollout(rollout, domain),
        }
    }

    fn of_canary(canary: &Canary, domain: &str) -> Self {
        let (apex, namespace) = (canary.apex(), &canary.metadata.namespace);
        let host = |end: &str| Host::resolve(&format!("{apex}-{end}"), namespace, domain);
        let hosts = vec![(host("primary"), Role::Stable), (host("canary"), Role::Canary)];
        Self { hosts, subsets: Vec::new() }
    }

    fn of_rollout(rollout: &Rollout, domain: &str) -> Self {
        let namespace = &rollout.metadata.namespace;
        let (stable, canary) = rollout.services();
        let hosts = [(stable, Role::Stable), (canary, Role::Canary)].into_iter();
        let hosts = hosts.filter(|(name, _)| !name.is_empty() && stable != canary);
        let hosts = hosts.map(|(name, role)| (Host::resolve(name, namespace, domain), role));
        let subsets = rollout.destination_rule().into_iter().flat_map(|rule| {
            [(&rule.stable_subset_name, Role::Stable), (&rule.canary_subset_name, Role::Canary)]
        });
        let subsets = subsets.filter(|(name, _)| !name.is_empty());
        let subsets = subsets.map(|(name, role)| (name.clone(), role));
        Self { hosts: hosts.collect(), subsets: subsets.collect() }
    }

    /// The part of a destination: a subset's own, or its host's where it names none.
    pub(super) fn role(&self, host: &Host, subset: &str) -> Option<Role> {
        let of_subset = self.subsets.iter().find(|(name, _)| name == subset);
        let of_host = self.hosts.iter().find(|(own, _)| own == host);
        of_subset.map(|(_, role)| *role).or(of_host.map(|(_, role)| *role))
    }
}
