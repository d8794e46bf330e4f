//! The values of the chart as types: what may stand in values.yaml, and where values.schema.json comes from.
//!
//! `UPDATE_EXPECT=1 cargo test --test offline values` writes the schema; the comments here are its descriptions.

mod gate;
mod objects;
mod words;

use std::fs;
use std::path::PathBuf;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate::policy::{self, PolicySpec};
use sluicegate::rules;

use self::words::{Anything, DnsPolicy, Words};

/// Values of the chart sluicegate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
struct Values {
    /// The name of the chart in names and labels.
    name_override: String,
    /// The name of everything; by default the release's.
    fullname_override: String,
    /// Labels for every object.
    common_labels: Words,
    /// Annotations for every object.
    common_annotations: Words,
    image: objects::Image,
    /// How many Pods.
    #[schemars(range(min = 1))]
    replicas: u16,
    /// Allows one replica although failurePolicy Fail is set.
    allow_single_replica: bool,
    /// How many old ReplicaSets a rollback may go back to.
    revision_history_limit: u16,
    /// Seconds that a new Pod must be ready before the next old one goes.
    min_ready_seconds: u16,
    update_strategy: objects::UpdateStrategy,
    #[schemars(schema_with = "policy_schema")]
    policy: PolicySpec,
    webhook: gate::Webhook,
    certificates: gate::Certificates,
    gate: gate::Gate,
    mesh: gate::Mesh,
    service_account: objects::ServiceAccount,
    rbac: objects::Rbac,
    /// Labels of the Pods.
    pod_labels: Words,
    /// Annotations of the Pods.
    pod_annotations: Words,
    /// The priority class of the Pods; empty: none.
    priority_class_name: String,
    resource_quota: objects::ResourceQuota,
    /// Requests and limits of the Pods.
    resources: Anything,
    /// Labels of the nodes.
    node_selector: Words,
    /// Taints that the Pods stand.
    tolerations: Vec<Anything>,
    /// Affinity; the spread is there anyway.
    affinity: Anything,
    /// Constraints that take the place of the default: spread over hosts and zones as far as possible.
    topology_spread_constraints: Vec<Anything>,
    /// The Pods use the node's network.
    host_network: bool,
    /// By default ClusterFirst, with hostNetwork ClusterFirstWithHostNet.
    dns_policy: DnsPolicy,
    /// The user and group of every container.
    #[schemars(range(min = 1))]
    run_as_user: u32,
    /// Longer than gate.shutdownDelaySeconds and the ten seconds for what is in flight then.
    termination_grace_period_seconds: u16,
    probes: objects::Probes,
    service: objects::Service,
    pod_disruption_budget: objects::PodDisruptionBudget,
    network_policy: objects::NetworkPolicy,
    service_monitor: objects::Monitor,
    pod_monitor: objects::Monitor,
    prometheus_rule: objects::PrometheusRule,
    dashboard: objects::Dashboard,
    flow_schema: objects::FlowSchema,
    uninstall: objects::Uninstall,
    self_test: objects::SelfTest,
    vap: objects::Vap,
    /// Of an umbrella chart: the key of its `condition`, which is not read here.
    enabled: Option<bool>,
    /// Of an umbrella chart: not read here.
    global: Option<Anything>,
}

/// What the gate itself says of a policy.
fn policy_schema(_: &mut SchemaGenerator) -> Schema {
    let mut schema = policy::schema(rules::ALL);
    let object = schema.as_object_mut().expect("an object");
    for key in ["$schema", "title"] {
        object.remove(key);
    }
    object["description"] =
        "The policy: the spec of a CanaryPolicy (docs/policy.md). A change is in force without a restart.".into();
    schema.try_into().expect("a schema")
}

/// Draft 7 and in one piece: what every Helm reads.
fn schema() -> Value {
    let settings = SchemaSettings::draft07().with(|own| own.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Values>().to_value();
    optional(&mut schema);
    schema["title"] = "Values of the chart sluicegate".into();
    schema
}

/// Nothing has to be set: a value that is taken away with `null` has its default or none. Items of lists are what they are.
fn optional(schema: &mut Value) {
    if let Some(object) = schema.as_object_mut() {
        object.remove("required");
        for format in ["uint8", "uint16", "uint32", "uint64", "int64", "double", "uint"] {
            if object.get("format") == Some(&json!(format)) {
                object.remove("format");
            }
        }
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(optional);
    }
}

fn chart() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("charts/sluicegate")
}

fn values_text() -> String {
    fs::read_to_string(chart().join("values.yaml")).expect("values.yaml")
}

fn values() -> Value {
    serde_saphyr::from_str(&values_text()).expect("values.yaml is YAML")
}

#[test]
fn the_schema_of_the_values_is_up_to_date() {
    let path = chart().join("values.schema.json");
    let now = serde_json::to_string_pretty(&schema()).expect("JSON") + "\n";
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &now).expect("written");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == now,
        "values.schema.json is not what tests/offline/values says: UPDATE_EXPECT=1 cargo test --test offline values"
    );
}

/// A field that is missing in values.yaml is an error here, and so is one that is too much.
#[test]
fn the_default_values_are_values() {
    serde_path_to_error::deserialize::<_, Values>(&values())
        .unwrap_or_else(|error| panic!("values.yaml: {error}"));
    let validator = jsonschema::draft7::new(&schema()).expect("a schema");
    let complaints = validator
        .iter_errors(&values())
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect::<Vec<_>>();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let policy = policy::Policy::parse(rules::ALL, "values.yaml", values()["policy"].clone());
    policy.unwrap_or_else(|error| panic!("values.yaml: {error}"));
}

/// What has no default stands there as an example, behind `# `.
#[test]
fn every_value_is_documented() {
    let (text, values) = (values_text(), values());
    let mut missing = Vec::new();
    let mut count = 0;
    for path in paths(&schema(), "") {
        count += 1;
        let name = path.rsplit('/').next().unwrap_or_default();
        let is_example = || {
            let key = format!("{name}:");
            text.lines().filter_map(|line| line.split_once('#')).any(|(_, said)| {
                said.split(|mark: char| " {,".contains(mark)).any(|word| word == key)
            })
        };
        if values.pointer(&path).is_none() && !is_example() {
            missing.push(path);
        }
    }
    assert!(missing.is_empty(), "values.yaml does not say: {missing:#?}");
    assert!(count > 150, "{count}");
}

/// Every value stands behind a comment of its own, or beside others of its kind.
#[test]
fn every_block_of_values_has_a_comment() {
    let text = values_text();
    let mut before = "";
    for line in text.lines() {
        let is_top = line.split_once(':').is_some_and(|(key, _)| {
            !key.is_empty() && key.chars().all(|letter| letter.is_ascii_alphanumeric())
        });
        let opens = line.ends_with(':');
        assert!(
            !is_top || opens || before.trim_start().starts_with('#'),
            "no comment in front of {line:?}"
        );
        before = line;
    }
}

/// Where a schema has properties, as JSON pointers.
fn paths(schema: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, own) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{at}/{name}");
        found.extend(paths(own, &path));
        found.push(path);
    }
    found
}
