//! A rollback passes, whatever is broken.

use std::time::Duration;

use super::scenarios;
use crate::harness::{App, Gate, Proxy, Result, Stage, eventually, virtual_service};

scenarios![
    an_evacuation_is_seen_although_the_watch_is_held_back,
    a_rollback_passes_while_the_canary_is_down,
    a_rollback_passes_while_the_watches_are_cut,
    a_gate_that_never_saw_the_cluster_rolls_back_and_recovers,
];

/// Uneven, so that even a gate that sees nothing else can tell the stable side.
const BEFORE: &[(&str, u32)] = &[("v1", 60), ("v2", 40)];

/// What a person reads where the gate gives no verdict: the API server passes on the text of a metav1.Status.
const UNCONFIRMED: &[&str] = &[
    "failed to call webhook: Sluicegate would refuse this write, but could not confirm that with a live read",
    "endpointslices of namespace cut",
    "; try again",
];
const UNDECIDED: &[&str] = &[
    "failed to call webhook: Sluicegate cannot judge this write yet, because these kinds are not listed: ",
    "EndpointSlice",
    "; try again in a few seconds",
];

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
    app.apply(&virtual_service(&[("v1", 0), ("v2", 100)]))?.refused(UNCONFIRMED)?;
    app.must_store("v1=60 v2=40")?;
    app.apply(&virtual_service(&[("v1", 100), ("v2", 0)]))?.succeeded()?;
    app.must_store("v1=100 v2=0")
}

fn a_gate_that_never_saw_the_cluster_rolls_back_and_recovers(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    let app = App::serving(plane.namespace("blind", Some("blind"))?, BEFORE)?;
    let proxy = Proxy::start(plane.api_port())?;
    proxy.cut();
    let gate = Gate::start_blind(plane, "blind", proxy.port())?;
    gate.register(plane, "blind")?;

    let rise = virtual_service(&[("v1", 30), ("v2", 70)]);
    app.apply(&rise)?.refused(UNDECIDED)?;
    app.must_store("v1=60 v2=40")?;
    app.apply(&virtual_service(&[("v1", 100), ("v2", 0)]))?.succeeded()?;
    app.must_store("v1=100 v2=0")?;
    if gate.is_ready() {
        return Err("ready without having seen the cluster".into());
    }

    // The API server is there now; nobody restarts the gate.
    proxy.mend();
    eventually("the gate is ready", Duration::from_secs(60), || Ok(gate.is_ready()))?;
    app.apply(&rise)?.refused(&["canary-step"])?;
    app.apply(&virtual_service(BEFORE))?.succeeded()?;
    app.must_store("v1=60 v2=40")
}

fn an_evacuation_is_seen_although_the_watch_is_held_back(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    let proxy = Proxy::start(plane.api_port())?;
    let gate = Gate::start_through(plane, "evacuated", proxy.port())?;
    gate.register(plane, "evacuated")?;
    let app =
        App::serving(plane.namespace("evacuated", Some("evacuated"))?, &[("v1", 99), ("v2", 1)])?;
    app.settle();
    let everything = virtual_service(&[("v2", 100)]);
    app.apply(&everything)?.refused(&["canary-step"])?;

    proxy.hold_back();
    app.set_ready("v1", false)?;
    eventually(
        "the proxy withholds the news",
        Duration::from_secs(5),
        || Ok(proxy.has_withheld()),
    )?;
    // What the gate remembers would refuse this; what it reads again says that v1 answers nobody.
    app.apply(&everything)?.succeeded()?;
    app.must_store("v2=100")
}
