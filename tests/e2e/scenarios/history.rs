//! What the gate remembers outlives its replicas.

use std::time::Duration;

use super::scenarios;
use crate::harness::{
    App, Gate, Kubectl, Proxy, Registration, Result, Stage, destination_rule, eventually,
    virtual_service,
};

scenarios![blue_and_green_go_back_and_forth];

/// The namespace of the ConfigMap and the Lease, of this scenario's gates alone.
const MEMORY: &str = "memory";
const ARGUMENTS: [&str; 2] = ["--memory-namespace", MEMORY];

/// What a person reads whose rollback is known by the history.
const WAY_BACK: &str = "taken as a rollback, because it carried most of these requests until";

fn all_to(colour: &str) -> serde_json::Value {
    virtual_service(&[(colour, 100)])
}

fn in_steps(app: &App, to: &str, from: &str) -> Result {
    app.apply(&virtual_service(&[(from, 50), (to, 50)]))?.succeeded()?;
    app.apply(&all_to(to))?.succeeded()?;
    app.settle();
    Ok(())
}

fn restart_both(app: &App) -> Result {
    for colour in ["blue", "green"] {
        let deployment = format!("deployment/reviews-{colour}");
        app.kubectl.run(&["rollout", "restart", &deployment])?.succeeded()?;
    }
    app.settle();
    Ok(())
}

fn new_version(app: &App, colour: &str, version: &str) -> Result {
    let deployment = format!("deployment/reviews-{colour}");
    let image = format!("reviews=example.com/reviews:{version}");
    app.kubectl.run(&["set", "image", &deployment, &image])?.succeeded()?;
    app.settle();
    Ok(())
}

/// The last line of what is kept says that this colour carries now.
fn is_kept(memory: &Kubectl, colour: &str) -> Result<bool> {
    let text =
        memory.run(&["get", "configmap", "sluicegate", "-o", "jsonpath={.data.history\\.json}"])?;
    let kept: serde_json::Value = serde_json::from_str(text.stdout()).unwrap_or_default();
    let routes = kept["routes"].as_array().cloned().unwrap_or_default();
    let own = routes.iter().find(|own| own["namespace"] == "blue-green");
    let last = own.and_then(|own| own["reigns"].as_array()?.last().cloned());
    Ok(last.is_some_and(|last| last["subset"] == colour && last["until"].is_null()))
}

fn blue_and_green_go_back_and_forth(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    let memory = plane.allow_gates_to_remember(MEMORY)?;
    let start = |name: &str| Gate::start_as(plane, name, plane.api_port(), &ARGUMENTS);
    let (mut first, mut second) = (start("memory-a")?, start("memory-b")?);
    let service = Proxy::start(first.port())?;
    let front = Registration { port: service.port(), ..first.registration(plane, MEMORY) };
    front.create(plane)?.wait()?;

    let app = App::deploy(plane.namespace("blue-green", Some(MEMORY))?, &["blue", "green"])?;
    app.apply(&destination_rule(&["blue", "green"]))?.succeeded()?;
    new_version(&app, "blue", "1")?;
    new_version(&app, "green", "2")?;
    app.apply(&all_to("blue"))?.succeeded()?;
    app.settle();

    // Forth in steps, back at once.
    app.apply(&all_to("green"))?.refused(&["canary-step"])?;
    in_steps(&app, "green", "blue")?;
    restart_both(&app)?;
    app.apply(&all_to("blue"))?.succeeded()?.warned(&[WAY_BACK])?;
    app.settle();

    // Green comes with another version; all replicas are replaced while it carries everything.
    new_version(&app, "green", "3")?;
    app.apply(&all_to("green"))?.refused(&[
        "canary-step",
        "as example.com/reviews:2",
        "a new version",
    ])?;
    in_steps(&app, "green", "blue")?;
    restart_both(&app)?;
    let third = start("memory-c")?;
    service.lead_to(third.port());
    for gate in [&mut first, &mut second] {
        gate.terminate()?;
        eventually("a gate ends", Duration::from_secs(10), || gate.has_ended())?;
    }
    let mut fourth = start("memory-d")?;
    service.lead_to(fourth.port());
    drop(third);
    app.apply(&all_to("blue"))?.succeeded()?.warned(&[WAY_BACK])?;
    app.settle();

    // And once more, with replicas that are killed as soon as what they saw is kept.
    new_version(&app, "green", "4")?;
    app.apply(&all_to("green"))?.refused(&[
        "canary-step",
        "as example.com/reviews:3",
        "a new version",
    ])?;
    in_steps(&app, "green", "blue")?;
    restart_both(&app)?;
    eventually("it is kept", Duration::from_secs(30), || is_kept(&memory, "green"))?;
    fourth.kill()?;
    let fifth = start("memory-e")?;
    service.lead_to(fifth.port());
    app.apply(&all_to("blue"))?.succeeded()?.warned(&[WAY_BACK])?;
    app.must_store("blue=100")
}
