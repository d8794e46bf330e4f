//! Which VirtualServices route a host for a client, in the order in which they are tried.

use std::borrow::Cow;

use super::virtual_services::{Binding, Bound, MESH, Turn};
use super::{Client, World};
use crate::istio::{
    self, Delegate, Host, Protocol, Route, RouteMatch, VirtualService, full_gateway,
};

/// The VirtualServices of a world with one of them put in, replaced or taken out.
#[derive(Debug)]
pub struct ChangedRouting<'a> {
    world: &'a World,
    namespace: &'a str,
    name: &'a str,
    object: Option<(&'a VirtualService, Binding)>,
}

impl ChangedRouting<'_> {
    /// Asks them.
    pub fn routing(&self) -> Routing<'_> {
        Routing { world: self.world, changed: Some(self) }
    }
}

/// The VirtualServices that a look-up asks: a world's, or those that a write would leave.
#[derive(Debug, Clone, Copy)]
pub struct Routing<'a> {
    world: &'a World,
    changed: Option<&'a ChangedRouting<'a>>,
}

impl<'a> Routing<'a> {
    /// The VirtualServices that route `host` for `client`, in the order in which Istio tries them: those for the client's own
    /// namespace only, those exported to it by name, those for everybody; in each class by age.
    ///
    /// For a sidecar these are all those that name the host, or else one: the first of the most specific wildcard, and no wider
    /// one makes good for what it leaves out. At a gateway they are those of the most specific name under which the gateway
    /// knows the host.
    ///
    /// Source: `pilot/pkg/networking/core/route/route.go` `separateVSHostsAndServices`, `pilot/pkg/model/sidecar.go`
    /// `computeWildcardHostVirtualServiceIndex`, `pilot/pkg/networking/core/gateway.go` `buildGatewayHTTPRouteConfig`.
    pub fn virtual_services(self, host: &Host, client: &Client) -> Vec<&'a VirtualService> {
        self.tried(host, client, None).into_iter().map(|(_, kept)| kept.object).collect()
    }

    /// The VirtualServices that decide about requests of `client` to `port` of `host`; without a port, to any of its ports.
    ///
    /// HTTP from a sidecar: the first one that leaves a route for this client and port, and nobody else. HTTP at a gateway: all
    /// that do, their routes one after the other with the catch-alls last. TCP and TLS: all that do, until a route matches.
    ///
    /// Source: `pilot/pkg/networking/core/httproute.go` (the first virtual host of a name wins), `gateway.go`, `tls.go`.
    pub fn in_force(
        self,
        host: &Host,
        client: &Client,
        protocol: Protocol,
        port: Option<i64>,
    ) -> Vec<&'a VirtualService> {
        let tried = match protocol {
            Protocol::Tls | Protocol::Tcp if client.gateway.is_none() => {
                self.tried_for_connections(host, client, port)
            }
            _ => self.tried(host, client, port),
        };
        let tried = tried.into_iter().map(|(_, kept)| kept.object);
        let mut leaving =
            tried.filter(|object| self.leaves_a_route(object, client, protocol, port));
        if protocol == Protocol::Http && client.gateway.is_none() {
            return leaving.next().into_iter().collect();
        }
        leaving.collect()
    }

    fn tried(self, host: &Host, client: &Client, port: Option<i64>) -> Vec<(Turn<'a>, Bound<'a>)> {
        let lower = lower(host.as_str());
        let shown = self.world.shown(&lower, client, (true, port));
        let seen = self.covering(&lower).into_iter();
        let seen = seen.filter(|(_, kept)| shown.as_ref().is_none_or(|own| own.has(kept)));
        let mut seen = seen
            .filter_map(|(rank, kept)| Some((rank, kept.turn(client)?, kept)))
            .collect::<Vec<_>>();
        match &client.gateway {
            None => keep_for_sidecar(&mut seen, &lower),
            Some(gateway) => self.keep_for_gateway(&mut seen, &lower, gateway, port),
        }
        let mut tried = seen.into_iter().map(|(_, turn, kept)| (turn, kept)).collect::<Vec<_>>();
        tried.sort_by_key(|(turn, _)| *turn);
        tried.dedup_by_key(|(turn, _)| *turn);
        tried
    }

    /// A sidecar's listener of a service is made by all that name the service as it is written, wildcards in their turn.
    ///
    /// Source: `pilot/pkg/networking/core/tls.go` `getConfigsForHost`.
    fn tried_for_connections(
        self,
        host: &Host,
        client: &Client,
        port: Option<i64>,
    ) -> Vec<(Turn<'a>, Bound<'a>)> {
        let shown = self.world.shown(host.as_str(), client, (false, port));
        let seen = self.covering(&lower(host.as_str())).into_iter();
        let seen = seen.filter(|(_, kept)| kept.binding.covers(host.as_str()));
        let seen = seen.filter(|(_, kept)| shown.as_ref().is_none_or(|own| own.has(kept)));
        let mut tried =
            seen.filter_map(|(_, kept)| Some((kept.turn(client)?, kept))).collect::<Vec<_>>();
        tried.sort_by_key(|(turn, _)| *turn);
        tried.dedup_by_key(|(turn, _)| *turn);
        tried
    }

    /// Every VirtualService for `host` and for wildcards that cover it, with the rank of the name; the most specific first.
    fn covering(self, host: &str) -> Vec<(usize, Bound<'a>)> {
        let named = self.world.virtual_services.covering(host);
        let Some(changed) = self.changed else { return named.collect() };
        let mut named =
            named.filter(|(_, kept)| !kept.is(changed.namespace, changed.name)).collect::<Vec<_>>();
        if let Some((object, binding)) = &changed.object {
            let own = Bound { object, namespace: changed.namespace, name: changed.name, binding };
            let keys = binding.keys();
            named.extend(keys.iter().filter_map(|key| Some((rank(key, host)?, own))));
        }
        named
    }

    /// Keeps those under the most specific name by which requests to `host` are told at this gateway: the parts of the
    /// VirtualServices' hosts that one of its servers takes.
    fn keep_for_gateway(
        self,
        seen: &mut Vec<(usize, Turn<'a>, Bound<'a>)>,
        host: &str,
        gateway: &str,
        port: Option<i64>,
    ) {
        let gateway = gateway.split_once('/').and_then(|(at, name)| self.world.gateway(at, name));
        if let Some(gateway) = gateway {
            let mut of_servers = Vec::new();
            for (_, turn, kept) in seen.drain(..) {
                let namespace = kept.namespace;
                for own in gateway.hosts_for(namespace, port) {
                    for key in kept.binding.keys() {
                        let common = istio::narrower_host(&own, &key);
                        let rank = common.and_then(|common| rank(common, host));
                        of_servers.extend(rank.map(|rank| (rank, turn, kept)));
                    }
                }
            }
            *seen = of_servers;
        }
        let best = seen.iter().map(|(rank, ..)| *rank).max();
        seen.retain(|(rank, ..)| Some(*rank) == best);
    }

    /// The delegate that a route of an object of `namespace` names, where Istio does not skip it.
    fn delegate(self, to: &Delegate, namespace: &str) -> Option<&'a VirtualService> {
        let at = to.namespace_from(namespace);
        match self.changed {
            Some(changed) if changed.namespace == at && changed.name == to.name => {
                let (object, _) = changed.object.as_ref()?;
                let is_seen = self.world.is_exported(object, at, namespace);
                (object.spec.is_delegate() && is_seen).then_some(*object)
            }
            _ => self.world.delegate(to, namespace).ok(),
        }
    }

    /// Whether any of the object's routes of this protocol is one for this client and port.
    ///
    /// Source: `route.go` `BuildHTTPRoutesForVirtualService`, `sourceMatchHTTP`.
    fn leaves_a_route(
        self,
        object: &VirtualService,
        client: &Client,
        protocol: Protocol,
        port: Option<i64>,
    ) -> bool {
        let namespace = object.metadata.namespace.as_str();
        object.spec.routes(protocol).iter().any(|route| {
            let Some(to) = &route.delegate else {
                return is_for(route, protocol, namespace, client, port);
            };
            let Some(delegate) = self.delegate(to, namespace) else { return false };
            let merged = istio::delegate::merge(route, &delegate.spec.http);
            merged.routes.iter().any(|(_, route)| is_for(route, protocol, namespace, client, port))
        })
    }
}

