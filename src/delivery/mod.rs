//! What delivery controllers are told: Flagger's Canary and Argo's Rollout, as far as a verdict reads them. Knows only Istio's
//! words.
//!
//! There are two readings of each: what the world keeps of those that are stored, where a field of the wrong type counts as
//! absent, and the plan of a release as it is judged at its own admission.

mod canary;
mod canary_plan;
mod rollout;
mod rollout_plan;

pub use canary::{Canary, CanaryAnalysis, CanaryService, CanarySpec, TargetReference};
pub use canary_plan::{
    AnalysisPlan, CanaryMetric, CanaryPlan, CanaryPlanSpec, CanaryWebhook, PlannedService, Ramp,
    ThresholdRange,
};
pub use rollout::{
    CanaryStatus, CanaryStrategy, IstioDestinationRule, IstioRouting, IstioVirtualService,
    PingPong, Rollout, RolloutSpec, RolloutStatus, Strategy, TrafficRouting,
};
pub use rollout_plan::{
    AnalysisStep, CanaryStep, DryRun, ManagedRoute, PlannedCanary, PlannedIstio, PlannedRouting,
    PlannedStrategy, PlannedVirtualService, Rise, RolloutPlan, RolloutPlanSpec,
};
