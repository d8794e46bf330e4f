use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::Ipv4Addr;

use serde_json::Value;
use sluicegate::istio::{Condition, Host, Protocol};
use sluicegate::world::{Client, World as Cluster};

use super::ours::Ours;
use super::{Answer, Asked, Shares, Theirs};
use crate::world::{World, fill_text};

/// The ports of the worlds that are routed by connection, as most of them are.
pub(super) const PORTS: [i64; 2] = [9090, 9443];

/// The Gateway that a world may bring along for its connections, and the address that it is bound to: on one port a gateway
/// routes all connections alike, whatever their host.
const GATEWAY: &str = "lower-@";
const BIND: &str = "lo:@";

/// A connection, as far as the routes of the worlds tell connections apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Connection {
    /// The name that a TLS client asks for.
    pub(crate) sni: Option<String>,
    /// Where the client connects to, where that is not the Service's own address.
    pub(crate) to: Option<Ipv4Addr>,
}

/// The Services' own addresses, by full name.
pub(crate) type Addresses = BTreeMap<String, String>;

/// Of objects as they were stored.
pub(crate) fn addresses(objects: &[Value], domain: &str) -> Addresses {
    let services = objects.iter().filter(|object| object["kind"] == "Service");
    let address = |object: &Value| {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        let (name, namespace) = (text("/metadata/name")?, text("/metadata/namespace")?);
        let address = text("/spec/clusterIP").filter(|own| *own != "None" && !own.is_empty())?;
        Some((format!("{name}.{namespace}.svc.{domain}"), address.to_owned()))
    };
    services.filter_map(address).collect()
}

/// Everything that Istio does with connections otherwise than the gate believes.
pub(super) fn differences(
    world: &World,
    number: usize,
    hosts: &BTreeSet<Host>,
    cluster: &Cluster,
    asked: &Asked<'_>,
    theirs: &Theirs,
) -> Vec<String> {
    let mut found = Vec::new();
    let gateway = format!("ingress/{}", fill_text(GATEWAY, number));
    let client = match &asked.client.gateway {
        Some(_) if cluster.gateway("ingress", &fill_text(GATEWAY, number)).is_none() => {
            // Nothing may listen for a Gateway that the gate thinks is not there.
            let bind = fill_text(BIND, number);
            for port in PORTS {
                let all = [Protocol::Tcp, Protocol::Tls].into_iter();
                let mut all = all.flat_map(|protocol| connections(world, number, protocol));
                if all.any(|own| theirs.listeners.takes(&bind, port, &own).is_some()) {
                    let listeners = theirs.listeners.show(&bind, port);
                    found.push(format!("{bind}:{port}: nobody for us, Istio has {listeners}"));
                }
            }
            return found;
        }
        Some(_) => Client { gateway: Some(gateway), ..asked.client.clone() },
        None => asked.client.clone(),
    };
    let ours = |port| Ours { world: cluster, client: &client, port };
    for host in hosts {
        // At a gateway it is one address for all of them: where its Gateway of this world listens.
        let address = match &asked.client.gateway {
            Some(_) => Some(fill_text(BIND, number)),
            None => asked.addresses.get(host.as_str()).cloned(),
        };
        let Some(address) = address else { continue };
        for port in PORTS {
            let protocol = ours(port).list(host);
            for connection in connections(world, number, protocol.unwrap_or(Protocol::Tcp)) {
                let own = protocol.and_then(|list| ours(port).connected(host, list, &connection));
                let their = theirs.listeners.takes(&address, port, &connection);
                if own != their {
                    let show = |answer: &Option<Answer>| match answer {
                        Some(Answer::Clusters(shares)) => shares.to_string(),
                        _ => "nowhere".to_owned(),
                    };
                    found.push(format!(
                        "{host}:{port}: {connection:?} goes to\n      us    {}\n      Istio {}\n      {}",
                        show(&own), show(&their), theirs.listeners.show(&address, port)
                    ));
                }
            }
        }
    }
    found
}

