//! A Canary at its own admission: everything that decides how a release goes.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::canary::TargetReference;
use crate::istio::{FieldPath, Judged, Metadata, null_as_default};

/// A Canary as it is to be stored. The world keeps only [`super::Canary`]: of thousands nobody needs the metrics.
///
/// Numbers are read as the API server stores them: the CRD calls them `number`, so that 12.5 gets through.
///
/// Source: Flagger 1.44.0, `pkg/apis/flagger/v1beta1/canary.go` and `artifacts/flagger/crd.yaml`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CanaryPlan {
    /// The object's metadata.
    pub metadata: Metadata,
    /// What is to be done.
    pub spec: CanaryPlanSpec,
}

/// `spec` of a Canary, in full.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CanaryPlanSpec {
    /// Who routes; empty for the one that Flagger was started with.
    #[serde(deserialize_with = "null_as_default")]
    pub provider: String,
    /// The workload that is rolled out.
    #[serde(deserialize_with = "null_as_default")]
    pub target_ref: TargetReference,
    /// How it is reached.
    #[serde(deserialize_with = "null_as_default")]
    pub service: PlannedService,
    /// How long a Deployment may take to make progress.
    pub progress_deadline_seconds: Option<f64>,
    /// Promotes each version without looking at it.
    #[serde(deserialize_with = "null_as_default")]
    pub skip_analysis: bool,
    /// How it is judged, and by which steps; the CRD asks for it.
    pub analysis: Option<AnalysisPlan>,
}

/// `spec.service`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PlannedService {
    /// The name of the Service and the VirtualService in front of both versions.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// The hosts of the VirtualService, beside its own.
    #[serde(deserialize_with = "null_as_default")]
    pub hosts: Vec<String>,
    /// The port of the Services.
    pub port: Option<f64>,
}

/// `spec.analysis`, in full.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AnalysisPlan {
    /// How many checks a blue/green or A/B release takes; without any the weight rises in steps.
    pub iterations: Option<f64>,
    /// The share at which the canary is promoted.
    pub max_weight: Option<f64>,
    /// How many points it rises in each step.
    pub step_weight: Option<f64>,
    /// Its weights, one after the other, in place of equal steps.
    #[serde(deserialize_with = "null_as_default")]
    pub step_weights: Vec<f64>,
    /// How many points the primary gets back in each step of the promotion; all at once where there are none.
    pub step_weight_promotion: Option<f64>,
    /// How many percent of the requests are mirrored.
    pub mirror_weight: Option<f64>,
    /// So many failed checks end the release.
    pub threshold: Option<f64>,
    /// How many percent of the primary's pods have to be available.
    pub primary_ready_threshold: Option<f64>,
    /// How many percent of the canary's.
    pub canary_ready_threshold: Option<f64>,
    /// Which requests the canary gets.
    #[serde(deserialize_with = "null_as_default")]
    pub r#match: Vec<IgnoredAny>,
    /// What is measured.
    #[serde(deserialize_with = "null_as_default")]
    pub metrics: Vec<CanaryMetric>,
    /// Who else is asked.
    #[serde(deserialize_with = "null_as_default")]
    pub webhooks: Vec<CanaryWebhook>,
    #[serde(deserialize_with = "null_as_default")]
    session_affinity: SessionAffinity,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SessionAffinity {
    max_age: Option<f64>,
}

/// An element of `analysis.metrics`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CanaryMetric {
    /// `request-success-rate`, `request-duration`, or the user's own.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// The former field for a limit.
    pub threshold: Option<f64>,
    /// The values that pass.
    pub threshold_range: Option<ThresholdRange>,
    /// The former field for a query.
    #[serde(deserialize_with = "null_as_default")]
    pub query: String,
    /// The MetricTemplate with the query.
    pub template_ref: Option<IgnoredAny>,
}

/// `thresholdRange`, both ends included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ThresholdRange {
    /// The smallest value that passes.
    pub min: Option<f64>,
    /// The largest value that passes.
    pub max: Option<f64>,
}

/// An element of `analysis.webhooks`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CanaryWebhook {
    /// Its name.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// When it is asked; empty for `rollout`, before each step.
    #[serde(deserialize_with = "null_as_default")]
    pub r#type: String,
    retries: Option<f64>,
    #[serde(deserialize_with = "null_as_default")]
    metadata: HookMetadata,
}

