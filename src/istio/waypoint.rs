//! Waypoints: the gateways of ambient mode, and the labels that lead requests to them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::metadata::Metadata;
use super::shape::{null_as_default, objects};

type Labels = BTreeMap<String, String>;

/// The parts of a Gateway of the Gateway API that say whether it is a waypoint, and for whom.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Waypoint {
    /// Name and namespace; its pods run there.
    pub metadata: Metadata,
    #[serde(deserialize_with = "null_as_default")]
    spec: Spec,
    #[serde(deserialize_with = "null_as_default")]
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(deserialize_with = "null_as_default")]
    gateway_class_name: String,
    #[serde(deserialize_with = "objects")]
    listeners: Vec<Listener>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "null_as_default")]
    addresses: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Listener {
    port: Option<i64>,
    #[serde(deserialize_with = "null_as_default")]
    protocol: String,
    #[serde(deserialize_with = "null_as_default")]
    allowed_routes: AllowedRoutes,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct AllowedRoutes {
    #[serde(deserialize_with = "null_as_default")]
    namespaces: Namespaces,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Namespaces {
    #[serde(deserialize_with = "null_as_default")]
    from: String,
    #[serde(deserialize_with = "null_as_default")]
    selector: Selector,
}

/// `metav1.LabelSelector`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    #[serde(deserialize_with = "null_as_default")]
    match_labels: Labels,
    #[serde(deserialize_with = "objects")]
    match_expressions: Vec<Requirement>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Requirement {
    #[serde(deserialize_with = "null_as_default")]
    key: String,
    #[serde(deserialize_with = "null_as_default")]
    operator: String,
    #[serde(deserialize_with = "null_as_default")]
    values: Vec<String>,
}

impl Selector {
    /// An operator that nobody knows selects nothing.
    fn matches(&self, labels: &Labels) -> bool {
        let has = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        let holds = |own: &Requirement| {
            let value = labels.get(&own.key);
            let is_named = value.is_some_and(|value| own.values.contains(value));
            match own.operator.as_str() {
                "In" => is_named,
                "NotIn" => !is_named,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        };
        self.match_labels.iter().all(has) && self.match_expressions.iter().all(holds)
    }
}

impl Waypoint {
    /// Whether requests to Services may go through it: it is of the class of istiod's own waypoints (what a proxy of another
    /// class does with a VirtualService is not known), has an address, which istiod gives it with the first ready pod, and is
    /// for Services, as one is that does not say what it is for.
    ///
    /// Source: `pilot/pkg/serviceregistry/ambient/waypoints.go` `gatewayToWaypointTransform`, `fetchWaypointForService`.
    pub fn serves_services(&self) -> bool {
        let label = self.metadata.labels.get("istio.io/waypoint-for");
        self.spec.gateway_class_name == "istio-waypoint"
            && !self.status.addresses.is_empty()
            && label.is_none_or(|own| own == "service" || own == "all")
    }

    /// Gives it the address that istiod gives it with the first ready pod.
    pub fn set_ready(&mut self) {
        self.status.addresses.push(serde::de::IgnoredAny);
    }

    /// Whether objects of `namespace`, which has these labels, may use it; where its HBONE listener does not say, those of its
    /// own namespace.
    ///
    /// Source: `waypoints.go` `makeAllowedRoutes`, `AllowsAttachmentFromNamespace`.
    pub fn admits(&self, namespace: &str, labels: Option<&Labels>) -> bool {
        let listeners = self.spec.listeners.iter();
        let mut hbone =
            listeners.filter(|own| own.protocol == "HBONE" && own.port == Some(15008)).take(1);
        let allowed = hbone.next().map(|own| &own.allowed_routes.namespaces);
        match allowed.map(|own| own.from.as_str()) {
            Some("All") => true,
            Some("Selector") => allowed.is_some_and(|own| match labels {
                Some(labels) => own.selector.matches(labels),
                None => own.selector.matches(&Labels::new()),
            }),
            _ => self.metadata.namespace == namespace,
        }
    }
}

/// Which waypoint the labels of a Service, a ServiceEntry or a Namespace name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum UseWaypoint {
    /// They do not say: the Namespace does.
    #[default]
    Unsaid,
    /// None at all, whatever the Namespace says.
    Never,
    /// The one of this name, in this namespace or else in the object's own.
    Named(String, Option<String>),
}

impl UseWaypoint {
    /// What these labels say. What istiod made for a waypoint has none itself.
    ///
    /// Source: `waypoints.go` `GetUseWaypoint`, `fetchWaypointForService`.
    pub fn of(labels: &Labels) -> Self {
        let is_made = labels.get("gateway.istio.io/managed").is_some_and(|own| {
            matches!(own.as_str(), "istio.io-mesh-controller" | "istio.io-eastwest-controller")
        });
        match labels.get("istio.io/use-waypoint") {
            _ if is_made => Self::Never,
            None => Self::Unsaid,
            Some(name) if name == "none" => Self::Never,
            Some(name) => {
                let namespace = labels.get("istio.io/use-waypoint-namespace");
                Self::Named(name.clone(), namespace.cloned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waypoint(text: &str) -> Waypoint {
        serde_saphyr::from_str(text).expect("a Gateway")
    }

    #[test]
    fn a_gateway_serves_services_where_istiod_says_so() {
        for (labels, class, status, want) in [
            ("{}", "istio-waypoint", "{addresses: [{value: 10.0.0.1}]}", true),
            ("{istio.io/waypoint-for: all}", "istio-waypoint", "{addresses: [{}]}", true),
            ("{istio.io/waypoint-for: workload}", "istio-waypoint", "{addresses: [{}]}", false),
            ("{istio.io/waypoint-for: none}", "istio-waypoint", "{addresses: [{}]}", false),
            ("{}", "istio", "{addresses: [{}]}", false),
            ("{}", "istio-waypoint", "{}", false),
            ("{}", "istio-waypoint", "null", false),
        ] {
            let own = waypoint(&format!(
                "{{metadata: {{name: a, labels: {labels}}}, spec: {{gatewayClassName: {class}}}, status: {status}}}"
            ));
            assert_eq!(own.serves_services(), want, "{labels} {class} {status}");
        }
    }

    #[test]
    fn a_listener_says_which_namespaces_may_use_it() {
        let labels = Labels::from([("team".to_owned(), "a".to_owned())]);
        for (listeners, namespace, want) in [
            ("[]", "infra", true),
            ("[]", "shop", false),
            ("[{port: 15008, protocol: HBONE}]", "shop", false),
            (
                "[{port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: Same}}}]",
                "infra",
                true,
            ),
            (
                "[{port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]",
                "shop",
                true,
            ),
            (
                "[{port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]",
                "shop",
                false,
            ),
            (
                "[{port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}}]",
                "shop",
                true,
            ),
            (
                "[{port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: NotIn, values: [a]}]}}}}]",
                "shop",
                false,
            ),
            (
                "[{port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: Exists}]}}}}]",
                "shop",
                true,
            ),
        ] {
            let own = waypoint(&format!(
                "{{metadata: {{name: a, namespace: infra}}, spec: {{listeners: {listeners}}}}}"
            ));
            assert_eq!(own.admits(namespace, Some(&labels)), want, "{listeners} {namespace}");
        }
    }

    #[test]
    fn labels_name_a_waypoint() {
        let named = |namespace: Option<&str>| {
            UseWaypoint::Named("a".to_owned(), namespace.map(str::to_owned))
        };
        for (labels, want) in [
            ("{}", UseWaypoint::Unsaid),
            ("{istio.io/use-waypoint: none}", UseWaypoint::Never),
            ("{istio.io/use-waypoint: a}", named(None)),
            (
                "{istio.io/use-waypoint: a, istio.io/use-waypoint-namespace: infra}",
                named(Some("infra")),
            ),
            (
                "{istio.io/use-waypoint: a, gateway.istio.io/managed: istio.io-mesh-controller}",
                UseWaypoint::Never,
            ),
        ] {
            let own: Labels = serde_saphyr::from_str(labels).expect("labels");
            assert_eq!(UseWaypoint::of(&own), want, "{labels}");
        }
    }
}
