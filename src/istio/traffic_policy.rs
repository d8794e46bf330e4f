//! What a DestinationRule says about load balancing and outlier detection.

use serde::Deserialize;

use super::shape::{null_as_default, whole_number};
use super::virtual_service::PortSelector;

/// The parts of a `trafficPolicy` that a verdict reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// Which endpoint gets a request.
    pub load_balancer: Option<LoadBalancer>,
    /// When an endpoint is left out because of its answers.
    pub outlier_detection: Option<OutlierDetection>,
    /// What holds for single ports instead: nothing of the above is inherited there.
    #[serde(deserialize_with = "null_as_default")]
    pub port_level_settings: Vec<PortTrafficPolicy>,
}

/// An element of `portLevelSettings`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortTrafficPolicy {
    /// The port it is for.
    #[serde(deserialize_with = "null_as_default")]
    pub port: PortSelector,
    /// Which endpoint gets a request.
    pub load_balancer: Option<LoadBalancer>,
    /// When an endpoint is left out because of its answers.
    pub outlier_detection: Option<OutlierDetection>,
}

/// `loadBalancer`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// `simple`, as written: `ROUND_ROBIN`, `PASSTHROUGH` ...; empty where it is not set.
    #[serde(deserialize_with = "null_as_default")]
    pub simple: String,
    /// Requests with the same value go to the same endpoint: of one subset, never of one version among several.
    pub consistent_hash: Option<ConsistentHash>,
}

impl LoadBalancer {
    /// Whether connections go where the client wanted, so that subsets and weights mean nothing (`cluster_builder.go`).
    pub fn is_passthrough(&self) -> bool {
        self.simple == "PASSTHROUGH"
    }
}

/// `consistentHash`: what the hash is taken of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHash {
    /// A header.
    #[serde(deserialize_with = "null_as_default")]
    pub http_header_name: String,
    /// A cookie.
    pub http_cookie: Option<HttpCookie>,
    /// The client's address.
    #[serde(deserialize_with = "null_as_default")]
    pub use_source_ip: bool,
    /// A query parameter.
    #[serde(deserialize_with = "null_as_default")]
    pub http_query_parameter_name: String,
}

/// `httpCookie`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HttpCookie {
    /// Its name.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// `outlierDetection`, counted per subset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Errors in a row, the deprecated spelling.
    #[serde(deserialize_with = "whole_number")]
    pub consecutive_errors: Option<i64>,
    /// Answers 502, 503 and 504 in a row; 0 turns it off.
    #[serde(deserialize_with = "whole_number")]
    pub consecutive_gateway_errors: Option<i64>,
    /// Answers 5xx in a row; 0 turns it off, absent means Envoy's 5.
    #[serde(deserialize_with = "whole_number")]
    pub consecutive_5xx_errors: Option<i64>,
    /// How many of the endpoints may be left out, in percent; absent and 0 mean Envoy's 10.
    #[serde(deserialize_with = "whole_number")]
    pub max_ejection_percent: Option<i64>,
    /// Below this many healthy endpoints, in percent, health is ignored; absent and 0 mean never.
    #[serde(deserialize_with = "whole_number")]
    pub min_health_percent: Option<i64>,
}

/// What holds for one subset and one port, after everything that is more general was considered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PolicyInForce<'a> {
    /// Which endpoint gets a request.
    pub load_balancer: Option<&'a LoadBalancer>,
    /// When an endpoint is left out because of its answers.
    pub outlier_detection: Option<&'a OutlierDetection>,
}

impl<'a> PolicyInForce<'a> {
    /// Joins a rule's policy with a subset's for `port`: a port's settings replace the whole policy beside them, a subset's
    /// replace the rule's field by field, and all of them where they are for the port.
    ///
    /// Source: `pilot/pkg/networking/util/util.go` `MergeSubsetTrafficPolicy`.
    pub fn of(
        rule: Option<&'a TrafficPolicy>,
        subset: Option<&'a TrafficPolicy>,
        port: Option<i64>,
    ) -> Self {
        let base = rule.map(|policy| Self::at_port(policy, port).0).unwrap_or_default();
        let Some(subset) = subset else { return base };
        let (own, is_of_port) = Self::at_port(subset, port);
        if is_of_port {
            return own;
        }
        Self {
            load_balancer: own.load_balancer.or(base.load_balancer),
            outlier_detection: own.outlier_detection.or(base.outlier_detection),
        }
    }

    fn at_port(policy: &'a TrafficPolicy, port: Option<i64>) -> (Self, bool) {
        let settings = &policy.port_level_settings;
        let own = settings.iter().find(|own| port.is_some() && own.port.number == port);
        match own {
            Some(PortTrafficPolicy { load_balancer, outlier_detection, .. }) => {
                (Self::from_parts(load_balancer.as_ref(), outlier_detection.as_ref()), true)
            }
            None => {
                let TrafficPolicy { load_balancer, outlier_detection, .. } = policy;
                (Self::from_parts(load_balancer.as_ref(), outlier_detection.as_ref()), false)
            }
        }
    }

    fn from_parts(
        load_balancer: Option<&'a LoadBalancer>,
        outlier_detection: Option<&'a OutlierDetection>,
    ) -> Self {
        Self { load_balancer, outlier_detection }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: serde_json::Value) -> TrafficPolicy {
        serde_json::from_value(json).expect("a policy")
    }

    #[test]
    fn ports_replace_and_subsets_override() {
        let rule = policy(serde_json::json!({
            "loadBalancer": {"simple": "RANDOM"},
            "outlierDetection": {"consecutive5xxErrors": 3},
            "portLevelSettings": [{"port": {"number": 80}, "loadBalancer": {"simple": "LEAST_REQUEST"}}],
        }));
        let subset = policy(serde_json::json!({
            "loadBalancer": {"simple": "PASSTHROUGH"},
            "portLevelSettings": [{"port": {"number": 90}, "outlierDetection": {"maxEjectionPercent": 100}}],
        }));
        let said = |subset: Option<&TrafficPolicy>, port| {
            let own = PolicyInForce::of(Some(&rule), subset, port);
            (
                own.load_balancer.map(|own| own.simple.clone()),
                own.outlier_detection
                    .map(|own| (own.consecutive_5xx_errors, own.max_ejection_percent)),
            )
        };
        let simple = |name: &str| Some(name.to_owned());
        for (with_subset, port, want) in [
            (false, None, (simple("RANDOM"), Some((Some(3), None)))),
            (false, Some(80), (simple("LEAST_REQUEST"), None)),
            (true, None, (simple("PASSTHROUGH"), Some((Some(3), None)))),
            (true, Some(80), (simple("PASSTHROUGH"), None)),
            (true, Some(90), (None, Some((None, Some(100))))),
        ] {
            assert_eq!(said(with_subset.then_some(&subset), port), want, "{with_subset} {port:?}");
        }
    }
}
