//! The destinations of a write, each once, with what the cluster knows of them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use super::chronicle::Chronicle;
use crate::istio::{self, Host, Location, Subset};
use crate::policy::names::{self, Role, Version};
use crate::policy::ownership::Parts;
use crate::policy::settings::Roles;
use crate::world::{Age, Client, EffectiveRule, Endpoints, HostKind, Revision, World};

/// A destination of the old or the new object, and what is known of it.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The host, completed.
    pub host: Host,
    /// The subset as written; empty for all endpoints of the host.
    pub subset: Arc<str>,
    /// The host as people say it in the namespace of the object under review.
    short: Arc<str>,
    /// The Service's name, or the whole host.
    name: Arc<str>,
    /// The labels that it selects by, empty for all; `None` where no DestinationRule in force for any client defines the subset.
    pub labels: Option<BTreeMap<String, String>>,
    /// What it selects; `None` where that is not known.
    pub endpoints: Option<Endpoints>,
    /// Whether it is known that there is no such host, or that no client sees its subset defined.
    pub is_missing: bool,
    /// Whether anybody is known to have its host.
    pub is_known: bool,
    /// Whether it is outside of the mesh: a ServiceEntry says so.
    pub(super) is_external: bool,
    /// The part that the policy or its name gives to it.
    pub role: Option<Role>,
    /// The part that a Canary or a Rollout gives to it, where no hash tells yet which Pods play it.
    part: Option<Role>,
    /// Whether only the host's name says the role.
    is_role_of_host: bool,
    /// The number of its host: equal for equal hosts.
    pub host_number: usize,
    /// The namespace of the host's Service.
    namespace: Option<Arc<str>>,
    /// Where anything is known of it.
    age: Option<Box<Age>>,
}

impl Destination {
    /// Whether it is known that nobody answers there: no such host, no such subset, or no ready endpoint.
    pub fn is_dead(&self) -> bool {
        self.is_missing || self.endpoints.as_ref().is_some_and(|endpoints| endpoints.ready() == 0)
    }

    /// As messages say it: `reviews/v2`.
    pub fn label(&self) -> Cow<'_, str> {
        label(&self.short, &self.subset)
    }

    /// The name that stands beside a weight: the subset, else the host.
    pub fn short_name(&self) -> &str {
        if self.subset.is_empty() { &self.short } else { &self.subset }
    }

    /// The namespace of the host's Service.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Whether its workload is younger than `moment`; `false` where that is not known.
    pub(super) fn is_younger_than(&self, moment: Option<istio::Timestamp>) -> bool {
        self.age().workload.zip(moment).is_some_and(|(created, moment)| created > moment)
    }

    /// Compares how long this and `other` have been around: roles first, then the creation of the workloads, then the order of
    /// versions, then the creation of the Services. `Less` is older; `None` where nothing tells.
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
        let (own, theirs) = (self.age(), other.age());
        let workload = of(own.workload, theirs.workload).filter(|order| order.is_ne());
        let revision = of(own.revision, theirs.revision).filter(|order| order.is_ne());
        match (workload, revision) {
            (Some(a), Some(b)) if a == b => Some(a),
            // A restart makes an old workload's ReplicaSet young, a new version does the same: the two cannot be told apart.
            (Some(_), Some(_)) => self.compare_versions(other),
            (Some(known), None) | (None, Some(known)) => Some(known),
            // Of two Services the one that was there first may have lost its workload since.
            (None, None) => self
                .compare_versions(other)
                .or_else(|| of(own.service, theirs.service).filter(|order| order.is_ne())),
        }
    }

    fn age(&self) -> Age {
        self.age.as_deref().copied().unwrap_or_default()
    }

    /// Compares the versions that the names say; `Less` is the earlier one.
    pub(super) fn compare_versions(&self, other: &Self) -> Option<Ordering> {
        self.version()?.compare(other.version()?)
    }

    /// What its subset says, or the Service; where neither does, the label that it selects by.
    fn version(&self) -> Option<Version<'_>> {
        let named = match &*self.subset {
            "" => names::version(&self.name),
            subset => names::version(subset),
        };
        named.or_else(|| names::version(self.labels.as_ref()?.get("version")?))
    }
}

