//! Values of the objects around the program.

use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate::world::LabelSelector;

use super::words::{Anything, IpFamilyPolicy, Named, NumberOrPercent, PullPolicy, Words};

/// The image.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct Image {
    /// Where the image is.
    #[schemars(length(min = 1))]
    repository: String,
    /// The tag; by default the chart's appVersion.
    #[schemars(regex(pattern = r"^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$"))]
    tag: String,
    /// sha256:...; wins over the tag.
    #[schemars(regex(pattern = r"^(sha256:[a-f0-9]{64})?$"))]
    digest: String,
    /// Always, IfNotPresent or Never.
    pull_policy: PullPolicy,
    /// Secrets for a private registry.
    pull_secrets: Vec<Named>,
}

/// How Pods are replaced.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct UpdateStrategy {
    /// Default 0; with hostNetwork 1.
    max_unavailable: Option<NumberOrPercent>,
    /// Default 1; with hostNetwork 0.
    max_surge: Option<NumberOrPercent>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct ServiceAccount {
    /// false uses one that is there.
    create: bool,
    /// Its name; by default that of everything.
    name: String,
    /// Its annotations.
    annotations: Words,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct Rbac {
    /// false where somebody else makes the roles and bindings.
    create: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct ResourceQuota {
    /// Allows Pods of system-cluster-critical in this namespace.
    enabled: bool,
    /// How many.
    #[schemars(range(min = 1))]
    pods: u32,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct Probes {
    /// How many seconds a Pod may take until its process answers.
    #[schemars(range(min = 1))]
    startup_seconds: u16,
    /// How often readiness is asked, in seconds.
    #[schemars(range(min = 1))]
    readiness_period_seconds: u16,
    /// How often liveness is asked, in seconds.
    #[schemars(range(min = 1))]
    liveness_period_seconds: u16,
    /// How many seconds an answer may take.
    #[schemars(range(min = 1))]
    timeout_seconds: u16,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct Service {
    /// Labels of the Service.
    labels: Words,
    /// Annotations of the Service.
    annotations: Words,
    /// The port that the webhook configuration names.
    #[schemars(range(min = 1, max = 65535))]
    port: u16,
    /// SingleStack, PreferDualStack or RequireDualStack; empty leaves it to the cluster.
    ip_family_policy: IpFamilyPolicy,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct PodDisruptionBudget {
    /// A drain takes one replica at a time. Only with two replicas or more.
    enabled: bool,
    /// How many replicas may be gone.
    max_unavailable: NumberOrPercent,
    /// How many have to stay, instead.
    min_available: Option<NumberOrPercent>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct NetworkPolicy {
    /// Lets in the API server and Prometheus, and out to the API server and DNS.
    enabled: bool,
    /// From where API servers come. Empty: from everywhere.
    #[serde(rename = "apiServerCIDRs")]
    #[schemars(inner(regex(pattern = r"^[0-9A-Fa-f.:]+/[0-9]+$")))]
    api_server_cidrs: Vec<String>,
    /// The ports of the API server.
    #[schemars(length(min = 1), inner(range(min = 1, max = 65535)))]
    api_server_ports: Vec<u16>,
    /// Whose Pods may read /metrics.
    monitoring_namespace_selector: LabelSelector,
    /// Further rules for what may come in.
    extra_ingress: Vec<Anything>,
    /// Further rules for what may go out.
    extra_egress: Vec<Anything>,
}

/// A ServiceMonitor or PodMonitor of the Prometheus Operator.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct Monitor {
    /// Whether there is one.
    enabled: bool,
    /// Labels, as the Prometheus asks for.
    labels: Words,
    /// How often.
    #[schemars(regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    interval: String,
    /// How long a scrape may take.
    #[schemars(regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    scrape_timeout: String,
    /// Rules for labels of series.
    metric_relabelings: Vec<Anything>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct PrometheusRule {
    /// Alerts, each with a runbook.
    enabled: bool,
    /// Labels, as the Prometheus asks for.
    labels: Words,
    /// Labels of every alert.
    alert_labels: Words,
    /// Where the runbooks are; #ALERT comes behind it.
    runbook_url: String,
    /// Days before its end at which a serving certificate that nobody renewed is an alert.
    #[schemars(range(min = 0))]
    certificate_days: f64,
    /// The share of reviews, in percent, that may be undecided or failed.
    #[schemars(range(min = 0, max = 100))]
    failed_percent: f64,
    /// Seconds that one review in a hundred may take longer.
    #[schemars(range(min = 0))]
    slow_seconds: f64,
    /// Names of alerts that are left out.
    disabled: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct Dashboard {
    /// A ConfigMap with a dashboard for Grafana's sidecar.
    enabled: bool,
    /// The label by which the sidecar finds it.
    labels: Words,
    /// Its annotations, such as a folder.
    annotations: Words,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct FlowSchema {
    /// The gate's own share of the API server.
    enabled: bool,
    /// A level that is there; by default one of its own.
    priority_level: String,
    /// The seats of that level.
    nominal_concurrency_shares: u32,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct Uninstall {
    /// Takes the webhook configuration away before the Pods go.
    enabled: bool,
    /// Seconds it may take.
    #[schemars(range(min = 1))]
    timeout_seconds: u16,
    /// Seconds it waits until every API server knows.
    settle_seconds: u16,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct SelfTest {
    /// What `helm test` runs: a review through the Service.
    enabled: bool,
    /// The namespace in which its example is said to be.
    namespace: String,
    /// Seconds it may take.
    #[schemars(range(min = 1))]
    timeout_seconds: u16,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct Vap {
    /// ValidatingAdmissionPolicies beside the webhook, for the rules that two objects alone answer.
    enabled: bool,
}
