//! Argo Rollouts comes after the gate, and the gate goes while Argo Rollouts is at work.

use std::time::Duration;

use serde_json::json;

use super::scenarios;
use crate::cluster::{App, Argo, Demo, Gate, Mode, Plan};
use crate::harness::{Result, eventually, virtual_service};
use crate::{Running, Stage};

scenarios![argo_comes_after_the_gate_and_outlives_it];

const SOON: Duration = Duration::from_secs(60);

/// Kinds that are missing are looked for every ten seconds, and a busy machine is no failure.
const HEARD: Duration = Duration::from_secs(30);

/// On a node of its own: the others want their gate, and have the kinds already.
fn argo_comes_after_the_gate_and_outlives_it(stage: &Stage) -> Result {
    let _turn = stage.turn();
    let running = Running::start()?;
    the_kinds_come_later(&running)?;
    let plan = Plan::steps(&json!([
        { "setWeight": 20 }, { "pause": {} }, { "setWeight": 80 }, { "pause": {} },
    ]));
    let argo = Argo::start(&running.node)?;
    for mode in [Mode::Subsets, Mode::Services] {
        let demo = Demo::deploy(&running.node, &argo, "outlives", mode, &plan)?;
        the_gate_is_killed_and_is_gone_for_a_while(&demo, &running.gate)?;
    }
    Ok(())
}

/// Nobody restarts the gate, and what is in the way of a person is known all the same.
fn the_kinds_come_later(running: &Running) -> Result {
    let Running { node, gate } = running;
    let app = App::serving(node.namespace("argo-later")?, &[("v1", 90), ("v2", 10)])?;
    let more = virtual_service(&[("v1", 80), ("v2", 20)]);
    let raise = || app.kubectl.apply_with(&["--dry-run=server"], &more);
    raise()?.succeeded()?;
    let before = gate.pods()?;
    Argo::install_kinds(node)?;
    app.apply(&json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": { "name": "reviews" },
        "spec": { "strategy": { "canary": { "trafficRouting": { "istio": {
            "virtualService": { "name": "reviews" },
            "destinationRule": { "name": "reviews", "stableSubsetName": "v1", "canarySubsetName": "v2" },
        }}}}},
    }))?
    .succeeded()?;
    eventually("a raise is refused", HEARD, || {
        Ok(raise()?.stderr().contains("denied the request: managed-weights: "))
    })?;
    if gate.pods()? != before {
        return Err("the gate was replaced".into());
    }
    app.kubectl.run(&["delete", "rollouts.argoproj.io", "reviews"])?.succeeded()?;
    Ok(())
}

/// As the manual registers it, a gate that is gone stops people and no controller.
fn the_gate_is_killed_and_is_gone_for_a_while(demo: &Demo<'_>, gate: &Gate) -> Result {
    demo.release(2)?;
    demo.until_paused_at(1)?;
    demo.until_weights(80, 20)?;
    gate.kill_all()?;
    demo.promote()?;
    demo.until_paused_at(3)?;
    demo.until_weights(20, 80)?;
    demo.promote()?;
    demo.until_delivered(2)?;
    gate.until_ready(2)?;

    demo.release(3)?;
    demo.until_paused_at(1)?;
    gate.scale(0)?;
    eventually("nobody answers for the gate", SOON, || {
        let answer = demo.weigh_once(&["--dry-run=server"], 70, 30)?;
        Ok(answer.stderr().contains("failed calling webhook"))
    })?;
    demo.promote()?;
    demo.until_paused_at(3)?;
    demo.until_weights(20, 80)?;
    gate.scale(2)?;
    gate.until_ready(2)?;
    gate.until_asked()?;
    demo.weigh(10, 90)?.refused(&["managed-weights"])?;
    demo.promote()?;
    demo.until_delivered(3)?;
    demo.until_weights(100, 0)?;
    demo.ends_after_an_outage(gate)
}
