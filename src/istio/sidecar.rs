//! Sidecars: which Services and VirtualServices the proxies of a namespace are told about.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::host::host_covers;
use super::metadata::Metadata;
use super::shape::{null_as_default, objects, optional_object, whole_number};
use super::workload_entry::ServiceEntrySelector;

/// The parts of a Sidecar that a verdict reads: what its proxies may call.
///
/// Source: `istio.io/api/networking/v1/sidecar.proto`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Sidecar {
    /// Name, namespace, age.
    pub metadata: Metadata,
    /// What it says.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: SidecarSpec,
}

/// `Sidecar.spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SidecarSpec {
    /// The pods of its namespace that it is for; without one, all of them.
    #[serde(deserialize_with = "optional_object")]
    pub workload_selector: Option<ServiceEntrySelector>,
    /// What these pods may call; nothing written means everything.
    #[serde(deserialize_with = "objects")]
    pub egress: Vec<EgressListener>,
}

/// An element of `egress`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct EgressListener {
    /// The port that it is for; without one it is for all that no other listener is for.
    #[serde(deserialize_with = "optional_object")]
    pub port: Option<EgressPort>,
    /// What is known there, as `namespace/dnsName`.
    #[serde(deserialize_with = "null_as_default")]
    pub hosts: Vec<String>,
}

/// `egress[].port`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct EgressPort {
    /// The port's number; 0 for a Unix domain socket.
    #[serde(deserialize_with = "whole_number")]
    pub number: Option<i64>,
    /// The protocol's name.
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
}

impl EgressListener {
    /// The port that a service must have to be called here; `None` where each port may be called: behind the listener for the
    /// rest, an HTTP proxy, or a Unix domain socket.
    ///
    /// Source: `pilot/pkg/model/sidecar.go` `needsPortMatch`.
    pub fn port_of_services(&self) -> Option<i64> {
        let port = self.port.as_ref()?;
        port.number
            .filter(|&number| number != 0 && !port.protocol.eq_ignore_ascii_case("HTTP_PROXY"))
    }
}

/// The namespace of an element of `hosts` that stands for every one.
const EVERY: &str = "*";

/// The namespace of an element of `hosts` that stands for the proxy's own, which is not the Sidecar's where that is in the root
/// namespace.
const OWN: &str = ".";

/// The `hosts` of one listener, by their namespace.
///
/// Source: `pilot/pkg/model/sidecar.go` `convertIstioListenerToWrapper`.
#[derive(Debug, Clone, Default)]
pub struct EgressHosts(HashMap<String, OfNamespace>);

#[derive(Debug, Clone, Default)]
struct OfNamespace {
    exact: HashSet<String>,
    wildcards: Vec<String>,
    /// What a `~` in front of the namespace takes out again.
    excluded: Vec<String>,
}

impl EgressHosts {
    /// Everything.
    pub fn everything() -> Self {
        Self::of(&["*/*".to_owned()])
    }

    /// Reads `hosts`; an element that is not of the form `namespace/dnsName` says nothing.
    pub fn of(hosts: &[String]) -> Self {
        let mut by_namespace: HashMap<String, OfNamespace> = HashMap::new();
        for (namespace, host) in hosts.iter().filter_map(|host| host.split_once('/')) {
            if host.contains('/') {
                continue;
            }
            let excluded = namespace.strip_prefix('~');
            let namespace = match excluded.unwrap_or(namespace) {
                "" if excluded.is_some() => EVERY,
                namespace => namespace,
            };
            let own = by_namespace.entry(namespace.to_owned()).or_default();
            if excluded.is_some() {
                own.excluded.push(host.to_owned());
            } else if host.starts_with('*') {
                own.wildcards.push(host.to_owned());
            } else {
                own.exact.insert(host.to_owned());
            }
        }
        Self(by_namespace)
    }