/// What Flagger's load tester is told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct HookMetadata {
    #[serde(deserialize_with = "null_as_default")]
    r#type: String,
    #[serde(deserialize_with = "null_as_default")]
    cmd: String,
}

/// How a canary's weight rises, and how that ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ramp {
    /// Each step, from where to where, in percent.
    pub rises: Vec<(i64, i64)>,
    /// Whether it ends with the promotion; otherwise it stays where it is.
    pub is_promoted: bool,
}

/// All the traffic.
const TOTAL: i64 = 100;

impl Judged for CanaryPlan {
    type Spec = CanaryPlanSpec;

    fn of(metadata: Metadata, spec: CanaryPlanSpec) -> Self {
        Self { metadata, spec }
    }

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl CanaryPlan {
    /// The name of the VirtualService, and of the Service in front of both versions.
    pub fn apex(&self) -> &str {
        match self.spec.service.name.as_str() {
            "" => &self.spec.target_ref.name,
            name => name,
        }
    }

    /// The hosts that its VirtualService gets.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        let own = self.spec.service.hosts.iter().map(String::as_str);
        own.chain([self.apex()]).filter(|host| !host.is_empty())
    }

    /// Whether Istio may be who routes: it is named, or it is left to Flagger's flag.
    pub fn is_istios(&self) -> bool {
        matches!(self.spec.provider.as_str(), "" | "istio")
    }

    /// The numbers that are not whole, where Flagger's types hold integers.
    pub fn fractions(&self) -> impl Iterator<Item = (FieldPath, f64)> {
        let at = |name: &str| FieldPath::spec().field(name);
        let own = [
            (at("progressDeadlineSeconds"), self.spec.progress_deadline_seconds),
            (at("service").field("port"), self.spec.service.port),
        ];
        let analysed = self.spec.analysis.as_ref().map(AnalysisPlan::whole_numbers);
        let all = own.into_iter().chain(analysed.into_iter().flatten());
        all.filter_map(|(path, value)| Some((path, value.filter(|value| value.fract() != 0.0)?)))
    }
}

impl AnalysisPlan {
    fn whole_numbers(&self) -> Vec<(FieldPath, Option<f64>)> {
        let path = |name: &str| FieldPath::spec().field("analysis").field(name);
        let mut all = vec![
            (path("iterations"), self.iterations),
            (path("maxWeight"), self.max_weight),
            (path("stepWeight"), self.step_weight),
            (path("stepWeightPromotion"), self.step_weight_promotion),
            (path("mirrorWeight"), self.mirror_weight),
            (path("threshold"), self.threshold),
            (path("primaryReadyThreshold"), self.primary_ready_threshold),
            (path("canaryReadyThreshold"), self.canary_ready_threshold),
            (path("sessionAffinity").field("maxAge"), self.session_affinity.max_age),
        ];
        let weights = self.step_weights.iter().enumerate();
        all.extend(weights.map(|(at, own)| (path("stepWeights").index(at), Some(*own))));
        let hooks = self.webhooks.iter().enumerate();
        all.extend(
            hooks.map(|(at, own)| (path("webhooks").index(at).field("retries"), own.retries)),
        );
        all
    }

    /// Whether the weight rises in steps: with `iterations` a release is blue/green, or A/B for those who match.
    ///
    /// Source: `canary.go` `DeploymentStrategy`.
    pub fn is_progressive(&self) -> bool {
        self.iterations.unwrap_or_default() < 1.0
    }

    /// How the weight rises. Where a number is not whole, nothing rises: Flagger cannot read it.
    ///
    /// Source: `pkg/controller/scheduler.go` `maxWeight`, `nextStepWeight`, and `runCanary`, which is asked only where the next
    /// step is above 0, also for the promotion (`advanceCanary`).
    pub fn ramp(&self) -> Ramp {
        let steps = self.step_weights.iter().map(|&own| own as i64).collect::<Vec<_>>();
        let step_weight = self.step_weight.unwrap_or_default() as i64;
        let most = match (steps.last(), self.max_weight.unwrap_or_default() as i64) {
            (Some(&last), _) => last.min(TOTAL),
            (None, most) if most > 0 => most,
            (None, _) => TOTAL,
        };
        let next = |weight: i64| {
            let rest = TOTAL - weight;
            let found = steps.split_last().map_or(&[][..], |(_, front)| front);
            let found = found.iter().position(|&own| own == weight);
            match (steps.first(), found) {
                (None, _) => step_weight,
                (Some(_), _) if step_weight > 0 => step_weight,
                (Some(_), _) if rest == 0 => 1,
                (Some(&first), _) if weight == 0 => first.min(rest),
                (Some(_), Some(at)) => steps[at + 1].saturating_sub(weight).min(rest),
                (Some(_), None) => rest,
            }
        };
        let (mut rises, mut weight) = (Vec::new(), 0);
        // Each turn rises by a point at least.
        loop {
            let step = next(weight);
            let is_promoted = step > 0 && weight >= most;
            if is_promoted || step <= 0 || weight >= TOTAL {
                return Ramp { rises, is_promoted };
            }
            let to = weight.saturating_add(step).min(TOTAL);
            rises.push((weight, to));
            weight = to;
        }
    }
}

