//! What the cluster does without its gate.

use super::scenarios;
use crate::harness::{App, Fails, Gate, Registration, Result, Stage, virtual_service};

scenarios![a_dead_gate_stops_writes_or_lets_them_pass_as_configured];

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
