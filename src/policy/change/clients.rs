//! Whose requests a VirtualService routes: sidecars by namespace and label, waypoints, and the pods of Gateways.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::asked::{Asked, Why};
use crate::istio::delegate::{completed, merged_match};
use crate::istio::{
    Arrival, Condition, Host, Protocol, Reading, Route, RouteMatch, Sidecar, VirtualService,
    full_gateway,
};
use crate::policy::rule::Gravity;
use crate::world::{Client, MESH, World};

/// Who uses a VirtualService.
///
/// All clients of the mesh look alike to Istio, but for four: those in the destination's namespace, those at a gateway, whose
/// pods may be anywhere, those in ambient mode, for whom the host's waypoint asks, and those whose own namespace has
/// DestinationRules for the destination. The last are told apart from the others because nobody here knows whether they send it
/// anything.
///
/// Where there are Sidecars, whoever does not see the VirtualService is not asked about. One in the root namespace often hides
/// it from all but its own namespace and those of its hosts; then these are asked about in place of clients anywhere.
#[derive(Debug)]
pub struct Clients<'a> {
    pub(super) world: &'a World,
    /// What they are bound to: of a delegate, one of its roots.
    pub(super) object: &'a VirtualService,
    pub(super) namespace: &'a str,
    /// The delegate that they reach by way of that root.
    pub(super) delegate: Option<Handed<'a>>,
    pub(super) exported: Exported<'a>,
    /// Whether clients in ambient mode reach every host through a waypoint, so that only sidecars ask by themselves.
    pub(super) has_waypoints: bool,
    pub(super) asked: Vec<Asked>,
    /// Clients from whom a Sidecar hides it; pods that a route names may have another one.
    pub(super) hidden: Vec<Asked>,
}

/// A delegate, and the routes of one root that hand requests on to it.
#[derive(Debug)]
pub(super) struct Handed<'a> {
    pub(super) object: &'a VirtualService,
    pub(super) namespace: &'a str,
    by: Vec<&'a Route>,
}

/// The namespaces whose clients see a VirtualService.
#[derive(Debug)]
pub(super) enum Exported<'a> {
    Everywhere,
    To(BTreeSet<&'a str>),
}

impl Exported<'_> {
    pub(super) fn contains(&self, namespace: &str) -> bool {
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
        let (asked, hidden, has_waypoints) = (Vec::new(), Vec::new(), false);
        let mut own =
            Self { world, object, namespace, delegate, exported, has_waypoints, asked, hidden };
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

    /// The Sidecar that hides it, where no client in the mesh sees it because of one.
    pub fn hidden_by(&self) -> Option<&'a Sidecar> {
        let first = self.hidden.iter().find_map(|hidden| hidden.clients.first())?;
        let is_seen = self.all().iter().any(|client| client.gateway.is_none());
        self.world.sidecar(first).filter(|_| !is_seen)
    }

    /// The sidecars that are asked about.
    pub(super) fn sidecars(&self) -> impl Iterator<Item = &Client> {
        let all = self.asked.iter().flat_map(|asked| &asked.clients);
        all.filter(|client| client.is_sidecar())
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
        let hidden = self.hidden.iter().filter(|_| has_source);
        for asked in self.asked.iter().chain(hidden) {
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
                    let labels = &block.source_labels;
                    asked.clients.iter_mut().for_each(|own| own.labels.extend(labels.clone()));
                    asked.clients.retain(|own| self.is_shown_to(own));
                }
                if !asked.clients.is_empty() {
                    found.push(asked);
                }
            }
        }
        let source = block.source_namespace.as_str();
        let labels = block.source_labels.clone();
        let client = Client { labels, ..Client::in_namespace(source) };
        if has_source && !source.is_empty() && self.has_sidecar(&client) {
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
            let is_shown = self.is_shown_to(&plain);
            let of_sidecars = self.world.sidecar_selectors(namespace);
            let of_sidecars = of_sidecars.into_iter().filter(|_| !is_shown);
            let selected = selected.chain(of_sidecars);
            let selected =
                selected.map(|labels| Client { labels: labels.clone(), ..plain.clone() });
            for client in std::iter::once(plain.clone()).chain(selected) {
                for &block in &blocks {
                    let mut client = client.clone();
                    if block.gateways.is_empty() {
                        client.labels.extend(block.source_labels.clone());
                    }
                    if client.meets(Protocol::Http, block, self.namespace)
                        && self.is_shown_to(&client)
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
        self.has_sidecar(sidecar)
            && self.met(route).iter().any(|own| own.is_empty() || own.iter().any(meets))
    }

    /// Whether it is tried for what a sidecar sends.
    pub(super) fn has_sidecar(&self, sidecar: &Client) -> bool {
        self.is_for_mesh_in(&sidecar.namespace) && self.is_shown_to(sidecar)
    }

    /// Whether no Sidecar hides it from this client.
    pub fn is_shown_to(&self, client: &Client) -> bool {
        self.world.shows(self.object, self.namespace, client)
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
            None => self.has_sidecar(client),
            Some(name) => is_bound(name) && self.exported.contains(&client.namespace),
        }
    }

    pub(super) fn is_for_mesh_in(&self, namespace: &str) -> bool {
        self.object.spec.is_for_mesh() && self.exported.contains(namespace)
    }
}

/// Whether some of those who use the object cannot take this route, or whether it speaks of clients by itself.
pub(super) fn names_clients(blocks: &[RouteMatch]) -> bool {
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

/// The clients to ask about those who use a VirtualService, each once.
pub(super) fn of(users: &[Clients<'_>]) -> Vec<Client> {
    let mut seen = BTreeSet::new();
    let all = users.iter().flat_map(Clients::all);
    all.filter(|client| seen.insert(client.clone())).collect()
}
