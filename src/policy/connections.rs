//! Who else routes the connections that an object routes: the VirtualServices that istiod tries for one listener.

use std::collections::{BTreeMap, BTreeSet};

use super::rule::Case;
use super::words::list;
use crate::istio::{
    Arrival, Clash, Condition, Listening, PortProtocol, Protocol, Reading, Route, VirtualService,
    full_gateway, ports_asked_for,
};
use crate::world::{Client, MESH};

/// A listener for connections, and the VirtualServices that are tried for it.
#[derive(Debug)]
pub struct Connections<'a> {
    /// Which list is tried.
    pub protocol: Protocol,
    /// Where it is, as messages say it: "to reviews", "at port 9090 of gateway infra/edge".
    pub place: String,
    /// Those that have the list, in Istio's order.
    pub tried: Vec<&'a VirtualService>,
    /// Where the object that is judged stands among them.
    pub own: usize,
    gateway: String,
    port: Option<i64>,
}

impl<'a> Case<'a> {
    /// Every listener where connections meet the object; of a great many the first ones.
    pub fn connections(&self) -> Vec<Connections<'a>> {
        /// Hosts of a sidecar and listeners of a gateway that are looked at.
        const MOST: usize = 16;
        let spec = &self.object.spec;
        let namespace = self.review.namespace.as_str();
        let changed =
            self.world.with_virtual_service(Some(self.object), namespace, &self.review.name);
        let routing = changed.routing();
        let sidecar = Client::in_namespace(namespace);
        let mut found = Vec::new();
        let mut add = |protocol, gateway: &str, port, place, tried: Vec<&VirtualService>| {
            let tried = tried.into_iter().filter(|own| !own.spec.routes(protocol).is_empty());
            let objects = tried.map(|own| match std::ptr::eq(own, self.object) {
                true => Some(self.object),
                false => self.world.virtual_service(&own.metadata.namespace, &own.metadata.name),
            });
            let tried = objects.flatten().collect::<Vec<_>>();
            let own = tried.iter().position(|own| std::ptr::eq(*own, self.object));
            if let Some(own) = own {
                let gateway = gateway.to_owned();
                found.push(Connections { protocol, place, tried, own, gateway, port });
            }
        };
        for protocol in [Protocol::Tls, Protocol::Tcp] {
            if spec.routes(protocol).is_empty() || spec.is_delegate() {
                continue;
            }
            for host in spec.hosts.iter().filter(|_| spec.is_for_mesh()).take(MOST) {
                let full = self.resolve(host);
                let ports = self.world.ports_routed_by(&full, protocol);
                if ports.is_none_or(|ports| !ports.is_empty()) {
                    let tried = routing.connecting(&full, &sidecar, None);
                    add(protocol, MESH, None, format!("to {host}"), tried);
                }
            }
            for gateway in spec.gateways.iter().map(|own| full_gateway(own, namespace)) {
                let client = Client { gateway: Some(gateway.clone()), ..sidecar.clone() };
                let listeners = self.world.listeners(&gateway, protocol).unwrap_or_default();
                for listener in listeners.iter().take(MOST) {
                    let port = listener.port;
                    let place = format!("at port {port} of gateway {gateway}");
                    let tried = routing.arriving(listener, &client);
                    add(protocol, &gateway, Some(port), place, tried);
                }
            }
        }
        found
    }
}

