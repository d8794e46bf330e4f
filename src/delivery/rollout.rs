//! `argoproj.io` Rollout.

use serde::Deserialize;

use crate::istio::{Metadata, null_as_default};

/// A Rollout: Argo Rollouts writes the weights of the VirtualServices that it names, and the labels of the subsets of its
/// DestinationRule.
///
/// Source: Argo Rollouts 1.10.1, `pkg/apis/rollouts/v1alpha1/types.go`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rollout {
    /// The object's metadata.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: Metadata,
    /// What is to be done.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: RolloutSpec,
    /// How far it is.
    #[serde(deserialize_with = "null_as_default")]
    pub status: RolloutStatus,
}

/// `spec` of a Rollout.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RolloutSpec {
    /// How a new version comes in.
    #[serde(deserialize_with = "null_as_default")]
    pub strategy: Strategy,
}

/// `spec.strategy`; the blue/green strategy writes nothing of Istio's.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Strategy {
    /// Step by step.
    #[serde(deserialize_with = "null_as_default")]
    pub canary: CanaryStrategy,
}

/// `spec.strategy.canary`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CanaryStrategy {
    /// The Service of the stable version.
    #[serde(deserialize_with = "null_as_default")]
    pub stable_service: String,
    /// The Service of the canary.
    #[serde(deserialize_with = "null_as_default")]
    pub canary_service: String,
    /// Two Services that change their parts with every rollout.
    pub ping_pong: Option<PingPong>,
    /// Who routes.
    #[serde(deserialize_with = "null_as_default")]
    pub traffic_routing: TrafficRouting,
}

/// `pingPong`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PingPong {
    /// One of the two.
    #[serde(deserialize_with = "null_as_default")]
    pub ping_service: String,
    /// The other one.
    #[serde(deserialize_with = "null_as_default")]
    pub pong_service: String,
}

/// `trafficRouting`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TrafficRouting {
    /// Istio does.
    pub istio: Option<IstioRouting>,
}

/// `trafficRouting.istio`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IstioRouting {
    /// The VirtualService whose weights are written.
    pub virtual_service: Option<IstioVirtualService>,
    /// Several of them.
    #[serde(deserialize_with = "null_as_default")]
    pub virtual_services: Vec<IstioVirtualService>,
    /// The DestinationRule whose subsets are the two versions.
    pub destination_rule: Option<IstioDestinationRule>,
}

/// A VirtualService that a Rollout names.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct IstioVirtualService {
    /// `NAME`, or `NAME.NAMESPACE`.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// The DestinationRule that a Rollout names.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IstioDestinationRule {
    /// Its name, in the Rollout's namespace.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// The subset of the canary.
    #[serde(deserialize_with = "null_as_default")]
    pub canary_subset_name: String,
    /// The subset of the stable version.
    #[serde(deserialize_with = "null_as_default")]
    pub stable_subset_name: String,
}

/// `status` of a Rollout.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RolloutStatus {
    /// The hash of the stable version's Pods; empty before there is one.
    #[serde(rename = "stableRS", deserialize_with = "null_as_default")]
    pub stable_rs: String,
    /// The hash of the newest version's Pods, which is the stable one when nothing is being rolled out.
    #[serde(rename = "currentPodHash", deserialize_with = "null_as_default")]
    pub current_pod_hash: String,
    /// Of the canary strategy.
    #[serde(deserialize_with = "null_as_default")]
    pub canary: CanaryStatus,
}

/// `status.canary`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CanaryStatus {
    /// Which of the ping and pong Services is the stable one: `ping` or `pong`.
    #[serde(deserialize_with = "null_as_default")]
    pub stable_ping_pong: String,
}

/// Namespace and name of a VirtualService that a Rollout of `namespace` calls `name`.
///
/// Source: `utils/istio/istio.go` `GetVirtualServiceNamespaceName`.
pub(super) fn place<'a>(name: &'a str, namespace: &'a str) -> (&'a str, &'a str) {
    match name.split_once('.') {
        Some((name, namespace)) => (namespace, name),
        None => (namespace, name),
    }
}

impl Rollout {
    /// Namespace and name of each VirtualService whose weights are written for it.
    pub fn virtual_services(&self) -> impl Iterator<Item = (&str, &str)> {
        let istio = self.spec.strategy.canary.traffic_routing.istio.iter();
        let named = istio.flat_map(|own| own.virtual_service.iter().chain(&own.virtual_services));
        let own = self.metadata.namespace.as_str();
        named.filter(|named| !named.name.is_empty()).map(move |named| place(&named.name, own))
    }

    /// The DestinationRule whose subsets are written for it, in its own namespace.
    pub fn destination_rule(&self) -> Option<&IstioDestinationRule> {
        let istio = self.spec.strategy.canary.traffic_routing.istio.as_ref()?;
        istio.destination_rule.as_ref().filter(|named| !named.name.is_empty())
    }

    /// The Services of the stable version and of the canary; empty where it has none.
    ///
    /// Source: `utils/conditions/service_helper.go` `GetStableAndCanaryServices`: without a word of the status pong is stable.
    pub fn services(&self) -> (&str, &str) {
        let own = &self.spec.strategy.canary;
        match &own.ping_pong {
            None => (&own.stable_service, &own.canary_service),
            Some(PingPong { ping_service, pong_service }) => {
                match self.status.canary.stable_ping_pong.as_str() {
                    "ping" => (ping_service, pong_service),
                    _ => (pong_service, ping_service),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(canary: &str) -> Rollout {
        let text = format!(
            "{{metadata: {{name: a, namespace: shop}}, spec: {{strategy: {{canary: {canary}}}}}}}"
        );
        serde_saphyr::from_str(&text).expect("a Rollout")
    }

    #[test]
    fn a_name_may_hold_its_namespace() {
        let own = rollout(
            "{trafficRouting: {istio: {virtualService: {name: a}, virtualServices: [{name: b.pay}, {routes: [x]}]}}}",
        );
        assert_eq!(own.virtual_services().collect::<Vec<_>>(), [("shop", "a"), ("pay", "b")]);
    }

    #[test]
    fn ping_and_pong_change_their_parts() {
        let mut own = rollout("{pingPong: {pingService: ping-svc, pongService: pong-svc}}");
        assert_eq!(own.services(), ("pong-svc", "ping-svc"));
        own.status.canary.stable_ping_pong = "ping".to_owned();
        assert_eq!(own.services(), ("ping-svc", "pong-svc"));
    }
}
