//! Gateways: which pods serve them, on which ports, for which hosts.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::host::host_covers;
use super::metadata::Metadata;
use super::port::PortProtocol;
use super::shape::{null_as_default, object, objects, optional_object, whole_number};
use super::virtual_service::Protocol;

/// The parts of a Gateway that a verdict reads.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Gateway {
    /// Name and namespace.
    pub metadata: Metadata,
    /// What it says.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: GatewaySpec,
}

/// `Gateway.spec`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewaySpec {
    /// The labels of the pods that serve it, in whatever namespace; none at all means every gateway pod.
    #[serde(deserialize_with = "null_as_default")]
    pub selector: BTreeMap<String, String>,
    /// Where it listens, and for which hosts.
    #[serde(deserialize_with = "objects")]
    pub servers: Vec<Server>,
}

/// An element of `servers`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Server {
    /// Its port.
    #[serde(deserialize_with = "object")]
    pub port: ServerPort,
    /// The address that it listens on; empty for all.
    #[serde(deserialize_with = "null_as_default")]
    pub bind: String,
    /// What it does with TLS; absent where it takes plain text.
    #[serde(deserialize_with = "optional_object")]
    pub tls: Option<ServerTls>,
    /// The hosts it takes, each perhaps behind the namespace whose VirtualServices may serve it: `shop/*.example.com`.
    #[serde(deserialize_with = "null_as_default")]
    pub hosts: Vec<String>,
}

/// `servers[].port`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServerPort {
    /// Its number.
    #[serde(deserialize_with = "whole_number")]
    pub number: Option<i64>,
    /// `HTTP`, `HTTPS`, `GRPC`, `HTTP2`, `MONGO`, `TCP` or `TLS`.
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
}

/// `servers[].tls`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServerTls {
    /// `PASSTHROUGH`, which is also what an absent one means, `AUTO_PASSTHROUGH`, or one of those that end TLS here.
    #[serde(deserialize_with = "null_as_default")]
    pub mode: String,
}

impl Gateway {
    /// The hosts for which VirtualServices of `namespace` may serve HTTP here, at one of its ports or at all of them, in lower
    /// case.
    pub fn hosts_for<'a>(
        &'a self,
        namespace: &'a str,
        port: Option<i64>,
    ) -> impl Iterator<Item = String> + 'a {
        let servers = self.spec.servers.iter();
        let servers = servers.filter(move |server| port.is_none() || server.port.number == port);
        let servers = servers.filter(|server| server.is_routed_by(Protocol::Http));
        let own = self.metadata.namespace.as_str();
        servers.flat_map(move |server| server.hosts_for(own, namespace)).map(str::to_lowercase)
    }
}

impl Server {
    /// The hosts that VirtualServices of `namespace` may serve here, for a Gateway in namespace `own`.
    ///
    /// Source: `pkg/config/host/names.go` `NamesForNamespace`, `pilot/pkg/model/gateway.go` `sanitizeServerHostNamespace`.
    pub fn hosts_for<'a>(
        &'a self,
        own: &'a str,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a str> + 'a {
        self.hosts.iter().filter_map(move |host| match host.split_once('/') {
            Some(("*", host)) => Some(host),
            Some((".", host)) if own == namespace => Some(host),
            Some((at, host)) if at == namespace => Some(host),
            Some(_) => None,
            None => Some(host),
        })
    }

    /// Whether routes of this list count here: `http` where the gateway reads requests, `tls` where it passes TLS through, `tcp`
    /// where it passes on anything else, also what it found in TLS. One that says no protocol may be anything.
    ///
    /// Source: `pilot/pkg/networking/core/gateway.go` `buildGatewayTCPBasedFilterChains`, `createGatewayTCPFilterChainOpts`.
    pub fn is_routed_by(&self, list: Protocol) -> bool {
        let protocol = &self.port.protocol;
        if protocol.is_empty() {
            return true;
        }
        let is_https = protocol.eq_ignore_ascii_case("HTTPS");
        let own = match &self.tls {
            _ if PortProtocol::named(protocol) == PortProtocol::Http => Some(Protocol::Http),
            None => Some(Protocol::Tcp),
            Some(tls) => match tls.mode.as_str() {
                "AUTO_PASSTHROUGH" => None,
                "" | "PASSTHROUGH" => Some(Protocol::Tls),
                _ if is_https => Some(Protocol::Http),
                _ => Some(Protocol::Tcp),
            },
        };
        own == Some(list)
    }
}

