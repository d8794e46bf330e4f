//! What delivery controllers are told: Flagger's Canary and Argo's Rollout, as far as a verdict reads them. Knows only Istio's
//! words.
//!
//! A field of the wrong type counts as absent: these objects are read from the cluster and not judged here.

mod canary;
mod rollout;

pub use canary::{Canary, CanaryAnalysis, CanaryService, CanarySpec, TargetReference};
pub use rollout::{
    CanaryStatus, CanaryStrategy, IstioDestinationRule, IstioRouting, IstioVirtualService,
    PingPong, Rollout, RolloutSpec, RolloutStatus, Strategy, TrafficRouting,
};
