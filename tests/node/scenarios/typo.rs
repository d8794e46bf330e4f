//! The incident: the weights of two versions that serve, swapped.

use super::scenarios;
use crate::Stage;
use crate::cluster::App;
use crate::harness::{Result, eventually, virtual_service};

scenarios![the_typo_is_refused_and_the_rollback_passes, a_denial_is_in_the_audit_log];

fn the_typo_is_refused_and_the_rollback_passes(stage: &Stage) -> Result {
    let running = stage.running()?;
    let app = App::serving(running.node.namespace("typo")?, &[("v1", 99), ("v2", 1)])?;
    app.apply(&virtual_service(&[("v1", 1), ("v2", 99)]))?.refused(&[
        "admission webhook \"validate.sluicegate.dev\" denied the request: canary-step: spec.http[0].route[1]: \
         reviews/v2 would go from 1 % to 99 %",
        "\n  The weights look swapped: ",
    ])?;
    app.must_store("v1=99 v2=1")?;
    app.apply(&virtual_service(&[("v1", 80), ("v2", 20)]))?.succeeded()?;
    app.apply(&virtual_service(&[("v1", 100), ("v2", 0)]))?.succeeded()?;
    app.must_store("v1=100 v2=0")?;
    if running.gate.count("sluicegate_reviews_total{verdict=\"deny\"}")? < 1.0 {
        return Err("no replica counted a denial".into());
    }
    Ok(())
}

fn a_denial_is_in_the_audit_log(stage: &Stage) -> Result {
    let node = &stage.running()?.node;
    let app = App::serving(node.namespace("audited")?, &[("v1", 99), ("v2", 1)])?;
    app.apply(&virtual_service(&[("v1", 1), ("v2", 99)]))?.refused(&["canary-step"])?;
    eventually("the denial is in the log", std::time::Duration::from_secs(10), || {
        let denials = node.audit().denials()?;
        Ok(denials.iter().any(|write| {
            (write.namespace.as_str(), write.name.as_str(), write.code)
                == ("audited", "reviews", 403)
                && write.resource == "virtualservices.networking.istio.io"
                && write.verb == "patch"
                && write.user == "admin"
                && write.request["spec"]["http"][0]["route"][0]["weight"] == 1
        }))
    })
}
