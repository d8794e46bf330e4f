//! Shifts that go too far, by every way in which a person can write them.

use serde_json::{Value, json};

use super::scenarios;
use crate::harness::{App, Result, Stage, destination_rule, virtual_service};

scenarios![
    swapped_weights_are_refused,
    a_refusal_keeps_its_lines_in_the_terminal,
    a_server_dry_run_gets_the_same_verdict,
    every_api_version_is_guarded,
    server_side_apply_is_guarded,
    patches_are_guarded,
    replace_is_guarded,
    a_small_step_is_stored,
    weights_that_do_not_add_up_are_refused,
    a_wrong_sum_that_lowers_the_canary_is_only_warned_about,
    a_dark_launch_is_admitted,
];

const BEFORE: &[(&str, u32)] = &[("v1", 99), ("v2", 1)];
const SWAPPED: &[(&str, u32)] = &[("v1", 1), ("v2", 99)];

/// The words of the refusal: the rule, and the share that was meant for the other side.
const WORDS: &[&str] = &["canary-step", "99"];

fn swapped_weights_are_refused(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("swapped")?, BEFORE)?;
    app.apply(&virtual_service(SWAPPED))?.refused(WORDS)?.refused(&["denied the request"])?;
    app.must_store("v1=99 v2=1")
}

fn a_refusal_keeps_its_lines_in_the_terminal(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("terminal")?, BEFORE)?;
    app.apply(&virtual_service(SWAPPED))?.refused(&[
        "denied the request: canary-step: spec.http[0].route[1]: reviews/v2 would go from 1 % to 99 %",
        "\n  The weights look swapped: ",
        "\n  Passes now: v2 up to 51.\n",
    ])?;
    Ok(())
}

fn a_server_dry_run_gets_the_same_verdict(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("dry-run")?, BEFORE)?;
    let dry_run =
        |weights| app.kubectl.apply_with(&["--dry-run=server"], &virtual_service(weights));
    dry_run(SWAPPED)?.refused(WORDS)?;
    dry_run(&[("v1", 95), ("v2", 5)])?.succeeded()?;
    app.must_store("v1=99 v2=1")
}

fn every_api_version_is_guarded(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("versions")?, BEFORE)?;
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let mut swapped = virtual_service(SWAPPED);
        swapped["apiVersion"] = format!("networking.istio.io/{version}").into();
        app.apply(&swapped)?.refused(WORDS)?;
    }
    app.must_store("v1=99 v2=1")
}

fn server_side_apply_is_guarded(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("server-side")?, BEFORE)?;
    let flags = ["--server-side", "--force-conflicts"];
    app.kubectl.apply_with(&flags, &virtual_service(SWAPPED))?.refused(WORDS)?;
    app.must_store("v1=99 v2=1")
}

fn patches_are_guarded(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("patches")?, BEFORE)?;
    let patch = |kind: &str, patch: Value| {
        let patch = patch.to_string();
        app.kubectl.run(&[
            "patch",
            "virtualservices.networking.istio.io",
            "reviews",
            "--type",
            kind,
            "--patch",
            &patch,
        ])
    };
    patch("merge", json!({ "spec": virtual_service(SWAPPED)["spec"] }))?.refused(WORDS)?;
    let set = |i, weight: u32| json!({ "op": "replace", "path": format!("/spec/http/0/route/{i}/weight"), "value": weight });
    patch("json", json!([set(0, 1), set(1, 99)]))?.refused(WORDS)?;
    app.must_store("v1=99 v2=1")
}

fn replace_is_guarded(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("replace")?, BEFORE)?;
    app.kubectl
        .run_with(&["replace", "-f", "-"], &virtual_service(SWAPPED).to_string())?
        .refused(WORDS)?;
    app.must_store("v1=99 v2=1")
}

fn a_small_step_is_stored(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("small-step")?, BEFORE)?;
    app.apply(&virtual_service(&[("v1", 95), ("v2", 5)]))?.succeeded()?;
    app.must_store("v1=95 v2=5")
}

fn weights_that_do_not_add_up_are_refused(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("sum")?, &[("v1", 95), ("v2", 5)])?;
    // A rise, because 10 of 90 is more than 5 of 100.
    app.apply(&virtual_service(&[("v1", 80), ("v2", 10)]))?.refused(&["weight-sum", "90"])?;
    app.must_store("v1=95 v2=5")
}

fn a_wrong_sum_that_lowers_the_canary_is_only_warned_about(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("lowering-sum")?, &[("v1", 50), ("v2", 50)])?;
    app.apply(&virtual_service(&[("v1", 60), ("v2", 30)]))?.warned(&["weight-sum"])?;
    app.must_store("v1=60 v2=30")
}

fn a_dark_launch_is_admitted(stage: &Stage) -> Result {
    let app = App::deploy(stage.namespace("dark-launch")?, &["v1", "v2"])?;
    app.apply(&destination_rule(&["v1", "v2"]))?.succeeded()?;
    let mut object = virtual_service(&[("v1", 100)]);
    app.apply(&object)?.succeeded()?;
    app.settle();
    let everybody = object["spec"]["http"][0].take();
    let testers = json!({
        "match": [{ "headers": { "x-tester": { "exact": "yes" } } }],
        "route": [{ "destination": { "host": "reviews", "subset": "v2" } }],
    });
    object["spec"]["http"] = json!([testers, everybody]);
    app.apply(&object)?.succeeded()?;
    app.must_store("v2= v1=100")
}
