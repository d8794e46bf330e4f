use std::collections::{BTreeSet, HashMap};

use super::table::Table;
use super::{Client, HostKind, Mesh, World};
use crate::istio::{DestinationRule, Host, Subset, host_covers};

/// DestinationRules, also by the host they speak of.
#[derive(Debug, Default)]
pub(super) struct DestinationRules {
    rules: Table<(DestinationRule, Host)>,
    /// Per namespace and host the names of the rules, oldest first.
    by_host: HashMap<String, HashMap<Host, Vec<String>>>,
}

impl DestinationRules {
    pub(super) fn apply(&mut self, rule: DestinationRule, mesh: &Mesh) {
        let (namespace, name) = (rule.metadata.namespace.clone(), rule.metadata.name.clone());
        self.delete(&namespace, &name);
        let host = Host::resolve(&rule.spec.host, &namespace, &mesh.domain);
        self.rules.insert(&namespace, &name, (rule, host.clone()));
        let names = self.by_host.entry(namespace.clone()).or_default().entry(host).or_default();
        names.push(name);
        let rules = &self.rules;
        // Istio's order: creationTimestamp, then name (`push_context.go` `sortConfigBySelectorAndCreationTime`).
        names.sort_by_key(|name| {
            (
                rules.get(&namespace, name).and_then(|(rule, _)| rule.metadata.creation_timestamp),
                name.clone(),
            )
        });
    }

    pub(super) fn delete(&mut self, namespace: &str, name: &str) {
        let Some((_, host)) = self.rules.remove(namespace, name) else { return };
        let Some(hosts) = self.by_host.get_mut(namespace) else { return };
        if let Some(names) = hosts.get_mut(&host) {
            names.retain(|own| own != name);
            if names.is_empty() {
                hosts.remove(&host);
            }
        }
        if hosts.is_empty() {
            self.by_host.remove(namespace);
        }
    }

    pub(super) fn names(&self) -> Vec<(String, String)> {
        self.rules.names()
    }

    /// The rules of one namespace for the most specific host that covers `host`, oldest first, as far as `visible` says.
    fn best(
        &self,
        namespace: &str,
        host: &Host,
        visible: impl Fn(&DestinationRule) -> bool,
    ) -> Vec<&DestinationRule> {
        let Some(hosts) = self.by_host.get(namespace) else { return Vec::new() };
        let seen = |names: &Vec<String>| {
            let rules = names
                .iter()
                .filter_map(|name| self.rules.get(namespace, name))
                .map(|(rule, _)| rule);
            rules.filter(|rule| visible(rule)).collect::<Vec<_>>()
        };
        let exact = hosts.get(host).map(seen).unwrap_or_default();
        if !exact.is_empty() {
            return exact;
        }
        let wildcards = hosts.iter().filter(|(own, _)| {
            own.as_str().starts_with('*') && host_covers(own.as_str(), host.as_str())
        });
        let mut wildcards = wildcards
            .map(|(own, names)| (own, seen(names)))
            .filter(|(_, rules)| !rules.is_empty())
            .collect::<Vec<_>>();
        wildcards.sort_by_key(|(own, _)| (usize::MAX - own.as_str().len(), own.as_str()));
        wildcards.into_iter().next().map(|(_, rules)| rules).unwrap_or_default()
    }
}

/// The rules that act together for one host: those of one namespace whose `exportTo` is the same set are merged into one,
/// otherwise the youngest counts alone.
///
/// Source: `pilot/pkg/model/destination_rule.go` `mergeDestinationRule`.
fn merged<'a>(rules: &[&'a DestinationRule]) -> Vec<&'a DestinationRule> {
    let mut entries: Vec<(BTreeSet<&str>, Vec<&DestinationRule>)> = Vec::new();
    for rule in rules.iter().filter(|rule| rule.spec.workload_selector.is_none()) {
        let exported = rule.spec.export_to.iter().map(String::as_str).collect::<BTreeSet<_>>();
        let fits = |(set, _): &&mut (BTreeSet<&str>, _)| {
            *set == exported || (!set.is_empty() && set.is_subset(&exported))
        };
        match entries.iter_mut().find(fits) {
            Some((_, members)) => members.push(rule),
            None => entries.push((exported, vec![rule])),
        }
    }
    entries.pop().map(|(_, members)| members).unwrap_or_default()
}

impl World {
    /// The DestinationRules that `client` uses for `host`, oldest first: those of the client's own
    /// namespace, else of the host's, else of the root namespace. Several of one namespace act as one.
    ///
    /// Source: `pilot/pkg/model/push_context.go` `destinationRule`.
    pub fn destination_rules(&self, host: &Host, client: &Client) -> Vec<&DestinationRule> {
        let client = client.namespace.as_str();
        let alias = self.alias(host);
        let host = alias.as_ref().unwrap_or(host);
        let root = self.mesh.root_namespace.as_str();
        if client != root {
            let own = self.destination_rules.best(client, host, |rule| {
                rule.spec.export_to.is_empty() || rule.is_exported_to(client) || rule.is_private()
            });
            if !own.is_empty() {
                return merged(&own);
            }
        }
        for namespace in [self.host_namespace(host).unwrap_or_default(), root] {
            let mut found = self
                .destination_rules
                .best(namespace, host, |rule| !rule.is_private() || client == namespace);
            found.retain(|rule| rule.is_exported_to(client) || client == namespace);
            if !found.is_empty() {
                return merged(&found);
            }
        }
        Vec::new()
    }

    /// The external host that an ExternalName Service stands for, one level deep, as Istio resolves it before it looks for rules
    /// (`route.go` `GetDestinationCluster`).
    fn alias(&self, host: &Host) -> Option<Host> {
        match self.host(host) {
            Some(HostKind::Alias(service)) => {
                let name = service.external_name.as_deref()?;
                Some(Host::resolve(
                    name.trim_end_matches('.'),
                    &service.namespace,
                    &self.mesh.domain,
                ))
            }
            _ => None,
        }
    }

    /// What `subset` of `host` selects for `client`; the oldest rule that defines it wins.
    pub fn subset(&self, host: &Host, subset: &str, client: &Client) -> Option<&Subset> {
        let rules = self.destination_rules(host, client);
        rules.into_iter().flat_map(|rule| &rule.spec.subsets).find(|own| own.name == subset)
    }

    /// The DestinationRules of all namespaces that speak of exactly `host` and define `subset`, whether a client sees them or
    /// not: what a denial names as "defined elsewhere".
    pub fn rules_defining(&self, host: &Host, subset: &str) -> Vec<&DestinationRule> {
        let rules = self.destination_rules.rules.iter();
        let rules = rules.filter(|(rule, own)| {
            own == host && rule.spec.subsets.iter().any(|own| own.name == subset)
        });
        let mut rules = rules.map(|(rule, _)| rule).collect::<Vec<_>>();
        rules.sort_by_key(|rule| (&rule.metadata.namespace, &rule.metadata.name));
        rules
    }
}
