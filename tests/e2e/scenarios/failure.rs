//! What the cluster does without its gate.

use super::scenarios;
use crate::harness::{App, Fails, Gate, Registration, Result, Stage, virtual_service};

scenarios![
    a_dead_gate_stops_writes_or_lets_them_pass_as_configured,
    the_registration_of_the_manual_guards_splits_and_nothing_else,
];

fn a_dead_gate_stops_writes_or_lets_them_pass_as_configured(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    let mut gate = Gate::start(plane, "mortal")?;
    gate.register(plane, "mortal-closed")?;
    let open = Registration { fails: Fails::Open, ..gate.registration(plane, "mortal-open") };
    open.create(plane)?.wait()?;
    let closed =
        App::serving(plane.namespace("closed", Some("mortal-closed"))?, &[("v1", 99), ("v2", 1)])?;
    let open =
        App::serving(plane.namespace("open", Some("mortal-open"))?, &[("v1", 99), ("v2", 1)])?;

    gate.kill()?;
    let step = virtual_service(&[("v1", 95), ("v2", 5)]);
    closed.apply(&step)?.refused(&["failed calling webhook"])?;
    closed.must_store("v1=99 v2=1")?;
    open.apply(&step)?.succeeded()?;
    open.must_store("v1=95 v2=5")
}

fn the_registration_of_the_manual_guards_splits_and_nothing_else(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    let mut gate = Gate::start(plane, "manual")?;
    gate.registration(plane, "manual").create_documented(plane)?.wait()?;
    let app = App::serving(plane.namespace("manual", Some("manual"))?, &[("v1", 99), ("v2", 1)])?;
    let mut swapped = virtual_service(&[("v1", 1), ("v2", 99)]);
    for version in ["v1", "v1beta1"] {
        swapped["apiVersion"] = format!("networking.istio.io/{version}").into();
        app.apply(&swapped)?.refused(&["canary-step"])?;
    }
    let rule = ["delete", "destinationrules.networking.istio.io", "reviews"];
    app.kubectl.run(&rule)?.refused(&["subset-in-use"])?;

    gate.kill()?;
    app.apply(&virtual_service(&[("v1", 95), ("v2", 5)]))?.refused(&["failed calling webhook"])?;
    let name = "virtualservices.networking.istio.io";
    app.kubectl.run(&["annotate", name, "reviews", "owner=shop"])?.succeeded()?;
    app.must_store("v1=99 v2=1")?;
    app.kubectl.run(&rule)?.succeeded()?;
    app.kubectl.run(&["delete", name, "reviews"])?.succeeded()?;
    Ok(())
}
