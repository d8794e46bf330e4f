//! People, and what applies their repositories, in the middle of a rollout.

use std::time::Duration;

use serde_json::json;

use super::argo::{in_both_modes, in_mode};
use super::scenarios;
use crate::Stage;
use crate::cluster::{Demo, Mode, Plan};
use crate::harness::{Result, eventually};

scenarios![
    a_person_may_take_back_what_argo_drives_and_not_raise_it,
    a_person_turns_the_hashes_under_argos_canary,
    a_repository_is_applied_again_while_argo_is_at_work,
    argos_rollout_is_deleted_in_the_middle,
];

/// How long a gate may take to hear of a kind that was installed after it.
const HEARD: Duration = Duration::from_secs(30);

fn small_step() -> Plan {
    Plan::steps(&json!([{ "setWeight": 20 }, { "pause": {} }]))
}

fn a_person_may_take_back_what_argo_drives_and_not_raise_it(stage: &Stage) -> Result {
    in_both_modes(stage, "person", &small_step(), |demo| {
        demo.release(2)?;
        demo.until_paused_at(1)?;
        demo.until_weights(80, 20)?;
        eventually("the gate knows the Rollout", HEARD, || {
            let answer = demo.weigh_once(&["--dry-run=server"], 60, 40)?;
            Ok(answer.stderr().contains("managed-weights"))
        })?;
        let namespace = &demo.kubectl.namespace;
        demo.weigh(60, 40)?.refused(&[
            "\"validate.sluicegate.dev\" denied the request: managed-weights: ",
            &format!("Rollout {namespace}/demo drives it"),
            &format!("kubectl argo rollouts promote demo -n {namespace}"),
        ])?;
        // Back is always open, and so is the way on for the controller, which raises its canary again.
        let before = demo.field("VirtualService", "{.metadata.generation}")?;
        demo.weigh(100, 0)?.succeeded()?;
        demo.until_weights(80, 20)?;
        let after = demo.field("VirtualService", "{.metadata.generation}")?;
        if after.parse::<u32>()? < before.parse::<u32>()? + 2 {
            return Err(format!("generation {before} became {after}: who wrote?").into());
        }
        demo.promote()?;
        demo.until_delivered(2)?;
        demo.until_weights(100, 0)
    })
}

/// The labels of a subset move users as weights do.
fn a_person_turns_the_hashes_under_argos_canary(stage: &Stage) -> Result {
    in_mode(stage, "hashes", Mode::Subsets, &small_step(), |demo| {
        let hash = |at: usize| {
            let labels = format!("{{.spec.subsets[{at}].labels.rollouts-pod-template-hash}}");
            demo.field("DestinationRule", &labels)
        };
        demo.release(2)?;
        demo.until_paused_at(1)?;
        demo.until_weights(80, 20)?;
        let (stable, canary) = (hash(0)?, hash(1)?);
        // Everybody to the canary.
        demo.relabel(Some(&canary), Some(&canary))?
            .refused(&["denied the request: subset-in-use: ", "from 20 % to 100 %"])?;
        // A share of nobody.
        demo.relabel(Some(&stable), Some("nobody"))?
            .refused(&["denied the request: subset-in-use: "])?;
        // The canary's share back to the stable version; the controller writes its own hash again.
        demo.relabel(Some(&stable), Some(&stable))?.succeeded()?;
        let path = "{.spec.subsets[1].labels.rollouts-pod-template-hash}";
        demo.until_field("DestinationRule", path, &canary)?;
        demo.promote()?;
        demo.until_delivered(2)
    })
}

/// Its weights are those of the beginning, and its subsets have no hashes.
fn a_repository_is_applied_again_while_argo_is_at_work(stage: &Stage) -> Result {
    in_both_modes(stage, "gitops", &small_step(), |demo| {
        demo.release(2)?;
        demo.until_paused_at(1)?;
        demo.until_weights(80, 20)?;
        demo.sync()?;
        demo.until_weights(80, 20)?;
        if demo.mode == Mode::Subsets {
            until_told_apart(demo)?;
        }
        demo.promote()?;
        demo.until_delivered(2)?;
        demo.until_weights(100, 0)
    })
}

fn until_told_apart(demo: &Demo<'_>) -> Result {
    for (at, status) in ["{.status.stableRS}", "{.status.currentPodHash}"].iter().enumerate() {
        let path = format!("{{.spec.subsets[{at}].labels.rollouts-pod-template-hash}}");
        demo.until_field("DestinationRule", &path, &demo.field("Rollout", status)?)?;
    }
    Ok(())
}

/// The controller takes its hashes out of the DestinationRule that nobody drives any more; the weights stay.
fn argos_rollout_is_deleted_in_the_middle(stage: &Stage) -> Result {
    in_both_modes(stage, "deleted", &small_step(), |demo| {
        demo.release(2)?;
        demo.until_paused_at(1)?;
        demo.until_weights(80, 20)?;
        demo.delete()?;
        if demo.mode == Mode::Subsets {
            eventually("the hashes are gone", Duration::from_secs(60), || {
                Ok(!demo.field("DestinationRule", "{.spec.subsets}")?.contains("pod-template-hash"))
            })?;
        }
        demo.until_weights(80, 20)
    })
}
