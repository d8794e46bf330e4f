use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::istio::{self, Host};
use crate::policy::names::{self, Role, Version};
use crate::policy::settings::Roles;
use crate::world::{Age, Client, Endpoints, World};

/// A destination of the old or the new object, and what is known of it.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The host, completed.
    pub host: Host,
    /// The subset as written; empty for all endpoints of the host.
    pub subset: String,
    /// The port of the entry that named it first; `None` where that named none.
    port: Option<i64>,
    /// As messages say it: `reviews/v2`.
    pub label: String,
    /// The labels that it selects by, empty for all; `None` where no DestinationRule in force for any client defines the subset.
    pub labels: Option<BTreeMap<String, String>>,
    /// What it selects; `None` where that is not known.
    pub endpoints: Option<Endpoints>,
    /// Whether it is known that there is no such host, or that no client sees its subset defined.
    pub is_missing: bool,
    /// The part that the policy or its name gives to it.
    pub role: Option<Role>,
    /// Whether only the host's name says the role.
    is_role_of_host: bool,
    /// The namespace of the host's Service.
    namespace: Option<String>,
    age: Age,
    version: Option<Version>,
}

impl Destination {
    /// Whether requests to it may be answered by somebody: it is not known to be dead.
    pub fn serves(&self) -> bool {
        !self.is_dead()
    }

    /// Whether it is known that nobody answers there: no such host, no such subset, or no ready endpoint.
    pub fn is_dead(&self) -> bool {
        self.is_missing || self.endpoints.as_ref().is_some_and(|endpoints| endpoints.ready() == 0)
    }

    /// Whether its workload is younger than `moment`; `false` where that is not known.
    pub(super) fn is_younger_than(&self, moment: Option<istio::Timestamp>) -> bool {
        self.age.workload.zip(moment).is_some_and(|(created, moment)| created > moment)
    }

    /// Compares how long this and `other` have been around: roles first, then creation, then the order of versions. `Less` is
    /// older; `None` where nothing tells.
    pub(super) fn compare_age(&self, other: &Self) -> Option<Ordering> {
        let rank = |role| match role {
            Some(Role::Stable) => 0,
            None => 1,
            Some(Role::Canary) => 2,
        };
        match rank(self.role).cmp(&rank(other.role)) {
            Ordering::Equal => {}
            by_role => return Some(by_role),
        }
        let of = |a: Option<istio::Timestamp>, b: Option<istio::Timestamp>| {
            a.zip(b).map(|(a, b)| a.cmp(&b))
        };
        let workload = of(self.age.workload, other.age.workload).filter(|order| order.is_ne());
        let revision = of(self.age.revision, other.age.revision).filter(|order| order.is_ne());
        match (workload, revision) {
            (Some(a), Some(b)) if a == b => Some(a),
            // A restart makes an old workload's ReplicaSet young, a new version does the same: the two cannot be told apart.
            (Some(_), Some(_)) => self.compare_versions(other),
            (Some(known), None) | (None, Some(known)) => Some(known),
            (None, None) => self.compare_versions(other),
        }
    }

    /// Compares the versions that the names say; `Less` is the earlier one.
    pub(super) fn compare_versions(&self, other: &Self) -> Option<Ordering> {
        let (own, theirs) = (self.version.as_ref()?, other.version.as_ref()?);
        let comparable = own.stem == theirs.stem && own.numbers != theirs.numbers;
        comparable.then(|| own.numbers.cmp(&theirs.numbers))
    }
}

/// Every destination of a write, each once: a subset that is only renamed is the same one.
#[derive(Debug, Default)]
pub struct Destinations(Vec<Destination>);

impl Destinations {
    /// The number of the destination that `written` names, in an object of `namespace`.
    pub(super) fn add(
        &mut self,
        written: &istio::Destination,
        namespace: &str,
        context: &Context<'_>,
    ) -> usize {
        let host = Host::resolve(&written.host, namespace, &context.world.mesh().domain);
        self.add_on_port(host, &written.subset, written.port.number, context)
    }

    /// The number of a destination on whichever port of `host`.
    pub(super) fn add_resolved(
        &mut self,
        host: Host,
        subset: &str,
        context: &Context<'_>,
    ) -> usize {
        self.add_on_port(host, subset, None, context)
    }

    fn add_on_port(
        &mut self,
        host: Host,
        subset: &str,
        port: Option<i64>,
        context: &Context<'_>,
    ) -> usize {
        if let Some(at) = self
            .0
            .iter()
            .position(|known| known.host == host && known.subset == subset && known.port == port)
        {
            return at;
        }
        let Context { world, clients, is_blind, .. } = *context;
        let labels = if subset.is_empty() {
            Some(BTreeMap::new())
        } else if is_blind {
            None
        } else {
            let seen = clients.iter().find_map(|client| world.subset(&host, subset, client));
            seen.map(|subset| subset.labels.clone())
        };
        self.add_selected(host, subset, port, labels, context)
    }

