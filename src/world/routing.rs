//! Which VirtualServices route a host for a client, in the order in which they are tried.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::virtual_services::{Binding, Bound, MESH, Turn, routes_connections};
use super::{Client, Listener, World};
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
    /// knows the host. At a waypoint they are all those that name the host or a wildcard for it, but only of the waypoint's own
    /// namespace and of the host's; none where the host is not reached through it.
    ///
    /// Source: `pilot/pkg/networking/core/route/route.go` `separateVSHostsAndServices`, `pilot/pkg/model/sidecar.go`
    /// `computeWildcardHostVirtualServiceIndex`, `pilot/pkg/networking/core/gateway.go` `buildGatewayHTTPRouteConfig`,
    /// `listener_waypoint.go` `getVirtualServiceForWaypoint`.
    pub fn virtual_services(self, host: &Host, client: &Client) -> Vec<&'a VirtualService> {
        self.tried(host, client, None).into_iter().map(|(_, kept)| kept.object).collect()
    }

    /// The VirtualServices that decide about requests of `client` to `port` of `host`; without a port, to any of its ports.
    ///
    /// HTTP from a sidecar: the first one that leaves a route for this client and port, and nobody else. HTTP at a gateway: all
    /// that do, their routes one after the other with the catch-alls last; at a waypoint as well, but in their order. TCP and TLS:
    /// all that do, until a route matches; at a waypoint the first one only, and TCP only where no TLS route is for the port; TCP at
    /// a gateway: the first one that does, for each server. Nobody on a port that is not one for this protocol.
    ///
    /// Source: `pilot/pkg/networking/core/httproute.go` (the first virtual host of a name wins), `gateway.go`, `tls.go`,
    /// `listener_waypoint.go` `buildWaypointInboundHTTPRouteConfig`, `getWaypointTCPRoutes`.
    pub fn in_force(
        self,
        host: &Host,
        client: &Client,
        protocol: Protocol,
        port: Option<i64>,
    ) -> Vec<&'a VirtualService> {
        let gateway = client.gateway.as_deref().unwrap_or(MESH);
        if let Some(listeners) = self.world.listeners(gateway, protocol) {
            let here = listeners.iter().filter(|own| port.is_none_or(|port| own.port == port));
            return here
                .flat_map(|listener| self.in_force_at(listener, client, protocol))
                .collect();
        }
        if client.is_sidecar() {
            let ports = self.world.ports_routed_by(host, protocol);
            let is_here = |own: &Vec<i64>| match port {
                Some(port) => own.contains(&port),
                None => !own.is_empty(),
            };
            if ports.is_some_and(|own| !is_here(&own)) {
                return Vec::new();
            }
        }
        let tried = match protocol {
            Protocol::Tls | Protocol::Tcp if client.is_sidecar() => {
                self.connecting(host, client, port)
            }
            _ => self.tried(host, client, port).into_iter().map(|(_, kept)| kept.object).collect(),
        };
        let leaving = |of: Protocol| {
            let all = tried.iter().copied();
            all.filter(move |object| self.leaves_a_route(object, Some(host), client, of, port))
        };
        let is_first_alone = match protocol {
            Protocol::Http => client.is_sidecar(),
            Protocol::Tls => client.waypoint.is_some(),
            Protocol::Tcp if client.waypoint.is_some() => {
                if leaving(Protocol::Tls).next().is_some() {
                    return Vec::new();
                }
                true
            }
            Protocol::Tcp => false,
        };
        leaving(protocol).take(if is_first_alone { 1 } else { usize::MAX }).collect()
    }

    /// Those that decide about what arrives at one listener of a gateway.
    fn in_force_at(
        self,
        listener: &Listener<'_>,
        client: &Client,
        protocol: Protocol,
    ) -> Vec<&'a VirtualService> {
        let tried = self.arriving(listener, client).into_iter();
        let leaving = tried.filter(|object| {
            self.leaves_a_route(object, None, client, protocol, Some(listener.port))
        });
        // Exactly one TCP rule counts for a server.
        leaving.take(if protocol == Protocol::Tcp { 1 } else { usize::MAX }).collect()
    }

    /// The VirtualServices that are tried for what arrives at a listener of a gateway, in their order. No connection is asked for
    /// its host there: all that have a host in common with the server.
    ///
    /// Source: `pilot/pkg/networking/core/gateway.go` `pickMatchingGatewayHosts`, `push_context.go` `VirtualServicesForGateway`.
    pub fn arriving(self, listener: &Listener<'_>, client: &Client) -> Vec<&'a VirtualService> {
        let bound = self.bound_for_connections(client);
        let mut known = BTreeSet::new();
        let mut found = Vec::new();
        for at in 0..listener.servers() {
            for (turn, kept) in &bound {
                let hosts = listener.hosts_for(at, kept.namespace);
                if kept.binding.meets(hosts) && known.insert(*turn) {
                    found.push(kept.object);
                }
            }
        }
        found
    }

    fn tried(self, host: &Host, client: &Client, port: Option<i64>) -> Vec<(Turn<'a>, Bound<'a>)> {
        if client.waypoint.is_some() {
            return self.tried_at_waypoint(host, client);
        }
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

    /// The VirtualServices that are tried for connections of a sidecar to `host`, in their order: all that name the host as it is
    /// written, wildcards in their turn. Of a ServiceEntry for a wildcard also those for a name under it.
    ///
    /// Source: `pilot/pkg/networking/core/tls.go` `getConfigsForHost`.
    pub fn connecting(
        self,
        host: &Host,
        client: &Client,
        port: Option<i64>,
    ) -> Vec<&'a VirtualService> {
        let is_wildcard_entry = host.as_str().starts_with('*') && self.world.host(host).is_some();
        let tried = if is_wildcard_entry {
            let mut bound = self.bound_for_connections(client);
            bound.retain(|(_, kept)| kept.binding.meets([host.as_str()].into_iter()));
            bound
        } else {
            self.naming(host, client)
        };
        let shown = self.world.shown(host.as_str(), client, (false, port));
        let tried = tried.into_iter();
        let tried = tried.filter(|(_, kept)| shown.as_ref().is_none_or(|own| own.has(kept)));
        tried.map(|(_, kept)| kept.object).collect()
    }

    /// All that name the host as it is written, or a wildcard for it, in their order.
    fn naming(self, host: &Host, client: &Client) -> Vec<(Turn<'a>, Bound<'a>)> {
        let seen = self.covering(&lower(host.as_str())).into_iter();
        let seen = seen.filter(|(_, kept)| kept.binding.covers(host.as_str()));
        let mut tried =
            seen.filter_map(|(_, kept)| Some((kept.turn(client)?, kept))).collect::<Vec<_>>();
        tried.sort_by_key(|(turn, _)| *turn);
        tried.dedup_by_key(|(turn, _)| *turn);
        tried
    }

    /// The hosts under the wildcard `host` that VirtualServices with routes for connections name: for those the wildcard is tried
    /// beside them.
    pub fn connected_under(self, host: &Host) -> BTreeSet<Host> {
        let mesh = self.world.virtual_services.connecting(MESH);
        let hosts = mesh.flat_map(|kept| kept.binding.hosts());
        let is_under =
            |own: &&Host| *own != host && istio::host_covers(host.as_str(), own.as_str());
        hosts.filter(is_under).cloned().collect()
    }

    /// All that are bound where `client` is and route connections, in their order.
    fn bound_for_connections(self, client: &Client) -> Vec<(Turn<'a>, Bound<'a>)> {
        let gateway = client.gateway.as_deref().unwrap_or(MESH);
        let mut bound = self
            .world
            .virtual_services
            .connecting(gateway)
            .filter(|kept| !self.changed.is_some_and(|own| kept.is(own.namespace, own.name)))
            .collect::<Vec<_>>();
        if let Some(changed) = self.changed
            && let Some((object, binding)) = &changed.object
            && routes_connections(object)
        {
            bound.push(Bound { object, namespace: changed.namespace, name: changed.name, binding });
        }
        let bound = bound.into_iter().filter_map(|kept| Some((kept.turn(client)?, kept)));
        let mut bound = bound.collect::<Vec<_>>();
        bound.sort_by_key(|(turn, _)| *turn);
        bound
    }

    /// A waypoint has what a sidecar would try for a connection, but only of its own namespace and of the host's.
    ///
    /// Source: `pilot/pkg/networking/core/listener_waypoint.go` `getVirtualServiceForWaypoint`.
    fn tried_at_waypoint(self, host: &Host, client: &Client) -> Vec<(Turn<'a>, Bound<'a>)> {
        let own = self.world.waypoint_of(host).filter(|own| Client::at(own) == *client);
        let Some(namespace) = own.and_then(|_| self.world.host_namespace(host)) else {
            return Vec::new();
        };
        let mut tried = self.naming(host, client);
        tried.retain(|(_, kept)| [namespace, &client.namespace].contains(&kept.namespace));
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

    /// Whether any of the object's routes of this protocol is one for this client and port; `host` is what is called, where that is
    /// one host.
    ///
    /// Source: `route.go` `BuildHTTPRoutesForVirtualService`, `sourceMatchHTTP`.
    fn leaves_a_route(
        self,
        object: &VirtualService,
        host: Option<&Host>,
        client: &Client,
        protocol: Protocol,
        port: Option<i64>,
    ) -> bool {
        let namespace = object.metadata.namespace.as_str();
        let is_for = |route: &Route| {
            let block = |block: &RouteMatch| {
                let is_for_port =
                    port.is_none() || block.port.is_none_or(|own| own == 0 || Some(own) == port);
                let asks_for_host = protocol != Protocol::Tls
                    || client.waypoint.is_none()
                    || host.is_none_or(|host| block.sni_hosts.as_slice() == [host.as_str()]);
                is_for_port && asks_for_host && client.meets(protocol, block, namespace)
            };
            // Without a match no name is asked for, and no TLS route is made.
            let needs_a_name = protocol == Protocol::Tls && client.waypoint.is_none();
            (route.r#match.is_empty() && !needs_a_name) || route.r#match.iter().any(block)
        };
        object.spec.routes(protocol).iter().any(|route| {
            let Some(to) = &route.delegate else { return is_for(route) };
            let Some(delegate) = self.delegate(to, namespace) else { return false };
            let at = to.namespace_from(namespace);
            let merged = istio::delegate::merge((route, namespace), (&delegate.spec.http, at));
            merged.routes.iter().any(|(_, route)| is_for(route))
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

impl Client {
    /// Whether a match of an object in `namespace` is one for this client: its `gateways`, or, where it has none, its
    /// `sourceLabels` and `sourceNamespace`. TCP and TLS ask a sidecar for all of them and a gateway for none of the latter two.
    /// A waypoint leaves out every match with `sourceLabels`, takes `sourceNamespace` for its own, and in TCP and TLS leaves that
    /// out, too.
    ///
    /// Source: `pilot/pkg/networking/core/route/route.go` `sourceMatchHTTP`, `tls.go` `matchTCP`, `gateway.go` `l4SingleMatch`,
    /// `listener_waypoint.go` `waypointInboundRoute`, `getTLSRouteMatch`, `getTCPRouteMatch`.
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
        if self.waypoint.is_some() {
            let source = block.source_namespace.as_str();
            let is_own = protocol == Protocol::Http && source == self.namespace;
            return block.source_labels.is_empty() && (is_done || is_own || source.is_empty());
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