impl CanaryWebhook {
    /// Whether what it answers decides how the release goes on.
    ///
    /// Not so for events, for what comes after the release, and for a command that Flagger's load tester runs in the background:
    /// it answers before the command has begun.
    ///
    /// Source: `scheduler.go` `runAnalysis`, `scheduler_hooks.go`; `pkg/loadtester/server.go`: without `type` a task is `cmd`.
    pub fn is_gate(&self) -> bool {
        const ASKED: [&str; 7] = [
            "",
            "rollout",
            "pre-rollout",
            "confirm-rollout",
            "confirm-traffic-increase",
            "confirm-promotion",
            "rollback",
        ];
        ASKED.contains(&self.r#type.as_str()) && !self.is_in_background()
    }

    /// Whether it only has the load tester run a command.
    pub fn is_in_background(&self) -> bool {
        !self.metadata.cmd.is_empty() && matches!(self.metadata.r#type.as_str(), "" | "cmd")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(analysis: &str) -> (String, bool) {
        let own = serde_saphyr::from_str::<AnalysisPlan>(analysis).expect(analysis).ramp();
        let ends = own.rises.iter().map(|(_, to)| to.to_string()).collect::<Vec<_>>();
        (ends.join(" "), own.is_promoted)
    }

    #[test]
    fn the_weight_rises_as_flagger_raises_it() {
        for (analysis, weights, is_promoted) in [
            ("{stepWeight: 20, maxWeight: 60}", "20 40 60", true),
            ("{stepWeight: 40, maxWeight: 50}", "40 80", true),
            ("{stepWeight: 60}", "60 100", true),
            ("{stepWeight: 50, maxWeight: 120}", "50 100", false),
            ("{stepWeight: 0, maxWeight: 50}", "", false),
            ("{stepWeight: -5}", "", false),
            ("{maxWeight: 50}", "", false),
            ("{stepWeights: [1, 2, 10, 80]}", "1 2 10 80", true),
            ("{stepWeights: [100]}", "100", true),
            ("{stepWeights: [10, 120]}", "10 100", true),
            ("{stepWeights: [50, 10]}", "50", false),
            ("{stepWeights: [10, 10, 50]}", "10", false),
            ("{stepWeights: [10, 10]}", "10", false),
            ("{stepWeights: [20, 10, 50]}", "20", false),
            ("{stepWeights: [0, 10]}", "", false),
            // The last entry is the maximum.
            ("{stepWeights: [10, 0]}", "", true),
            ("{stepWeight: 10, stepWeights: [20]}", "10 20", true),
            ("{stepWeights: [10, -1e300]}", "", true),
            ("{stepWeights: [10, -1e300, 20]}", "10", false),
            ("{stepWeight: 1e300, maxWeight: 1e300}", "100", false),
        ] {
            assert_eq!(ramp(analysis), (weights.to_owned(), is_promoted), "{analysis}");
        }
    }

    #[test]
    fn a_load_test_in_the_background_is_no_gate() {
        for (hook, is_gate) in [
            ("{name: a, url: x}", true),
            ("{type: rollout}", true),
            ("{type: confirm-promotion}", true),
            ("{type: rollout, metadata: {cmd: hey}}", false),
            ("{metadata: {type: cmd, cmd: hey}}", false),
            ("{type: pre-rollout, metadata: {type: bash, cmd: curl}}", true),
            ("{metadata: {type: helmv3, cmd: test}}", true),
            ("{type: event}", false),
            ("{type: post-rollout}", false),
        ] {
            let own = serde_saphyr::from_str::<CanaryWebhook>(hook).expect(hook);
            assert_eq!(own.is_gate(), is_gate, "{hook}");
        }
    }
}