/// A sidecar's virtual host of a service is made by those that name the service; by a wildcard only where nobody does.
fn keep_for_sidecar(seen: &mut Vec<(usize, Turn<'_>, Bound<'_>)>, host: &str) {
    let best = if host.starts_with('*') {
        rank(host, host)
    } else {
        // Written in another case, a name makes a virtual host and does not keep a wildcard from making one.
        if seen.iter().any(|(_, _, kept)| kept.binding.names(host)) {
            seen.retain(|(rank, ..)| *rank == usize::MAX);
            return;
        }
        seen.iter().map(|(rank, ..)| *rank).filter(|rank| *rank != usize::MAX).max()
    };
    let of_best = seen.iter().filter(|(rank, ..)| Some(*rank) == best);
    let first = of_best.map(|(_, turn, _)| *turn).min();
    seen.retain(|(rank, turn, _)| {
        *rank == usize::MAX || (Some(*rank) == best && Some(*turn) == first)
    });
}

/// Whether a route is one for this client and port; what else it asks of a request does not count here.
fn is_for(
    route: &Route,
    protocol: Protocol,
    namespace: &str,
    client: &Client,
    port: Option<i64>,
) -> bool {
    let block = |block: &RouteMatch| {
        let is_for_port =
            port.is_none() || block.port.is_none_or(|own| own == 0 || Some(own) == port);
        is_for_port && client.meets(protocol, block, namespace)
    };
    route.r#match.is_empty() || route.r#match.iter().any(block)
}

