//! Which DestinationRule a client uses for a host.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::host_map::HostMap;
use super::merged::{EffectiveRule, Entry, HostRules};
use super::table::Table;
use super::{Client, Mesh, World};
use crate::istio::{DestinationRule, Host, Subset};

/// DestinationRules, also by the host they speak of, merged as istiod merges them.
#[derive(Debug, Default)]
pub(super) struct DestinationRules {
    rules: Table<(Arc<DestinationRule>, Host)>,
    /// Per host and namespace.
    by_host: HostMap<HashMap<String, HostRules>>,
}

/// Which of a host's merged lists is asked.
type List = fn(&HostRules) -> &[Entry];

impl DestinationRules {
    pub(super) fn apply(&mut self, rule: DestinationRule, mesh: &Mesh) {
        let (namespace, name) = (rule.metadata.namespace.clone(), rule.metadata.name.clone());
        self.delete(&namespace, &name, mesh);
        let host = Host::resolve(&rule.spec.host, &namespace, &mesh.domain);
        let rule = Arc::new(rule);
        self.rules.insert(&namespace, &name, (Arc::clone(&rule), host.clone()));
        let mut written = self.written(&host, &namespace);
        written.push(rule);
        self.set(&host, &namespace, HostRules::of(written, mesh));
    }

    pub(super) fn delete(&mut self, namespace: &str, name: &str, mesh: &Mesh) {
        let Some((_, host)) = self.rules.remove(namespace, name) else { return };
        let mut written = self.written(&host, namespace);
        written.retain(|rule| rule.metadata.name != name);
        self.set(&host, namespace, HostRules::of(written, mesh));
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&DestinationRule> {
        self.rules.get(namespace, name).map(|(rule, _)| rule.as_ref())
    }

    /// All of them; nothing is left here.
    pub(super) fn take(&mut self) -> Vec<DestinationRule> {
        let all = std::mem::take(self);
        all.rules.iter().map(|(rule, _)| rule.as_ref().clone()).collect()
    }

    /// Those of one namespace, in no order.
    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &DestinationRule> {
        self.rules.of_namespace(namespace).map(|(_, (rule, _))| rule.as_ref())
    }

    pub(super) fn names(&self) -> Vec<(String, String)> {
        self.rules.names()
    }

    /// The rules of one namespace for exactly this host.
    fn written(&self, host: &Host, namespace: &str) -> Vec<Arc<DestinationRule>> {
        let own = self.by_host.get(host.as_str()).and_then(|of_host| of_host.get(namespace));
        own.map(|rules| rules.written.clone()).unwrap_or_default()
    }

    fn set(&mut self, host: &Host, namespace: &str, rules: HostRules) {
        let host = host.as_str();
        if rules.written.is_empty() {
            let Some(of_host) = self.by_host.get_mut(host) else { return };
            of_host.remove(namespace);
            if of_host.is_empty() {
                self.by_host.remove(host);
            }
            return;
        }
        match self.by_host.get_mut(host) {
            Some(of_host) => drop(of_host.insert(namespace.to_owned(), rules)),
            None => self.by_host.insert(host, HashMap::from([(namespace.to_owned(), rules)])),
        }
    }
}

/// The rules of one namespace that differ from a world's, for the hosts concerned.
#[derive(Debug)]
struct Changed {
    namespace: String,
    by_host: HostMap<HostRules>,
}

/// The DestinationRules of a world with one of them put in, replaced or taken out.
#[derive(Debug)]
pub struct ChangedRules<'a> {
    world: &'a World,
    changed: Changed,
}

impl ChangedRules<'_> {
    /// Asks them.
    pub fn rules(&self) -> Rules<'_> {
        Rules { world: self.world, changed: Some(&self.changed) }
    }
}

/// The DestinationRules that a look-up asks: a world's, or those that a write would leave.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    world: &'a World,
    changed: Option<&'a Changed>,
}

