//! Who takes what a write makes live, in the object under review or elsewhere.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use super::Carried;
use super::clients::{Asked, Clients, Why, names_clients, users};
use crate::istio::{Host, Protocol, Route, full_gateway};
use crate::policy::rule::Case;
use crate::world::Client;

/// Who takes what a write makes live, in the object under review or elsewhere.
#[derive(Debug)]
pub struct Takers<'a> {
    case: Case<'a>,
    /// Those who use the object.
    users: Vec<Clients<'a>>,
    /// Those who used it before the write.
    former: Vec<Clients<'a>>,
    /// Those who use another VirtualService.
    others: HashMap<&'a str, Option<Clients<'a>>>,
    /// The last answer: the entries of a route are asked about one after the other.
    last: Option<(Taken<'a>, Vec<Asked>)>,
}

/// What the takers of an entry depend on: the route, the field that gave it up, and the route that hands on to it.
type Taken<'a> = ((Option<&'a str>, Protocol, usize), Option<&'static str>, Option<usize>);

impl<'a> Takers<'a> {
    /// Those of a write.
    pub fn of(case: &Case<'a>) -> Self {
        let old = case.review.old_object();
        let former = old.map(|old| users(old, &case.review.namespace, case.world));
        Self {
            case: *case,
            users: case.clients(),
            former: former.unwrap_or_default(),
            others: HashMap::new(),
            last: None,
        }
    }

    /// Those who use the object under review.
    pub fn users(&self) -> &[Clients<'a>] {
        &self.users
    }

    /// Those who can take the route in which `carried` stands.
    pub fn asked(&mut self, carried: &Carried<'a>) -> &[Asked] {
        let root = carried.flow.after.as_ref().filter(|after| after.is_delegated);
        let taken = (carried.route(), carried.flow.gone, root.map(|after| after.route));
        let all = match self.last.take() {
            Some((known, all)) if known == taken => all,
            _ => self.look_up(carried),
        };
        &self.last.insert((taken, all)).1
    }

    fn look_up(&mut self, carried: &Carried<'a>) -> Vec<Asked> {
        let whole = Route::default();
        let (name, protocol, index) = carried.route();
        let Some(name) = name else {
            let route = self.case.object.spec.routes(protocol).get(index).unwrap_or(&whole);
            return self.users.iter().flat_map(|own| own.of_route(route).into_owned()).collect();
        };
        let world = self.case.world;
        let other = name.split_once('/');
        let other = other.and_then(|(at, name)| Some((at, world.virtual_service(at, name)?)));
        let written = other.and_then(|(_, other)| other.spec.routes(protocol).get(index));
        let mut route = written.map_or(Cow::Owned(whole), Cow::Borrowed);
        let after = carried.flow.after.as_ref().filter(|after| after.is_delegated);
        if let Some(after) = after {
            // A delegate's match lies within its root's; where it says nothing of clients, the root's does.
            let root = self.case.object.spec.routes(protocol).get(after.route);
            route = root.filter(|_| !names_clients(&route)).map_or(route, Cow::Borrowed);
        } else if let Some((at, _)) = other.filter(|_| names_clients(&route)) {
            let blocks = route.to_mut().r#match.iter_mut();
            for gateway in blocks.flat_map(|block| &mut block.gateways) {
                *gateway = full_gateway(gateway, at);
            }
        }
        let other = other.filter(|(_, other)| after.is_none() && !other.spec.is_delegate());
        let theirs = self
            .others
            .entry(name)
            .or_insert_with(|| other.map(|(at, other)| Clients::of(other, at, world)));
        // What no longer stands in the object is taken by those who used it and whom it leaves.
        let (from, kept) = match carried.flow.gone {
            None => (&self.users, None),
            Some("hosts") => (&self.former, None),
            Some(_) => (&self.former, Some(&self.users)),
        };
        let is_kept =
            |client: &Client| kept.is_some_and(|all| all.iter().any(|own| own.has(client)));
        let is_theirs = |client: &Client| theirs.as_ref().is_none_or(|own| own.has(client));
        let mut found =
            from.iter().flat_map(|own| own.of_route(&route).into_owned()).collect::<Vec<_>>();
        for asked in &mut found {
            asked.clients.retain(|client| is_theirs(client) && !is_kept(client));
        }
        found.retain(|asked| !asked.clients.is_empty());
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
                let has_it = own.clients.iter().all(|own| is_theirs(own) && !is_kept(own));
                if has_it && !found.contains(&own) {
                    found.push(own);
                }
            }
        }
        found
    }
}
