//! For whom a write may change the routes, and which VirtualServices were and will be tried for them.

use std::collections::BTreeSet;

use hashbrown::{HashMap, HashSet};

use super::bound::Bound;
use super::clients::Clients;
use super::table::{Listed, Order};
use crate::istio::{Host, Protocol, VirtualService};
use crate::world::{ANY_NAMESPACE, ChangedRouting, Client, HostKind, Listener, MESH, World};

/// The object under review: who it is, and what it says before and after the write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) old: Option<&'a VirtualService>,
    pub(super) new: Option<&'a VirtualService>,
}

/// Requests that are routed by the same VirtualServices, before the write and after it.
#[derive(Debug)]
pub(super) struct Audience<'a> {
    /// `mesh`, or the full name of a gateway.
    pub(super) gateway: String,
    /// Where they arrive at a waypoint: its namespace, and the host that is called.
    waypoint: Option<(String, Host)>,
    /// The port that they arrive at, where that is known and some route asks for it.
    pub(super) port: Option<i64>,
    /// What is tried before the write, in this order.
    pub(super) before: Vec<Listed<'a>>,
    /// What is tried after it.
    pub(super) after: Vec<Listed<'a>>,
    /// The host, where plain routing to it takes what no VirtualService takes.
    pub(super) plain: Option<Host>,
    /// What the write took away, where the object under review is no longer tried for these requests.
    pub(super) gone: Option<&'static str>,
}

impl Audience<'_> {
    pub(super) fn order(&self, protocol: Protocol) -> Order {
        match protocol {
            _ if self.waypoint.is_some() => Order::OneAfterAnother,
            Protocol::Http if self.gateway == MESH => Order::FirstWins,
            Protocol::Http => Order::CatchAllsLast,
            Protocol::Tls | Protocol::Tcp => Order::MostSpecific,
        }
    }

    pub(super) fn waypoint(&self) -> Option<(&str, &str)> {
        self.waypoint.as_ref().map(|(namespace, host)| (namespace.as_str(), host.as_str()))
    }
}

/// All audiences that the write may concern, each once.
#[derive(Debug, Default)]
pub(super) struct Audiences<'a> {
    pub(super) all: Vec<Audience<'a>>,
    /// There were more than are compared.
    pub(super) is_partial: bool,
}

/// More audiences than this differ only where thousands of hosts or roots each have further VirtualServices of their own.
/// Beyond, only what the object itself says before and after is compared.
const MOST_AUDIENCES: usize = 64;

/// The VirtualServices as they are before the write and after it.
#[derive(Debug)]
pub(super) struct Routings<'a> {
    before: ChangedRouting<'a>,
    after: ChangedRouting<'a>,
}

impl<'a> Routings<'a> {
    pub(super) fn of(Written { namespace, name, old, new }: Written<'a>, world: &'a World) -> Self {
        Self {
            before: world.with_virtual_service(old, namespace, name),
            after: world.with_virtual_service(new, namespace, name),
        }
    }
}

/// Who is routed by a list of the object under review, for what it is bound to before or after the write; for a delegate, what
/// its roots are bound to. Where the list counts for nothing, nobody is.
pub(super) fn audiences<'a>(
    protocol: Protocol,
    written: Written<'a>,
    routings: &'a Routings<'a>,
    world: &'a World,
    is_blind: bool,
) -> Audiences<'a> {
    let mut found = Finder {
        protocol,
        written,
        routings,
        world,
        is_blind,
        known: HashSet::new(),
        read: HashMap::new(),
        found: Audiences::default(),
    };
    let is_delegate =
        |object: Option<&VirtualService>| object.is_some_and(|object| object.spec.is_delegate());
    if is_delegate(written.old) || is_delegate(written.new) {
        if is_blind || world.is_blank() {
            found.directly();
        } else {
            for root in world.roots_of(written.namespace, written.name) {
                found.bound(Written {
                    namespace: &root.metadata.namespace,
                    name: &root.metadata.name,
                    old: Some(root),
                    new: Some(root),
                });
            }
        }
    }
    found.bound(written);
    if found.found.is_partial {
        found.directly();
    }
    found.found
}

struct Finder<'a> {
    protocol: Protocol,
    /// The object under review.
    written: Written<'a>,
    routings: &'a Routings<'a>,
    world: &'a World,
    is_blind: bool,
    known: HashSet<Key>,
    read: HashMap<usize, Reach>,
    found: Audiences<'a>,
}

/// What an audience is told from others by.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    before: Vec<usize>,
    after: Vec<usize>,
    /// Only where several lists are merged differently, or a route asks for the gateway.
    gateway: Option<String>,
    /// Likewise, or where one asks for the client; the host, where TLS routes are told apart by it.
    waypoint: Option<(String, Option<Host>)>,
    port: Option<i64>,
    plain: Option<Host>,
}

