//! A Rollout at its own admission: its steps, its analyses and the routes that its controller makes.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::rollout::{IstioDestinationRule, PingPong, place};
use crate::istio::{Judged, Metadata, Route, null_as_default};

/// A Rollout as it is to be stored. The world keeps only [`super::Rollout`].
///
/// Source: Argo Rollouts 1.10.1, `pkg/apis/rollouts/v1alpha1/types.go`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RolloutPlan {
    /// The object's metadata.
    pub metadata: Metadata,
    /// What is to be done.
    pub spec: RolloutPlanSpec,
}

/// `spec` of a Rollout, in full.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RolloutPlanSpec {
    /// How a new version comes in.
    #[serde(deserialize_with = "null_as_default")]
    pub strategy: PlannedStrategy,
}

/// `spec.strategy`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PlannedStrategy {
    /// Step by step.
    #[serde(deserialize_with = "null_as_default")]
    pub canary: PlannedCanary,
}

/// `spec.strategy.canary`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlannedCanary {
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
    pub traffic_routing: PlannedRouting,
    /// One after the other.
    #[serde(deserialize_with = "null_as_default")]
    pub steps: Vec<CanaryStep>,
    /// The analysis that runs beside the steps.
    pub analysis: Option<AnalysisStep>,
}

/// `trafficRouting`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlannedRouting {
    /// Istio does.
    pub istio: Option<PlannedIstio>,
    /// The routes that the controller makes and takes away.
    #[serde(deserialize_with = "null_as_default")]
    pub managed_routes: Vec<ManagedRoute>,
}

/// `trafficRouting.istio`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlannedIstio {
    /// The VirtualService whose weights are written.
    pub virtual_service: Option<PlannedVirtualService>,
    /// Several of them.
    #[serde(deserialize_with = "null_as_default")]
    pub virtual_services: Vec<PlannedVirtualService>,
    /// The DestinationRule whose subsets are the two versions.
    pub destination_rule: Option<IstioDestinationRule>,
}

/// A VirtualService that a Rollout names, with the routes whose weights are written.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PlannedVirtualService {
    /// `NAME`, or `NAME.NAMESPACE`.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// By name; none for the only one.
    #[serde(deserialize_with = "null_as_default")]
    pub routes: Vec<String>,
}

/// An element of `managedRoutes`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ManagedRoute {
    /// The route's name.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// An element of `steps`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CanaryStep {
    /// The canary's share in percent from now on.
    pub set_weight: Option<f64>,
    /// Waits, for a time or for somebody.
    pub pause: Option<IgnoredAny>,
    /// Waits for an experiment.
    pub experiment: Option<IgnoredAny>,
    /// Waits for an analysis.
    pub analysis: Option<AnalysisStep>,
    /// Waits for a plugin.
    pub plugin: Option<IgnoredAny>,
}

/// An analysis, as a step or beside the steps.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AnalysisStep {
    /// What is measured.
    #[serde(deserialize_with = "null_as_default")]
    pub templates: Vec<IgnoredAny>,
    /// What is measured and does not count.
    #[serde(deserialize_with = "null_as_default")]
    pub dry_run: Vec<DryRun>,
}

/// An element of `dryRun`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DryRun {
    /// A regular expression for a part of the metric's name.
    #[serde(deserialize_with = "null_as_default")]
    pub metric_name: String,
}

/// How far the canary rises before the controller waits again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rise {
    /// From this share in percent.
    pub from: f64,
    /// To this one.
    pub to: f64,
    /// The step that raises it that far; `None` for the end, where everything goes to the new version.
    pub step: Option<usize>,
}

impl Judged for RolloutPlan {
    type Spec = RolloutPlanSpec;

    fn of(metadata: Metadata, spec: RolloutPlanSpec) -> Self {
        Self { metadata, spec }
    }

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl RolloutPlan {
    /// The Services of both versions; none where subsets tell them apart.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        let own = &self.spec.strategy.canary;
        let (one, other) = match &own.ping_pong {
            None => (&own.stable_service, &own.canary_service),
            Some(PingPong { ping_service, pong_service }) => (ping_service, pong_service),
        };
        [one.as_str(), other].into_iter().filter(|name| !name.is_empty())
    }

    /// Namespace and name of each VirtualService whose weights are written, for a Rollout of `namespace`.
    pub fn virtual_services<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let named = self.spec.strategy.canary.traffic_routing.istio.iter();
        let named = named.flat_map(PlannedIstio::virtual_services);
        named.filter(|own| !own.name.is_empty()).map(move |own| place(&own.name, namespace))
    }
}

impl PlannedIstio {
    /// The VirtualServices that it names.
    pub fn virtual_services(&self) -> impl Iterator<Item = &PlannedVirtualService> {
        self.virtual_service.iter().chain(&self.virtual_services)
    }
}

impl PlannedCanary {
    /// All analyses, each with the step that it is.
    pub fn analyses(&self) -> impl Iterator<Item = (Option<usize>, &AnalysisStep)> {
        let beside = self.analysis.iter().map(|own| (None, own));
        let steps = self.steps.iter().enumerate();
        let steps = steps.filter_map(|(at, own)| Some((Some(at), own.analysis.as_ref()?)));
        // `rollout/analysis.go` `reconcileBackgroundAnalysisRun`: without templates there is no analysis.
        beside.chain(steps).filter(|(_, own)| !own.templates.is_empty())
    }

