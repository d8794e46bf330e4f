//! The words of values: strings and numbers of a certain form.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Labels or annotations.
pub(super) type Words = BTreeMap<String, String>;

/// What Kubernetes checks better than a chart could.
pub(super) type Anything = Map<String, Value>;

/// A number or a percentage.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)]
pub(super) enum NumberOrPercent {
    Number(#[schemars(range(min = 0))] u32),
    Percent(#[schemars(regex(pattern = r"^(100|[1-9]?[0-9])%$"))] String),
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) enum FailurePolicy {
    Fail,
    Ignore,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum CertificateMode {
    SelfManaged,
    CertManager,
    ExistingSecret,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) enum ConfigAccess {
    Cluster,
    Namespace,
    None,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum LogFormat {
    Json,
    Text,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) enum IpFamilyPolicy {
    #[serde(rename = "")]
    Default,
    SingleStack,
    PreferDualStack,
    RequireDualStack,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) enum DnsPolicy {
    #[serde(rename = "")]
    ByNetwork,
    ClusterFirst,
    ClusterFirstWithHostNet,
    Default,
    None,
}

/// A Secret, by its name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct Named {
    #[schemars(length(min = 1))]
    pub(super) name: String,
}

/// A condition in CEL.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct MatchCondition {
    #[schemars(length(min = 1, max = 63))]
    pub(super) name: String,
    #[schemars(length(min = 1))]
    pub(super) expression: String,
}