/// The hosts that two names, perhaps wildcards, have in common: the narrower of the two; `None` where they have none.
///
/// Source: `pkg/config/host/names.go` `Intersection`.
pub fn narrower_host<'a>(a: &'a str, b: &'a str) -> Option<&'a str> {
    if host_covers(b, a) {
        Some(a)
    } else if host_covers(a, b) {
        Some(b)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_takes_the_hosts_of_its_namespaces() {
        let gateway: Gateway = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "public", "namespace": "infra"},
            "spec": {"servers": [
                {"port": {"number": 80}, "hosts": ["*.example.com", "shop/A.com", "*/b.com", "./c.com"]},
                {"port": {"number": 443}, "hosts": ["d.com"]},
                {"port": {"number": 9090, "protocol": "TCP"}, "hosts": ["tcp.com"]},
            ]},
        }))
        .expect("a Gateway");
        let hosts = |namespace, port| gateway.hosts_for(namespace, port).collect::<Vec<_>>();
        assert_eq!(hosts("shop", Some(80)), ["*.example.com", "a.com", "b.com"]);
        assert_eq!(hosts("infra", Some(80)), ["*.example.com", "b.com", "c.com"]);
        assert_eq!(hosts("other", None), ["*.example.com", "b.com", "d.com"]);
    }

    #[test]
    fn a_server_is_routed_by_one_list() {
        for (server, want) in [
            (r#"{"port": {"number": 80, "protocol": "HTTP"}}"#, vec![Protocol::Http]),
            (r#"{"port": {"number": 80, "protocol": "grpc"}}"#, vec![Protocol::Http]),
            (
                r#"{"port": {"protocol": "HTTP"}, "tls": {"httpsRedirect": true}}"#,
                vec![Protocol::Http],
            ),
            (r#"{"port": {"protocol": "HTTPS"}, "tls": {"mode": "SIMPLE"}}"#, vec![Protocol::Http]),
            (
                r#"{"port": {"protocol": "HTTPS"}, "tls": {"mode": "PASSTHROUGH"}}"#,
                vec![Protocol::Tls],
            ),
            (r#"{"port": {"protocol": "TLS"}, "tls": {}}"#, vec![Protocol::Tls]),
            (r#"{"port": {"protocol": "TLS"}, "tls": {"mode": "MUTUAL"}}"#, vec![Protocol::Tcp]),
            (r#"{"port": {"protocol": "TLS"}, "tls": {"mode": "AUTO_PASSTHROUGH"}}"#, vec![]),
            (r#"{"port": {"protocol": "TCP"}, "tls": null}"#, vec![Protocol::Tcp]),
            (r#"{"port": {"protocol": "MONGO"}}"#, vec![Protocol::Tcp]),
            (r#"{"port": {"number": 80}}"#, Protocol::ALL.to_vec()),
        ] {
            let own: Server = serde_json::from_str(server).expect("a server");
            let lists = Protocol::ALL.into_iter().filter(|list| own.is_routed_by(*list));
            assert_eq!(lists.collect::<Vec<_>>(), want, "{server}");
        }
    }

    #[test]
    fn the_narrower_of_two_hosts_is_what_they_have_in_common() {
        for (a, b, want) in [
            ("*.example.com", "a.example.com", Some("a.example.com")),
            ("a.example.com", "*", Some("a.example.com")),
            ("*", "*", Some("*")),
            ("a.com", "b.com", None),
        ] {
            assert_eq!(narrower_host(a, b), want, "{a} {b}");
        }
    }
}
