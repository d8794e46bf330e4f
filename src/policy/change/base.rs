//! For whom a write may change the routes, and which VirtualServices were and will be tried for them.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::clients::Clients;
use super::table::{Listed, Order};
use crate::istio::{Host, Protocol, VirtualService, full_gateway};
use crate::world::{ANY_NAMESPACE, ChangedRouting, Client, HostKind, MESH, World};

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
            Protocol::Http if self.gateway == MESH => Order::FirstWins,
            Protocol::Http => Order::CatchAllsLast,
            Protocol::Tls | Protocol::Tcp => Order::MostSpecific,
        }
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

/// Who is routed by the object under review, for what it is bound to before or after the write; for a delegate, what its roots
/// are bound to.
pub(super) fn audiences<'a>(
    written: Written<'a>,
    routings: &'a Routings<'a>,
    world: &'a World,
    is_blind: bool,
) -> Audiences<'a> {
    let mut found = Finder {
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
    let with_hosts =
        |object: Option<&'a VirtualService>| object.filter(|object| !object.spec.is_delegate());
    found.bound(Written { old: with_hosts(written.old), new: with_hosts(written.new), ..written });
    if found.found.is_partial {
        found.directly();
    }
    found.found
}

struct Finder<'a> {
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
    plain: Option<Host>,
}

/// What of an object matters for telling audiences apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Reach {
    /// Whether any `match` asks for a gateway.
    names_gateways: bool,
    /// Whether every list that it has holds a route for every proxy, so that nothing is tried behind it.
    is_for_every_proxy: bool,
    /// Which lists it has.
    protocols: [bool; 3],
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
        for host in &both(&was.hosts, &is.hosts) {
            for (gateway, client) in gateways
                .iter()
                .zip(&clients)
                .flat_map(|(gateway, all)| all.iter().map(move |own| (gateway, own)))
            {
                let before = self.tried(&self.routings.before, old, host, client);
                let after = self.tried(&self.routings.after, new, host, client);
                let has_it = |all: &[Listed<'a>], object: Option<&VirtualService>| {
                    object.is_some_and(|own| all.iter().any(|any| std::ptr::eq(any.object, own)))
                };
                let is_routed = has_it(&after, new);
                if !has_it(&before, old) && !is_routed {
                    continue;
                }
                let gone = match new {
                    _ if is_routed => None,
                    None => Some("hosts"),
                    Some(_) if !is.has_host(host) => Some("hosts"),
                    Some(_) if !is.gateways.contains(gateway) => Some("gateways"),
                    Some(_) => Some("exportTo"),
                };
                let plain = self.plain(host, client);
                self.push(Audience { gateway: gateway.clone(), before, after, plain, gone });
            }
        }
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
        self.found.all.push(Audience { gateway, before, after, plain: None, gone: None });
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
        let tried = routing.routing().virtual_services(host, client);
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
                && self.world.is_visible(plain, client)
        })
    }

    fn push(&mut self, audience: Audience<'a>) {
        let id = |listed: &Listed<'_>| std::ptr::from_ref(listed.object) as usize;
        let objects = audience.before.iter().chain(&audience.after);
        let reaches = objects.map(|listed| self.reach(listed)).collect::<Vec<_>>();
        let is_alone = audience.before.len().max(audience.after.len()) < 2;
        let depends = !is_alone || reaches.iter().any(|reach| reach.names_gateways);
        let is_closed = !audience.before.is_empty()
            && !audience.after.is_empty()
            && reaches
                .iter()
                .all(|reach| reach.is_for_every_proxy && reach.protocols == reaches[0].protocols);
        let key = Key {
            before: audience.before.iter().map(id).collect(),
            after: audience.after.iter().map(id).collect(),
            gateway: depends.then(|| audience.gateway.clone()),
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
            let lists = Protocol::ALL.map(|protocol| listed.object.spec.routes(protocol));
            let blocks = lists.iter().copied().flatten().flat_map(|route| &route.r#match);
            let is_for_every_proxy = |routes: &&[crate::istio::Route]| {
                routes.is_empty()
                    || routes.iter().filter(|route| route.delegate.is_none()).any(|route| {
                        route.r#match.is_empty()
                            || route.r#match.iter().any(|block| {
                                block.port.is_none()
                                    && block.gateways.is_empty()
                                    && block.source_labels.is_empty()
                                    && block.source_namespace.is_empty()
                            })
                    })
            };
            Reach {
                names_gateways: blocks.clone().any(|block| !block.gateways.is_empty()),
                is_for_every_proxy: lists.iter().all(is_for_every_proxy),
                protocols: lists.map(|routes| !routes.is_empty()),
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

/// What an object is bound to, with full names.
struct Bound {
    hosts: Vec<Host>,
    host_set: HashSet<Host>,
    gateways: Vec<String>,
}

impl Bound {
    fn of(object: Option<&VirtualService>, namespace: &str, world: &World) -> Self {
        let Some(object) = object else {
            return Self { hosts: Vec::new(), host_set: HashSet::new(), gateways: Vec::new() };
        };
        let domain = &world.mesh().domain;
        let hosts = object.spec.hosts.iter().map(|host| Host::resolve(host, namespace, domain));
        let hosts = hosts.collect::<Vec<_>>();
        let gateways = object.spec.gateways.iter().map(|gateway| full_gateway(gateway, namespace));
        let gateways = if object.spec.gateways.is_empty() {
            vec![MESH.to_owned()]
        } else {
            gateways.collect()
        };
        Self { host_set: hosts.iter().cloned().collect(), hosts, gateways }
    }

    fn has_host(&self, host: &Host) -> bool {
        self.host_set.contains(host)
    }
}