fn label<'a>(short: &'a str, subset: &str) -> Cow<'a, str> {
    match subset {
        "" => Cow::Borrowed(short),
        subset => Cow::Owned(format!("{short}/{subset}")),
    }
}

/// Every destination of a write, each once: a subset that is only renamed is the same one.
#[derive(Debug, Default)]
pub struct Destinations {
    all: Vec<Destination>,
    hosts: Vec<OfHost>,
    numbers: HashMap<Host, usize>,
    /// The numbers of hosts as they are written, for each namespace in which they are completed.
    written: Vec<(String, HashMap<String, usize>)>,
}

/// A host, what it says of all of its destinations, and which these are.
#[derive(Debug)]
struct OfHost {
    host: Host,
    /// As people say it in the namespace of the object under review.
    short: Arc<str>,
    /// The Service's name, or the whole host.
    name: Arc<str>,
    namespace: Option<Arc<str>>,
    /// What its name says.
    role: Option<Role>,
    is_known: bool,
    is_external: bool,
    /// By subset as written.
    written: HashMap<Arc<str>, Ports>,
    /// By the labels that they select by; those that differ in the endpoints of a port stand side by side.
    selecting: HashMap<BTreeMap<String, String>, Vec<usize>>,
    /// How many of them differ in more than the port.
    subsets: usize,
}

/// The numbers that a subset has on the ports that are written with it: one of them, and the others if there are any.
#[derive(Debug)]
struct Ports {
    first: (Option<i64>, usize),
    others: Vec<(Option<i64>, usize)>,
}

impl OfHost {
    fn new(host: Host, context: &Context<'_>) -> Self {
        let domain = &context.world.mesh().domain;
        let known = context.world.host(&host);
        let service = host.service(domain);
        let name = service.map_or(host.as_str(), |(name, _)| name);
        Self {
            short: host.short(context.namespace, domain).into(),
            name: name.into(),
            namespace: service.map(|(_, at)| at.into()),
            role: names::role(name),
            is_known: known.is_some(),
            is_external: matches!(known, Some(HostKind::ServiceEntry(entry)) if entry.spec.location == Location::External),
            written: HashMap::new(),
            selecting: HashMap::new(),
            subsets: 0,
            host,
        }
    }

    fn number_of(&self, subset: &str, port: Option<i64>) -> Option<usize> {
        let Ports { first, others } = self.written.get(subset)?;
        let mut ports = std::iter::once(first).chain(others);
        ports.find(|(own, _)| *own == port).map(|(_, at)| *at)
    }
}

impl Destinations {
    /// None yet, with room for so many.
    pub(super) fn with_room(count: usize) -> Self {
        Self { all: Vec::with_capacity(count), ..Self::default() }
    }

    /// The number of the destination that `written` names, in an object of `namespace`.
    pub(super) fn add(
        &mut self,
        written: &istio::Destination,
        namespace: &str,
        context: &Context<'_>,
    ) -> usize {
        let host = self.written_host(&written.host, namespace, context);
        self.add_on_port(host, &written.subset, written.port.number, context)
    }

    /// The number of a destination on whichever port of `host`.
    pub(super) fn add_resolved(
        &mut self,
        host: Host,
        subset: &str,
        context: &Context<'_>,
    ) -> usize {
        let host = self.host(host, context);
        self.add_on_port(host, subset, None, context)
    }

    /// The number of a host that an object of `namespace` names.
    fn written_host(&mut self, written: &str, namespace: &str, context: &Context<'_>) -> usize {
        let own = self.written.iter().position(|(own, _)| own == namespace);
        let at = own.unwrap_or_else(|| {
            self.written.push((namespace.to_owned(), HashMap::new()));
            self.written.len() - 1
        });
        if let Some(number) = self.written[at].1.get(written) {
            return *number;
        }
        let host = Host::resolve(written, namespace, &context.world.mesh().domain);
        let number = self.host(host, context);
        self.written[at].1.insert(written.to_owned(), number);
        number
    }

