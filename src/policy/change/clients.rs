//! Whose requests a VirtualService routes: sidecars by namespace and label, and the pods of Gateways.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::istio::{Host, Protocol, Route, RouteMatch, Sidecar, VirtualService, full_gateway};
use crate::policy::rule::Case;
use crate::world::{ANY_NAMESPACE, Client, MESH, World};

/// Somebody whose requests a VirtualService routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The client; several where it is not known which of them it is, so that only what all of them lack is lacking.
    pub clients: Vec<Client>,
    /// Why it is asked about.
    pub why: Why,
}

/// Why a client is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It stands for all namespaces without rules and Sidecars of their own.
    Anywhere,
    /// It is in the namespace of the VirtualService or of one of its hosts, which a Sidecar hides from clients anywhere.
    Own,
    /// It is in the namespace of a Service that is a destination.
    Service,
    /// The VirtualService is exported to its namespace by name.
    Exported,
    /// It serves a Gateway that the VirtualService is bound to.
    Gateway,
    /// Only because of a Sidecar of its own namespace does it see what one hides from the others; nobody here knows whether it
    /// sends it anything.
    Sidecar,
}

impl Why {
    /// Whether it may cost the writer something that such a client loses.
    pub fn counts(self) -> bool {
        self != Self::Sidecar
    }
}

/// So many namespaces are asked about that see a VirtualService because of Sidecars of their own, of so many that are looked at:
/// they only earn a warning, and what one of them does not find the others hardly find.
const MOST_SHOWN: usize = 16;
const MOST_SIDECARS: usize = 256;

