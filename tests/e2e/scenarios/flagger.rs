//! The real Flagger behind the gate, and a person who gets in its way.

use serde_json::json;

use super::scenarios;
use crate::harness::{Flagger, Gate, Result, Stage};

scenarios![flagger_goes_its_own_way, a_person_is_told_to_leave_it_to_flagger];

/// In steps that no person may take: nothing to 80 %, and back in one write.
fn flagger_goes_its_own_way(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    Flagger::install(plane)?;
    let gate = Gate::start(plane, "flagger")?;
    gate.registration(plane, "flagger").create_documented(plane)?.wait()?;
    let kubectl = plane.namespace("flagger-steps", Some("flagger"))?;
    let analysis = json!({ "interval": "10s", "threshold": 2, "stepWeights": [80] });
    let flagger = Flagger::deploy(plane, kubectl, &analysis)?;
    flagger.change_template("2")?;
    flagger.until_weights("podinfo-primary=20 podinfo-canary=80")?;
    flagger.until_phase("Succeeded")?;
    flagger.until_weights("podinfo-primary=100 podinfo-canary=0")?;
    flagger.was_never_refused()?;
    gate.refused_nothing_of(Flagger::ACCOUNT)
}

fn a_person_is_told_to_leave_it_to_flagger(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    Flagger::install(plane)?;
    let gate = Gate::start(plane, "by-hand")?;
    gate.registration(plane, "by-hand").create_documented(plane)?.wait()?;
    let kubectl = plane.namespace("flagger-by-hand", Some("by-hand"))?;
    let analysis = json!({ "interval": "30s", "threshold": 2, "stepWeight": 20, "maxWeight": 60 });
    let flagger = Flagger::deploy(plane, kubectl, &analysis)?;
    flagger.weigh(80, 20)?.refused(&[
        "managed-weights",
        "Canary flagger-by-hand/podinfo drives it",
        "kubectl -n flagger-by-hand edit canary podinfo",
    ])?;
    flagger.until_weights("podinfo-primary=100 podinfo-canary=0")?;
    flagger.was_never_refused()
}