    fn host(&mut self, host: Host, context: &Context<'_>) -> usize {
        if let Some(number) = self.numbers.get(&host) {
            return *number;
        }
        let number = self.hosts.len();
        self.hosts.push(OfHost::new(host.clone(), context));
        self.numbers.insert(host, number);
        number
    }

    fn add_on_port(
        &mut self,
        host: usize,
        subset: &str,
        port: Option<i64>,
        context: &Context<'_>,
    ) -> usize {
        let own = &self.hosts[host];
        if let Some(known) = own.number_of(subset, port) {
            return known;
        }
        let labels = if subset.is_empty() {
            Some(BTreeMap::new())
        } else if context.is_blind {
            None
        } else {
            context.subset(host, &own.host, subset).map(|subset| subset.labels.clone())
        };
        self.add_to_host(host, subset, port, labels, context)
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
        let host = self.host(host, context);
        self.add_to_host(host, subset, port, labels, context)
    }

    fn add_to_host(
        &mut self,
        host_number: usize,
        subset: &str,
        port: Option<i64>,
        labels: Option<BTreeMap<String, String>>,
        context: &Context<'_>,
    ) -> usize {
        let Context { world, roles, is_blind, .. } = *context;
        let next = self.all.len();
        let own = &mut self.hosts[host_number];
        let endpoints = match &labels {
            Some(labels) if !is_blind => world.selected(&own.host, labels, port),
            _ => None,
        };
        let given = context.parts.role(&own.host, subset);
        let service = || (own.namespace.as_deref().unwrap_or_default(), &*own.name);
        let part = given.filter(|_| !world.has_hash(service(), labels.as_ref()));
        // Another port of the same Pods is the same destination; where fewer of them serve it, it is not.
        let same = match &labels {
            Some(labels) => own
                .selecting
                .get(labels)
                .into_iter()
                .flatten()
                .find(|&&at| self.all[at].endpoints == endpoints && self.all[at].part == part)
                .copied(),
            None => own.written.get(subset).map(|ports| ports.first.1),
        };
        let number = same.unwrap_or(next);
        let mut is_new = false;
        let subset: Arc<str> = match own.written.get_key_value_mut(subset) {
            Some((known, ports)) => {
                ports.others.push((port, number));
                known.clone()
            }
            None => {
                is_new = true;
                let subset: Arc<str> = subset.into();
                let ports = Ports { first: (port, number), others: Vec::new() };
                own.written.insert(subset.clone(), ports);
                subset
            }
        };
        if same.is_some() {
            return number;
        }
        own.subsets += usize::from(is_new);
        if let Some(labels) = &labels {
            own.selecting.entry(labels.clone()).or_default().push(number);
        }
        let has_roles = !roles.stable.is_empty() || !roles.canary.is_empty();
        let by_policy = || {
            let label = label(&own.short, &subset);
            names::policy_role(roles, &[&subset, &own.name, own.host.as_str(), &label])
        };
        let role = has_roles.then(by_policy).flatten();
        let role = role.or(given);
        let role = role.or_else(|| {
            let revision = world.revision(own.namespace.as_deref()?, labels.as_ref()?)?;
            Some(match revision {
                Revision::Stable => Role::Stable,
                Revision::Canary => Role::Canary,
            })
        });
        let role = role.or_else(|| names::role(&subset));
        let age = match &labels {
            Some(labels) if !is_blind => Some(Box::new(world.age(&own.host, labels))),
            _ => None,
        };
        let may_look = !is_blind && !world.is_blank();
        self.all.push(Destination {
            host: own.host.clone(),
            host_number,
            is_missing: may_look && (labels.is_none() || !own.is_known),
            is_known: own.is_known,
            is_external: own.is_external,
            subset,
            short: own.short.clone(),
            name: own.name.clone(),
            endpoints,
            part,
            is_role_of_host: role.is_none(),
            role: role.or(own.role),
            namespace: own.namespace.clone(),
            age,
            labels,
        });
        number
    }

