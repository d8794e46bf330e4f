//! Routes in front, third destinations and judgements of its own: what Argo Rollouts does beside weights.

use serde_json::json;

use super::argo::in_both_modes;
use super::scenarios;
use crate::Stage;
use crate::cluster::{Mode, Plan};
use crate::harness::Result;

scenarios![
    argo_puts_routes_for_a_header_and_a_mirror_in_front,
    argo_gives_a_share_to_an_experiment,
    argo_aborts_by_itself_when_an_analysis_fails,
    argo_aborts_by_itself_when_a_canary_never_gets_ready,
];

/// Only there while there is such a route.
const MIRROR: &str = "{.spec.http[?(@.name==\"mirror-route\")].name}";

fn argo_puts_routes_for_a_header_and_a_mirror_in_front(stage: &Stage) -> Result {
    let header = json!({ "headerName": "x-canary", "headerValue": { "exact": "true" } });
    let copied = json!({ "method": { "exact": "GET" } });
    let steps = json!([
        { "setCanaryScale": { "replicas": 1 } },
        { "setHeaderRoute": { "name": "header-route", "match": [header] } },
        { "pause": {} },
        { "setMirrorRoute": { "name": "mirror-route", "percentage": 35, "match": [copied] } },
        { "pause": {} },
        { "setMirrorRoute": { "name": "mirror-route" } },
        { "setWeight": 50 },
        { "pause": {} },
    ]);
    let plan = Plan { managed: &["header-route", "mirror-route"], ..Plan::steps(&steps) };
    in_both_modes(stage, "routes", &plan, |demo| {
        demo.release(2)?;
        demo.until_paused_at(2)?;
        demo.until_front("header-route")?;
        demo.promote()?;
        demo.until_paused_at(4)?;
        demo.until_field("VirtualService", MIRROR, "mirror-route")?;
        demo.promote()?;
        demo.until_paused_at(7)?;
        demo.until_field("VirtualService", "{.spec.http[1].name}", "primary")?;
        demo.until_weights(50, 50)?;
        // An abort takes its route away before it turns the weights.
        demo.abort()?;
        demo.until_phase("Degraded")?;
        demo.until_front("primary")?;
        demo.until_weights(100, 0)?;
        demo.retry()?;
        demo.until_paused_at(2)?;
        demo.promote()?;
        demo.until_paused_at(4)?;
        demo.promote()?;
        demo.until_paused_at(7)?;
        demo.promote()?;
        demo.until_delivered(2)?;
        demo.until_front("primary")?;
        demo.until_weights(100, 0)
    })
}

fn argo_gives_a_share_to_an_experiment(stage: &Stage) -> Result {
    let template = json!({ "name": "trial", "specRef": "canary", "weight": 20 });
    let steps = json!([
        { "setWeight": 10 },
        { "experiment": { "duration": "5s", "templates": [template] } },
        { "pause": {} },
    ]);
    in_both_modes(stage, "experiment", &Plan::steps(&steps), |demo| {
        demo.release(2)?;
        demo.until_field("VirtualService", "{.spec.http[0].route[?(@.weight==20)].weight}", "20")?;
        demo.until_paused_at(2)?;
        demo.until_weights(90, 10)?;
        let hosts = demo.field("VirtualService", "{.spec.http[0].route[*].destination.host}")?;
        if hosts.split(' ').count() != 2 {
            return Err(format!("{hosts}: something is left of the experiment").into());
        }
        demo.promote()?;
        demo.until_delivered(2)?;
        demo.until_weights(100, 0)
    })
}

/// A Job that fails is a measurement that failed.
fn argo_aborts_by_itself_when_an_analysis_fails(stage: &Stage) -> Result {
    let container = json!({
        "name": "check", "image": "sluicegate.dev/demo:1", "imagePullPolicy": "Never",
        "env": [{ "name": "CRASH_AFTER", "value": "100ms" }],
    });
    let pod = json!({ "spec": { "restartPolicy": "Never", "containers": [container] } });
    let job = json!({ "spec": { "backoffLimit": 0, "template": pod } });
    let template = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate", "metadata": { "name": "check" },
        "spec": { "metrics": [{ "name": "check", "provider": { "job": job } }] },
    });
    let steps = json!([
        { "setWeight": 50 },
        { "analysis": { "templates": [{ "templateName": "check" }] } },
        { "pause": {} },
    ]);
    let plan = Plan { objects: vec![template], ..Plan::steps(&steps) };
    in_both_modes(stage, "analysis", &plan, |demo| {
        demo.release(2)?;
        demo.until_weights(50, 50)?;
        demo.until_phase("Degraded")?;
        demo.until_weights(100, 0)?;
        // The stable version again is the end of it.
        demo.release(1)?;
        demo.until_delivered(1)
    })
}

/// With subsets the controller waits for such a canary for ever, gate or not; so that version is replaced by the stable one.
fn argo_aborts_by_itself_when_a_canary_never_gets_ready(stage: &Stage) -> Result {
    let spec = json!({ "progressDeadlineSeconds": 5, "progressDeadlineAbort": true });
    let plan = Plan { spec, ..Plan::steps(&json!([{ "setWeight": 50 }, { "pause": {} }])) };
    in_both_modes(stage, "unready", &plan, |demo| {
        demo.release_unready(2)?;
        if demo.mode == Mode::Services {
            demo.until_phase("Degraded")?;
        } else {
            demo.until_field("Rollout", "{.status.canary.weights.canary.weight}", "0")?;
        }
        demo.until_weights(100, 0)?;
        demo.release(1)?;
        demo.until_delivered(1)
    })
}
