//! What was read live is not undone by an older event of a watch.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::world::{Kind, Object};

/// A watch that lags behind by more than this has been broken off, and then everything is listed again anyway.
const LONGEST_LAG: Duration = Duration::from_secs(60);

/// What a live read has covered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every object of the kind.
    All,
    /// Every object of a namespace.
    Namespace(String),
    /// The objects with these names, there or not.
    Named(String, BTreeSet<String>),
    /// The EndpointSlices of these Services.
    SlicesOf(String, BTreeSet<String>),
}

impl Scope {
    pub(super) fn covers(&self, namespace: &str, name: &str, service: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(own) => own == namespace,
            Self::Named(own, names) => own == namespace && names.contains(name),
            Self::SlicesOf(own, services) => {
                own == namespace && service.is_some_and(|service| services.contains(service))
            }
        }
    }
}

/// The Service that an EndpointSlice names.
pub(super) fn service_of(object: Option<&Object>) -> Option<&str> {
    match object {
        Some(Object::EndpointSlice(slice)) => Some(&slice.service),
        _ => None,
    }
}

#[derive(Debug)]
struct Floor {
    kind: Kind,
    scope: Scope,
    version: u64,
    at: Instant,
}

/// How new the index is in parts that were read live: a watch event that is older must not undo what was read.
#[derive(Debug, Default)]
pub(super) struct Floors(Vec<Floor>);

impl Floors {
    /// Everything in `scope` is as of `version`.
    pub(super) fn raise(&mut self, kind: Kind, scope: Scope, version: u64) {
        self.0.retain(|floor| {
            floor.at.elapsed() < LONGEST_LAG && !(floor.kind == kind && floor.scope == scope)
        });
        self.0.push(Floor { kind, scope, version, at: Instant::now() });
    }

    /// Whether an event of `version` tells what a live read already knew better. Events come in order: one that is newer
    /// than a live read ends its effect.
    pub(super) fn is_stale(
        &mut self,
        kind: Kind,
        (namespace, name, service): (&str, &str, Option<&str>),
        version: u64,
    ) -> bool {
        self.0.retain(|floor| floor.kind != kind || floor.version >= version);
        self.hides(kind, (namespace, name, service), version)
    }

    /// The same for an object of a new list, which comes in no order.
    pub(super) fn hides(
        &self,
        kind: Kind,
        (namespace, name, service): (&str, &str, Option<&str>),
        version: u64,
    ) -> bool {
        version > 0
            && self.0.iter().any(|floor| {
                floor.kind == kind
                    && floor.version >= version
                    && floor.scope.covers(namespace, name, service)
            })
    }

    /// A new list is what later events build upon: forgets what was read live before it was asked for. `false` where
    /// something was read since, so that nobody can tell which of the two is newer.
    pub(super) fn settle(&mut self, kind: Kind, asked: Instant) -> bool {
        self.0.retain(|floor| floor.kind != kind || floor.at > asked);
        !self.0.iter().any(|floor| floor.kind == kind)
    }
}
