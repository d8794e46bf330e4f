//! Who takes what a write makes live, in the object under review or elsewhere, and who finds it defined.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;

use super::clients::{names_clients, users};
use super::{Asked, Carried, Clients, Destination, Flow, Why};
use crate::istio::delegate::merged_match;
use crate::istio::{Host, Protocol, Route, RouteMatch};
use crate::policy::rule::Case;
use crate::world::{Client, EffectiveRule};

/// Who takes what a write makes live, in the object under review or elsewhere.
#[derive(Debug)]
pub struct Takers<'a> {
    case: Case<'a>,
    /// Those who used the object before the write; asked for where it gives something up.
    former: Option<Vec<Clients<'a>>>,
    /// Those who use another VirtualService.
    others: HashMap<&'a str, Vec<Clients<'a>>>,
    /// The last answer: the entries of a route are asked about one after the other.
    last: Option<(Taken<'a>, Vec<Arc<Asked>>)>,
    /// Which requests and which route it was for.
    at: Option<(&'a Flow, RouteAt<'a>)>,
    /// See [`Self::group`].
    group: usize,
    /// What everybody who is asked about uses for a host.
    rules: HashMap<Host, Vec<(Client, Option<EffectiveRule<'a>>)>>,
    /// The same for those who were asked for last: their group, the host, and what each of their clients uses; `None` where
    /// nobody has the host.
    in_force: Option<((usize, Host), Option<InForce<'a>>)>,
}

/// What each client uses, of each of those who are asked about.
type InForce<'a> = Vec<Vec<Option<EffectiveRule<'a>>>>;

/// What the takers of an entry depend on: the route, the field that gave it up, and the route that hands on to it.
type Taken<'a> = (RouteAt<'a>, Option<&'static str>, Option<usize>);

/// A route as [`Carried::route`] says where it stands.
type RouteAt<'a> = (Option<&'a str>, Protocol, usize);

/// What is missing, so that requests are answered with 503.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// Nobody has the host.
    Host,
    /// No DestinationRule in force for this client, who can take the route, defines the subset.
    Subset(Client),
    /// Nobody who is selected is ready.
    Ready,
}

impl<'a> Takers<'a> {
    /// Those of a write.
    pub fn of(case: &Case<'a>) -> Self {
        Self {
            case: *case,
            former: None,
            others: HashMap::new(),
            last: None,
            at: None,
            group: 0,
            rules: HashMap::new(),
            in_force: None,
        }
    }

