//! What a port carries, and so which list of a VirtualService routes what arrives there.

use super::virtual_service::Protocol;

/// The protocol of a port, as far as routing depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PortProtocol {
    /// HTTP/1, HTTP/2 or gRPC in plain text.
    Http,
    /// TLS that is passed through: HTTPS, too, is only TLS to a sidecar.
    Tls,
    /// TCP, and what Istio knows of databases.
    Tcp,
    /// Nobody says: Envoy looks at the first bytes, and takes for TCP what is no HTTP.
    #[default]
    Detected,
    /// UDP, which is not routed.
    Udp,
}

/// Ports on which the server speaks first, so that nothing can be detected.
const SERVER_FIRST: [i64; 4] = [25, 53, 3306, 27017];

impl PortProtocol {
    /// The protocol of this name, in whatever case.
    ///
    /// Source: `pkg/config/protocol/instance.go` `Parse`.
    pub fn named(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "http" | "http2" | "http_proxy" | "grpc" | "grpc-web" => Self::Http,
            "https" | "tls" => Self::Tls,
            "tcp" | "mongo" | "redis" | "mysql" => Self::Tcp,
            "udp" => Self::Udp,
            _ => Self::Detected,
        }
    }

    /// The protocol of a Service's port: its `appProtocol`, else what its name begins with. `transport` is `protocol`.
    ///
    /// Source: `pkg/config/kube/conversion.go` `ConvertProtocol`.
    pub fn of_service(
        number: i64,
        name: &str,
        transport: &str,
        app_protocol: Option<&str>,
    ) -> Self {
        if transport == "UDP" {
            return Self::Udp;
        }
        match app_protocol {
            Some("kubernetes.io/h2c" | "kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Tls,
            _ => {}
        }
        let name = app_protocol.unwrap_or(name);
        if name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("grpc-web")) {
            return Self::Http;
        }
        match Self::named(name.split('-').next().unwrap_or_default()) {
            Self::Detected if SERVER_FIRST.contains(&number) => Self::Tcp,
            own => own,
        }
    }

    /// Whether routes of this list count for what sidecars send to such a port.
    ///
    /// Source: `pilot/pkg/networking/core/listener.go` `buildSidecarOutboundListener`, `tls.go`
    /// `buildSidecarOutboundTLSFilterChainOpts`, `buildSidecarOutboundTCPFilterChainOpts`; `route/route.go`
    /// `buildSidecarVirtualHostsForVirtualService`.
    pub fn is_routed_by(self, list: Protocol) -> bool {
        match list {
            Protocol::Http => matches!(self, Self::Http | Self::Detected),
            Protocol::Tls => self == Self::Tls,
            Protocol::Tcp => matches!(self, Self::Tcp | Self::Detected),
        }
    }

    /// As messages say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Detected => "detected",
            Self::Udp => "UDP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_says_its_protocol_by_app_protocol_or_name() {
        use PortProtocol::{Detected, Http, Tcp, Tls, Udp};
        for (number, name, transport, app, want) in [
            (80, "http", "TCP", None, Http),
            (80, "HTTP-web", "TCP", None, Http),
            (80, "httpweb", "TCP", None, Detected),
            (80, "grpc-web", "TCP", None, Http),
            (80, "grpc-webs", "TCP", None, Http),
            (80, "grpc", "TCP", None, Http),
            (443, "https-web", "TCP", None, Tls),
            (443, "tls", "", None, Tls),
            (5432, "tcp-db", "TCP", None, Tcp),
            (5432, "postgres", "TCP", None, Detected),
            (3306, "db", "TCP", None, Tcp),
            (3306, "http-db", "TCP", None, Http),
            (27017, "", "TCP", None, Tcp),
            (6379, "redis", "TCP", None, Tcp),
            (53, "tcp-dns", "UDP", None, Udp),
            (80, "tcp-main", "TCP", Some("http"), Http),
            (80, "http", "TCP", Some("tcp"), Tcp),
            (80, "http", "TCP", Some("kubernetes.io/h2c"), Http),
            (80, "http", "TCP", Some("kubernetes.io/wss"), Tls),
            (80, "http", "TCP", Some("example.com/own"), Detected),
            (80, "http", "TCP", Some(""), Detected),
        ] {
            let own = PortProtocol::of_service(number, name, transport, app);
            assert_eq!(own, want, "{number} {name} {transport} {app:?}");
        }
    }
}
