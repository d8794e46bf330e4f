//! Whose requests a VirtualService routes: sidecars by namespace and label, waypoints, and the pods of Gateways.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use super::Carried;
use crate::istio::{Host, Protocol, Route, RouteMatch, VirtualService, full_gateway};
use crate::policy::rule::{Case, Gravity};
use crate::world::{ANY_NAMESPACE, Client, MESH, World};

/// Somebody whose requests a VirtualService routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The client; several where it is not known which of them it is, so that only what all of them lack is lacking.
    pub clients: Vec<Client>,
    /// Why it is asked about.
    pub why: Why,
    /// What it may cost the writer if it loses: a warning at the most where nobody is known to be this client.
    pub gravity: Gravity,
}

/// Why a client is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It stands for all namespaces without rules of their own.
    Anywhere,
    /// It is in the namespace of a Service that is a destination.
    Service,
    /// The VirtualService is exported to its namespace by name.
    Exported,
    /// It serves a Gateway that the VirtualService is bound to.
    Gateway,
    /// It is the waypoint through which clients in ambient mode reach a host of the VirtualService.
    Waypoint,
}

/// Who uses a VirtualService.
///
/// All clients of the mesh look alike to Istio, but for four: those in the destination's namespace, those at a gateway, whose
/// pods may be anywhere, those in ambient mode, for whom the host's waypoint asks, and those whose own namespace has
/// DestinationRules for the destination. The last are told apart from the others because nobody here knows whether they send it
/// anything.
#[derive(Debug)]
pub struct Clients<'a> {
    world: &'a World,
    object: &'a VirtualService,
    namespace: &'a str,
    exported: Exported<'a>,
    /// Whether clients in ambient mode reach every host through a waypoint, so that only sidecars ask by themselves.
    has_waypoints: bool,
    asked: Vec<Asked>,
}

/// The namespaces whose clients see a VirtualService.
#[derive(Debug)]
enum Exported<'a> {
    Everywhere,
    To(BTreeSet<&'a str>),
}

impl Exported<'_> {
    fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::To(names) => names.contains(namespace),
        }
    }
}

impl<'a> Clients<'a> {
    /// Those who use `object` of `namespace`.
    pub fn of(object: &'a VirtualService, namespace: &'a str, world: &'a World) -> Self {
        let exported = exported(object, namespace, world);
        let asked = Vec::new();
        let mut own = Self { world, object, namespace, exported, has_waypoints: false, asked };
        if object.spec.is_for_mesh() {
            let waypoints = own.waypoints();
            own.add_sidecars();
            own.asked.extend(waypoints);
        }
        own.add_gateways();
        own
    }

    /// Everybody who is asked about, whichever route they take.
    pub fn all(&self) -> Vec<Client> {
        let mut all = Vec::new();
        let mut seen = BTreeSet::new();
        let routes = Protocol::ALL.into_iter().flat_map(|own| self.object.spec.routes(own));
        let of_routes =
            routes.filter(|route| names_clients(route)).map(|route| self.of_route(route));
        for asked in std::iter::once(Cow::Borrowed(&self.asked[..])).chain(of_routes) {
            for client in asked.iter().flat_map(|asked| &asked.clients) {
                if seen.insert(client.clone()) {
                    all.push(client.clone());
                }
            }
        }
        all
    }