    /// Those who use the object under review.
    pub fn users(&self) -> &'a [Clients<'a>] {
        self.case.clients
    }

    /// Those who can take the route in which `carried` stands.
    pub fn asked(&mut self, carried: &Carried<'a>) -> &[Arc<Asked>] {
        let at = (carried.flow, carried.route());
        if self.at.is_some_and(|known| std::ptr::eq(known.0, at.0) && known.1 == at.1) {
            return self.last.as_ref().map_or(&[], |(_, all)| all);
        }
        self.at = Some(at);
        let root = carried.flow.after.as_ref().filter(|after| after.is_delegated);
        let taken = (carried.route(), carried.flow.gone, root.map(|after| after.route));
        if self.last.as_ref().is_none_or(|(known, _)| *known != taken) {
            let all = self.look_up(carried).into_iter().map(Arc::new).collect();
            self.group += usize::from(self.last.as_ref().is_none_or(|(_, known)| *known != all));
            self.last = Some((taken, all));
        }
        self.last.as_ref().map_or(&[], |(_, all)| all)
    }

    /// A number for those who were asked for last: equal where it stays the same clients from one route to the next, so that what
    /// was found for them need not be looked up again.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Whether nothing that the object under review writes in `route` tells clients apart.
    pub fn is_for_all(&self, route: &Route) -> bool {
        !names_clients(&route.r#match) && self.case.clients.iter().all(|own| own.delegate.is_none())
    }

    /// Those who can take the route in which `carried` stands, and for whom no DestinationRule in force defines its subset.
    pub fn without_subset(&mut self, carried: &Carried<'a>, host: &Host) -> Vec<Arc<Asked>> {
        let subset = carried.subset();
        if subset.is_empty() {
            return Vec::new();
        }
        self.asked(carried);
        let group = self.group;
        let known = self.in_force.take_if(|(of, _)| of.0 == group && of.1 == *host);
        let known = known.map(|(_, known)| known);
        let in_force = known.unwrap_or_else(|| self.look_up_rules(host));
        let all = self.last.iter().flat_map(|(_, all)| all);
        let mut lost: Vec<Arc<Asked>> = Vec::new();
        for (asked, rules) in all.zip(in_force.iter().flatten()) {
            let lacks = rules.iter().all(|rule| lacks(*rule, subset));
            if lacks && !lost.contains(asked) {
                lost.push(asked.clone());
            }
        }
        self.in_force = Some(((group, host.clone()), in_force));
        lost
    }

    /// What those who were asked for last use for a host; `None` where nobody has it.
    fn look_up_rules(&mut self, host: &Host) -> Option<InForce<'a>> {
        self.case.world.host(host)?;
        let last = self.last.take();
        let all = last.iter().flat_map(|(_, all)| all);
        let found = all.map(|asked| {
            asked.clients.iter().map(|client| self.rule(client, host)).collect::<Vec<_>>()
        });
        let found = found.collect();
        self.last = last;
        Some(found)
    }

    /// Why nobody would answer what `carried` gets, as far as this cluster shows.
    pub fn lack(&mut self, carried: &Carried<'a>, to: &Destination) -> Option<Lack> {
        let world = self.case.world;
        if world.host(&to.host).is_none() {
            return Some(Lack::Host);
        }
        let lost = self.without_subset(carried, &to.host);
        if let Some(client) = lost.first().and_then(|asked| asked.clients.first()) {
            return Some(Lack::Subset(client.clone()));
        }
        let endpoints = world.selected(&to.host, to.labels.as_ref()?, carried.port())?;
        (endpoints.ready() == 0).then_some(Lack::Ready)
    }

    /// Whether no DestinationRule that `client` uses defines the subset.
    pub fn lacks(&mut self, client: &Client, host: &Host, subset: &str) -> bool {
        lacks(self.rule(client, host), subset)
    }

    /// What `client` uses for a host.
    fn rule(&mut self, client: &Client, host: &Host) -> Option<EffectiveRule<'a>> {
        let world = self.case.world;
        let known = self.rules.entry_ref(host).or_default();
        if let Some((_, rule)) = known.iter().find(|(own, _)| own == client) {
            return *rule;
        }
        let rule = world.destination_rule(host, client);
        known.push((client.clone(), rule));
        rule
    }

    fn look_up(&mut self, carried: &Carried<'a>) -> Vec<Asked> {
        let case = self.case;
        let (name, protocol, index) = carried.route();
        let Some(name) = name else {
            let route = case.object.spec.routes(protocol).get(index);
            let of_route = |own: &Clients<'_>| route.map(|route| own.of_route(route).into_owned());
            return case.clients.iter().filter_map(of_route).flatten().collect();
        };
        let world = case.world;
        let other = name.split_once('/');
        let other = other.and_then(|(at, name)| Some((at, world.virtual_service(at, name)?)));
        let written = other.and_then(|(_, other)| other.spec.routes(protocol).get(index));
        // What no longer stands in the object is taken by those who used it and whom it leaves.
        let old = case.review.old_object();
        let former = || old.map_or_else(Vec::new, |old| users(old, &case.review.namespace, world));
        let (from, kept) = match carried.flow.gone {
            None => (case.clients, None),
            Some("hosts") => (&**self.former.get_or_insert_with(former), None),
            Some(_) => (&**self.former.get_or_insert_with(former), Some(case.clients)),
        };
        let is_kept =
            |client: &Client| kept.is_some_and(|all| all.iter().any(|own| own.has(client)));
        let mut found: Vec<Asked> = Vec::new();
        let mut take = |met: &[RouteMatch], theirs: Option<&Clients<'_>>| {
            let is_theirs = |client: &Client| theirs.is_none_or(|own| own.has(client));
            for mut asked in from.iter().flat_map(|own| own.meeting(met).into_owned()) {
                asked.clients.retain(|client| is_theirs(client) && !is_kept(client));
                if !asked.clients.is_empty() && !found.contains(&asked) {
                    found.push(asked);
                }
            }
        };
        let root = carried.flow.after.as_ref().filter(|after| after.is_delegated);
        let root = root.and_then(|after| case.object.spec.routes(protocol).get(after.route));
        match (root, other.zip(written)) {
            (Some(root), Some(((at, _), written))) => {
                let merged = merged_match((root, &case.review.namespace), (written, at));
                merged.iter().for_each(|met| take(met, None));
            }
            (None, Some(((at, other), written))) => {
                let theirs = self.others.entry(name).or_insert_with(|| users(other, at, world));
                for own in &*theirs {
                    own.met(written).iter().for_each(|met| take(met, Some(own)));
                }
            }
            (_, None) => take(&[], None),
        }
        // Clients in the namespace of a destination may see other rules than everybody.
        if let Some(general) = found.iter().find(|asked| asked.why == Why::Anywhere).cloned() {
            let entries = written.into_iter().flat_map(|route| &route.route);
            let hosts = entries.map(|to| to.destination.host.as_str());
            let domain = &world.mesh().domain;
            let hosts = hosts.collect::<BTreeSet<_>>().into_iter();
            let hosts = hosts.map(|host| Host::resolve(host, carried.namespace(), domain));
            let hosts = hosts.map(|host| world.alias_target(&host).unwrap_or(host));
            for host in hosts {
                let Some(namespace) = world.host_namespace(&host) else { continue };
                let mut own = Asked { why: Why::Service, ..general.clone() };
                own.clients.iter_mut().for_each(|client| client.namespace = namespace.to_owned());
                let users = self.others.get(name).filter(|_| root.is_none());
                let is_theirs =
                    |client: &Client| users.is_none_or(|all| all.iter().any(|own| own.has(client)));
                let users = users.and_then(|own| own.first()).or(from.first());
                if let Some((users, client)) = users.zip(own.clients.first()) {
                    own.gravity = users.gravity(client);
                }
                let has_it = own.clients.iter().all(|own| is_theirs(own) && !is_kept(own));
                if has_it && !found.contains(&own) {
                    found.push(own);
                }
            }
        }
        found
    }
}

fn lacks(rule: Option<EffectiveRule<'_>>, subset: &str) -> bool {
    rule.is_none_or(|rule| rule.subset(subset).is_none())
}
