//! How the history of a route is written down: who takes over, from whom, and how.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::history::Reign;
use super::{Client, World};
use crate::istio::{DestinationRule, Host, Protocol, Route, Subset, Timestamp, VirtualService};

/// So many versions of one route are remembered.
const MOST_REIGNS: usize = 8;
/// Images of more Pods than this are no version.
const MOST_IMAGES: usize = 1024;
/// The most that comes in a step: half of the traffic.
const STEP: f64 = 0.5 + 1e-9;

/// A route whose carrier selects by other labels than before.
#[derive(Debug)]
pub(super) struct Turned {
    /// Namespace and name of the VirtualService.
    object: (String, String),
    /// The route: see [`Route::key`].
    key: String,
    /// Who carried until then.
    reign: Reign,
    /// How much of it, from 0 to 1.
    share: f64,
}

/// The place of `own` among those that carried before: of its own version, or behind all of them.
fn order(reigns: &[Reign], own: &Reign) -> u32 {
    let same = reigns.iter().filter(|other| other.is_like(own)).map(|other| other.order).min();
    same.unwrap_or_else(|| {
        reigns.iter().map(|other| other.order.saturating_add(1)).max().unwrap_or(0)
    })
}

/// Puts `next` behind those that carried before, the last of which has ended.
fn succeeded_by(mut reigns: Vec<Reign>, mut next: Reign, is_jump: bool) -> Vec<Reign> {
    let returns = reigns.iter().any(|own| own.is_settled(None) && own.is_like(&next));
    (next.jumped, next.order) = (!returns && is_jump, order(&reigns, &next));
    // One line for each version: the latest.
    if let Some(mut last) = reigns.pop() {
        let (same, others): (Vec<_>, Vec<_>) =
            reigns.into_iter().partition(|own| own.is_like(&last));
        for own in same {
            last.jumped &= !own.is_settled(None);
            last.order = last.order.min(own.order);
            last.earlier = last.earlier.saturating_add(own.seconds(None));
        }
        reigns = others;
        reigns.push(last);
    }
    // What it is by then is looked up at its end.
    (next.labels, next.images) = (None, String::new());
    reigns.push(next);
    let excess = reigns.len().saturating_sub(MOST_REIGNS);
    reigns.drain(..excess);
    reigns
}

/// The routes of an object by their keys; of those with one key the first, which takes the requests.
fn keyed(object: &VirtualService) -> impl Iterator<Item = (&Route, String)> {
    let mut seen = BTreeSet::new();
    let all = Protocol::ALL.into_iter().flat_map(|protocol| {
        object.spec.routes(protocol).iter().map(move |route| (route, route.key(protocol)))
    });
    all.filter(move |(_, key)| seen.insert(key.clone()))
}