    /// Those who can take a route: its `gateways`, `sourceNamespace` and `sourceLabels` leave some of them out, or speak of
    /// others.
    pub fn of_route(&self, route: &Route) -> Cow<'_, [Asked]> {
        if !names_clients(route) {
            return Cow::Borrowed(&self.asked);
        }
        let mut found = Vec::new();
        for block in &route.r#match {
            for asked in self.of_block(block) {
                if !found.contains(&asked) {
                    found.push(asked);
                }
            }
        }
        Cow::Owned(found)
    }

    fn of_block(&self, block: &RouteMatch) -> Vec<Asked> {
        let gateways = block.gateways.iter().map(|own| full_gateway(own, self.namespace));
        let gateways = gateways.collect::<Vec<_>>();
        let is_for = |name: &str| gateways.is_empty() || gateways.iter().any(|own| own == name);
        let has_source = gateways.is_empty()
            && !(block.source_labels.is_empty() && block.source_namespace.is_empty());
        let is_of_mesh = |asked: &Asked| asked.clients.iter().all(|own| own.gateway.is_none());
        let is_of_waypoint = |asked: &Asked| asked.why == Why::Waypoint;
        let mut found = Vec::new();
        for asked in &self.asked {
            if !is_of_mesh(asked) {
                let mut asked = asked.clone();
                asked.clients.retain(|own| {
                    own.gateway.as_deref().is_some_and(is_for)
                        && (!has_source || own.meets(Protocol::Http, block, self.namespace))
                });
                if !asked.clients.is_empty() {
                    found.push(asked);
                }
            } else if is_of_waypoint(asked) {
                let mut own = asked.clients.iter();
                if own.all(|own| own.meets(Protocol::Http, block, self.namespace)) {
                    found.push(asked.clone());
                }
            } else if is_for(MESH) && (!has_source || block.source_namespace.is_empty()) {
                let mut asked = asked.clone();
                if has_source {
                    asked
                        .clients
                        .iter_mut()
                        .for_each(|own| own.labels = block.source_labels.clone());
                }
                found.push(asked);
            }
        }
        let source = block.source_namespace.as_str();
        if has_source && !source.is_empty() && self.is_for_mesh_in(source) {
            let labels = block.source_labels.clone();
            let client = Client { labels, ..Client::in_namespace(source) };
            let gravity = self.gravity(&client);
            found.push(Asked { clients: vec![client], why: Why::Exported, gravity });
        }
        found
    }

    /// The clients in namespaces that have DestinationRules of their own for `host`, and the pods that such a rule selects; as far
    /// as they can take the route and are not asked about anyway.
    pub fn with_own_rules(&self, route: &Route, host: &Host) -> Vec<Client> {
        let rules = self.world.rules();
        let asked = self.of_route(route);
        let is_asked = |own: &Client| asked.iter().any(|asked| asked.clients.contains(own));
        let default = [RouteMatch::default()];
        let blocks = if route.r#match.is_empty() { &default[..] } else { &route.r#match[..] };
        let mut found: Vec<Client> = Vec::new();
        for namespace in rules.namespaces_with_own_rules(host) {
            let plain = Client::in_namespace(namespace);
            if !self.is_for_mesh_in(namespace) || self.gravity(&plain) == Gravity::WarnOnly {
                continue;
            }
            let first = found.len();
            let selected = rules.selectors(host, namespace).into_iter();
            let selected =
                selected.map(|labels| Client { labels: labels.clone(), ..plain.clone() });
            for client in std::iter::once(plain.clone()).chain(selected) {
                for block in blocks {
                    let mut client = client.clone();
                    if block.gateways.is_empty() {
                        client.labels.extend(block.source_labels.clone());
                    }
                    if client.meets(Protocol::Http, block, self.namespace)
                        && !is_asked(&client)
                        && !found[first..].contains(&client)
                    {
                        found.push(client);
                    }
                }
            }
        }
        found
    }

    /// Whether a sidecar sees the VirtualService and can take `route`.
    pub(in crate::policy) fn includes(&self, sidecar: &Client, route: &Route) -> bool {
        let meets = |block: &RouteMatch| sidecar.meets(Protocol::Http, block, self.namespace);
        self.is_for_mesh_in(&sidecar.namespace)
            && (route.r#match.is_empty() || route.r#match.iter().any(meets))
    }

    /// Whether it routes what `client` sends: a sidecar's requests, or those that arrive at a gateway.
    fn has(&self, client: &Client) -> bool {
        let is_bound = |name: &str| {
            let mut own = self.object.spec.gateways.iter();
            own.any(|own| full_gateway(own, self.namespace) == name)
        };
        match &client.gateway {
            None if client.waypoint.is_some() => {
                self.asked.iter().any(|asked| asked.clients.contains(client))
            }
            None => self.is_for_mesh_in(&client.namespace),
            Some(name) => is_bound(name) && self.exported.contains(&client.namespace),
        }
    }

    fn is_for_mesh_in(&self, namespace: &str) -> bool {
        self.object.spec.is_for_mesh() && self.exported.contains(namespace)
    }

    /// What it may cost the writer if a client loses. Clients in ambient mode do not ask by themselves: where they reach every
    /// host through a waypoint, a client that is no pod with a sidecar which is known is nobody.
    pub fn gravity(&self, client: &Client) -> Gravity {
        let is_nobody = client.is_sidecar()
            && self.has_waypoints
            && !self.world.has_sidecars(&client.namespace);
        if is_nobody { Gravity::WarnOnly } else { Gravity::Full }
    }

    /// The waypoints that route by it: those of its own namespace, and those of Services there. Another one takes no notice.
    ///
    /// Source: `pilot/pkg/networking/core/listener_waypoint.go` `getVirtualServiceForWaypoint`.
    fn waypoints(&mut self) -> Vec<Asked> {
        let Self { world, object, namespace, .. } = *self;
        let hosts = object.spec.hosts.iter();
        let hosts = hosts.map(|host| Host::resolve(host, namespace, &world.mesh().domain));
        let hosts = hosts.collect::<Vec<_>>();
        let mut found: Vec<Asked> = Vec::new();
        for (_, called, waypoint) in world.through_waypoints(&hosts, namespace) {
            let client = Client::at(waypoint);
            let is_near =
                client.namespace == namespace || world.host_namespace(&called) == Some(namespace);
            if is_near
                && self.exported.contains(&client.namespace)
                && !found.iter().any(|known| known.clients.contains(&client))
            {
                let (why, gravity) = (Why::Waypoint, Gravity::Full);
                found.push(Asked { clients: vec![client], why, gravity });
            }
        }
        let has_one = |host: &Host| world.waypoint_of(host).is_some();
        self.has_waypoints = !hosts.is_empty() && hosts.iter().all(has_one);
        found
    }

    fn add_sidecars(&mut self) {
        let add = |namespace: &str, why| {
            let client = Client::in_namespace(namespace);
            let gravity = self.gravity(&client);
            Asked { clients: vec![client], why, gravity }
        };
        let mut asked = Vec::new();
        let names = match &self.exported {
            Exported::To(names) => {
                asked.extend(names.iter().map(|name| add(name, Why::Exported)));
                self.asked = asked;
                return;
            }
            Exported::Everywhere => {
                asked.push(add(ANY_NAMESPACE, Why::Anywhere));
                let domain = &self.world.mesh().domain;
                let routes = Protocol::ALL.into_iter().flat_map(|own| self.object.spec.routes(own));
                let hosts = routes.flat_map(|route| &route.route).map(|to| &to.destination.host);
                let hosts = hosts.collect::<BTreeSet<_>>().into_iter();
                let hosts = hosts.map(|host| Host::resolve(host, self.namespace, domain));
                hosts
                    .map(|host| self.world.alias_target(&host).unwrap_or(host))
                    .filter_map(|host| self.world.host_namespace(&host).map(str::to_owned))
                    .collect::<BTreeSet<_>>()
            }
        };
        asked.extend(names.iter().map(|name| add(name, Why::Service)));
        self.asked = asked;
    }

    fn add_gateways(&mut self) {
        let gateways = self.object.spec.gateways.iter().filter(|gateway| *gateway != MESH);
        for gateway in gateways.map(|gateway| full_gateway(gateway, self.namespace)) {
            let Some((at, name)) = gateway.split_once('/') else { continue };
            let client = |namespace: &str| Client {
                gateway: Some(gateway.clone()),
                ..Client::in_namespace(namespace)
            };
            let pods = self.world.gateway_pods(at, name);
            let mut known = pods
                .map(|(namespace, labels)| Client { labels: labels.clone(), ..client(namespace) })
                .peekable();
            let (why, gravity) = (Why::Gateway, Gravity::Full);
            if known.peek().is_some() {
                let seeing = known.filter(|own| self.exported.contains(&own.namespace));
                let seeing = seeing.map(|own| Asked { clients: vec![own], why, gravity });
                let seeing = seeing.collect::<Vec<_>>();
                self.asked.extend(seeing);
                continue;
            }
            // Whose pods serve it is not known: perhaps some beside the Gateway, perhaps some in a namespace of their own.
            let clients = match &self.exported {
                Exported::Everywhere => vec![client(ANY_NAMESPACE), client(at)],
                Exported::To(names) => names.iter().map(|name| client(name)).collect(),
            };
            self.asked.push(Asked { clients, why, gravity });
        }
    }
}

