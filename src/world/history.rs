//! Who carried the traffic of a route before: what tells a way back from a way forward where names and ages do not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::World;
use super::table::Table;
use crate::istio::{Host, Metadata, Timestamp, VirtualService, null_as_default};

/// So many routes are remembered; the one that has changed least recently goes first.
const MOST_ROUTES: usize = 4096;
/// Whoever came by a jump counts as stable only after so many seconds: a slip that is undone at once never was.
const SETTLED_AFTER: i64 = 600;

/// A time in which one destination carried the greatest share of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reign {
    /// The host, completed.
    pub host: String,
    /// The subset as written; empty for all endpoints of the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subset: String,
    /// What the subset selected by at its end, or when it was noted down; `None` where nobody knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// The images of the workloads that it selected then, sorted; empty where nobody knew. Another image is another version, and
    /// a restart is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub images: String,
    /// When it took over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When another one took over; `None` while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// It came by more than half of the traffic in one write, or nobody saw how.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub jumped: bool,
    /// How many versions carried the route before this one did for the first time.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub order: u32,
    /// For how many seconds it carried the route in all, the last time not counted.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub earlier: i64,
}

fn is_nothing<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Reign {
    /// For how many seconds it carried the route; one that lasts, at least until `seen`.
    pub(super) fn seconds(&self, seen: Option<Timestamp>) -> i64 {
        let last = self.since.zip(self.until.or(seen));
        let last = last.map_or(0, |(since, until)| until.0.saturating_sub(since.0).max(0));
        // What was kept may have been written by hand.
        self.earlier.saturating_add(last)
    }

    /// Whether it was long enough, or came slowly enough, to be called stable.
    pub(super) fn is_settled(&self, seen: Option<Timestamp>) -> bool {
        !self.jumped || self.seconds(seen) >= SETTLED_AFTER
    }

    /// Whether it was this destination: by what it selects, and by its name where that is not known.
    fn is_of(&self, host: &Host, subset: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        let selects = match (&self.labels, labels) {
            (Some(then), Some(now)) => then == now,
            _ => self.subset == subset,
        };
        self.host == host.as_str() && selects
    }

    pub(super) fn is_like(&self, other: &Self) -> bool {
        let selects = match (&self.labels, &other.labels) {
            (Some(a), Some(b)) => a == b,
            _ => self.subset == other.subset,
        };
        self.host == other.host && selects && self.images == other.images
    }
}

/// What is remembered of one route, as it is kept over a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteHistory {
    /// The namespace of the VirtualService.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which of its routes: see [`crate::istio::Route::key`].
    pub route: String,
    /// Who carried the greatest share, the present one last.
    #[serde(deserialize_with = "null_as_default")]
    pub reigns: Vec<Reign>,
}

impl RouteHistory {
    /// When it last changed.
    fn changed(&self) -> Option<Timestamp> {
        changed(&self.reigns)
    }

    /// What it is known by: namespace, name and route.
    pub fn key(&self) -> (&str, &str, &str) {
        (&self.namespace, &self.name, &self.route)
    }

    /// Puts those first that have changed last: what is left out from the end, where not all has room.
    pub fn latest_first(all: &mut [Self]) {
        all.sort_by(|a, b| b.changed().cmp(&a.changed()).then_with(|| a.key().cmp(&b.key())));
    }
}

fn changed(reigns: &[Reign]) -> Option<Timestamp> {
    reigns.iter().flat_map(|own| [own.since, own.until]).flatten().max()
}

/// What the history of a route says of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Memory {
    /// It was the stable one; until when, if that has ended.
    WasStable(Option<Timestamp>),
    /// It was the stable one, and is another version by now.
    WasAnother {
        /// Until when.
        until: Option<Timestamp>,
        /// Its images then.
        then: String,
        /// Its images now.
        now: String,
    },
}

/// What the history of a route says of a destination, and how much that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recalled {
    /// What it says.
    pub memory: Memory,
    /// How many versions carried the route before.
    pub order: u32,
    /// Whether it carried the route for long enough to be stable whatever came of it.
    pub is_proven: bool,
}

/// What a VirtualService's routes are remembered by.
pub type Remembered = BTreeMap<String, Vec<Reign>>;

/// The histories of all routes that have one.
#[derive(Debug, Default)]
pub(super) struct History {
    routes: Table<Remembered>,
    count: usize,
    /// Grows with every change.
    version: u64,
}

impl History {
    pub(super) fn get(&self, namespace: &str, name: &str, route: &str) -> Option<&Vec<Reign>> {
        self.routes.get(namespace, name)?.get(route)
    }

    pub(super) fn put(&mut self, namespace: &str, name: &str, route: &str, reigns: Vec<Reign>) {
        self.version += 1;
        let own = match self.routes.get_mut(namespace, name) {
            Some(own) => own,
            None => {
                self.routes.insert(namespace, name, Remembered::new());
                let Some(own) = self.routes.get_mut(namespace, name) else { return };
                own
            }
        };
        if own.insert(route.to_owned(), reigns).is_none() {
            self.count += 1;
        }
        while self.count > MOST_ROUTES && self.forget_oldest() {}
    }

