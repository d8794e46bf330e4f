//! Gateways: which pods serve them, on which ports, for which hosts.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::host::host_covers;
use super::metadata::Metadata;
use super::shape::{null_as_default, objects};
use super::virtual_service::PortSelector;

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
    #[serde(deserialize_with = "null_as_default")]
    pub port: PortSelector,
    /// The hosts it takes, each perhaps behind the namespace whose VirtualServices may serve it: `shop/*.example.com`.
    #[serde(deserialize_with = "null_as_default")]
    pub hosts: Vec<String>,
}

impl Gateway {
    /// The hosts that VirtualServices of `namespace` may serve here, at one of its ports or at all of them, in lower case.
    ///
    /// Source: `pkg/config/host/names.go` `NamesForNamespace`, `pilot/pkg/model/gateway.go` `sanitizeServerHostNamespace`.
    pub fn hosts_for<'a>(
        &'a self,
        namespace: &'a str,
        port: Option<i64>,
    ) -> impl Iterator<Item = String> + 'a {
        let servers = self.spec.servers.iter();
        let servers = servers.filter(move |server| port.is_none() || server.port.number == port);
        let own = self.metadata.namespace.as_str();
        servers.flat_map(|server| &server.hosts).filter_map(move |host| {
            let host = match host.split_once('/') {
                Some(("*", host)) => host,
                Some((".", host)) if own == namespace => host,
                Some((at, host)) if at == namespace => host,
                Some(_) => return None,
                None => host,
            };
            Some(host.to_lowercase())
        })
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
            ]},
        }))
        .expect("a Gateway");
        let hosts = |namespace, port| gateway.hosts_for(namespace, port).collect::<Vec<_>>();
        assert_eq!(hosts("shop", Some(80)), ["*.example.com", "a.com", "b.com"]);
        assert_eq!(hosts("infra", Some(80)), ["*.example.com", "b.com", "c.com"]);
        assert_eq!(hosts("other", None), ["*.example.com", "b.com", "d.com"]);
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