    /// The namespaces that are named; [`Self::is_everywhere`] and the proxy's own are not among them.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|name| *name != EVERY && *name != OWN)
    }

    /// Whether hosts of every namespace may be among them.
    pub fn is_everywhere(&self) -> bool {
        self.0.contains_key(EVERY)
    }

    /// Whether a proxy in `client` knows the service `host` of `namespace`.
    ///
    /// Source: `pilot/pkg/model/sidecar.go` `selectServices`.
    pub fn has_service(&self, host: &str, namespace: &str, client: &str) -> bool {
        let has = |own: &OfNamespace| {
            own.exact.contains(host) || own.wildcards.iter().any(|any| host_covers(any, host))
        };
        self.lists(namespace, client).any(has) && !self.excludes(host, namespace, client)
    }

    /// Whether a proxy in `client` knows a VirtualService of `namespace` that names `hosts`: one of them is enough, and a wildcard
    /// on either side covers the other. Its own namespace counts, not that of the services it names.
    ///
    /// Source: `pilot/pkg/model/virtualservice.go` `SelectVirtualServices`.
    pub fn has_virtual_service<'h>(
        &self,
        mut hosts: impl Iterator<Item = &'h str>,
        namespace: &str,
        client: &str,
    ) -> bool {
        if self.lists(namespace, client).next().is_none() {
            return false;
        }
        let matches = |own: &OfNamespace, host: &str| {
            let either = |any: &String| host_covers(any, host) || host_covers(host, any);
            own.exact.contains(host)
                || own.wildcards.iter().any(either)
                || (host.starts_with('*') && own.exact.iter().any(either))
        };
        hosts.any(|host| {
            self.lists(namespace, client).any(|own| matches(own, host))
                && !self.excludes(host, namespace, client)
        })
    }

    fn excludes(&self, host: &str, namespace: &str, client: &str) -> bool {
        let mut all = self.lists(namespace, client).flat_map(|own| &own.excluded);
        all.any(|any| host_covers(any, host))
    }

    /// What is said of objects in `namespace` to a proxy in `client`.
    fn lists(&self, namespace: &str, client: &str) -> impl Iterator<Item = &OfNamespace> {
        let own = if namespace == client { self.0.get(OWN) } else { None };
        self.0.get(namespace).into_iter().chain(self.0.get(EVERY)).chain(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REVIEWS: &str = "reviews.shop.svc.cluster.local";

    fn hosts(text: &str) -> EgressHosts {
        EgressHosts::of(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_service_is_known_by_its_namespace_and_its_name() {
        for (written, client, want) in [
            ("*/*", "web", true),
            ("shop/*", "web", true),
            ("./*", "web", false),
            ("./*", "shop", true),
            ("shop/reviews.shop.svc.cluster.local", "web", true),
            ("*/reviews.shop.svc.cluster.local", "web", true),
            ("shop/*.shop.svc.cluster.local", "web", true),
            ("shop/reviews", "web", false),
            ("web/reviews.shop.svc.cluster.local", "web", false),
            ("shop/* ~shop/reviews.shop.svc.cluster.local", "web", false),
            ("*/* ~/*.shop.svc.cluster.local", "web", false),
            ("*/* ~*/reviews.shop.svc.cluster.local", "web", false),
            ("~/*", "web", false),
            ("shop", "web", false),
            ("shop/a/*", "web", false),
            ("", "web", false),
        ] {
            assert_eq!(hosts(written).has_service(REVIEWS, "shop", client), want, "{written}");
        }
        // An exact name does not make a wildcard known, as it does for a VirtualService.
        assert!(!hosts("shop/a.example.com").has_service("*.example.com", "shop", "web"));
    }

    #[test]
    fn a_virtual_service_is_known_by_its_own_namespace_and_any_of_its_hosts() {
        for (written, named, want) in [
            ("*/*", REVIEWS, true),
            ("routes/*", REVIEWS, true),
            ("shop/*", REVIEWS, false),
            ("routes/a.example.com", "*.example.com", true),
            ("routes/*.example.com", "*.com", true),
            ("routes/a.example.com", "a.example.com b.example.com", true),
            ("routes/a.example.com", "b.example.com", false),
            ("routes/* ~routes/a.example.com", "a.example.com", false),
            ("routes/* ~routes/a.example.com", "a.example.com b.example.com", true),
            ("routes/* ~/*.example.com", "a.example.com", false),
            ("~routes/*", "a.example.com", false),
        ] {
            let found = hosts(written).has_virtual_service(named.split(' '), "routes", "web");
            assert_eq!(found, want, "{written} for {named}");
        }
        assert!(hosts("./*").has_virtual_service([REVIEWS].into_iter(), "web", "web"));
    }

    #[test]
    fn what_is_written_badly_says_nothing() {
        let sidecar = serde_json::from_value::<Sidecar>(serde_json::json!({
            "metadata": {"name": "default", "namespace": "shop"},
            "spec": {"workloadSelector": null, "egress": [
                {"port": {"number": 80, "protocol": "http_proxy"}, "hosts": null},
                {"port": {"number": 9080, "protocol": "HTTP"}}, {"port": null}, {"port": {"number": 0}},
            ]},
        }))
        .expect("a Sidecar");
        let ports = sidecar.spec.egress.iter().map(EgressListener::port_of_services);
        assert_eq!(ports.collect::<Vec<_>>(), [None, Some(9080), None, None]);
    }
}