    /// The number of the destination that selects by `labels`; `subset` is what tells its part and its version by name.
    pub(super) fn add_selected(
        &mut self,
        host: Host,
        subset: &str,
        port: Option<i64>,
        labels: Option<BTreeMap<String, String>>,
        context: &Context<'_>,
    ) -> usize {
        let Context { world, roles, namespace, is_blind, .. } = *context;
        let endpoints = match &labels {
            Some(labels) if !is_blind => world.selected(&host, labels, port),
            _ => None,
        };
        let same = |known: &Destination| {
            known.host == host
                && match &labels {
                    // Another port of the same Pods is the same destination; where fewer of them serve it, it is not.
                    Some(labels) => {
                        known.labels.as_ref() == Some(labels) && known.endpoints == endpoints
                    }
                    None => known.labels.is_none() && known.subset == subset,
                }
        };
        if let Some(at) = self.0.iter().position(same) {
            return at;
        }
        let domain = &world.mesh().domain;
        let short = host.short(namespace, domain);
        let name = host.service(domain).map_or(host.as_str(), |(name, _)| name);
        let in_namespace = host.service(domain).map(|(_, at)| at.to_owned());
        let label = if subset.is_empty() { short.to_owned() } else { format!("{short}/{subset}") };
        let role = names::policy_role(roles, &[subset, name, host.as_str(), &label]);
        let role = role.or_else(|| names::role(subset));
        let is_role_of_host = role.is_none();
        let role = role.or_else(|| names::role(name));
        let version = if subset.is_empty() { names::version(name) } else { names::version(subset) };
        let by_label = || labels.as_ref()?.get("version").and_then(|value| names::version(value));
        let version = version.or_else(by_label);
        let age = match &labels {
            Some(labels) if !is_blind => world.age(&host, labels),
            _ => Age::default(),
        };
        let may_look = !is_blind && !world.is_blank();
        let is_missing = may_look && (labels.is_none() || world.host(&host).is_none());
        self.0.push(Destination {
            host,
            is_missing,
            subset: subset.to_owned(),
            port,
            label,
            labels,
            endpoints,
            role,
            is_role_of_host,
            namespace: in_namespace,
            age,
            version,
        });
        self.0.len() - 1
    }

    /// Takes back the roles that say nothing: the name of a host tells no role among subsets of that host.
    pub(super) fn settle_roles(&mut self) {
        let is_shared = |own: &Destination| {
            let other = |other: &Destination| other.host == own.host && other.subset != own.subset;
            own.is_role_of_host && self.0.iter().any(other)
        };
        let shared = self.0.iter().map(is_shared).collect::<Vec<_>>();
        for (own, is_shared) in self.0.iter_mut().zip(shared) {
            own.role = own.role.filter(|_| !is_shared);
        }
    }

    /// The destination with this number.
    pub fn get(&self, at: usize) -> &Destination {
        &self.0[at]
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Which part of the requests that go to `through` reach what `at` selects: 1 for itself, and more than 0 where the two
    /// select endpoints in common.
    pub(super) fn overlap(&self, at: usize, through: usize) -> f64 {
        if at == through {
            return 1.0;
        }
        let (at, through) = (&self.0[at], &self.0[through]);
        if at.host == through.host && at.subset.is_empty() {
            // All endpoints of a host include those of its subsets, known or not.
            return 1.0;
        }
        if at.namespace != through.namespace {
            // A Service selects Pods of its own namespace; equal labels elsewhere are other Pods.
            return 0.0;
        }
        let (Some(own), Some(theirs)) = (&at.endpoints, &through.endpoints) else { return 0.0 };
        match theirs.ready() {
            0 => 0.0,
            ready => f64::from(theirs.common_ready(own)) / f64::from(ready),
        }
    }

    /// Whether `at` selects all that `other` selects and more, by their labels.
    pub(super) fn contains(&self, at: usize, other: usize) -> bool {
        let (at, other) = (&self.0[at], &self.0[other]);
        let (Some(wide), Some(narrow)) = (&at.labels, &other.labels) else { return false };
        at.host == other.host
            && wide.len() < narrow.len()
            && wide.iter().all(|(key, value)| narrow.get(key) == Some(value))
    }

    /// Whether two hosts differ at most in a version or role suffix.
    pub(super) fn are_one_family(&self, a: usize, b: usize, domain: &str) -> bool {
        let (a, b) = (&self.0[a], &self.0[b]);
        if a.host == b.host {
            return true;
        }
        match (a.host.service(domain), b.host.service(domain)) {
            (Some((name, namespace)), Some((other, at))) => {
                namespace == at && names::stem(name) == names::stem(other)
            }
            _ => false,
        }
    }
}

/// Where destinations are looked up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) world: &'a World,
    pub(super) roles: &'a Roles,
    /// The clients that are asked about.
    pub(super) clients: &'a [Client],
    /// The namespace of the object under review, in which names are said short.
    pub(super) namespace: &'a str,
    /// Only the two objects may be used as evidence.
    pub(super) is_blind: bool,
}
