//! Who carried the traffic of a route before: what tells a way back from a way forward where names and ages do not.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::table::Table;
use super::{Client, World};
use crate::istio::{Host, Metadata, Protocol, Route, Timestamp, VirtualService, null_as_default};

/// So many routes are remembered; the one that has changed least recently goes first.
const MOST_ROUTES: usize = 4096;
/// So many versions of one route are remembered.
const MOST_REIGNS: usize = 8;
/// Images of more Pods than this are no version.
const MOST_IMAGES: usize = 1024;
/// Whoever came by a jump counts as stable only after so many seconds: a slip that is undone at once never was.
const SETTLED_AFTER: i64 = 600;
/// The most that comes in a step: half of the traffic.
const STEP: f64 = 0.5 + 1e-9;

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
}

impl Reign {
    /// Whether it was long enough, or came slowly enough, to be called stable; one that lasts lasted at least until `seen`.
    fn is_settled(&self, seen: Option<Timestamp>) -> bool {
        let until = self.until.or(seen);
        let lasted = self.since.zip(until).map(|(since, until)| until.0 - since.0);
        !self.jumped || lasted.is_some_and(|seconds| seconds >= SETTLED_AFTER)
    }

    /// Whether it was this destination: by what it selects, and by its name where that is not known.
    fn is_of(&self, host: &Host, subset: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        let selects = match (&self.labels, labels) {
            (Some(then), Some(now)) => then == now,
            _ => self.subset == subset,
        };
        self.host == host.as_str() && selects
    }

