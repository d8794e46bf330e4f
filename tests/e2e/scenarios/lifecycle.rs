//! The gate comes and goes, and so do the namespaces behind it.

use std::thread;
use std::time::Duration;

use super::scenarios;
use crate::harness::{
    App, Authority, Gate, Proxy, Registration, Result, Stage, eventually, virtual_service,
};

scenarios![
    no_write_is_lost_when_a_gate_hands_over,
    no_write_is_lost_when_the_certificate_changes,
    a_route_can_be_deleted,
    a_namespace_can_be_deleted
];

fn no_write_is_lost_when_a_gate_hands_over(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    let mut old = Gate::start(plane, "old")?;
    let new = Gate::start(plane, "new")?;
    let service = Proxy::start(old.port())?;
    let front = Registration { port: service.port(), ..old.registration(plane, "hand-over") };
    front.create(plane)?.wait()?;
    let app =
        App::serving(plane.namespace("hand-over", Some("hand-over"))?, &[("v1", 99), ("v2", 1)])?;

    let writes = |writes: std::ops::Range<u32>| -> Result {
        for weight in writes {
            app.apply(&virtual_service(&[("v1", 100 - weight), ("v2", weight)]))?.succeeded()?;
        }
        Ok(())
    };
    writes(2..5)?;
    thread::scope(|scope| {
        let during = scope.spawn(|| writes(5..30));
        thread::sleep(Duration::from_millis(500));
        service.lead_to(new.port());
        old.terminate()?;
        eventually("the old gate ends", Duration::from_secs(10), || old.has_ended())?;
        during.join().map_err(|_| "the writer panicked")?
    })?;
    app.must_store("v1=71 v2=29")
}

fn no_write_is_lost_when_the_certificate_changes(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    let authority = Authority::new()?;
    let gate = Gate::start(plane, "rotating")?;
    // As during any rotation of an authority: both are trusted until the old one is gone.
    let both = gate.registration(plane, "rotating");
    let both = Registration { trusted: [&both.trusted, authority.certificate()].concat(), ..both };
    both.create(plane)?.wait()?;
    let only_new = gate.registration(plane, "rotated");
    let only_new = Registration { trusted: authority.certificate().to_owned(), ..only_new };
    let only_new = only_new.create(plane)?;
    let app =
        App::serving(plane.namespace("rotation", Some("rotating"))?, &[("v1", 99), ("v2", 1)])?;
    if only_new.is_asked()? {
        return Err("the new authority is believed before it has signed anything".into());
    }

    gate.rotate(&authority.server("sluicegate")?)?;
    let mut weight = 1;
    eventually("the new certificate is served", Duration::from_secs(60), || {
        weight = weight % 40 + 1;
        app.apply(&virtual_service(&[("v1", 100 - weight), ("v2", weight)]))?.succeeded()?;
        only_new.is_asked()
    })
}

fn a_route_can_be_deleted(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("route-deleted")?, &[("v1", 50), ("v2", 50)])?;
    app.kubectl.run(&["delete", "virtualservices.networking.istio.io", "reviews"])?.succeeded()?;
    Ok(())
}

fn a_namespace_can_be_deleted(stage: &Stage) -> Result {
    stage.plane()?.start_controllers()?;
    let app = App::serving(stage.namespace("deleted")?, &[("v1", 50), ("v2", 50)])?;
    app.kubectl.run(&["delete", "namespace", "deleted", "--wait=false"])?.succeeded()?;
    // No kubelet is there to say that the pods have ended, and the namespace waits for them.
    app.kubectl.run(&["delete", "pods", "--all", "--force", "--grace-period=0"])?.succeeded()?;
    eventually("the namespace is gone", Duration::from_secs(30), || {
        Ok(!app.kubectl.exists("namespaces", "deleted")?)
    })
}
