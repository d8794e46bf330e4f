//! Host names: how Istio completes one, and which names a wildcard covers.

use std::fmt::{self, Display};
use std::sync::Arc;

/// A host name after Istio has completed it: a fully qualified name, or a literal that Istio leaves alone. Cheap to clone.
///
/// Source: `pilot/pkg/model/config.go` `ResolveShortnameToFQDN`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Arc<str>);

impl Host {
    /// Completes `host` as Istio does: only a name without a dot, and in the namespace of the object that holds it.
    /// `reviews.prod` has a dot and stays what it is, which is a name that nobody serves.
    pub fn resolve(host: &str, namespace: &str, domain: &str) -> Self {
        if host.is_empty() || host == "*" || host.contains('.') || host.contains(':') {
            return Self(host.into());
        }
        Self(format!("{host}.{namespace}.svc.{domain}").into())
    }

    /// A name that Istio takes as it is.
    pub fn literal(host: &str) -> Self {
        Self(host.into())
    }

    /// The completed name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name and namespace, where this is the host of a Kubernetes Service: `NAME.NAMESPACE.svc.DOMAIN` and nothing else.
    pub fn service(&self, domain: &str) -> Option<(&str, &str)> {
        let rest = self.0.strip_suffix(domain)?.strip_suffix(".svc.")?;
        let (name, namespace) = rest.split_once('.')?;
        (!name.is_empty() && !namespace.is_empty() && !namespace.contains('.'))
            .then_some((name, namespace))
    }

    /// The name as people say it: the Service's own name for a host in `namespace`, else the whole host.
    pub fn short<'a>(&'a self, namespace: &str, domain: &str) -> &'a str {
        match self.service(domain) {
            Some((name, at)) if at == namespace => name,
            _ => &self.0,
        }
    }
}

impl Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `pattern`, a host that may start with `*`, covers `host`: a plain suffix test, so `*.foo.com` does not cover `foo.com`.
///
/// Source: `pkg/config/host/name.go` `SubsetOf`.
pub fn host_covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.trim_start_matches('*').ends_with(suffix),
        None => pattern == host,
    }
}

/// A gateway's name with its namespace; `mesh` stays what it is.
///
/// Source: `pilot/pkg/model/config.go` `ResolveGatewayName`.
pub fn full_gateway(gateway: &str, namespace: &str) -> String {
    match gateway.split_once('/') {
        _ if gateway == "mesh" => gateway.to_owned(),
        Some((".", name)) => format!("{namespace}/{name}"),
        Some(_) => gateway.to_owned(),
        None => match gateway.split_once('.') {
            Some((name, rest)) => format!("{}/{name}", rest.split('.').next().unwrap_or(rest)),
            None => format!("{namespace}/{gateway}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_without_a_dot_are_completed() {
        for (host, want) in [
            ("reviews", "reviews.shop.svc.cluster.local"),
            ("reviews.prod", "reviews.prod"),
            ("reviews.prod.svc", "reviews.prod.svc"),
            ("reviews.prod.svc.cluster.local", "reviews.prod.svc.cluster.local"),
            ("*", "*"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(Host::resolve(host, "shop", "cluster.local").as_str(), want);
        }
    }

    #[test]
    fn only_the_mesh_domain_makes_a_service_host() {
        for (host, want) in [
            ("reviews.shop.svc.cluster.local", Some(("reviews", "shop"))),
            ("app-rpc.bookinfo.svc.cluster-1a.global", None),
            ("reviews.shop.svc.cluster.local.", None),
            ("reviews.shop", None),
            ("a.b.c.svc.cluster.local", None),
        ] {
            let host = Host(host.into());
            assert_eq!(host.service("cluster.local"), want);
        }
    }

    #[test]
    fn a_wildcard_covers_by_suffix() {
        for (pattern, host, want) in [
            ("*.foo.com", "a.foo.com", true),
            ("*.foo.com", "foo.com", false),
            ("*foo.com", "foo.com", true),
            ("*", "anything", true),
            ("*.com", "*.foo.com", true),
            ("*.foo.com", "*.com", false),
            ("a.com", "b.com", false),
        ] {
            assert_eq!(host_covers(pattern, host), want, "{pattern} over {host}");
        }
    }
}