    fn is_like(&self, other: &Self) -> bool {
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
    /// Which of its routes: see [`Route::key`].
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
    fn get(&self, namespace: &str, name: &str, route: &str) -> Option<&Vec<Reign>> {
        self.routes.get(namespace, name)?.get(route)
    }

    fn put(&mut self, namespace: &str, name: &str, route: &str, reigns: Vec<Reign>) {
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

/// Host and subset of the destination with the greatest share of a route, and its share; of equal ones `before`, if it is among
/// them, and else nobody.
fn heaviest<'a>(route: &'a Route, before: Option<(&str, &str)>) -> Option<(&'a str, &'a str)> {
    let shares = shares(route);
    let most = shares.values().copied().fold(0.0, f64::max);
    let mut leading = shares.iter().filter(|(_, share)| **share > 0.0 && **share >= most - 1e-9);
    let first = leading.next().map(|(own, _)| *own)?;
    let mut others = leading.map(|(own, _)| *own).peekable();
    match others.peek() {
        None => Some(first),
        Some(_) => std::iter::once(first).chain(others).find(|own| before == Some(*own)),
    }
}

/// The share of each destination, as written.
fn shares(route: &Route) -> BTreeMap<(&str, &str), f64> {
    let total = match route.route.len() {
        1 => 1,
        _ => route.total_weight(),
    };
    let mut shares = BTreeMap::new();
    for written in &route.route {
        let to = &written.destination;
        let weight = if route.route.len() == 1 { 1 } else { written.effective_weight() };
        let share = if total == 0 { 0.0 } else { weight as f64 / total as f64 };
        *shares.entry((to.host.as_str(), to.subset.as_str())).or_insert(0.0) += share;
    }
    shares
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
    ) -> Option<Memory> {
        let mut another = None;
        let images = labels.map(|labels| self.images(host, labels)).unwrap_or_default();
        for own in reigns.iter().rev() {
            if !own.is_of(host, subset, labels) || !own.is_settled(seen) {
                continue;
            }
            let is_known = !own.images.is_empty() && !images.is_empty();
            if own.until.is_none() || (is_known && own.images == images) {
                return Some(Memory::WasStable(own.until));
            }
            if is_known {
                another.get_or_insert_with(|| Memory::WasAnother {
                    until: own.until,
                    then: own.images.clone(),
                    now: images.clone(),
                });
                continue;
            }
            let made = labels.and_then(|labels| self.age(host, labels).workload);
            // What was made after it ended is something else of that name.
            if made.zip(own.until).is_none_or(|(made, until)| made <= until) {
                return Some(Memory::WasStable(own.until));
            }
        }
        another
    }

    /// Notes who takes over in the routes of `new`, which takes the place of `old`.
    pub(super) fn remember(&mut self, old: Option<&VirtualService>, new: &VirtualService) {
        let (namespace, name) = (&new.metadata.namespace, &new.metadata.name);
        let has_any = self.history.routes.get(namespace, name).is_some();
        if (old.is_none() && !has_any) || old.is_some_and(|old| old.spec == new.spec) {
            return;
        }
        let mut seen = BTreeSet::new();
        for protocol in Protocol::ALL {
            let before = old.map(|old| old.spec.routes(protocol)).unwrap_or_default();
            let mut keys = None;
            for (at, route) in new.spec.routes(protocol).iter().enumerate() {
                let at_its_place = before.get(at).filter(|own| own.r#match == route.r#match);
                if at_its_place == Some(route) && !has_any {
                    continue;
                }
                let key = route.key(protocol);
                // Of routes with one match the first takes the requests.
                if !seen.insert(key.clone()) {
                    continue;
                }
                let predecessor = at_its_place.or_else(|| {
                    let keys: &HashMap<String, &Route> = keys.get_or_insert_with(|| {
                        let all = before.iter().rev();
                        all.map(|own| (own.key(protocol), own)).collect()
                    });
                    keys.get(&key).copied()
                });
                self.note(&key, route, predecessor, old, new);
            }
        }
    }

    /// Notes who takes over in one route.
    fn note(
        &mut self,
        key: &str,
        route: &Route,
        predecessor: Option<&Route>,
        old: Option<&VirtualService>,
        new: &VirtualService,
    ) {
        let metadata = &new.metadata;
        let known = self.history.get(&metadata.namespace, &metadata.name, key);
        let mut reigns = known.cloned().unwrap_or_default();
        let held = predecessor.and_then(|before| heaviest(before, None));
        if reigns.last().is_none_or(|last| last.until.is_some()) {
            let Some(held) = held else { return };
            let since = old.and_then(|old| {
                let own = &old.metadata;
                own.spec_written().or(own.creation_timestamp)
            });
            reigns.push(self.reign(held, &metadata.namespace, since));
            if heaviest(route, None).is_none() {
                // Of equals nobody takes over, and by the weights alone nobody would know any more who it was.
                self.history.put(&metadata.namespace, &metadata.name, key, reigns.clone());
            }
        }
        let Some((host, subset)) = heaviest(route, held) else { return };
        let mut next = self.reign((host, subset), &metadata.namespace, metadata.spec_written());
        let Some(last) = reigns.last_mut() else { return };
        let now = self.labels_of(&last.host, &last.subset, &metadata.namespace);
        let selects_same = now.is_some() && now == next.labels;
        if last.host == next.host && (last.subset == next.subset || selects_same) {
            if last.subset != next.subset {
                last.subset.clone_from(&next.subset);
                self.history.put(&metadata.namespace, &metadata.name, key, reigns);
            }
            return;
        }
        last.until = next.since;
        self.describe(last, &metadata.namespace);
        let had = predecessor.map(|before| {
            let shares = shares(before);
            shares.get(&(host, subset)).copied().unwrap_or_default()
        });
        let has = shares(route).get(&(host, subset)).copied().unwrap_or_default();
        let returns = reigns.iter().any(|own| own.is_settled(None) && own.is_like(&next));
        next.jumped = !returns && had.is_none_or(|had| has - had > STEP);
        // One line for each version: the latest.
        if let Some(last) = reigns.last().cloned() {
            let settled = reigns.iter().any(|own| own.is_settled(None) && own.is_like(&last));
            reigns.retain(|own| !own.is_like(&last));
            reigns.push(Reign { jumped: last.jumped && !settled, ..last });
        }
        // What it is by then is looked up at its end.
        (next.labels, next.images) = (None, String::new());
        reigns.push(next);
        let excess = reigns.len().saturating_sub(MOST_REIGNS);
        reigns.drain(..excess);
        self.history.put(&metadata.namespace, &metadata.name, key, reigns);
    }

    /// A reign of what is written so in an object of `namespace`, with what it selects now.
    fn reign(
        &self,
        (host, subset): (&str, &str),
        namespace: &str,
        since: Option<Timestamp>,
    ) -> Reign {
        let host = Host::resolve(host, namespace, &self.mesh.domain).as_str().to_owned();
        let labels = self.labels_of(&host, subset, namespace);
        let images = labels.as_ref().map(|own| self.images_of(&host, own)).unwrap_or_default();
        let subset = subset.to_owned();
        Reign { host, subset, labels, images, since, until: None, jumped: false }
    }

    fn labels_of(
        &self,
        host: &str,
        subset: &str,
        namespace: &str,
    ) -> Option<BTreeMap<String, String>> {
        if subset.is_empty() {
            return Some(BTreeMap::new());
        }
        let host = Host::resolve(host, namespace, &self.mesh.domain);
        let rule = self.destination_rule(&host, &Client::in_namespace(namespace))?;
        rule.subset(subset).map(|own| own.labels.clone())
    }

    fn images_of(&self, host: &str, labels: &BTreeMap<String, String>) -> String {
        let images = self.images(&Host::resolve(host, "", &self.mesh.domain), labels);
        if images.len() > MOST_IMAGES { String::new() } else { images }
    }

    /// A VirtualService goes: who carried last is remembered for the day on which it comes again.
    pub(super) fn remember_last(&mut self, old: &VirtualService) {
        let (namespace, name) = (&old.metadata.namespace, &old.metadata.name);
        for (key, holder) in self.holders(old) {
            let known = self.history.get(namespace, name, &key);
            let has_one =
                known.is_some_and(|own| own.last().is_some_and(|own| own.until.is_none()));
            if !has_one {
                let mut reigns = known.cloned().unwrap_or_default();
                reigns.push(holder);
                self.history.put(namespace, name, &key, reigns);
            }
        }
    }

    /// Who carries the greatest share of the route that is known by `key` in `object`; nobody where several carry as much.
    pub fn holder(&self, object: &VirtualService, key: &str) -> Option<Reign> {
        self.holders(object).into_iter().find(|(own, _)| own == key).map(|(_, reign)| reign)
    }

    /// Who carries the greatest share of each route now.
    fn holders(&self, object: &VirtualService) -> Vec<(String, Reign)> {
        let metadata = &object.metadata;
        let since = metadata.spec_written().or(metadata.creation_timestamp);
        let mut found: Vec<(String, Reign)> = Vec::new();
        for protocol in Protocol::ALL {
            for route in object.spec.routes(protocol) {
                let Some(held) = heaviest(route, None) else { continue };
                let key = route.key(protocol);
                if !found.iter().any(|(own, _)| *own == key) {
                    found.push((key, self.reign(held, &metadata.namespace, since)));
                }
            }
        }
        found
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

    /// What is known by now is what it is; what nobody can find any more is what was noted down.
    fn describe(&self, reign: &mut Reign, namespace: &str) {
        let Some(labels) = self.labels_of(&reign.host, &reign.subset, namespace) else { return };
        let images = self.images_of(&reign.host, &labels);
        if !images.is_empty() {
            reign.images = images;
        }
        reign.labels = Some(labels);
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