/// Where requests arrive: at which gateway, or at a waypoint and for which host, and at which ports, where these are known.
type Place<'p> = (&'p str, Option<(String, Host)>, Option<Vec<i64>>);

/// What of an object matters for telling audiences apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Reach {
    /// Whether any `match` asks for a gateway.
    names_gateways: bool,
    /// Whether any `match` asks for something that a waypoint reads otherwise.
    names_clients: bool,
    /// Whether any asks for a port.
    names_ports: bool,
    /// Whether the list holds a route for every proxy, so that nothing is tried behind it.
    is_for_every_proxy: bool,
    /// Whether it has the list.
    has_list: bool,
}

impl<'a> Finder<'a> {
    /// Every host, gateway and kind of client that an object is bound to before the write or after it: the one under review, or
    /// a root of it.
    fn bound(&mut self, object: Written<'a>) {
        let Written { namespace, old, new, .. } = object;
        let (was, is) =
            (Bound::of(old, namespace, self.world), Bound::of(new, namespace, self.world));
        let gateways = both(&was.gateways, &is.gateways);
        let clients = gateways.iter().map(|gateway| clients(object, gateway, self.world));
        let clients = clients.collect::<Vec<_>>();
        let world = self.world;
        let listeners = |gateway: &String| match self.is_blind {
            true => None,
            false => world.listeners(gateway, self.protocol),
        };
        let listeners = gateways.iter().map(listeners).collect::<Vec<_>>();
        let hosts = both(&was.hosts, &is.hosts);
        let waypoints = self.waypoints(&hosts, namespace, &gateways);
        let mut waypoints = &waypoints[..];
        for (at, host) in self.with_covered(&hosts).iter().enumerate() {
            let (own, rest) = waypoints.split_at(waypoints.partition_point(|own| own.0 == at));
            waypoints = rest;
            let called = gateways
                .iter()
                .zip(&clients)
                .zip(&listeners)
                .filter(|(_, listeners)| listeners.is_none())
                .flat_map(|((gateway, all), _)| {
                    all.iter().map(move |own| (host, gateway.as_str(), own))
                });
            let through = own.iter().map(|(_, called, own)| (called, MESH, own));
            for (called, gateway, client) in called.chain(through) {
                let before = self.tried(&self.routings.before, old, called, client);
                let after = self.tried(&self.routings.after, new, called, client);
                let gone = match new {
                    None => "hosts",
                    Some(_) if !is.has_host(host) => "hosts",
                    Some(_) if !is.gateways.iter().any(|own| own == gateway) => "gateways",
                    Some(_) => "exportTo",
                };
                let plain = self.plain(called, client);
                // On which ports a waypoint takes a list is not asked: all of it counts there.
                let ports = match self.is_blind || !client.is_sidecar() {
                    true => None,
                    false => world.ports_routed_by(called, self.protocol),
                };
                let waypoint =
                    client.waypoint.as_ref().map(|_| (client.namespace.clone(), called.clone()));
                self.arrive(object, (gateway, waypoint, ports), (before, after), plain, gone);
            }
        }
        for ((gateway, clients), listeners) in gateways.iter().zip(&clients).zip(&listeners) {
            for (listener, client) in listeners
                .iter()
                .flatten()
                .flat_map(|listener| clients.iter().map(move |own| (listener, own)))
            {
                let [before, after] = [&self.routings.before, &self.routings.after]
                    .map(|routing| self.arriving(routing, listener, client));
                let gone = match new {
                    Some(_) if !is.gateways.contains(gateway) => "gateways",
                    Some(new) if !world.is_exported(new, namespace, &client.namespace) => {
                        "exportTo"
                    }
                    _ => "hosts",
                };
                let port = Some(vec![listener.port]);
                self.arrive(object, (gateway, None, port), (before, after), None, gone);
            }
        }
    }

    /// Requests that arrive at a gateway, at each of these ports where they are known and it matters at which.
    fn arrive(
        &mut self,
        Written { old, new, .. }: Written<'a>,
        (gateway, waypoint, ports): Place<'_>,
        (before, after): (Vec<Listed<'a>>, Vec<Listed<'a>>),
        plain: Option<Host>,
        gone: &'static str,
    ) {
        let has_it = |all: &[Listed<'a>], object: Option<&VirtualService>| {
            object.is_some_and(|own| all.iter().any(|any| std::ptr::eq(any.object, own)))
        };
        let is_routed = has_it(&after, new);
        if !has_it(&before, old) && !is_routed {
            return;
        }
        let mut all = before.iter().chain(&after);
        let ports = match ports {
            Some(ports) if ports.is_empty() => return,
            Some(ports) if all.any(|listed| self.reach(listed).names_ports) => {
                ports.into_iter().map(Some).collect::<Vec<_>>()
            }
            _ => vec![None],
        };
        // What has no route for a port moves nothing there.
        let is_for = |port: &Option<i64>| {
            let Some(port) = port else { return true };
            let mut own = [old, new].into_iter().flatten();
            let ports = BTreeSet::from([*port]);
            own.any(|own| {
                own.spec.routes(self.protocol).iter().any(|route| route.is_for_any_of(&ports))
            })
        };
        let ports = ports.into_iter().filter(is_for).collect::<Vec<_>>();
        for port in ports {
            self.push(Audience {
                gateway: gateway.to_owned(),
                waypoint: waypoint.clone(),
                port,
                before: before.clone(),
                after: after.clone(),
                plain: plain.clone(),
                gone: (!is_routed).then_some(gone),
            });
        }
    }