/// Who uses a VirtualService.
///
/// All clients of the mesh look alike to Istio, but for three: those in the destination's namespace, those at a gateway, whose
/// pods may be anywhere, and those whose own namespace has DestinationRules for the destination. The last are told apart from the
/// others because nobody here knows whether they send it anything.
///
/// Where there are Sidecars, whoever does not see the VirtualService is not asked about. One in the root namespace often hides
/// it from all but its own namespace and those of its hosts; then these are asked about in place of clients anywhere.
#[derive(Debug)]
pub struct Clients<'a> {
    world: &'a World,
    object: &'a VirtualService,
    namespace: &'a str,
    exported: Exported<'a>,
    asked: Vec<Asked>,
    /// Clients from whom a Sidecar hides it; pods that a route names may have another one.
    hidden: Vec<Asked>,
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
        let (asked, hidden) = (Vec::new(), Vec::new());
        let mut own = Self { world, object, namespace, exported, asked, hidden };
        if object.spec.is_for_mesh() {
            own.add_sidecars();
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

    /// The Sidecar that hides it, where no sidecar sees it because of one.
    pub fn hidden_by(&self) -> Option<&'a Sidecar> {
        let first = self.hidden.iter().find_map(|hidden| hidden.clients.first())?;
        let is_seen = self.all().iter().any(|client| client.gateway.is_none());
        self.world.sidecar(first).filter(|_| !is_seen)
    }

    /// The sidecars that are asked about.
    pub(super) fn sidecars(&self) -> impl Iterator<Item = &Client> {
        let all = self.asked.iter().flat_map(|asked| &asked.clients);
        all.filter(|client| client.gateway.is_none())
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
            found.push(Asked { clients: vec![client], why: Why::Exported });
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
            if !self.is_for_mesh_in(namespace) {
                continue;
            }
            let first = found.len();
            let plain = Client::in_namespace(namespace);
            let selected = rules.selectors(host, namespace).into_iter();
            let is_shown = self.is_shown_to(&plain);
            let of_sidecars = self.world.sidecar_selectors(namespace);
            let of_sidecars = of_sidecars.into_iter().filter(|_| !is_shown);
            let selected = selected.chain(of_sidecars);
            let selected =
                selected.map(|labels| Client { labels: labels.clone(), ..plain.clone() });
            for client in std::iter::once(plain.clone()).chain(selected) {
                for block in blocks {
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
        self.has_sidecar(sidecar) && (route.r#match.is_empty() || route.r#match.iter().any(meets))
    }

    /// Whether it is tried for what a sidecar sends.
    fn has_sidecar(&self, sidecar: &Client) -> bool {
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
            None => self.has_sidecar(client),
            Some(name) => is_bound(name) && self.exported.contains(&client.namespace),
        }
    }

    fn is_for_mesh_in(&self, namespace: &str) -> bool {
        self.object.spec.is_for_mesh() && self.exported.contains(namespace)
    }

    fn add_sidecars(&mut self) {
        let names = match &self.exported {
            Exported::To(names) => {
                names.iter().map(|name| (Cow::Borrowed(*name), Why::Exported)).collect::<Vec<_>>()
            }
            Exported::Everywhere => {
                let routes = Protocol::ALL.into_iter().flat_map(|own| self.object.spec.routes(own));
                let hosts = routes.flat_map(|route| &route.route).map(|to| &to.destination.host);
                let services = self.namespaces_of(hosts);
                let services = services.into_iter().map(|name| (Cow::Owned(name), Why::Service));
                std::iter::once((Cow::Borrowed(ANY_NAMESPACE), Why::Anywhere))
                    .chain(services)
                    .collect()
            }
        };
        for (name, why) in &names {
            self.add(name, *why);
        }
        if self.hidden.is_empty() {
            return;
        }
        let mut seen = names.into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>();
        if self.hidden.iter().any(|hidden| hidden.why == Why::Anywhere) {
            let own = std::iter::once(self.namespace.to_owned());
            for name in own.chain(self.namespaces_of(self.object.spec.hosts.iter())) {
                let name = Cow::Owned(name);
                if !seen.contains(&name) {
                    self.add(&name, Why::Own);
                    seen.insert(name);
                }
            }
        }
        self.add_shown(&seen);
    }

    /// Adds the plain client of a namespace.
    fn add(&mut self, namespace: &str, why: Why) {
        let client = Client::in_namespace(namespace);
        let is_shown = self.is_shown_to(&client);
        let own = Asked { clients: vec![client], why };
        if is_shown { self.asked.push(own) } else { self.hidden.push(own) }
    }

    /// Adds those whom a Sidecar of their own shows what another one hides: all pods of a namespace, or those that are selected.
    fn add_shown(&mut self, asked: &BTreeSet<Cow<'_, str>>) {
        let mut found = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let is_hidden = |namespace: &str| {
            let mut hidden = self.hidden.iter().flat_map(|hidden| &hidden.clients);
            hidden.any(|own| own.namespace == namespace || own.namespace == ANY_NAMESPACE)
        };
        for namespace in self.world.namespaces_shown(self.namespace).take(MOST_SIDECARS) {
            if found.len() >= MOST_SHOWN {
                break;
            }
            if !seen.insert(namespace) || !is_hidden(namespace) || !self.is_for_mesh_in(namespace) {
                continue;
            }
            let plain = Client::in_namespace(namespace);
            if self.is_shown_to(&plain) {
                found.extend(Some(plain).filter(|_| !asked.contains(namespace)));
                continue;
            }
            let selected = self.world.sidecar_selectors(namespace).into_iter();
            let mut selected =
                selected.map(|labels| Client { labels: labels.clone(), ..plain.clone() });
            found.extend(selected.find(|own| self.is_shown_to(own)));
        }
        let asked = |client| Asked { clients: vec![client], why: Why::Sidecar };
        self.asked.extend(found.into_iter().map(asked));
    }

    /// The namespaces of the Services that these names stand for, sorted.
    fn namespaces_of<'h>(&self, hosts: impl Iterator<Item = &'h String>) -> BTreeSet<String> {
        let domain = &self.world.mesh().domain;
        let hosts = hosts.collect::<BTreeSet<_>>().into_iter();
        let hosts = hosts.map(|host| Host::resolve(host, self.namespace, domain));
        hosts
            .map(|host| self.world.alias_target(&host).unwrap_or(host))
            .filter_map(|host| self.world.host_namespace(&host).map(str::to_owned))
            .collect()
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
            let why = Why::Gateway;
            if known.peek().is_some() {
                let seeing = known.filter(|own| self.exported.contains(&own.namespace));
                let seeing = seeing.map(|own| Asked { clients: vec![own], why });
                let seeing = seeing.collect::<Vec<_>>();
                self.asked.extend(seeing);
                continue;
            }
            // Whose pods serve it is not known: perhaps some beside the Gateway, perhaps some in a namespace of their own.
            let clients = match &self.exported {
                Exported::Everywhere => vec![client(ANY_NAMESPACE), client(at)],
                Exported::To(names) => names.iter().map(|name| client(name)).collect(),
            };
            self.asked.push(Asked { clients, why });
        }
    }
}

/// Whether some of those who use the object cannot take this route, or whether it speaks of clients by itself.
pub(super) fn names_clients(route: &Route) -> bool {
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