/// Whether some of those who use the object cannot take this route, or whether it speaks of clients by itself.
fn names_clients(route: &Route) -> bool {
    let names = |block: &RouteMatch| {
        !block.gateways.is_empty()
            || !block.source_labels.is_empty()
            || !block.source_namespace.is_empty()
    };
    route.r#match.iter().any(names)
}

fn exported<'a>(object: &'a VirtualService, namespace: &'a str, world: &'a World) -> Exported<'a> {
    let own = &object.spec.export_to;
    let to = if own.is_empty() { &world.mesh().default_virtual_service_export_to } else { own };
    if to.is_empty() || to.iter().any(|to| to == "*") {
        return Exported::Everywhere;
    }
    let names = to.iter().map(|to| if to == "." { namespace } else { to });
    Exported::To(names.filter(|name| *name != "~").collect())
}

/// Those who use an object of `namespace`: of a delegate, those who use its roots.
pub(in crate::policy) fn users<'a>(
    object: &'a VirtualService,
    namespace: &'a str,
    world: &'a World,
) -> Vec<Clients<'a>> {
    let mut roots = world.roots_of(namespace, &object.metadata.name).peekable();
    if !object.spec.is_delegate() || roots.peek().is_none() {
        return vec![Clients::of(object, namespace, world)];
    }
    roots.map(|root| Clients::of(root, &root.metadata.namespace, world)).collect()
}

/// The clients to ask about a VirtualService of `namespace`, each once.
pub(super) fn of(object: &VirtualService, namespace: &str, world: &World) -> Vec<Client> {
    let mut seen = BTreeSet::new();
    let users = users(object, namespace, world);
    let all = users.iter().flat_map(Clients::all);
    all.filter(|client| seen.insert(client.clone())).collect()
}

impl<'a> Case<'a> {
    /// Those who use the object: where it is a delegate, one group for each of its roots.
    pub fn clients(&self) -> Vec<Clients<'a>> {
        users(self.object, &self.review.namespace, self.world)
    }
}

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
                let users = theirs.as_ref().or(from.first());
                if let Some((users, client)) = users.zip(own.clients.first()) {
                    own.gravity = users.gravity(client);
                }
                if !own.clients.iter().any(is_kept) && !found.contains(&own) {
                    found.push(own);
                }
            }
        }
        found
    }
}