    /// Takes back the roles that say nothing: the name of a host tells no role among subsets of that host.
    pub(super) fn settle_roles(&mut self) {
        for own in self.all.iter_mut().filter(|own| own.is_role_of_host) {
            if self.hosts[own.host_number].subsets > 1 {
                own.role = None;
            }
        }
    }

    /// The number of what is written so, on whichever port.
    pub fn find(&self, host: &Host, subset: &str) -> Option<usize> {
        self.hosts[*self.numbers.get(host)?].written.get(subset).map(|ports| ports.first.1)
    }

    /// The destination with this number.
    pub fn get(&self, at: usize) -> &Destination {
        &self.all[at]
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Their hosts, in the order of their numbers.
    pub(super) fn hosts(&self) -> impl ExactSizeIterator<Item = &Host> {
        self.hosts.iter().map(|own| &own.host)
    }

    /// Which part of the requests that go to `through` reach what `at` selects: 1 for itself, and more than 0 where the two
    /// select endpoints in common.
    pub(super) fn overlap(&self, at: usize, through: usize) -> f64 {
        if at == through {
            return 1.0;
        }
        let (at, through) = (&self.all[at], &self.all[through]);
        if at.host == through.host && at.subset.is_empty() {
            // All endpoints of a host include those of its subsets, known or not.
            return 1.0;
        }
        // A Service selects Pods of its own namespace; equal labels elsewhere are other Pods. What Argo Rollouts
        // tells apart selects the same until it has written its hashes, which no file in a repository has.
        let is_told_apart = at.part.is_some() && through.part.is_some() && at.part != through.part;
        if at.namespace != through.namespace || is_told_apart {
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
        let (at, other) = (&self.all[at], &self.all[other]);
        let (Some(wide), Some(narrow)) = (&at.labels, &other.labels) else { return false };
        at.host == other.host
            && wide.len() < narrow.len()
            && wide.iter().all(|(key, value)| narrow.get(key) == Some(value))
    }
}

/// Where destinations are looked up.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) world: &'a World,
    pub(super) roles: &'a Roles,
    /// The parts that a Canary or a Rollout gives.
    parts: Parts,
    /// What is remembered of the object under review.
    pub(super) chronicle: Option<Chronicle<'a>>,
    /// The clients that are asked about.
    pub(super) clients: &'a [Client],
    /// The namespace of the object under review, in which names are said short.
    pub(super) namespace: &'a str,
    /// Only the two objects may be used as evidence.
    pub(super) is_blind: bool,
    /// By the number of a host: what the clients use for it.
    rules: RefCell<HashMap<usize, Vec<EffectiveRule<'a>>>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        world: &'a World,
        (roles, parts): (&'a Roles, Parts),
        clients: &'a [Client],
        namespace: &'a str,
        is_blind: bool,
    ) -> Self {
        Self {
            world,
            roles,
            parts,
            chronicle: None,
            clients,
            namespace,
            is_blind,
            rules: RefCell::default(),
        }
    }

    /// The same with what is remembered of the object under review.
    pub(super) fn remembering(self, chronicle: Option<Chronicle<'a>>) -> Self {
        Self { chronicle, ..self }
    }

    /// What the first client that knows it finds under this name.
    fn subset(&self, number: usize, host: &Host, name: &str) -> Option<&'a Subset> {
        let mut known = self.rules.borrow_mut();
        let rules = known.entry(number).or_insert_with(|| {
            let clients = self.clients.iter();
            clients.filter_map(|client| self.world.destination_rule(host, client)).collect()
        });
        rules.iter().find_map(|rule| rule.subset(name))
    }
}