    /// The hosts, and those under a wildcard among them for which connections are tried by the wildcard, too.
    fn with_covered(&self, hosts: &[Host]) -> Vec<Host> {
        let wildcards = hosts.iter().filter(|host| host.as_str().starts_with('*'));
        if self.protocol == Protocol::Http || self.is_blind {
            return hosts.to_vec();
        }
        let routings = [&self.routings.before, &self.routings.after];
        let covered = wildcards.flat_map(|host| {
            routings.into_iter().flat_map(move |own| own.routing().connected_under(host))
        });
        both(hosts, &covered.collect::<Vec<_>>())
    }

    fn arriving(
        &self,
        routing: &'a ChangedRouting<'a>,
        listener: &Listener<'_>,
        client: &Client,
    ) -> Vec<Listed<'a>> {
        let all = routing.routing().arriving(listener, client).into_iter();
        all.map(|object| self.listed(object)).collect()
    }

    /// The waypoints through which the mesh reaches what an object of `namespace` means by `hosts`, each with the number of the host
    /// and with what is called.
    fn waypoints(
        &self,
        hosts: &[Host],
        namespace: &str,
        gateways: &[String],
    ) -> Vec<(usize, Host, Client)> {
        if self.is_blind || !gateways.iter().any(|own| own == MESH) {
            return Vec::new();
        }
        let found = self.world.through_waypoints(hosts, namespace).into_iter();
        found.map(|(at, host, own)| (at, host, Client::at(own))).collect()
    }

    /// What the object says before and after, whoever else is there.
    fn directly(&mut self) {
        let Written { namespace, old, new, .. } = self.written;
        let bound = Bound::of(new.or(old), namespace, self.world);
        let gateway = bound.gateways.first().cloned().unwrap_or_else(|| MESH.to_owned());
        let listed = |object: Option<&'a VirtualService>| {
            object.map(|object| self.listed(object)).into_iter().collect()
        };
        let (before, after) = (listed(old), listed(new));
        let (port, plain, gone, waypoint) = (None, None, None, None);
        self.found.all.push(Audience { gateway, waypoint, port, before, after, plain, gone });
    }

    /// The VirtualServices that are tried for requests of `client` to `host`, in their order. While blind only `own` counts.
    fn tried(
        &self,
        routing: &'a ChangedRouting<'a>,
        own: Option<&'a VirtualService>,
        host: &Host,
        client: &Client,
    ) -> Vec<Listed<'a>> {
        if self.is_blind {
            let gateway = client.gateway.as_deref().unwrap_or(MESH);
            let bound = Bound::of(own, self.written.namespace, self.world);
            let is_bound = bound.has_host(host) && bound.gateways.iter().any(|own| own == gateway);
            let own = own.filter(|own| {
                is_bound && self.world.is_exported(own, self.written.namespace, &client.namespace)
            });
            return own.map(|own| self.listed(own)).into_iter().collect();
        }
        let tried = match self.protocol {
            Protocol::Tls | Protocol::Tcp if client.is_sidecar() => {
                routing.routing().connecting(host, client, None)
            }
            _ => routing.routing().virtual_services(host, client),
        };
        tried.into_iter().map(|object| self.listed(object)).collect()
    }

    fn listed(&self, object: &'a VirtualService) -> Listed<'a> {
        let Written { namespace, name, old, new } = self.written;
        let is_own = [old, new].into_iter().flatten().any(|own| std::ptr::eq(own, object));
        let (namespace, name) = match is_own {
            true => (namespace, name),
            false => (object.metadata.namespace.as_str(), object.metadata.name.as_str()),
        };
        Listed { object, namespace, name, is_own }
    }

    /// In the mesh a Service's own routing takes what no VirtualService takes.
    fn plain(&self, host: &Host, client: &Client) -> Option<Host> {
        if self.is_blind || client.gateway.is_some() {
            return None;
        }
        self.world.plain_host(host).filter(|plain| {
            matches!(self.world.host(plain), Some(HostKind::Service(_) | HostKind::ServiceEntry(_)))
                && (client.waypoint.is_some() || self.world.is_visible(plain, client))
        })
    }

    fn push(&mut self, audience: Audience<'a>) {
        let id = |listed: &Listed<'_>| std::ptr::from_ref(listed.object) as usize;
        let objects = audience.before.iter().chain(&audience.after);
        let reaches = objects.map(|listed| self.reach(listed)).collect::<Vec<_>>();
        let is_alone = audience.before.len().max(audience.after.len()) < 2;
        let depends = !is_alone || reaches.iter().any(|reach| reach.names_gateways);
        let depends_on_waypoint = !is_alone || reaches.iter().any(|reach| reach.names_clients);
        let is_closed = !audience.before.is_empty()
            && !audience.after.is_empty()
            && reaches
                .iter()
                .all(|reach| reach.is_for_every_proxy && reach.has_list == reaches[0].has_list);
        let key = Key {
            before: audience.before.iter().map(id).collect(),
            after: audience.after.iter().map(id).collect(),
            gateway: depends.then(|| audience.gateway.clone()),
            waypoint: audience.waypoint.as_ref().filter(|_| depends_on_waypoint).map(
                |(at, host)| (at.clone(), (self.protocol == Protocol::Tls).then(|| host.clone())),
            ),
            port: audience.port,
            plain: audience.plain.clone().filter(|_| !is_closed),
        };
        if self.known.contains(&key) {
            return;
        }
        if self.known.len() >= MOST_AUDIENCES {
            self.found.is_partial = true;
            return;
        }
        self.known.insert(key);
        self.found.all.push(audience);
    }

    fn reach(&mut self, listed: &Listed<'_>) -> Reach {
        let id = std::ptr::from_ref(listed.object) as usize;
        *self.read.entry(id).or_insert_with(|| {
            let routes = listed.object.spec.routes(self.protocol);
            let blocks = routes.iter().flat_map(|route| &route.r#match);
            let is_for_every_proxy = routes.is_empty()
                || routes.iter().filter(|route| route.delegate.is_none()).any(|route| {
                    route.r#match.is_empty()
                        || route.r#match.iter().any(|block| {
                            block.port.is_none()
                                && block.gateways.is_empty()
                                && block.source_labels.is_empty()
                                && block.source_namespace.is_empty()
                        })
                });
            Reach {
                names_gateways: blocks.clone().any(|block| !block.gateways.is_empty()),
                names_clients: blocks.clone().any(|block| {
                    !block.source_labels.is_empty()
                        || !block.source_namespace.is_empty()
                        || !block.sni_hosts.is_empty()
                        || !block.destination_subnets.is_empty()
                }),
                names_ports: blocks.clone().any(|block| block.port.is_some_and(|port| port != 0)),
                is_for_every_proxy,
                has_list: !routes.is_empty(),
            }
        })
    }
}

