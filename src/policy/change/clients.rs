//! Whose requests a VirtualService routes: sidecars by namespace and label, waypoints, and the pods of Gateways.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::istio::delegate::{completed, merged_match};
use crate::istio::{
    Arrival, Condition, Host, Protocol, Reading, Route, RouteMatch, VirtualService, full_gateway,
};
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
    /// What they are bound to: of a delegate, one of its roots.
    object: &'a VirtualService,
    namespace: &'a str,
    /// The delegate that they reach by way of that root.
    delegate: Option<Handed<'a>>,
    exported: Exported<'a>,
    /// Whether clients in ambient mode reach every host through a waypoint, so that only sidecars ask by themselves.
    has_waypoints: bool,
    asked: Vec<Asked>,
}

/// A delegate, and the routes of one root that hand requests on to it.
#[derive(Debug)]
struct Handed<'a> {
    object: &'a VirtualService,
    namespace: &'a str,
    by: Vec<&'a Route>,
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
        Self::through(object, namespace, None, world)
    }

    /// Those who use `object`, and `delegate` by way of it.
    fn through(
        object: &'a VirtualService,
        namespace: &'a str,
        delegate: Option<Handed<'a>>,
        world: &'a World,
    ) -> Self {
        let exported = exported(object, namespace, world);
        let asked = Vec::new();
        let has_waypoints = false;
        let mut own = Self { world, object, namespace, delegate, exported, has_waypoints, asked };
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
        let routes = match &self.delegate {
            Some(to) => to.object.spec.http.iter().flat_map(|route| self.met(route)).collect(),
            None => self.own_matches(),
        };
        let of_routes = routes.iter().filter(|own| names_clients(own)).map(|own| self.meeting(own));
        for asked in std::iter::once(Cow::Borrowed(&self.asked[..])).chain(of_routes) {
            for client in asked.iter().flat_map(|asked| &asked.clients) {
                if seen.insert(client.clone()) {
                    all.push(client.clone());
                }
            }
        }
        all
    }

    /// The matches of its own routes, those of its delegates in the place of the routes that name them.
    fn own_matches(&self) -> Vec<Cow<'a, [RouteMatch]>> {
        let mut all = Vec::new();
        for route in Protocol::ALL.into_iter().flat_map(|own| self.object.spec.routes(own)) {
            all.push(completed(&route.r#match, self.namespace));
            let Some(to) = &route.delegate else { continue };
            let Ok(delegate) = self.world.delegate(to, self.namespace) else { continue };
            let at = to.namespace_from(self.namespace);
            let theirs = delegate.spec.http.iter();
            let merged = theirs.filter_map(|own| merged_match((route, self.namespace), (own, at)));
            all.extend(merged.map(Cow::Owned));
        }
        all
    }

    /// Those who can take a route: its `gateways`, `sourceNamespace` and `sourceLabels` leave some of them out, or speak of
    /// others. A delegate's route is taken by those to whom its root's match leaves it.
    pub fn of_route(&self, route: &Route) -> Cow<'_, [Asked]> {
        if self.delegate.is_none() {
            return self.meeting(&route.r#match);
        }
        let mut found = Vec::new();
        for own in self.met(route) {
            for asked in self.meeting(&own).iter() {
                if !found.contains(asked) {
                    found.push(asked.clone());
                }
            }
        }
        Cow::Owned(found)
    }

    /// The match of a route as requests meet it: a delegate's merged with that of each route which hands on to it, so that there
    /// may be none.
    pub(super) fn met<'r>(&self, route: &'r Route) -> Vec<Cow<'r, [RouteMatch]>> {
        let Some(to) = &self.delegate else {
            return vec![completed(&route.r#match, self.namespace)];
        };
        let own = (route, to.namespace);
        let merged = to.by.iter().filter_map(|root| merged_match((root, self.namespace), own));
        merged.map(Cow::Owned).collect()
    }

    /// Which requests a route takes.
    pub(super) fn conditions(&self, route: &Route) -> Vec<Condition> {
        let arrival = Arrival::anywhere(&self.object.spec, self.namespace);
        let met = self.met(route).into_iter().map(Cow::into_owned);
        let met = met.map(|own| Route { r#match: own, ..Route::default() });
        met.flat_map(|own| Condition::alternatives(&own, &arrival, Reading::Usual)).collect()
    }

    /// Those whom a match lets pass.
    pub(super) fn meeting(&self, blocks: &[RouteMatch]) -> Cow<'_, [Asked]> {
        if !names_clients(blocks) {
            return Cow::Borrowed(&self.asked);
        }
        let mut found = Vec::new();
        for block in blocks {
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
        let met = self.met(route);
        let any = [RouteMatch::default()];
        let blocks = met.iter().flat_map(|own| if own.is_empty() { &any[..] } else { &own[..] });
        let blocks = blocks.collect::<Vec<_>>();
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
                for &block in &blocks {
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
            && self.met(route).iter().any(|own| own.is_empty() || own.iter().any(meets))
    }

    /// Whether it routes what `client` sends: a sidecar's requests, or those that arrive at a gateway.
    pub(super) fn has(&self, client: &Client) -> bool {
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
                let (object, namespace) = match &self.delegate {
                    Some(to) => (to.object, to.namespace),
                    None => (self.object, self.namespace),
                };
                let routes = Protocol::ALL.into_iter().flat_map(|own| object.spec.routes(own));
                let hosts = routes.flat_map(|route| &route.route).map(|to| &to.destination.host);
                let hosts = hosts.collect::<BTreeSet<_>>().into_iter();
                let hosts = hosts.map(|host| Host::resolve(host, namespace, domain));
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
fn names_clients(blocks: &[RouteMatch]) -> bool {
    let names = |block: &RouteMatch| {
        !block.gateways.is_empty()
            || !block.source_labels.is_empty()
            || !block.source_namespace.is_empty()
    };
    blocks.iter().any(names)
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
    let of_root = |root: &'a VirtualService| {
        let at = root.metadata.namespace.as_str();
        let is_meant = |route: &&Route| {
            route.delegate.as_ref().is_some_and(|to| {
                (to.namespace_from(at), to.name.as_str()) == (namespace, &object.metadata.name)
            })
        };
        let by = root.spec.http.iter().filter(is_meant).collect();
        Clients::through(root, at, Some(Handed { object, namespace, by }), world)
    };
    roots.map(of_root).collect()
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
