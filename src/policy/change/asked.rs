//! Whom to ask about a VirtualService: the clients that may differ in what they find.

use std::borrow::Cow;
use std::collections::BTreeSet;

use hashbrown::HashSet;

use super::clients::{Clients, Exported};
use crate::istio::{Host, Protocol, full_gateway};
use crate::policy::rule::Gravity;
use crate::world::{ANY_NAMESPACE, Client, MESH};

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
    /// It is the waypoint through which clients in ambient mode reach a host of the VirtualService.
    Waypoint,
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

impl Clients<'_> {
    /// What it may cost the writer if a client loses. Clients in ambient mode do not ask by themselves: where they reach every
    /// host through a waypoint, a client that is no pod with a sidecar which is known is nobody.
    pub fn gravity(&self, client: &Client) -> Gravity {
        let is_nobody = client.is_sidecar()
            && self.has_waypoints
            && !self.world.has_injected_pods(&client.namespace);
        if is_nobody { Gravity::WarnOnly } else { Gravity::Full }
    }

    /// The waypoints that route by it: those of its own namespace, and those of Services there. Another one takes no notice.
    ///
    /// Source: `pilot/pkg/networking/core/listener_waypoint.go` `getVirtualServiceForWaypoint`.
    pub(super) fn waypoints(&mut self) -> Vec<Asked> {
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

    pub(super) fn add_sidecars(&mut self) {
        let names = match &self.exported {
            Exported::To(names) => {
                names.iter().map(|name| (Cow::Borrowed(*name), Why::Exported)).collect::<Vec<_>>()
            }
            Exported::Everywhere => {
                let (object, namespace) = match &self.delegate {
                    Some(to) => (to.object, to.namespace),
                    None => (self.object, self.namespace),
                };
                let routes = Protocol::ALL.into_iter().flat_map(|own| object.spec.routes(own));
                let hosts = routes.flat_map(|route| &route.route).map(|to| &to.destination.host);
                let services = self.namespaces_of(hosts, namespace);
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
            for name in own.chain(self.namespaces_of(self.object.spec.hosts.iter(), self.namespace))
            {
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
        let gravity = self.gravity(&client);
        let own = Asked { clients: vec![client], why, gravity };
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
        let (why, gravity) = (Why::Sidecar, Gravity::WarnOnly);
        let asked = |client| Asked { clients: vec![client], why, gravity };
        self.asked.extend(found.into_iter().map(asked));
    }

    /// The namespaces of the Services that these names in an object of `namespace` stand for, sorted.
    fn namespaces_of<'h>(
        &self,
        hosts: impl Iterator<Item = &'h String>,
        namespace: &str,
    ) -> BTreeSet<String> {
        let domain = &self.world.mesh().domain;
        let hosts = hosts.collect::<HashSet<_>>().into_iter();
        let hosts = hosts.map(|host| Host::resolve(host, namespace, domain));
        hosts
            .map(|host| self.world.alias_target(&host).unwrap_or(host))
            .filter_map(|host| self.world.host_namespace(&host).map(str::to_owned))
            .collect()
    }

    pub(super) fn add_gateways(&mut self) {
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
