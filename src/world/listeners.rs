//! Where the lists of a VirtualService count: `http`, `tls` and `tcp` routes, each on ports of its own kind only.

use std::collections::BTreeSet;

use super::{HostKind, MESH, World};
use crate::istio::{Gateway, Host, PortProtocol, Protocol, Server, VirtualService, full_gateway};

/// Where connections arrive at a gateway.
#[derive(Debug, Clone)]
pub struct Listener<'a> {
    /// The port, as the Gateway says it.
    pub port: i64,
    gateway: &'a Gateway,
    /// One for TCP; all that pass TLS on at one port and address, because only names tell their connections apart.
    servers: Vec<&'a Server>,
}

impl Listener<'_> {
    /// How many servers it has.
    pub(super) fn servers(&self) -> usize {
        self.servers.len()
    }

    /// The hosts that VirtualServices of `namespace` may serve at the server `at`.
    pub(super) fn hosts_for<'a>(
        &'a self,
        at: usize,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a str> {
        self.servers[at].hosts_for(&self.gateway.metadata.namespace, namespace)
    }
}

/// A sidecar answers there for every host that a VirtualService names and that has no such port of its own.
const WEB: i64 = 80;

impl World {
    /// The ports of `host` and what they carry; nothing where that is not known: for a host that nobody has, and for one that is
    /// only another name.
    pub fn port_protocols(&self, host: &Host) -> Vec<(i64, PortProtocol)> {
        let Some(plain) = self.plain_host(host) else { return Vec::new() };
        let ports = match self.host(&plain) {
            Some(HostKind::Service(service)) => {
                service.ports.iter().map(|port| (port.number, port.protocol)).collect()
            }
            Some(HostKind::ServiceEntry(_)) => {
                let entries = self.service_entries(&plain).into_iter();
                let ports = entries.flat_map(|entry| &entry.spec.ports);
                ports
                    .map(|port| (i64::from(port.number), PortProtocol::named(&port.protocol)))
                    .collect()
            }
            Some(HostKind::Alias(_)) | None => Vec::new(),
        };
        let is_tcp = |port: &&(i64, PortProtocol)| port.1 != PortProtocol::Udp;
        let mut ports = ports.iter().filter(is_tcp).copied().collect::<Vec<_>>();
        ports.sort_by_key(|(number, _)| *number);
        ports
    }

    /// The ports on which a list of a VirtualService counts for what sidecars send to `host`; `None` where that is not known.
    ///
    /// Source: [`PortProtocol::is_routed_by`]; `pilot/pkg/networking/core/httproute.go` for port 80, where routes count also for
    /// hosts without such a port.
    pub fn ports_routed_by(&self, host: &Host, list: Protocol) -> Option<Vec<i64>> {
        let ports = self.port_protocols(host);
        if ports.is_empty() {
            return None;
        }
        let routed = ports.iter().filter(|(_, protocol)| protocol.is_routed_by(list));
        let mut routed = routed.map(|(number, _)| *number).collect::<BTreeSet<_>>();
        if list == Protocol::Http && ports.iter().all(|(number, _)| *number != WEB) {
            routed.insert(WEB);
        }
        Some(routed.into_iter().collect())
    }

    /// The ports on which a list of an object of `namespace` counts, in the mesh and at its gateways: those of all its hosts
    /// together; `None` where that is not known of each.
    pub fn ports_of_list(
        &self,
        object: &VirtualService,
        namespace: &str,
        list: Protocol,
    ) -> Option<BTreeSet<i64>> {
        let spec = &object.spec;
        if spec.is_delegate() {
            return None;
        }
        let mut found = BTreeSet::new();
        if spec.is_for_mesh() {
            for host in &spec.hosts {
                let host = Host::resolve(host, namespace, &self.mesh.domain);
                found.extend(self.ports_routed_by(&host, list)?);
            }
        }
        for gateway in spec.gateways.iter().filter(|gateway| *gateway != MESH) {
            let gateway = full_gateway(gateway, namespace);
            let gateway = gateway.split_once('/').and_then(|(at, name)| self.gateway(at, name))?;
            let servers = gateway.spec.servers.iter().filter(|server| server.is_routed_by(list));
            for server in servers {
                found.insert(server.port.number?);
            }
        }
        Some(found)
    }

    /// Where connections that this list routes arrive at `gateway`, `namespace/name`; `None` for sidecars, for a Gateway that is
    /// not known, and for requests.
    ///
    /// Source: `pilot/pkg/networking/core/gateway.go` `buildGatewayNetworkFiltersFromTCPRoutes`,
    /// `buildGatewayNetworkFiltersFromTLSRoutes`.
    pub fn listeners(&self, gateway: &str, list: Protocol) -> Option<Vec<Listener<'_>>> {
        if list == Protocol::Http {
            return None;
        }
        let (namespace, name) = gateway.split_once('/')?;
        let gateway = self.gateway(namespace, name)?;
        let mut found: Vec<Listener<'_>> = Vec::new();
        for server in gateway.spec.servers.iter().filter(|server| server.is_routed_by(list)) {
            let port = server.port.number.unwrap_or_default();
            let is_same =
                |own: &&mut Listener<'_>| own.port == port && own.servers[0].bind == server.bind;
            match found.iter_mut().find(is_same).filter(|_| list == Protocol::Tls) {
                Some(own) => own.servers.push(server),
                None => found.push(Listener { port, gateway, servers: vec![server] }),
            }
        }
        Some(found)
    }
}