impl<'a> Rules<'a> {
    /// The DestinationRule that `client` uses for `host`: of the client's own namespace, else of the host's, else of the root
    /// namespace; there for the most specific host that covers this one, and no other. An ExternalName Service is looked up by the
    /// host it stands for. A waypoint serves a host also where the host's `exportTo` keeps it from there, but then without any.
    ///
    /// Source: `pilot/pkg/model/push_context.go` `destinationRule`, `sidecar.go` `DestinationRule`,
    /// `DefaultSidecarScopeForGateway`.
    pub fn destination_rule(self, host: &Host, client: &Client) -> Option<EffectiveRule<'a>> {
        let alias = self.world.alias_target(host);
        let host = alias.as_ref().unwrap_or(host);
        if client.waypoint.is_some() && !self.world.is_visible(host, client) {
            return None;
        }
        let own = self.own(&client.namespace, host);
        if !own.is_empty() {
            return in_force(own, client).map(EffectiveRule::of);
        }
        let root = self.world.mesh.root_namespace.as_str();
        let service = self.world.host_namespace(host);
        for namespace in service.into_iter().chain([root]) {
            // What the best host is not exported to, no wider host makes good for.
            let all = self.best(namespace, host, |rules| &rules.exported);
            let seen = all.iter().rfind(|entry| entry.is_exported_to(&client.namespace));
            if let Some(entry) = seen {
                return Some(EffectiveRule::of(entry));
            }
        }
        None
    }

    /// What `subset` of `host` is for `client`; `None` where no rule that it uses defines it.
    pub fn subset(self, host: &Host, subset: &str, client: &Client) -> Option<&'a Subset> {
        self.destination_rule(host, client)?.subset(subset)
    }

    /// The namespaces whose clients look for `host` among DestinationRules of their own namespace, sorted: what such a rule lacks,
    /// they do not find elsewhere.
    pub fn namespaces_with_own_rules(self, host: &Host) -> Vec<&'a str> {
        let alias = self.world.alias_target(host);
        let host = alias.as_ref().unwrap_or(host).as_str();
        let root = self.world.mesh.root_namespace.as_str();
        let counts =
            |namespace: &str, rules: &HostRules| !own_list(rules, namespace == root).is_empty();
        let mut found = BTreeSet::new();
        for (rank, of_host) in self.world.destination_rules.by_host.covering(host) {
            let kept = of_host.iter().filter(|(namespace, rules)| {
                counts(namespace, rules) && !self.is_changed(namespace, host, rank)
            });
            found.extend(kept.map(|(namespace, _)| namespace.as_str()));
        }
        if let Some(Changed { namespace, by_host }) = self.changed
            && by_host.covering(host).any(|(_, rules)| counts(namespace, rules))
        {
            found.insert(namespace);
        }
        found.into_iter().collect()
    }

    /// The labels by which DestinationRules in `namespace` for `host` select some of its pods, each once: pods with them may see
    /// something else than the others.
    pub fn selectors(self, host: &Host, namespace: &str) -> Vec<&'a BTreeMap<String, String>> {
        let alias = self.world.alias_target(host);
        let entries = self.own(namespace, alias.as_ref().unwrap_or(host)).iter();
        let mut found =
            entries.filter_map(|entry| Some(&entry.selector()?.match_labels)).collect::<Vec<_>>();
        found.sort();
        found.dedup();
        found
    }

    /// What a client finds in its own namespace, before it looks anywhere else.
    fn own(self, namespace: &str, host: &Host) -> &'a [Entry] {
        if namespace == self.world.mesh.root_namespace {
            self.best(namespace, host, |rules| own_list(rules, true))
        } else {
            self.best(namespace, host, |rules| own_list(rules, false))
        }
    }

    /// The entries of one namespace for the most specific host that covers `host` and has any.
    fn best(self, namespace: &str, host: &Host, list: List) -> &'a [Entry] {
        let host = host.as_str();
        let mut of_world = self.world.destination_rules.by_host.covering(host);
        let of_world = of_world.find_map(|(rank, of_host)| {
            let entries = list(of_host.get(namespace)?);
            let counts = !entries.is_empty() && !self.is_changed(namespace, host, rank);
            counts.then_some((rank, entries))
        });
        let changed = self.changed.filter(|changed| changed.namespace == namespace);
        let changed = changed.and_then(|changed| {
            let mut own = changed.by_host.covering(host).map(|(rank, rules)| (rank, list(rules)));
            own.find(|(_, entries)| !entries.is_empty())
        });
        let best = of_world.into_iter().chain(changed).max_by_key(|(rank, _)| *rank);
        best.map_or(&[], |(_, entries)| entries)
    }

    /// Whether the key of this rank among those that cover `host` is one that the change speaks about.
    fn is_changed(self, namespace: &str, host: &str, rank: usize) -> bool {
        self.changed.is_some_and(|changed| {
            changed.namespace == namespace
                && changed.by_host.covering(host).any(|(own, _)| own == rank)
        })
    }
}