/// Host and subset of the destination with the greatest share of a route; of equal ones `before`, if it is among them, and else
/// nobody.
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
    /// Notes who takes over in the routes of `new`, which takes the place of `old`.
    pub(super) fn remember(&mut self, old: Option<&VirtualService>, new: &VirtualService) {
        let (namespace, name) = (&new.metadata.namespace, &new.metadata.name);
        let has_any = self.remembered(namespace, name).is_some();
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
        let is_open = reigns.last().is_some_and(|last| last.until.is_none());
        if !is_open && held == heaviest(route, None) {
            return; // what most writes do, and nothing has to be looked up for it
        }
        if !is_open {
            let Some(held) = held else { return };
            let since = old.and_then(|old| {
                let own = &old.metadata;
                own.spec_written().or(own.creation_timestamp)
            });
            let held = self.reign(held, &metadata.namespace, since);
            reigns.push(Reign { order: order(&reigns, &held), ..held });
            if heaviest(route, None).is_none() {
                // Of equals nobody takes over, and by the weights alone nobody would know any more who it was.
                self.history.put(&metadata.namespace, &metadata.name, key, reigns.clone());
            }
        }
        let Some((host, subset)) = heaviest(route, held) else { return };
        let next = self.reign((host, subset), &metadata.namespace, metadata.spec_written());
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
        let is_jump = had.is_none_or(|had| has - had > STEP);
        let reigns = succeeded_by(reigns, next, is_jump);
        self.history.put(&metadata.namespace, &metadata.name, key, reigns);
    }

    /// Who carries a route by subsets of which `rule`, once it is there, has given other labels: with what they select until then.
    pub(super) fn turned_by(&self, rule: &DestinationRule) -> Vec<Turned> {
        let (namespace, name) = (&rule.metadata.namespace, &rule.metadata.name);
        let Some(old) = self.destination_rules.get(namespace, name) else { return Vec::new() };
        let is_turned = |own: &&Subset| {
            let mut before = old.spec.subsets.iter();
            before.any(|old| old.name == own.name && old.labels != own.labels)
        };
        let turned = rule.spec.subsets.iter().filter(is_turned).map(|own| own.name.as_str());
        let turned = turned.collect::<BTreeSet<_>>();
        if turned.is_empty() {
            return Vec::new();
        }
        let host = Host::resolve(&rule.spec.host, namespace, &self.mesh.domain);
        let mut found = Vec::new();
        for object in self.users_of(&host) {
            for (route, key) in keyed(object) {
                let Some(held) = heaviest(route, None) else { continue };
                let at = &object.metadata.namespace;
                if turned.contains(held.1) && Host::resolve(held.0, at, &self.mesh.domain) == host {
                    let share = shares(route).get(&held).copied().unwrap_or_default();
                    let since = object.metadata.spec_written();
                    let object = (at.clone(), object.metadata.name.clone());
                    let reign = self.reign(held, at, since);
                    found.push(Turned { object, key, reign, share });
                }
            }
        }
        found
    }

    /// The DestinationRule that [`Self::turned_by`] was asked about is there, since `written`.
    pub(super) fn remember_turn(&mut self, turned: Vec<Turned>, written: Option<Timestamp>) {
        for Turned { object: (namespace, name), key, reign, share } in turned {
            let mut next = self.reign((&reign.host, &reign.subset), &namespace, written);
            if next.labels.is_none() || next.labels == reign.labels {
                continue; // another rule is in force
            }
            next.since = written;
            let known = self.history.get(&namespace, &name, &key);
            let mut reigns = known.cloned().unwrap_or_default();
            let open = reigns.pop_if(|last| last.until.is_none());
            let last = match open {
                Some(open) => {
                    let images = if reign.images.is_empty() { open.images } else { reign.images };
                    Reign { labels: reign.labels, images, ..open }
                }
                None => Reign { order: order(&reigns, &reign), ..reign },
            };
            reigns.push(Reign { until: written, ..last });
            let reigns = succeeded_by(reigns, next, share > STEP);
            self.history.put(&namespace, &name, &key, reigns);
        }
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
        Reign {
            host,
            subset,
            labels,
            images,
            since,
            until: None,
            jumped: false,
            order: 0,
            earlier: 0,
        }
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
                reigns.push(Reign { order: order(&reigns, &holder), ..holder });
                self.history.put(namespace, name, &key, reigns);
            }
        }
    }

    /// Who carries the greatest share of a route that stands in an object of `namespace` since then; nobody where several carry as
    /// much.
    pub fn holder(
        &self,
        route: &Route,
        namespace: &str,
        since: Option<Timestamp>,
    ) -> Option<Reign> {
        Some(self.reign(heaviest(route, None)?, namespace, since))
    }

    /// Who carries the greatest share of each route now.
    pub(super) fn holders(&self, object: &VirtualService) -> Vec<(String, Reign)> {
        let metadata = &object.metadata;
        let since = metadata.spec_written().or(metadata.creation_timestamp);
        let of = |(route, key): (&Route, String)| {
            Some((key, self.holder(route, &metadata.namespace, since)?))
        };
        keyed(object).filter_map(of).collect()
    }

    /// What is known by now is what it is; what nobody can find any more is what was noted down.
    pub(super) fn describe(&self, reign: &mut Reign, namespace: &str) {
        let Some(labels) = self.labels_of(&reign.host, &reign.subset, namespace) else { return };
        let images = self.images_of(&reign.host, &labels);
        if !images.is_empty() {
            reign.images = images;
        }
        reign.labels = Some(labels);
    }
}