impl<'a> Connections<'a> {
    /// Who takes all connections before the object is tried.
    pub fn in_front(&self) -> Option<&'a VirtualService> {
        // TLS is told apart by names, however they are ordered.
        let is_tcp = self.protocol == Protocol::Tcp;
        self.tried[..self.own].iter().copied().find(|other| is_tcp && self.takes_all(other))
    }

    fn takes_all(&self, other: &VirtualService) -> bool {
        let arrival = Arrival::at(&self.gateway, &other.metadata.namespace);
        let arrival = arrival.of_protocol(self.protocol).on_port(self.port);
        other.spec.routes(self.protocol).iter().any(|route| {
            let own = Condition::alternatives(route, &arrival, Reading::Strict);
            own.iter().any(Condition::is_catch_all)
        })
    }

    /// What of the object, together with that of others, makes Envoy refuse the listener of some clients; not what its own text
    /// does to all of them.
    pub fn clashes(&self) -> Vec<Clash> {
        let is_of_own = |clash: &Clash| {
            clash.at.0 == self.own || clash.before.is_some_and(|before| before.0 == self.own)
        };
        let is_of_one = |clash: &Clash| clash.before.is_none_or(|other| other.0 == clash.at.0);
        let lists = self.lists();
        let all = self.listening(&lists).into_iter().flat_map(|(listening, is_anybody)| {
            let clashes = listening.clashes(self.protocol, &lists).into_iter();
            clashes.filter(move |clash| is_of_own(clash) && !(is_anybody && is_of_one(clash)))
        });
        all.collect()
    }

    /// What of the object istiod leaves out because of an earlier alternative; of what the mesh leaves out in one list
    /// `route-reachable` speaks.
    pub fn left_out(&self) -> Vec<Clash> {
        if self.protocol != Protocol::Tls {
            return Vec::new();
        }
        let is_told = |clash: &Clash| {
            let is_of_one = clash.before.is_some_and(|before| before.0 == clash.at.0);
            clash.at.0 == self.own && !(is_of_one && self.gateway == MESH)
        };
        let lists = self.lists();
        let all = self.listening(&lists).into_iter();
        all.flat_map(|(listening, _)| listening.left_out(&lists)).filter(is_told).collect()
    }

    fn lists(&self) -> Vec<(&'a [Route], &'a str)> {
        let list = |own: &&'a VirtualService| {
            (own.spec.routes(self.protocol), own.metadata.namespace.as_str())
        };
        self.tried.iter().map(list).collect()
    }

    /// The ports and clients that these routes tell apart, and whether it is a client that they do not.
    fn listening<'b>(&'b self, lists: &[(&'b [Route], &'b str)]) -> Vec<(Listening<'b>, bool)> {
        /// Of more kinds of clients or ports nothing is said.
        const MOST: usize = 8;
        static NOBODY: BTreeMap<String, String> = BTreeMap::new();
        let routes = lists.iter().flat_map(|(routes, _)| routes.iter());
        let blocks = routes.flat_map(|own| &own.r#match);
        let clients = blocks.map(|own| (&own.source_labels, own.source_namespace.as_str()));
        let clients = clients.chain([(&NOBODY, "")]).collect::<BTreeSet<_>>();
        let ports = match self.port {
            Some(port) => BTreeSet::from([Some(port)]),
            None => ports_asked_for(lists),
        };
        let mut found = Vec::new();
        for &port in ports.iter().take(MOST) {
            for &(labels, namespace) in clients.iter().take(MOST) {
                let is_anybody = labels.is_empty() && namespace.is_empty();
                let own = Listening { gateway: &self.gateway, port, labels, namespace };
                found.push((own, is_anybody));
            }
        }
        found
    }
}

impl Case<'_> {
    /// Whether no host has an HTTP port, so that only the routes count that a sidecar has on port 80 for every host.
    pub fn is_left_to_port_80(&self, ports: &BTreeSet<i64>) -> bool {
        let is_http = |host: &String| {
            let own = self.world.port_protocols(&self.resolve(host)).into_iter();
            own.into_iter().any(|(_, protocol)| protocol.is_routed_by(Protocol::Http))
        };
        self.object.spec.gateways.iter().all(|gateway| gateway == "mesh")
            && ports.iter().eq([&80])
            && !self.object.spec.hosts.iter().any(is_http)
    }

    /// What the ports carry that the object could meet.
    pub fn ports_said(&self) -> String {
        /// Of more nobody wants to read.
        const MOST: usize = 3;
        let carries = |protocol| match protocol {
            PortProtocol::Detected => "says no protocol".to_owned(),
            own => format!("is {}", own.name()),
        };
        let spec = &self.object.spec;
        let hosts = spec.hosts.iter().filter(|_| spec.is_for_mesh());
        let of_hosts = hosts.flat_map(|host| {
            let ports = self.world.port_protocols(&self.resolve(host)).into_iter();
            ports.map(move |(port, protocol)| format!("{port} of {host} {}", carries(protocol)))
        });
        let gateways = spec.gateways.iter().map(|name| full_gateway(name, &self.review.namespace));
        let of_gateways = gateways.flat_map(|full| {
            let gateway = full.split_once('/').and_then(|(at, name)| self.world.gateway(at, name));
            let servers = gateway.into_iter().flat_map(|gateway| &gateway.spec.servers);
            let said = servers.map(|server| {
                let number = server.port.number.unwrap_or_default();
                let passes = server.is_routed_by(Protocol::Tls);
                let with = if passes { ", passed through" } else { "" };
                format!("{number} of gateway {full} is {}{with}", server.port.protocol)
            });
            said.collect::<Vec<_>>()
        });
        let all = of_hosts.chain(of_gateways).collect::<Vec<_>>();
        match all.len() {
            0 => "there is none".to_owned(),
            count if count > MOST => {
                format!("{} and {} more", all[..MOST].join(", "), count - MOST)
            }
            _ => list(&all),
        }
    }
}