    /// How far the canary rises from one step at which the controller waits to the next one. The last rise is the one to
    /// everything: behind the last step the weight is 100, whatever it was (`rollout/trafficrouting.go`
    /// `reconcileTrafficRouting`).
    pub fn rises(&self) -> Vec<Rise> {
        let (mut rises, mut from) = (Vec::new(), 0.0);
        let mut now = Rise { from, to: from, step: None };
        for (at, step) in self.steps.iter().enumerate() {
            if let Some(weight) = step.set_weight {
                now = Rise { from, to: weight, step: Some(at) };
            }
            if step.waits() {
                if now.to > from {
                    rises.push(now);
                }
                from = now.to;
                now = Rise { from, to: from, step: None };
            }
        }
        let is_everything = now.step.is_some() && now.to >= 100.0;
        let end = Rise { from, to: 100.0, step: now.step.filter(|_| is_everything) };
        if end.from < end.to {
            rises.push(end);
        }
        rises
    }

    /// Whether the controller makes this route of a VirtualService by itself: for a header or a mirror. Another one of a managed
    /// name is the user's.
    ///
    /// Source: `rollout/trafficrouting/istio/istio.go` `createHeaderRoute`, `reconcileVirtualServiceMirrorRoutes`.
    pub fn is_made(&self, route: &Route) -> bool {
        let has_mirror = route.mirror.is_some() || !route.mirrors.is_empty();
        let subset = self.traffic_routing.istio.as_ref().and_then(|own| {
            let rule = own.destination_rule.as_ref()?;
            Some(rule.canary_subset_name.as_str()).filter(|name| !name.is_empty())
        });
        let names = |host: &str, service: &str| {
            // `getHost`: the first label of the host counts.
            !service.is_empty() && host.split('.').next() == Some(service)
        };
        let is_canary = |host: &str, own: &str| match (subset, &self.ping_pong) {
            (Some(subset), _) => own == subset,
            (None, Some(pair)) => {
                names(host, &pair.ping_service) || names(host, &pair.pong_service)
            }
            (None, None) => names(host, &self.canary_service),
        };
        let is_header_route = matches!(route.route.as_slice(), [only]
            if !route.r#match.is_empty() && is_canary(&only.destination.host, &only.destination.subset));
        has_mirror || is_header_route
    }
}

impl CanaryStep {
    /// Whether the controller stays at this step until a time is over or somebody or something says so.
    pub fn waits(&self) -> bool {
        let Self { pause, experiment, analysis, plugin, .. } = self;
        pause.is_some() || experiment.is_some() || analysis.is_some() || plugin.is_some()
    }
}

impl AnalysisStep {
    /// The place in `dryRun` of an expression that takes in every metric.
    ///
    /// Source: `utils/analysis/helpers.go` `GetDryRunMetrics`: it need not match the whole name.
    pub fn dry_of_all(&self) -> Option<usize> {
        let is_of_all = |own: &DryRun| {
            let name = own.metric_name.as_str();
            let core = name.trim_start_matches(['^', '(']).trim_end_matches(['$', ')']);
            matches!(core, "" | "." | ".*" | ".+" | ".*?" | ".+?" | "[\\s\\S]*")
        };
        self.dry_run.iter().position(is_of_all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_wait_is_one_rise() {
        for (steps, want) in [
            ("[]", "0-100"),
            (
                "[{setWeight: 20}, {pause: {}}, {setWeight: 60}, {pause: {duration: 1m}}]",
                "0-20 20-60 60-100",
            ),
            ("[{setWeight: 20}, {setWeight: 60}, {pause: {}}]", "0-60 60-100"),
            ("[{setWeight: 20}, {pause: {}}, {setWeight: 40}, {setWeight: 60}]", "0-20 20-100"),
            ("[{setWeight: 100}, {pause: {}}]", "0-100"),
            ("[{setWeight: 50}, {analysis: {templates: [{}]}}, {setWeight: 100}]", "0-50 50-100"),
            (
                "[{setCanaryScale: {replicas: 1}}, {pause: {}}, {setWeight: 50}, {experiment: {}}]",
                "0-50 50-100",
            ),
            ("[{setWeight: 50}, {plugin: {name: a}}, {setWeight: 10}, {pause: {}}]", "0-50 10-100"),
        ] {
            let own = serde_saphyr::from_str::<PlannedCanary>(&format!("{{steps: {steps}}}"));
            let rises = own.expect(steps).rises();
            let said = rises.iter().map(|own| format!("{}-{}", own.from, own.to));
            assert_eq!(said.collect::<Vec<_>>().join(" "), want, "{steps}");
        }
    }

    #[test]
    fn an_expression_for_everything_is_known() {
        for (name, want) in [(".*", true), ("", true), ("^.*$", true), ("(.*)", true), (".+", true)]
            .into_iter()
            .chain([("success-rate", false), ("latency.*", false), ("^test", false)])
        {
            let own = AnalysisStep {
                dry_run: vec![DryRun { metric_name: name.to_owned() }],
                ..AnalysisStep::default()
            };
            assert_eq!(own.dry_of_all().is_some(), want, "{name}");
        }
    }
}
