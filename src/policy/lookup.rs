//! What the cluster says about one written destination: its host, its DestinationRule, its ready endpoints.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::rule::Case;
use super::verdict::Reference;
use crate::istio::{Destination, Host, VirtualService};
use crate::world::{ANY_NAMESPACE, Client, EffectiveRule, Endpoints, HostKind, Kind};

/// What the cluster says about a destination that is written somewhere in an object.
#[derive(Debug)]
pub enum Target<'a> {
    /// Nobody has this host.
    NoHost,
    /// No DestinationRule in force defines the subset; those that are defined.
    NoSubset(Vec<&'a str>),
    /// These endpoints; `None` where Kubernetes does not know them.
    Selects(Option<Endpoints>),
}

impl Target<'_> {
    /// How many ready endpoints it has, where that is known.
    pub fn ready(&self) -> Option<u32> {
        match self {
            Self::Selects(endpoints) => endpoints.as_ref().map(Endpoints::ready),
            Self::NoHost | Self::NoSubset(_) => None,
        }
    }
}

/// The hosts that an object writes, each looked up once for all of its destinations.
#[derive(Debug)]
pub struct Hosts<'a> {
    case: Case<'a>,
    known: HashMap<&'a str, HostAsWritten<'a>>,
}

/// What the cluster says about a host that an object writes.
#[derive(Debug, Clone)]
pub struct HostAsWritten<'a> {
    /// Its full name.
    pub host: Host,
    /// What it is; `None` where nobody has it.
    pub kind: Option<HostKind<'a>>,
    /// The DestinationRule that the object's clients use for it, any client's where they differ; `None` also where nobody has it.
    pub rule: Option<EffectiveRule<'a>>,
}

impl<'a> Hosts<'a> {
    /// Those of the object of `case`.
    pub fn of(case: &Case<'a>) -> Self {
        Self { case: *case, known: HashMap::new() }
    }

