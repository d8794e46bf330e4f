//! A rollback passes, whatever is broken.

use super::scenarios;
use crate::harness::{App, Gate, Proxy, Result, Stage, virtual_service};

scenarios![
    a_rollback_passes_while_the_canary_is_down,
    a_rollback_passes_while_the_watches_are_cut,
    a_rollback_passes_a_gate_that_never_saw_the_cluster,
];

/// Uneven, so that even a gate that sees nothing else can tell the stable side.
const BEFORE: &[(&str, u32)] = &[("v1", 60), ("v2", 40)];

fn a_rollback_passes_while_the_canary_is_down(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("canary-down")?, BEFORE)?;
    app.set_ready("v2", false)?;
    app.apply(&virtual_service(&[("v1", 50), ("v2", 50)]))?.refused(&["subset-ready"])?;
    app.apply(&virtual_service(&[("v1", 100), ("v2", 0)]))?.succeeded()?;
    app.must_store("v1=100 v2=0")
}

fn a_rollback_passes_while_the_watches_are_cut(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    let proxy = Proxy::start(plane.api_port())?;
    let gate = Gate::start_through(plane, "cut", proxy.port())?;
    gate.register(plane, "cut")?;
    let app = App::serving(plane.namespace("cut", Some("cut"))?, BEFORE)?;

    proxy.cut();
    app.apply(&virtual_service(&[("v1", 0), ("v2", 100)]))?.refused(&[])?;
    app.must_store("v1=60 v2=40")?;
    app.apply(&virtual_service(&[("v1", 100), ("v2", 0)]))?.succeeded()?;
    app.must_store("v1=100 v2=0")
}

fn a_rollback_passes_a_gate_that_never_saw_the_cluster(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    let app = App::serving(plane.namespace("blind", Some("blind"))?, BEFORE)?;
    let proxy = Proxy::start(plane.api_port())?;
    proxy.cut();
    let gate = Gate::start_blind(plane, "blind", proxy.port())?;
    gate.register(plane, "blind")?;

    app.apply(&virtual_service(&[("v1", 30), ("v2", 70)]))?.refused(&[])?;
    app.must_store("v1=60 v2=40")?;
    app.apply(&virtual_service(&[("v1", 100), ("v2", 0)]))?.succeeded()?;
    app.must_store("v1=100 v2=0")
}
