//! How Argo Rollouts brings a version in, and takes it back, by subsets and by Services.

use serde_json::{Value, json};

use super::argo::{in_both_modes, in_mode};
use super::scenarios;
use crate::Stage;
use crate::cluster::{Demo, Mode, Plan};
use crate::harness::Result;

scenarios![
    argo_steps_and_promotes,
    argo_aborts_and_tries_again,
    argo_promotes_at_once,
    argo_has_no_steps,
    argo_scales_the_stable_side_with_the_weight,
    argo_goes_back_inside_of_the_rollback_window,
    argo_meets_a_new_version_in_the_middle,
    argo_goes_back_to_the_stable_version_in_the_middle,
    argo_lets_ping_and_pong_change_their_parts,
    argo_goes_on_when_a_pause_is_over,
];

/// Two pauses: at 20 % and at 50 %.
fn two_steps() -> Value {
    json!([{ "setWeight": 20 }, { "pause": {} }, { "setWeight": 50 }, { "pause": {} }])
}

fn argo_steps_and_promotes(stage: &Stage) -> Result {
    in_both_modes(stage, "steps", &Plan::steps(&two_steps()), |demo| {
        demo.release(2)?;
        demo.until_paused_at(1)?;
        demo.until_weights(80, 20)?;
        demo.promote()?;
        demo.until_paused_at(3)?;
        demo.until_weights(50, 50)?;
        demo.promote()?;
        demo.until_delivered(2)?;
        demo.until_weights(100, 0)
    })
}

fn argo_aborts_and_tries_again(stage: &Stage) -> Result {
    in_both_modes(stage, "abort", &Plan::steps(&two_steps()), |demo| {
        demo.release(2)?;
        demo.until_paused_at(1)?;
        demo.promote()?;
        demo.until_paused_at(3)?;
        demo.abort()?;
        demo.until_phase("Degraded")?;
        demo.until_weights(100, 0)?;
        demo.retry()?;
        demo.until_paused_at(1)?;
        demo.until_weights(80, 20)?;
        demo.promote()?;
        demo.until_paused_at(3)?;
        demo.promote()?;
        demo.until_delivered(2)?;
        demo.until_weights(100, 0)
    })
}

fn argo_promotes_at_once(stage: &Stage) -> Result {
    in_both_modes(stage, "full", &Plan::steps(&two_steps()), |demo| {
        demo.release(2)?;
        demo.until_paused_at(1)?;
        demo.until_weights(80, 20)?;
        demo.promote_fully()?;
        demo.until_delivered(2)?;
        demo.until_weights(100, 0)
    })
}

/// Only the DestinationRule, or the Services, say that all users have moved.
fn argo_has_no_steps(stage: &Stage) -> Result {
    in_both_modes(stage, "no-steps", &Plan::canary(json!({})), |demo| {
        demo.release(2)?;
        demo.until_delivered(2)?;
        demo.release(3)?;
        demo.until_delivered(3)
    })
}

/// An abort has to wait for the Pods of the stable side, and gives them weight as they come.
fn argo_scales_the_stable_side_with_the_weight(stage: &Stage) -> Result {
    let steps =
        json!([{ "setWeight": 50 }, { "pause": {} }, { "setWeight": 100 }, { "pause": {} }]);
    let canary = json!({ "dynamicStableScale": true, "steps": steps });
    let plan = Plan { spec: json!({ "replicas": 2 }), ..Plan::canary(canary) };
    in_both_modes(stage, "dynamic", &plan, |demo| {
        demo.release(2)?;
        demo.until_paused_at(1)?;
        demo.until_weights(50, 50)?;
        demo.promote()?;
        demo.until_paused_at(3)?;
        demo.until_weights(0, 100)?;
        demo.abort()?;
        demo.until_weights(100, 0)?;
        demo.until_phase("Degraded")?;
        demo.retry()?;
        demo.until_paused_at(1)?;
        demo.promote_fully()?;
        demo.until_delivered(2)?;
        demo.until_weights(100, 0)
    })
}

/// From nothing to everything without a pause, and it is the way back.
fn argo_goes_back_inside_of_the_rollback_window(stage: &Stage) -> Result {
    let spec = json!({ "rollbackWindow": { "revisions": 3 } });
    let plan = Plan { spec, ..Plan::steps(&json!([{ "setWeight": 50 }, { "pause": {} }])) };
    in_both_modes(stage, "window", &plan, |demo| {
        demo.release(2)?;
        demo.until_paused_at(1)?;
        demo.promote()?;
        demo.until_delivered(2)?;
        demo.release(1)?;
        demo.until_delivered(1)?;
        demo.until_weights(100, 0)
    })
}

fn argo_meets_a_new_version_in_the_middle(stage: &Stage) -> Result {
    in_both_modes(stage, "newer", &Plan::steps(&two_steps()), |demo| {
        demo.release(2)?;
        demo.until_paused_at(1)?;
        demo.promote()?;
        demo.until_paused_at(3)?;
        demo.until_weights(50, 50)?;
        demo.release(3)?;
        demo.until_paused_at(1)?;
        demo.until_weights(80, 20)?;
        demo.promote()?;
        demo.until_paused_at(3)?;
        demo.promote()?;
        demo.until_delivered(3)?;
        demo.until_weights(100, 0)
    })
}

fn argo_goes_back_to_the_stable_version_in_the_middle(stage: &Stage) -> Result {
    in_both_modes(stage, "back", &Plan::steps(&two_steps()), |demo| {
        demo.release(2)?;
        demo.until_paused_at(1)?;
        demo.until_weights(80, 20)?;
        demo.release(1)?;
        demo.until_delivered(1)?;
        demo.until_weights(100, 0)
    })
}

/// Twice, so that each of the two was stable once.
fn argo_lets_ping_and_pong_change_their_parts(stage: &Stage) -> Result {
    let plan = Plan::steps(&json!([{ "setWeight": 50 }, { "pause": {} }]));
    in_mode(stage, "turns", Mode::PingPong, &plan, |demo| {
        let there_and_back = |weights: [u32; 2], revision: u32| -> Result {
            demo.release(revision)?;
            demo.until_paused_at(1)?;
            demo.until_weights(50, 50)?;
            demo.promote()?;
            demo.until_delivered(revision)?;
            demo.until_weights(weights[0], weights[1])
        };
        there_and_back([0, 100], 2)?;
        there_and_back([100, 0], 3)?;
        demo.release(4)?;
        demo.until_paused_at(1)?;
        demo.abort()?;
        demo.until_phase("Degraded")?;
        demo.until_weights(100, 0)
    })
}

/// Nobody has to do anything.
fn argo_goes_on_when_a_pause_is_over(stage: &Stage) -> Result {
    let pause = json!({ "pause": { "duration": "2s" } });
    let plan = Plan::steps(&json!([{ "setWeight": 10 }, pause, { "setWeight": 80 }, pause]));
    in_both_modes(stage, "timed", &plan, |demo: &Demo<'_>| {
        demo.release(2)?;
        demo.until_delivered(2)?;
        demo.until_weights(100, 0)
    })
}
