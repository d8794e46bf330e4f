//! What the gate remembers outlives restarts: of the workloads and of itself.

use std::time::Duration;

use serde_json::Value;

use super::scenarios;
use crate::cluster::{App, Gate, Image, Node};
use crate::harness::{Result, destination_rule, eventually, programs, virtual_service};
use crate::{Running, Stage};

scenarios![blue_and_green_go_back_and_forth_over_restarts];

const SOON: Duration = Duration::from_secs(60);

const WAY_BACK: &str = "taken as a rollback, because it carried most of these requests until";

/// On a node of its own: the others want their gate.
fn blue_and_green_go_back_and_forth_over_restarts(stage: &Stage) -> Result {
    let _turn = stage.turn();
    let Running { node, gate } = &Running::start()?;
    import_versions(node)?;
    let app = App::deploy(node.namespace("blue-green")?, &["blue", "green"])?;
    app.apply(&destination_rule(&["blue", "green"]))?.succeeded()?;
    new_version(&app, "blue", 1)?;
    new_version(&app, "green", 2)?;
    app.apply(&all_to("blue"))?.succeeded()?;
    jump_is_refused(&app, "green", "")?;
    in_steps(&app, "green", "blue")?;
    restart_both(&app)?;
    app.apply(&all_to("blue"))?.warned(&[WAY_BACK])?;

    // Green comes with another version, and all replicas of the gate are replaced while it carries everything.
    new_version(&app, "green", 3)?;
    jump_is_refused(&app, "green", "as sluicegate.dev/pod:2; now it is sluicegate.dev/pod:3")?;
    in_steps(&app, "green", "blue")?;
    restart_both(&app)?;
    replace(gate, Gate::restart)?;
    app.apply(&all_to("blue"))?.warned(&[WAY_BACK])?;

    // And once more, with replicas that are killed as soon as what they saw is kept.
    new_version(&app, "green", 4)?;
    jump_is_refused(&app, "green", "as sluicegate.dev/pod:3; now it is sluicegate.dev/pod:4")?;
    in_steps(&app, "green", "blue")?;
    restart_both(&app)?;
    eventually("it is kept", SOON, || is_kept(gate, "green"))?;
    replace(gate, Gate::kill_all)?;
    app.apply(&all_to("blue"))?.warned(&[WAY_BACK])?;
    app.must_store("blue=100")
}

/// The same program four times: the names are what tells versions apart.
fn import_versions(node: &Node) -> Result {
    let program = programs::find("pod")?;
    for version in 1..=4 {
        let name = format!("sluicegate.dev/pod:{version}");
        node.import_image(&Image { name: &name, program: &program, arguments: &[] })?;
    }
    Ok(())
}

fn all_to(colour: &str) -> Value {
    virtual_service(&[(colour, 100)])
}

fn in_steps(app: &App, to: &str, from: &str) -> Result {
    app.apply(&virtual_service(&[(from, 50), (to, 50)]))?.succeeded()?;
    app.apply(&all_to(to))?.succeeded()?;
    Ok(())
}

/// As soon as the gate has heard of the new version; a dry run gets the same verdict.
fn jump_is_refused(app: &App, colour: &str, words: &str) -> Result {
    let jump = all_to(colour);
    eventually("the gate knows the version", SOON, || {
        Ok(!app.kubectl.apply_with(&["--dry-run=server"], &jump)?.is_success())
    })?;
    app.apply(&jump)?.refused(&["canary-step", words])?;
    Ok(())
}

fn until_rolled_out(app: &App, colour: &str) -> Result {
    let deployment = format!("deployment/reviews-{colour}");
    app.kubectl.run(&["rollout", "status", &deployment, "--timeout=60s"])?.succeeded()?;
    Ok(())
}

fn new_version(app: &App, colour: &str, version: u32) -> Result {
    let deployment = format!("deployment/reviews-{colour}");
    let image = format!("reviews=sluicegate.dev/pod:{version}");
    app.kubectl.run(&["set", "image", &deployment, &image])?.succeeded()?;
    until_rolled_out(app, colour)
}

fn restart_both(app: &App) -> Result {
    for colour in ["green", "blue"] {
        let deployment = format!("deployment/reviews-{colour}");
        app.kubectl.run(&["rollout", "restart", &deployment])?.succeeded()?;
        until_rolled_out(app, colour)?;
    }
    Ok(())
}

/// Has every replica of the gate give way to another one.
fn replace(gate: &Gate, how: impl Fn(&Gate) -> Result) -> Result {
    let before = gate.pods()?;
    how(gate)?;
    eventually("all replicas are new", SOON, || {
        let now = gate.pods()?;
        Ok(!now.is_empty() && now.iter().all(|pod| !before.contains(pod)))
    })?;
    gate.until_ready(2)?;
    gate.until_asked()
}

/// What is kept says last that this colour carries.
fn is_kept(gate: &Gate, colour: &str) -> Result<bool> {
    let path = "jsonpath={.data.history\\.json}";
    let text = gate.kubectl.run(&["get", "configmap", "sluicegate", "-o", path])?.succeeded()?;
    let kept: Value = serde_json::from_str(text.stdout()).unwrap_or_default();
    let routes = kept["routes"].as_array().cloned().unwrap_or_default();
    let own = routes.iter().find(|own| own["namespace"] == "blue-green");
    let last = own.and_then(|own| own["reigns"].as_array()?.last().cloned());
    Ok(last.is_some_and(|last| last["subset"] == colour && last["until"].is_null()))
}
