//! Who writes a Canary or a Rollout is told how a release would go.

use serde_json::{Value, json};

use super::scenarios;
use crate::harness::{ArgoRollouts, Flagger, Gate, Kubectl, Result, Stage};

scenarios![
    a_release_that_nothing_judges_is_warned_about,
    a_policy_refuses_such_a_release_to_people,
    a_canary_stops_nobody_without_a_gate,
];

fn canary(analysis: &Value) -> Value {
    json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": { "name": "podinfo" },
        "spec": {
            "targetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo" },
            "service": { "port": 80 },
            "analysis": analysis,
        },
    })
}

fn unjudged() -> Value {
    canary(&json!({ "interval": "1m", "threshold": 5, "stepWeight": 100 }))
}

fn rollout(steps: &Value) -> Value {
    let labels = json!({ "app": "demo" });
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": { "name": "demo" },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "demo", "image": "example.com/demo" }] },
            },
            "strategy": { "canary": {
                "stableService": "demo-stable", "canaryService": "demo-canary", "steps": steps,
                "trafficRouting": { "istio": { "virtualService": { "name": "demo" } } },
            } },
        },
    })
}

fn patch(kubectl: &Kubectl, kind: &str, name: &str, flags: &[&str], change: &Value) -> Result {
    let change = change.to_string();
    let patch = ["patch", kind, name, "--type=merge", "-p", &change];
    kubectl.run(&[&patch[..], flags].concat())?.succeeded()?;
    Ok(())
}

fn install(stage: &Stage) -> Result {
    Flagger::install(stage.plane()?)?;
    ArgoRollouts::install(stage.plane()?)
}

fn a_release_that_nothing_judges_is_warned_about(stage: &Stage) -> Result {
    install(stage)?;
    let plane = stage.plane()?;
    let gate = Gate::start(plane, "deliveries")?;
    gate.registration(plane, "deliveries").create_documented(plane)?.wait()?;
    let kubectl = plane.namespace("deliveries", Some("deliveries"))?;
    let warned = kubectl.apply(&unjudged())?;
    warned.warned(&[
        "spec.analysis.metrics: there are no metrics",
        "from 0 % to 100 % in one step",
    ])?;
    let warned = kubectl.apply(&rollout(&json!([])))?;
    warned.warned(&["delivery-config: spec.strategy.canary.steps: there are no steps"])?;
    let steps = json!([{ "setWeight": 20 }, { "pause": {} }, { "setWeight": 60 }, { "pause": {} }]);
    kubectl.apply(&rollout(&steps))?.succeeded()?.without_warnings()?;

    // A controller's notes are not asked about, nor is anything else that leaves the spec as it is.
    let before = gate.reviews()?;
    let status = ["--subresource=status"];
    let progress = json!({ "status": {
        "phase": "Progressing", "canaryWeight": 0, "failedChecks": 0, "iterations": 0,
    } });
    patch(&kubectl, "canaries.flagger.app", "podinfo", &status, &progress)?;
    let abort = json!({ "status": { "abort": true } });
    patch(&kubectl, "rollouts.argoproj.io", "demo", &status, &abort)?;
    let finalizer = json!({ "metadata": { "finalizers": ["finalizer.flagger.app"] } });
    patch(&kubectl, "canaries.flagger.app", "podinfo", &[], &finalizer)?;
    let none = json!({ "metadata": { "finalizers": null } });
    patch(&kubectl, "canaries.flagger.app", "podinfo", &[], &none)?;
    kubectl.run(&["delete", "canaries.flagger.app", "podinfo"])?.succeeded()?;
    match gate.reviews()? {
        after if after == before => Ok(()),
        after => {
            Err(format!("asked {} times about what leaves the spec alone", after - before).into())
        }
    }
}

fn a_policy_refuses_such_a_release_to_people(stage: &Stage) -> Result {
    install(stage)?;
    let plane = stage.plane()?;
    let policy = json!({ "rules": { "delivery-config": { "action": "Deny" } } });
    let gate = Gate::start_with(plane, "strict-deliveries", &policy)?;
    gate.registration(plane, "strict-deliveries").create_documented(plane)?.wait()?;
    let kubectl = plane.namespace("strict-deliveries", Some("strict-deliveries"))?;
    kubectl.apply(&unjudged())?.refused(&["deliveries.sluicegate.dev", "there are no metrics"])?;
    kubectl.apply(&rollout(&json!([])))?.refused(&["there are no steps"])?;
    // The tool's own account is told, and not stopped.
    let flagger = ["--as", Flagger::ACCOUNT];
    kubectl.apply_with(&flagger, &unjudged())?.warned(&["there are no metrics"])?;
    let argo = ["--as", ArgoRollouts::ACCOUNT];
    kubectl.apply_with(&argo, &rollout(&json!([])))?.warned(&["there are no steps"])?;
    // What is stored already keeps nobody from the next release.
    let revision =
        json!({ "spec": { "template": { "metadata": { "annotations": { "revision": "2" } } } } });
    patch(&kubectl, "rollouts.argoproj.io", "demo", &[], &revision)
}

fn a_canary_stops_nobody_without_a_gate(stage: &Stage) -> Result {
    install(stage)?;
    let plane = stage.plane()?;
    let mut gate = Gate::start(plane, "gone-deliveries")?;
    gate.registration(plane, "gone-deliveries").create_documented(plane)?.wait()?;
    let kubectl = plane.namespace("gone-deliveries", Some("gone-deliveries"))?;
    gate.kill()?;
    kubectl.apply(&unjudged())?.succeeded()?;
    kubectl.apply(&rollout(&json!([])))?.succeeded()?;
    Ok(())
}