/// In the root namespace, whose rules are for the whole mesh, only what is private there is meant for its own clients first.
fn own_list(rules: &HostRules, is_root: bool) -> &[Entry] {
    if is_root { &rules.root_local } else { &rules.local }
}

/// A selector's entry for the pods that it selects, otherwise the last one without a selector.
fn in_force<'a>(entries: &'a [Entry], client: &Client) -> Option<&'a Entry> {
    let selects = |entry: &&Entry| entry.selector().is_some_and(|own| own.selects(&client.labels));
    let selected = entries.iter().find(selects);
    selected.or_else(|| entries.iter().rfind(|entry| entry.selector().is_none()))
}

impl World {
    /// The DestinationRules as they are.
    pub fn rules(&self) -> Rules<'_> {
        Rules { world: self, changed: None }
    }

    /// The DestinationRules as they would be with `rule` in the place of `namespace`/`name`, or with nothing there, so that the world
    /// before a write and after it can be asked the same way. Costs what the rules of one or two hosts in one namespace cost. A
    /// rule without a creation time counts as the youngest.
    pub fn with_destination_rule(
        &self,
        rule: Option<&DestinationRule>,
        namespace: &str,
        name: &str,
    ) -> ChangedRules<'_> {
        let index = &self.destination_rules;
        let others = |host: &Host| {
            let mut written = index.written(host, namespace);
            written.retain(|own| own.metadata.name != name);
            written
        };
        let mut by_host = HostMap::default();
        if let Some((_, host)) = index.rules.get(namespace, name) {
            by_host.insert(host.as_str(), HostRules::of(others(host), &self.mesh));
        }
        if let Some(rule) = rule {
            let mut rule = rule.clone();
            rule.metadata.namespace = namespace.to_owned();
            rule.metadata.name = name.to_owned();
            let host = Host::resolve(&rule.spec.host, namespace, &self.mesh.domain);
            let mut written = others(&host);
            written.push(Arc::new(rule));
            by_host.insert(host.as_str(), HostRules::of(written, &self.mesh));
        }
        ChangedRules { world: self, changed: Changed { namespace: namespace.to_owned(), by_host } }
    }

    /// The DestinationRule that `client` uses for `host`; see [`Rules::destination_rule`].
    pub fn destination_rule(&self, host: &Host, client: &Client) -> Option<EffectiveRule<'_>> {
        self.rules().destination_rule(host, client)
    }

    /// The DestinationRules that make up what `client` uses for `host`, the one that counts most first.
    pub fn destination_rules(&self, host: &Host, client: &Client) -> Vec<&DestinationRule> {
        let rule = self.destination_rule(host, client);
        rule.into_iter().flat_map(EffectiveRule::rules).collect()
    }

    /// What `subset` of `host` is for `client`; see [`Rules::subset`].
    pub fn subset(&self, host: &Host, subset: &str, client: &Client) -> Option<&Subset> {
        self.rules().subset(host, subset, client)
    }

    /// The DestinationRules of all namespaces that cover `host` and define `subset`, whether a client sees them or not: what a
    /// denial names as "defined elsewhere". Those for exactly this host first.
    pub fn rules_defining(&self, host: &Host, subset: &str) -> Vec<&DestinationRule> {
        let alias = self.alias_target(host);
        let host = alias.as_ref().unwrap_or(host);
        let mut found = Vec::new();
        for (_, of_host) in self.destination_rules.by_host.covering(host.as_str()) {
            let rules = of_host.values().flat_map(|rules| &rules.written).map(Arc::as_ref);
            let mut rules = rules
                .filter(|rule| rule.spec.subsets.iter().any(|own| own.name == subset))
                .collect::<Vec<_>>();
            rules.sort_by_key(|rule| (&rule.metadata.namespace, &rule.metadata.name));
            found.extend(rules);
        }
        found
    }
}
