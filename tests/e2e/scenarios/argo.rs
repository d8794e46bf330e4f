//! The real Argo Rollouts behind the gate, and a person who gets in its way.

use serde_json::json;

use super::scenarios;
use crate::harness::{ArgoRollouts, Gate, Result, Stage};

scenarios![argo_rollouts_goes_its_own_way];

/// In a step that no person may take, through promotion, and back by an abort.
fn argo_rollouts_goes_its_own_way(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    ArgoRollouts::install(plane)?;
    let gate = Gate::start(plane, "argo")?;
    gate.registration(plane, "argo").create_documented(plane)?.wait()?;
    let kubectl = plane.namespace("argo-steps", Some("argo"))?;
    let argo =
        ArgoRollouts::deploy(plane, kubectl, &json!([{ "setWeight": 80 }, { "pause": {} }]))?;

    argo.change_template("2")?;
    argo.until_weights("stable=20 canary=80")?;
    argo.until_phase("Paused")?;
    let weigh = |stable: u32, canary: u32| {
        let change = json!([
            { "op": "replace", "path": "/spec/http/0/route/0/weight", "value": stable },
            { "op": "replace", "path": "/spec/http/0/route/1/weight", "value": canary },
        ]);
        let kind = "virtualservices.v1.networking.istio.io";
        argo.kubectl.run(&["patch", kind, "demo", "--type=json", "-p", &change.to_string()])
    };
    weigh(10, 90)?.refused(&[
        "managed-weights",
        "Rollout argo-steps/demo drives it",
        "kubectl argo rollouts promote demo -n argo-steps",
    ])?;
    // A rollback by hand passes, and the controller writes its own weight back: a raise that must pass, too.
    weigh(100, 0)?.succeeded()?;
    argo.until_weights("stable=20 canary=80")?;
    argo.promote()?;
    argo.until_phase("Healthy")?;
    argo.until_weights("stable=100 canary=0")?;

    argo.change_template("3")?;
    argo.until_weights("stable=20 canary=80")?;
    argo.until_phase("Paused")?;
    argo.abort()?;
    argo.until_weights("stable=100 canary=0")?;
    argo.until_phase("Degraded")?;

    argo.was_never_refused()?;
    let log = gate.log()?;
    let is_refusal = |line: &&str| line.contains("refused") && line.contains(ArgoRollouts::ACCOUNT);
    match log.lines().find(is_refusal) {
        Some(line) => Err(format!("the gate refused Argo Rollouts: {line}").into()),
        None => Ok(()),
    }
}
