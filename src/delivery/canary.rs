//! `flagger.app` Canary.

use serde::Deserialize;

use crate::istio::{Metadata, null_as_default};

/// A Canary: Flagger makes the VirtualService named after its service and writes its weights.
///
/// Source: Flagger 1.44.0, `pkg/apis/flagger/v1beta1/canary.go`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Canary {
    /// The object's metadata.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: Metadata,
    /// What is to be done.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: CanarySpec,
}

/// `spec` of a Canary.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CanarySpec {
    /// The workload that is rolled out; it is the canary, and `NAME-primary` the copy that serves.
    #[serde(deserialize_with = "null_as_default")]
    pub target_ref: TargetReference,
    /// How it is reached.
    #[serde(deserialize_with = "null_as_default")]
    pub service: CanaryService,
    /// How it is judged, and by which steps.
    #[serde(deserialize_with = "null_as_default")]
    pub analysis: CanaryAnalysis,
}

/// `spec.targetRef`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TargetReference {
    /// The workload's kind.
    #[serde(deserialize_with = "null_as_default")]
    pub kind: String,
    /// The workload's name.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// `spec.service`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CanaryService {
    /// The name of the Service and the VirtualService in front of both versions.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// `spec.analysis`, as far as it says steps.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CanaryAnalysis {
    /// How many points the canary rises in each step.
    pub step_weight: Option<f64>,
    /// The canary's weights, one after the other, in place of equal steps.
    #[serde(deserialize_with = "null_as_default")]
    pub step_weights: Vec<f64>,
}

impl Canary {
    /// The name of the VirtualService, and of the Service in front of both versions.
    ///
    /// Source: `canary.go` `GetServiceNames`.
    pub fn apex(&self) -> &str {
        match self.spec.service.name.as_str() {
            "" => &self.spec.target_ref.name,
            name => name,
        }
    }
}