/// Enough to take every route that the world holds.
fn connections(world: &World, number: usize, protocol: Protocol) -> BTreeSet<Connection> {
    let subnets = world.lists("destinationSubnets").into_iter().filter_map(|subnet| {
        let subnet = fill_text(&subnet, number);
        subnet.split('/').next().and_then(|address| address.parse().ok())
    });
    let to = subnets.map(Some).chain([None]).collect::<Vec<_>>();
    if protocol == Protocol::Tcp {
        return to.into_iter().map(|to| Connection { sni: None, to }).collect();
    }
    let names = world.lists("sniHosts").into_iter().flat_map(|name| {
        let name = fill_text(&name, number);
        match name.strip_prefix('*') {
            Some(end) => vec![format!("any{end}"), format!("more.any{end}")],
            None => vec![name],
        }
    });
    let names = names.chain(["elsewhere.example.net".to_owned()]).collect::<Vec<_>>();
    let all = names
        .into_iter()
        .flat_map(|name| to.iter().map(move |to| Connection { sni: Some(name.clone()), to: *to }));
    all.collect()
}

impl Connection {
    /// As the alternative of a route that takes exactly this connection.
    pub(super) fn as_match(&self) -> Value {
        let mut own = serde_json::json!({});
        if let Some(sni) = &self.sni {
            own["sniHosts"] = serde_json::json!([sni]);
        }
        if let Some(to) = &self.to {
            own["destinationSubnets"] = serde_json::json!([to.to_string()]);
        }
        own
    }
}

impl Ours<'_> {
    /// The list that routes connections to this port of `host`, or of the gateway; `None` where they are requests.
    fn list(&self, host: &Host) -> Option<Protocol> {
        let mut lists = [Protocol::Tls, Protocol::Tcp].into_iter();
        if let Some(gateway) = &self.client.gateway {
            let has_port = |list: &Protocol| {
                let listeners = self.world.listeners(gateway, *list).unwrap_or_default();
                listeners.iter().any(|listener| listener.port == self.port)
            };
            return lists.find(has_port);
        }
        let ports = self.world.port_protocols(host);
        let (_, own) = ports.iter().find(|(port, _)| *port == self.port)?;
        lists.find(|list| own.is_routed_by(*list))
    }

    /// Where a connection to `host` goes; `None` for nowhere.
    fn connected(
        &self,
        host: &Host,
        protocol: Protocol,
        connection: &Connection,
    ) -> Option<Answer> {
        // No listener is made for a Service that the client does not see.
        if self.client.gateway.is_none() && !self.is_known(host) {
            return None;
        }
        let objects = self.world.routing().in_force(host, self.client, protocol, Some(self.port));
        let asked = self.condition_of(protocol, connection.as_match());
        let mut group = 0;
        let mut names = HashSet::new();
        let mut routes = Vec::new();
        for object in objects {
            let namespace = object.metadata.namespace.as_str();
            for route in object.spec.routes(protocol) {
                let conditions = self.alternatives(protocol, route, namespace, &mut names);
                let parts = conditions.flat_map(Condition::by_specificity).collect::<Vec<_>>();
                let is_last = parts.iter().any(|(rank, _)| *rank == (0, 0));
                routes.extend(
                    parts
                        .into_iter()
                        .map(|(rank, own)| ((group, Reverse(rank)), own, route, namespace)),
                );
                group += usize::from(is_last && protocol == Protocol::Tcp);
            }
        }
        routes.sort_by_key(|(rank, ..)| *rank);
        let taking = routes.iter().find(|(_, own, ..)| own.covers(&asked));
        if let Some((_, _, route, namespace)) = taking {
            return Some(Answer::Clusters(self.shares(protocol, route, namespace)));
        }
        if self.client.gateway.is_some() {
            return None;
        }
        // TLS for a name that nobody routes passes through to the Service's own address, and there to any of its Pods.
        let is_for_me = |own: &Condition| own.of_proxy().covers(&asked);
        let is_routed =
            protocol == Protocol::Tls && routes.iter().any(|(_, own, ..)| is_for_me(own));
        let cluster = match is_routed {
            true => "PassthroughCluster".to_owned(),
            false => format!("outbound|{}||{host}", self.port),
        };
        Some(Answer::Clusters(Shares::whole(cluster)))
    }
}
