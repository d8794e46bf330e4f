//! The schema of a policy takes what the parser takes and refuses what it refuses.

use std::fs;
use std::path::Path;

use jsonschema::Validator;
use serde_json::{Value, json};
use sluicegate::policy::{Policy, schema};
use sluicegate::{cluster, rules};

use crate::desk::Desk;

fn validator() -> Validator {
    jsonschema::draft202012::new(&schema(rules::ALL)).expect("a schema")
}

fn parses(spec: &Value) -> bool {
    Policy::parse(rules::ALL, "tried", spec.clone()).is_ok()
}

/// What is wrong with it by the schema.
fn complaints(validator: &Validator, spec: &Value) -> String {
    let all = validator.iter_errors(spec);
    all.map(|error| format!("{}: {error}\n", error.instance_path())).collect()
}

/// The specs in a text, and how many.
fn specs(text: &str) -> Vec<Value> {
    let documents = cluster::parse("policy", text).expect("YAML").into_iter();
    documents.map(|own| own.value.get("spec").cloned().unwrap_or(own.value)).collect()
}

#[test]
fn every_policy_of_the_manual_is_valid() {
    let validator = validator();
    let manual = include_str!("../../docs/policy.md");
    let blocks = manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let all = blocks.flat_map(specs).collect::<Vec<_>>();
    assert!(!all.is_empty(), "docs/policy.md shows no policy");
    for spec in all {
        assert!(validator.is_valid(&spec), "{}", complaints(&validator, &spec));
    }
}

#[test]
fn every_policy_of_a_case_is_valid() {
    let validator = validator();
    let mut count = 0;
    for folder in
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")).expect("cases")
    {
        for file in fs::read_dir(folder.expect("a folder").path()).into_iter().flatten() {
            let path = file.expect("a file").path();
            let text = fs::read_to_string(&path).expect("a case");
            let Some(line) = text.lines().find_map(|line| line.strip_prefix("policy: ")) else {
                continue;
            };
            for spec in specs(line) {
                let name = path.display();
                assert!(validator.is_valid(&spec), "{name}: {}", complaints(&validator, &spec));
                count += 1;
            }
        }
    }
    assert!(count >= 50, "{count}");
}

#[test]
fn nonsense_is_refused_by_the_schema_and_by_the_parser() {
    let validator = validator();
    for spec in [
        json!({"steps": {"max": 10}}),
        json!({"step": {"maximum": 10}}),
        json!({"step": {"max": 500}}),
        json!({"step": {"max": -1}}),
        json!({"step": {"initial": 101}}),
        json!({"step": {"ladder": [5, 120]}}),
        json!({"step": {"ladder": "5"}}),
        json!({"step": {"max": "20"}}),
        json!({"mode": "enforce"}),
        json!({"mode": null}),
        json!({"precedence": 1.5}),
        json!({"match": {"namespaces": ["shop"]}}),
        json!({"match": {"hosts": "reviews"}}),
        json!({"match": {"namespaceSelector": {"labels": {}}}}),
        json!({"match": {"objectSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}}),
        json!({"match": {"objectSelector": {"matchExpressions": [{"operator": "Exists"}]}}}),
        json!({"roles": {"stable": "blue"}}),
        json!({"controllers": {"argo": []}}),
        json!({"dryRun": {"enforceReferences": "yes"}}),
        json!({"rules": {"canary-stop": {}}}),
        json!({"rules": {"canary-step": {"max": 20}}}),
        json!({"rules": {"canary-step": {"action": "deny"}}}),
        json!({"rules": {"canary-step": null}}),
        json!({"rules": {"canary-step": "Off"}}),
        json!({"rules": {"structure": {"action": "Off"}}}),
        json!({"rules": {"structure": {"action": "Warn"}}}),
        json!({"rules": {"capacity": {"maxFactor": 0.5}}}),
        json!({"rules": {"capacity": {"minFactor": 2}}}),
        json!({"rules": {"fault-injection": {"max": 101}}}),
        json!({"rules": {"mirror-target": {"max": -1}}}),
        json!({"rules": {"subset-ready": {"minReady": -1}}}),
        json!({"rules": {"subset-ready": {"minReady": 1.5}}}),
        json!({"rules": {"weight-sum": {"total": "absolute"}}}),
        json!("Enforce"),
    ] {
        assert!(!parses(&spec), "the parser takes {spec}");
        assert!(!validator.is_valid(&spec), "the schema takes {spec}");
    }
}

#[test]
fn what_is_at_the_edge_is_taken_by_both() {
    let validator = validator();
    for spec in [
        json!({}),
        json!({"step": {"max": 0, "initial": 100, "ladder": []}}),
        json!({"step": {"max": null}, "match": {"namespaceSelector": null}}),
        json!({"mode": "Audit", "precedence": -3}),
        json!({"rules": {"structure": {"action": "Deny"}, "canary-step": {"action": "Off"}}}),
        json!({"rules": {"weight-sum": {"total": 1000}, "capacity": {"maxFactor": 1}}}),
        json!({"rules": {"weight-sum": {"total": "relative", "action": "Audit"}}}),
    ] {
        assert!(parses(&spec), "the parser refuses {spec}");
        assert!(validator.is_valid(&spec), "{spec}: {}", complaints(&validator, &spec));
    }
}

/// Closed on every level, and every field says what it means: what Helm's users get to see.
fn check_object(at: &str, schema: &Value) {
    let is_map = schema["additionalProperties"].is_object();
    if let Some(properties) = schema["properties"].as_object() {
        assert_eq!(schema["additionalProperties"], json!(false), "{at} is open");
        for (name, own) in properties {
            let at = format!("{at}.{name}");
            let words = own["description"].as_str().unwrap_or_default();
            assert!(words.len() > 8 && !words.contains("[`"), "{at} says {words:?}");
            check_object(&at, own);
        }
    } else {
        let is_object = schema["type"] == "object" && !is_map;
        assert!(!is_object, "{at} has neither fields nor a kind of values");
    }
    if schema["items"].is_object() {
        check_object(&format!("{at}[]"), &schema["items"]);
    }
    assert!(schema["$ref"].is_null() && schema["$defs"].is_null(), "{at} needs another part");
}

#[test]
fn the_schema_is_closed_and_says_what_every_field_means() {
    let schema = schema(rules::ALL);
    check_object("spec", &schema);
    let own = schema["properties"]["rules"]["properties"].as_object().expect("rules");
    for entry in rules::ALL {
        let action = &own[entry.id]["properties"]["action"];
        let wanted = if entry.id == "structure" { 1 } else { 4 };
        assert_eq!(action["enum"].as_array().map(Vec::len), Some(wanted), "{}", entry.id);
    }
}

#[test]
fn the_command_prints_the_schema() {
    let answer = Desk::with(&[]).run(&["schema", "policy"]);
    assert_eq!(answer.code(), 0, "{}", answer.err());
    assert_eq!(answer.json(), schema(rules::ALL));
}