    fn forget_oldest(&mut self) -> bool {
        let mut oldest: Option<(Option<Timestamp>, &str, &str, &str)> = None;
        for (namespace, names) in self.routes.namespaces() {
            for (name, routes) in names {
                for (route, reigns) in routes {
                    let own = (changed(reigns), namespace, name.as_str(), route.as_str());
                    oldest = Some(oldest.map_or(own, |known| known.min(own)));
                }
            }
        }
        let Some((_, namespace, name, route)) = oldest else { return false };
        let (namespace, name, route) = (namespace.to_owned(), name.to_owned(), route.to_owned());
        let Some(own) = self.routes.get_mut(&namespace, &name) else { return false };
        own.remove(&route);
        self.count -= 1;
        if own.is_empty() {
            self.routes.remove(&namespace, &name);
        }
        true
    }
}

impl World {
    /// What is remembered of the routes of a VirtualService; `None` where nothing is.
    pub fn remembered(&self, namespace: &str, name: &str) -> Option<&Remembered> {
        self.history.routes.get(namespace, name)
    }

    /// A number that grows whenever something new is remembered.
    pub fn history_version(&self) -> u64 {
        self.history.version
    }

    /// What `reigns` say of a destination, by what it selects now: `None` where they say nothing. A reign that began with a jump
    /// and did not last says nothing; the present one lasted at least until `seen`.
    pub fn recall(
        &self,
        reigns: &[Reign],
        seen: Option<Timestamp>,
        (host, subset): (&Host, &str),
        labels: Option<&BTreeMap<String, String>>,
    ) -> Option<Recalled> {
        let mut another = None;
        let images = labels.map(|labels| self.images(host, labels)).unwrap_or_default();
        let is_as_now = |own: &&Reign| {
            let is_unknown = own.images.is_empty() || images.is_empty();
            own.is_of(host, subset, labels) && (is_unknown || own.images == images)
        };
        let seconds = reigns
            .iter()
            .filter(is_as_now)
            .map(|own| own.seconds(seen))
            .fold(0, i64::saturating_add);
        for own in reigns.iter().rev() {
            if !own.is_of(host, subset, labels) || !own.is_settled(seen) {
                continue;
            }
            let told =
                |memory| Recalled { memory, order: own.order, is_proven: seconds >= SETTLED_AFTER };
            let was_stable = || Some(told(Memory::WasStable(own.until)));
            let is_known = !own.images.is_empty() && !images.is_empty();
            if own.until.is_none() || (is_known && own.images == images) {
                return was_stable();
            }
            if is_known {
                let (until, then, now) = (own.until, own.images.clone(), images.clone());
                another.get_or_insert_with(|| told(Memory::WasAnother { until, then, now }));
                continue;
            }
            let made = labels.and_then(|labels| self.age(host, labels).workload);
            // What was made after it ended is something else of that name.
            if made.zip(own.until).is_none_or(|(made, until)| made <= until) {
                return was_stable();
            }
        }
        another
    }

    /// What is remembered, with what the present carriers select and run now; by namespace, name and route.
    pub fn memories(&self) -> Vec<RouteHistory> {
        let mut all = Vec::new();
        for (namespace, names) in self.history.routes.namespaces() {
            for (name, routes) in names {
                for (route, reigns) in routes {
                    let mut reigns = reigns.clone();
                    if let Some(last) = reigns.last_mut().filter(|own| own.until.is_none()) {
                        self.describe(last, namespace);
                    }
                    let (namespace, name) = (namespace.to_owned(), name.clone());
                    all.push(RouteHistory { namespace, name, route: route.clone(), reigns });
                }
            }
        }
        all.sort_by(|a, b| a.key().cmp(&b.key()));
        all
    }

    /// Who carries the routes of all VirtualServices now, in no order: what a takeover that nobody sees is told by.
    pub fn present(&self) -> Vec<RouteHistory> {
        let of = |object: &VirtualService| {
            let Metadata { namespace, name, .. } = &object.metadata;
            let (namespace, name) = (namespace.clone(), name.clone());
            self.holders(object).into_iter().map(move |(route, reign)| {
                let (namespace, name) = (namespace.clone(), name.clone());
                RouteHistory { namespace, name, route, reigns: vec![reign] }
            })
        };
        self.virtual_services.iter().flat_map(of).collect()
    }

    /// Takes in what was kept over a restart. What is remembered already, and is as new, stays.
    pub fn restore(&mut self, kept: Vec<RouteHistory>) {
        for own in kept.into_iter().filter(|own| !own.reigns.is_empty()).take(MOST_ROUTES) {
            let known = self.history.get(&own.namespace, &own.name, &own.route);
            if known.is_none_or(|known| changed(known) < own.changed()) {
                self.history.put(&own.namespace, &own.name, &own.route, own.reigns);
            }
        }
    }
}
