//! The real Argo Rollouts behind the gate, and a person who gets in its way.

use std::thread;
use std::time::Duration;

use serde_json::json;

use super::scenarios;
use crate::harness::{ArgoRollouts, Gate, Proxy, Registration, Result, Stage, eventually};

scenarios![
    argo_rollouts_goes_its_own_way,
    argo_rollouts_puts_its_own_routes_in_front,
    argo_rollouts_outlives_a_gate,
    argo_rollouts_goes_on_without_a_gate,
];

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
    argo.weigh(10, 90)?.refused(&[
        "managed-weights",
        "Rollout argo-steps/demo drives it",
        "kubectl argo rollouts promote demo -n argo-steps",
    ])?;
    // A rollback by hand passes, and the controller writes its own weight back: a raise that must pass, too.
    argo.weigh(100, 0)?.succeeded()?;
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
    gate.refused_nothing_of(ArgoRollouts::ACCOUNT)
}

/// With two Services: a route for a header, a mirror, and an abort that takes both away before it turns the weights.
fn argo_rollouts_puts_its_own_routes_in_front(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    ArgoRollouts::install(plane)?;
    let gate = Gate::start(plane, "argo-routes")?;
    gate.registration(plane, "argo-routes").create_documented(plane)?.wait()?;
    let kubectl = plane.namespace("argo-routes", Some("argo-routes"))?;
    let header = json!({ "headerName": "x-canary", "headerValue": { "exact": "true" } });
    let steps = json!([
        { "setCanaryScale": { "replicas": 1 } },
        { "setHeaderRoute": { "name": "header-route", "match": [header] } },
        { "setMirrorRoute": { "name": "mirror-route", "percentage": 35, "match": [{ "method": { "exact": "GET" } }] } },
        { "pause": {} },
        { "setCanaryScale": { "matchTrafficWeight": true } },
        { "setWeight": 90 },
        { "pause": {} },
    ]);
    let managed = ["header-route", "mirror-route"];
    let argo = ArgoRollouts::deploy_services(plane, kubectl, &managed, &steps)?;
    argo.change_template("2")?;
    argo.until_phase("Paused")?;
    argo.until_routes("header-route mirror-route primary")?;
    argo.promote()?;
    argo.until_weights("demo-stable=10 demo-canary=90")?;
    argo.abort()?;
    argo.until_weights("demo-stable=100 demo-canary=0")?;
    argo.until_routes("primary")?;
    argo.was_never_refused()?;
    gate.refused_nothing_of(ArgoRollouts::ACCOUNT)
}

/// Where every webhook fails closed the controller's writes fail while no gate answers, and as soon as one does it goes on.
fn argo_rollouts_outlives_a_gate(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    ArgoRollouts::install(plane)?;
    let mut first = Gate::start(plane, "mortal")?;
    let service = Proxy::start(first.port())?;
    let front = Registration { port: service.port(), ..first.registration(plane, "mortal") };
    front.create(plane)?.wait()?;
    let kubectl = plane.namespace("argo-outlives", Some("mortal"))?;
    let argo =
        ArgoRollouts::deploy(plane, kubectl, &json!([{ "setWeight": 80 }, { "pause": {} }]))?;
    argo.change_template("2")?;
    argo.until_weights("stable=20 canary=80")?;
    argo.until_phase("Paused")?;
    first.kill()?;
    argo.promote()?;
    eventually("a write of the controller fails", Duration::from_secs(30), || argo.met_no_gate())?;
    thread::sleep(Duration::from_secs(1));
    argo.until_weights("stable=20 canary=80")?;
    let second = Gate::start(plane, "successor")?;
    service.lead_to(second.port());
    argo.until_phase("Healthy")?;
    argo.until_weights("stable=100 canary=0")?;
    argo.was_never_refused()?;
    second.refused_nothing_of(ArgoRollouts::ACCOUNT)
}

/// As the manual registers it a gate that is gone stops people and no controller.
fn argo_rollouts_goes_on_without_a_gate(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    ArgoRollouts::install(plane)?;
    let mut gate = Gate::start(plane, "gone")?;
    gate.registration(plane, "gone").create_documented(plane)?.wait()?;
    let kubectl = plane.namespace("argo-alone", Some("gone"))?;
    let argo =
        ArgoRollouts::deploy(plane, kubectl, &json!([{ "setWeight": 80 }, { "pause": {} }]))?;
    argo.change_template("2")?;
    argo.until_weights("stable=20 canary=80")?;
    argo.until_phase("Paused")?;
    gate.kill()?;
    argo.weigh(10, 90)?.refused(&["failed calling webhook"])?;
    argo.promote()?;
    argo.until_phase("Healthy")?;
    argo.until_weights("stable=100 canary=0")
}
