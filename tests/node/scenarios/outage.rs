//! Replicas of the gate come and go, until none is left.

use std::time::Duration;

use serde_json::json;

use super::scenarios;
use crate::cluster::{App, Gate};
use crate::harness::{Result, eventually, virtual_service};
use crate::{Running, Stage};

scenarios![replicas_are_replaced_without_a_lost_write_and_come_back_when_killed];

const SOON: Duration = Duration::from_secs(60);

/// On a node of its own: the others want their gate.
fn replicas_are_replaced_without_a_lost_write_and_come_back_when_killed(stage: &Stage) -> Result {
    let _turn = stage.turn();
    let Running { node, gate } = &Running::start()?;
    let app = App::serving(node.namespace("outage")?, &[("v1", 99), ("v2", 1)])?;
    no_write_is_lost_while_replicas_are_replaced(gate, &app)?;
    killed_replicas_come_back_by_themselves(gate, &app)?;
    controllers_go_on_without_a_gate(gate, &app)
}

fn no_write_is_lost_while_replicas_are_replaced(gate: &Gate, app: &App) -> Result {
    let before = gate.pods()?;
    gate.restart()?;
    let mut weight = 1;
    // Until the last of the old ones has ended, which is some time after the new ones are ready.
    eventually("all replicas are new", SOON, || {
        weight = weight % 40 + 1;
        // At the first try.
        let step = virtual_service(&[("v1", 100 - weight), ("v2", weight)]);
        app.kubectl.apply(&step)?.succeeded()?;
        Ok(gate.pods()?.iter().all(|pod| !before.contains(pod)))
    })?;
    gate.until_ready(2)?;
    app.apply(&virtual_service(&[("v1", 99), ("v2", 1)]))?.succeeded()?;
    Ok(())
}

fn killed_replicas_come_back_by_themselves(gate: &Gate, app: &App) -> Result {
    let before = gate.pods()?;
    gate.kill_all()?;
    let step = virtual_service(&[("v1", 95), ("v2", 5)]);
    let mut said = String::new();
    eventually("a write finds no gate", SOON, || {
        let answer = app.kubectl.apply_with(&["--dry-run=server"], &step)?;
        said = answer.stderr().to_owned();
        Ok(!answer.is_success())
    })?;
    // What a client may try again, and no verdict.
    if !said.contains("failed calling webhook \"validate.sluicegate.dev\"") {
        return Err(format!("refused in other words: {said}").into());
    }
    gate.until_ready(2)?;
    if gate.pods()?.iter().any(|pod| before.contains(pod)) {
        return Err(format!("{before:?} were to be killed").into());
    }
    eventually("the write passes", SOON, || Ok(app.apply(&step)?.is_success()))?;
    app.apply(&virtual_service(&[("v1", 1), ("v2", 99)]))?.refused(&["canary-step"])?;
    Ok(())
}

fn controllers_go_on_without_a_gate(gate: &Gate, app: &App) -> Result {
    gate.scale(0)?;
    let taken_back = virtual_service(&[("v1", 100), ("v2", 0)]);
    eventually("nobody answers", SOON, || {
        let answer = app.kubectl.apply_with(&["--dry-run=server"], &taken_back)?;
        Ok(answer.stderr().contains("failed calling webhook"))
    })?;
    // A delivery controller can take its canary back all the same. What its own account may do is not the question here.
    let change = json!({ "spec": taken_back["spec"] }).to_string();
    let kind = "virtualservices.v1.networking.istio.io";
    let write = ["patch", kind, "reviews", "--type=merge", "-p", &change];
    let flagger = "--as=system:serviceaccount:istio-system:flagger";
    let group = "--as-group=system:masters";
    app.kubectl.run(&[&write[..], &[flagger, group]].concat())?.succeeded()?;
    app.must_store("v1=100 v2=0")
}