impl Client {
    /// Whether a match of an object in `namespace` is one for this client: its `gateways`, or, where it has none, its
    /// `sourceLabels` and `sourceNamespace`. TCP and TLS ask a sidecar for all of them and a gateway for none of the latter two.
    ///
    /// Source: `pilot/pkg/networking/core/route/route.go` `sourceMatchHTTP`, `tls.go` `matchTCP`, `gateway.go` `l4SingleMatch`.
    pub fn meets(&self, protocol: Protocol, block: &RouteMatch, namespace: &str) -> bool {
        let own = self.gateway.as_deref().unwrap_or(MESH);
        let named =
            || block.gateways.iter().any(|own_name| full_gateway(own_name, namespace) == own);
        let is_done = match protocol {
            Protocol::Http => !block.gateways.is_empty(),
            Protocol::Tls | Protocol::Tcp => self.gateway.is_some(),
        };
        if !block.gateways.is_empty() && !named() {
            return false;
        }
        if is_done {
            return true;
        }
        let labels = &block.source_labels;
        labels.iter().all(|(key, value)| self.labels.get(key) == Some(value))
            && (block.source_namespace.is_empty() || block.source_namespace == self.namespace)
    }
}

/// How specific `key` is among the names that cover `host`, as [`super::host_map::HostMap::covering`] counts; `None` where it
/// does not cover it.
fn rank(key: &str, host: &str) -> Option<usize> {
    match key.strip_prefix('*') {
        None => (key == host).then_some(usize::MAX),
        Some(end) => host.strip_prefix('*').unwrap_or(host).ends_with(end).then_some(end.len()),
    }
}

fn lower(host: &str) -> Cow<'_, str> {
    if host.chars().any(char::is_uppercase) { host.to_lowercase().into() } else { host.into() }
}

impl World {
    /// The VirtualServices as they are.
    pub fn routing(&self) -> Routing<'_> {
        Routing { world: self, changed: None }
    }

    /// The VirtualServices as they would be with `object` in the place of `namespace`/`name`, or with nothing there, so that the
    /// world before a write and after it can be asked the same way. One without a creation time counts as the youngest.
    pub fn with_virtual_service<'a>(
        &'a self,
        object: Option<&'a VirtualService>,
        namespace: &'a str,
        name: &'a str,
    ) -> ChangedRouting<'a> {
        let object = object.map(|object| (object, Binding::of(object, namespace, &self.mesh)));
        ChangedRouting { world: self, namespace, name, object }
    }
}
