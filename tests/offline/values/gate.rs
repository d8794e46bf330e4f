//! Values of the program, its certificates and its registration.

use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate::world::LabelSelector;

use super::words::{
    Anything, CertificateMode, ConfigAccess, FailurePolicy, LogFormat, MatchCondition, Words,
};

/// The ValidatingWebhookConfiguration.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct Webhook {
    /// Annotations of the ValidatingWebhookConfiguration.
    annotations: Words,
    /// Which namespaces; the gate's own and kube-system are left out whatever stands here.
    namespace_selector: LabelSelector,
    /// Further namespaces that are left out, by name.
    excluded_namespaces: Vec<String>,
    /// Which objects, by their labels.
    object_selector: LabelSelector,
    /// Further conditions in CEL, for every entry.
    match_conditions: Vec<MatchCondition>,
    /// What people and GitOps create and change.
    validate: WebhookEntry,
    /// What the accounts of policy.controllers create and change.
    controllers: WebhookEntry,
    /// Deletions.
    deletions: WebhookEntry,
    /// Canaries of Flagger and Rollouts of Argo.
    deliveries: DeliveriesEntry,
}

/// An entry of the ValidatingWebhookConfiguration.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
struct WebhookEntry {
    /// What happens to a write while no gate answers.
    failure_policy: FailurePolicy,
    /// Seconds that the API server waits.
    #[schemars(range(min = 1, max = 30))]
    timeout_seconds: u8,
}

/// The entry for delivery-config.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
struct DeliveriesEntry {
    /// false leaves the entry out.
    enabled: bool,
    /// What happens to a write while no gate answers.
    failure_policy: FailurePolicy,
    /// Seconds that the API server waits.
    #[schemars(range(min = 1, max = 30))]
    timeout_seconds: u8,
}

/// The serving certificate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct Certificates {
    /// selfManaged: the gate makes its own and renews them. certManager: cert-manager does. existingSecret: you do.
    mode: CertificateMode,
    /// For mode selfManaged.
    self_managed: SelfManaged,
    /// For mode certManager.
    cert_manager: CertManager,
    /// For mode existingSecret.
    existing_secret: ExistingSecret,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
struct SelfManaged {
    /// How long a serving certificate is good for, such as 720h; empty: as the gate chooses.
    #[schemars(regex(pattern = r"^([0-9]+(ms|s|m|h|d))*$"))]
    leaf_for: String,
    /// How long its CA is good for; empty: as the gate chooses.
    #[schemars(regex(pattern = r"^([0-9]+(ms|s|m|h|d))*$"))]
    ca_for: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
struct CertManager {
    /// The issuer; without a name the chart makes a CA of its own.
    issuer_ref: IssuerRef,
    /// How long a serving certificate is good for.
    #[schemars(regex(pattern = r"^([0-9]+(h|m|s))+$"))]
    duration: String,
    /// How long before its end it is renewed.
    #[schemars(regex(pattern = r"^([0-9]+(h|m|s))+$"))]
    renew_before: String,
}

/// An issuer of cert-manager.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(dead_code)]
struct IssuerRef {
    /// Its name.
    name: String,
    /// Issuer, ClusterIssuer or another.
    kind: String,
    /// Its API group.
    group: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
struct ExistingSecret {
    /// A Secret with tls.crt and tls.key.
    name: String,
    /// The CA of that certificate, PEM.
    ca_bundle: String,
}

/// `sluicegate serve`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct Gate {
    /// On which addresses it listens: 0.0.0.0, or :: where Pods have IPv6.
    #[schemars(regex(pattern = r"^[0-9A-Fa-f.:]+$"))]
    listen_address: String,
    /// The port that the API server reaches.
    #[schemars(range(min = 1024, max = 65535))]
    webhook_port: u16,
    /// The port of /healthz, /readyz and /metrics.
    #[schemars(range(min = 1024, max = 65535))]
    status_port: u16,
    /// Seconds for which a Pod that is told to end goes on answering.
    shutdown_delay_seconds: u16,
    /// The most reviews that are judged at once.
    #[schemars(range(min = 1))]
    max_in_flight: u32,
    /// How often, in seconds, the file of the policy is looked at.
    #[schemars(range(min = 1))]
    policy_poll_seconds: u16,
    /// json or text.
    log_format: LogFormat,
    /// What is logged, as RUST_LOG says it.
    log_filter: String,
    /// Further arguments of `sluicegate serve`.
    extra_args: Vec<String>,
    /// Further environment variables.
    extra_env: Vec<Anything>,
    /// Keeps over restarts who carried a route before.
    memory: bool,
}

/// What istiod was told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(super) struct Mesh {
    /// The mesh's domain.
    #[schemars(length(min = 1))]
    domain: String,
    /// The mesh's root namespace.
    root_namespace: String,
    /// istiod's revision.
    #[schemars(length(min = 1))]
    revision: String,
    /// The namespace of istiod and of its ConfigMap.
    istio_namespace: String,
    /// Who sees a VirtualService without exportTo.
    default_virtual_service_export_to: Vec<String>,
    /// Who sees a DestinationRule without exportTo.
    default_destination_rule_export_to: Vec<String>,
    /// Who sees a Service without exportTo.
    default_service_export_to: Vec<String>,
    /// Which namespaces istiod reads, as `kubectl get --selector` writes it.
    discovery_selectors: Vec<String>,
    /// istiod's CLUSTER_ID.
    #[schemars(length(min = 1))]
    cluster_id: String,
    /// istiod runs with ENABLE_ENHANCED_DESTINATIONRULE_MERGE=false.
    plain_destination_rule_merge: bool,
    /// Other clusters' endpoints belong to the mesh, too.
    multi_cluster: bool,
    /// How Istio's ConfigMap may be read.
    config_access: ConfigAccess,
}