/// The clients that may see different VirtualServices: one in any namespace, one in the object's own, and those that it is
/// exported to by name; with Sidecars, also those who see it because of one. A gateway is a client where its pods are; in its own
/// namespace where nobody knows them.
fn clients(written: Written<'_>, gateway: &str, world: &World) -> Vec<Client> {
    let mut namespaces = BTreeSet::new();
    if let Some((namespace, name)) = gateway.split_once('/') {
        namespaces.extend(world.gateway_pods(namespace, name).map(|(namespace, _)| namespace));
        if namespaces.is_empty() {
            namespaces.insert(namespace);
        }
    } else {
        namespaces.extend([ANY_NAMESPACE, written.namespace]);
        let objects = [written.old, written.new].into_iter().flatten();
        let named = objects.flat_map(|object| &object.spec.export_to).map(String::as_str);
        namespaces.extend(named.filter(|to| !matches!(*to, "*" | "." | "~")));
    }
    let is_mesh = gateway == MESH;
    let gateway = (!is_mesh).then(|| gateway.to_owned());
    let client = |namespace| Client { gateway: gateway.clone(), ..Client::in_namespace(namespace) };
    let mut found = namespaces.into_iter().map(client).collect::<Vec<_>>();
    if is_mesh && world.has_sidecars() {
        // Those who see it although a Sidecar hides it from clients anywhere.
        let objects = [written.old, written.new].into_iter().flatten();
        for users in objects.map(|object| Clients::of(object, written.namespace, world)) {
            for client in users.sidecars() {
                if !found.contains(client) {
                    found.push(client.clone());
                }
            }
        }
    }
    found
}

/// Everything of `a`, then what only `b` has, each once.
fn both<T: Clone + Eq + std::hash::Hash>(a: &[T], b: &[T]) -> Vec<T> {
    let mut seen = HashSet::new();
    a.iter().chain(b).filter(|&one| seen.insert(one)).cloned().collect()
}