    /// The host that is written so.
    pub fn get(&mut self, written: &'a str) -> &HostAsWritten<'a> {
        let case = self.case;
        self.known.entry(written).or_insert_with(|| {
            let host = case.resolve(written);
            let kind = case.world.host(&host);
            let rule = kind.and_then(|_| case.destination_rule(&host));
            HostAsWritten { host, kind, rule }
        })
    }

    /// What `written` is in the cluster.
    pub fn target(&mut self, written: &'a Destination) -> Target<'a> {
        let world = self.case.world;
        let HostAsWritten { host, kind, rule } = self.get(&written.host);
        if kind.is_none() {
            return Target::NoHost;
        }
        let none = BTreeMap::new();
        let labels = if written.subset.is_empty() {
            &none
        } else {
            match rule.and_then(|rule| rule.subset(&written.subset)) {
                Some(subset) => &subset.labels,
                None => {
                    let defined = rule.iter().flat_map(|rule| rule.subsets());
                    return Target::NoSubset(defined.map(|subset| subset.name.as_str()).collect());
                }
            }
        };
        Target::Selects(world.selected(host, labels, written.port.number))
    }
}

impl<'a> Case<'a> {
    /// The kinds that [`Self::target`] asks.
    pub const TARGET: [Kind; 5] =
        [Kind::Service, Kind::ServiceEntry, Kind::DestinationRule, Kind::EndpointSlice, Kind::Pod];

    /// Whether all of these kinds may be looked up: a rule of [`super::Stage::Text`] is asked also where nothing is known yet.
    pub fn may_look(&self, kinds: &[Kind]) -> bool {
        !self.world.is_blank() && kinds.iter().all(|&kind| self.world.knows(kind))
    }

    /// The full name of a host that the object writes.
    pub fn resolve(&self, host: &str) -> Host {
        Host::resolve(host, &self.review.namespace, &self.world.mesh().domain)
    }

    /// The DestinationRule that the object's clients use for `host`; any client's where they differ.
    pub fn destination_rule(&self, host: &Host) -> Option<EffectiveRule<'a>> {
        let world = self.world;
        let clients = [Client::anywhere(), Client::in_namespace(&self.review.namespace)];
        clients.iter().find_map(|client| world.destination_rule(host, client))
    }

    /// What `written` is in the cluster.
    pub fn target(&self, written: &'a Destination) -> Target<'a> {
        Hosts::of(self).target(written)
    }

    /// The Sidecars that say whether `client` sees a VirtualService, for a refusal on its behalf: one that is not known here yet
    /// may take that out of its sight, and with it the reason to refuse. A gateway asks none.
    pub fn sidecars_of(&self, client: &Client) -> Vec<Reference> {
        let mut namespaces =
            vec![client.namespace.as_str(), self.world.mesh().root_namespace.as_str()];
        namespaces.retain(|name| client.gateway.is_none() && *name != ANY_NAMESPACE);
        let reference = |name: &str| Reference::Sidecars { namespace: name.to_owned() };
        namespaces.into_iter().map(reference).collect()
    }

    /// The number of the port that requests to `written` arrive at: its own, or the only one of its Service.
    pub fn port(&self, written: &Destination) -> Option<i64> {
        written.port.number.or_else(|| match self.world.host(&self.resolve(&written.host)) {
            Some(HostKind::Service(service)) => match service.ports.as_slice() {
                [only] => Some(only.number),
                _ => None,
            },
            _ => None,
        })
    }

    /// What says that nobody has a host.
    pub fn rests_on_host(&self, host: &Host) -> Vec<Reference> {
        let service = host.service(&self.world.mesh().domain);
        let service = service.map(|(name, namespace)| Reference::Service {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        });
        service.into_iter().chain([Reference::ServiceEntries]).collect()
    }

    /// What says which subsets of a host a client finds.
    pub fn rests_on_rules(&self, host: &Host, client: &Client) -> Vec<Reference> {
        let target = self.world.alias_target(host);
        let service = self.world.host_namespace(target.as_ref().unwrap_or(host));
        let root = self.world.mesh().root_namespace.as_str();
        let mut namespaces = vec![client.namespace.as_str(), service.unwrap_or_default(), root];
        namespaces.retain(|namespace| *namespace != ANY_NAMESPACE);
        namespaces.sort_unstable();
        namespaces.dedup();
        let all = namespaces.into_iter();
        all.map(|own| Reference::DestinationRules { namespace: own.to_owned() }).collect()
    }
}

impl Case<'_> {
    /// `reviews.shop.svc.WRONG` where Service reviews stands in namespace shop: only the mesh's own domain makes it a Service's host.
    pub fn of_another_domain(&self, written: &str) -> Option<String> {
        let (service, _) = written.split_once(".svc.")?;
        let (name, namespace) = service.split_once('.')?;
        self.world.service(namespace, name)?;
        Some(format!("{name}.{namespace}.svc.{}", self.world.mesh().domain))
    }

    /// A Service that `written` was meant to name and does not: what to write, with the short form where there is one.
    pub fn meant(&self, written: &str, own: &str) -> Option<(String, String)> {
        let domain = &self.world.mesh().domain;
        let plain = written.trim_end_matches('.').to_lowercase();
        let known = |name: &str, namespace: &str| {
            self.world.service(namespace, name).map(|service| {
                let full = format!("{name}.{namespace}.svc.{domain}");
                let short =
                    if namespace == own { format!(", or {}", service.name) } else { String::new() };
                (short, full)
            })
        };
        let found = match plain.split('.').collect::<Vec<_>>().as_slice() {
            [name] => known(name, own),
            [name, namespace] | [name, namespace, "svc"] => known(name, namespace),
            _ => {
                let host = Host::resolve(&plain, own, domain);
                let (name, namespace) = host.service(domain)?;
                known(name, namespace)
            }
        };
        found.filter(|(_, full)| full != written)
    }

    /// Why Istio tries `other` before the object, where both are for the same host.
    pub fn why_first(&self, other: &VirtualService) -> &'static str {
        let (theirs, own) =
            (class(other, &other.metadata.namespace), class(self.object, &self.review.namespace));
        let created = other.metadata.creation_timestamp;
        if theirs == own && created.is_some() && created == self.object.metadata.creation_timestamp
        {
            "as old and first by name"
        } else if theirs == own {
            "older"
        } else if theirs == 0 {
            "private to its namespace"
        } else {
            "exported by name"
        }
    }
}

/// Private ones come first, then those exported by name, then public ones.
///
/// Source: `pilot/pkg/model/virtualservice.go`, `push_context.go` `initVirtualServices`.
fn class(object: &VirtualService, namespace: &str) -> u8 {
    let to = &object.spec.export_to;
    if to.is_empty() || to.iter().any(|to| to == "*") {
        2
    } else {
        u8::from(!to.iter().any(|to| to == "." || to == namespace))
    }
}
