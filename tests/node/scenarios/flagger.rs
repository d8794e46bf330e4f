//! The real Flagger behind the gate, through whole life cycles of real Pods: nothing that it writes is refused, and it succeeds.

use std::time::Duration;

use serde_json::{Value, json};

use super::scenarios;
use crate::cluster::{Flagger, Gate, Node, Podinfo, Recording, Write, answered, weights};
use crate::harness::{Result, eventually, list};
use crate::{Running, Stage};

/// For what takes some of Flagger's ticks.
const LONG: Duration = Duration::from_secs(120);

// The one that takes longest goes first.
scenarios![
    flagger_outlives_every_replica_of_the_gate,
    flagger_ramps_and_promotes,
    flagger_takes_steps_of_any_size,
    flagger_promotes_step_by_step,
    flagger_rolls_back_what_fails,
    flagger_tests_a_and_b,
    flagger_mirrors_first,
    flagger_goes_blue_green,
    flagger_keeps_users_where_they_are,
    flagger_begins_again_with_a_new_revision,
    flagger_flees_a_failed_promotion,
    flagger_cleans_up_after_a_deletion,
    flagger_reverts_what_it_is_told_to,
    a_person_gets_in_flaggers_way,
    a_label_makes_flagger_begin_again,
];

/// One life cycle of one application, from its first Pod on.
struct Life<'a> {
    node: &'a Node,
    /// Unless it comes and goes, and cannot tell what it has seen.
    gate: Option<&'a Gate>,
    flagger: &'a Flagger,
    scenario: &'static str,
    app: Podinfo,
}

impl<'a> Life<'a> {
    fn begin(stage: &'a Stage, scenario: &'static str, analysis: &Value) -> Result<Self> {
        Self::begin_with(stage, scenario, &json!({ "analysis": analysis }), &json!({}))
    }

    fn begin_with(
        stage: &'a Stage,
        scenario: &'static str,
        spec: &Value,
        deployment: &Value,
    ) -> Result<Self> {
        Self::among(stage, scenario, &[], spec, deployment)
    }

    /// In the midst of these objects.
    fn among(
        stage: &'a Stage,
        scenario: &'static str,
        objects: &[Value],
        spec: &Value,
        deployment: &Value,
    ) -> Result<Self> {
        let (Running { node, gate }, flagger) = (stage.running()?, stage.flagger()?);
        let kubectl = node.namespace(&format!("flagger-{scenario}"))?;
        if !objects.is_empty() {
            answered(|| kubectl.apply(&list(objects)))?.succeeded()?;
        }
        let app = Podinfo::deploy(kubectl, spec, deployment)?;
        let gate = (!stage.is_restless).then_some(gate);
        Ok(Self { node, gate, flagger, scenario, app })
    }

    fn recording(&self) -> Result<Recording> {
        Recording::of(&self.node.audit(), &self.app.kubectl.namespace, Flagger::ACCOUNT)
    }

    /// A new version, until Flagger says how it ended.
    fn deliver(&self, end: &str) -> Result {
        self.app.change("2")?;
        self.app.until_phase("Progressing")?;
        self.app.until_phase(end)
    }

    /// These weights, and of each somebody said yes.
    fn end(&self, wanted: &[&str]) -> Result {
        let is_unanswered = |write: &&Write| self.gate.is_some() && write.is_left_alone();
        if let Some(write) = self.recording()?.own().find(is_unanswered) {
            return Err(format!("the gate had no answer: {write:?}").into());
        }
        self.end_after_an_outage(wanted)
    }

    /// These weights, and nobody said no.
    fn end_after_an_outage(&self, wanted: &[&str]) -> Result {
        let recording = self.recording()?;
        recording.was_never_stopped()?;
        self.flagger.was_never_refused()?;
        let stored = weights(recording.own());
        if stored != wanted {
            return Err(format!("{stored:?} was written, not {wanted:?}").into());
        }
        let Some(gate) = self.gate else { return Ok(()) };
        recording.was_never_refused()?;
        gate.let_pass(&self.app.kubectl.namespace, Flagger::ACCOUNT)?;
        recording.keep("flagger", self.scenario)
    }
}

fn flagger_ramps_and_promotes(stage: &Stage) -> Result {
    let life = Life::begin(stage, "ramp", &json!({ "stepWeight": 20, "maxWeight": 60 }))?;
    life.deliver("Succeeded")?;
    life.end(&["100/0", "80/20", "60/40", "40/60", "100/0"])
}

fn flagger_takes_steps_of_any_size(stage: &Stage) -> Result {
    let life = Life::begin(stage, "steps", &json!({ "stepWeights": [1, 90] }))?;
    life.deliver("Succeeded")?;
    life.end(&["100/0", "99/1", "10/90", "100/0"])
}

fn flagger_promotes_step_by_step(stage: &Stage) -> Result {
    let analysis = json!({ "stepWeight": 50, "maxWeight": 100, "stepWeightPromotion": 50 });
    let life = Life::begin(stage, "promotion", &analysis)?;
    life.deliver("Succeeded")?;
    life.end(&["100/0", "50/50", "0/100", "50/50", "100/0"])
}

fn flagger_rolls_back_what_fails(stage: &Stage) -> Result {
    // Nobody answers there, so the check fails.
    let check = json!({ "name": "check", "type": "rollout", "url": "http://127.0.0.1:9/", "timeout": "1s" });
    let analysis = json!({ "stepWeight": 30, "maxWeight": 60, "webhooks": [check] });
    let life = Life::begin(stage, "rollback", &analysis)?;
    life.deliver("Failed")?;
    life.end(&["100/0", "70/30", "100/0"])
}

fn flagger_tests_a_and_b(stage: &Stage) -> Result {
    let insider = json!({ "headers": { "x-canary": { "exact": "insider" } } });
    let life = Life::begin(stage, "a-b", &json!({ "iterations": 2, "match": [insider] }))?;
    life.deliver("Succeeded")?;
    life.end(&["100/0 100", "0/100 0", "100/0 100"])
}

fn flagger_mirrors_first(stage: &Stage) -> Result {
    let analysis = json!({ "stepWeight": 40, "maxWeight": 40, "mirror": true, "mirrorWeight": 50 });
    let life = Life::begin(stage, "mirror", &analysis)?;
    life.deliver("Succeeded")?;
    life.end(&["100/0", "100/0+mirror", "60/40", "100/0"])
}

fn flagger_goes_blue_green(stage: &Stage) -> Result {
    let life = Life::begin(stage, "blue-green", &json!({ "iterations": 2 }))?;
    life.deliver("Succeeded")?;
    life.end(&["100/0", "0/100", "100/0"])
}

fn flagger_keeps_users_where_they_are(stage: &Stage) -> Result {
    let analysis = json!({
        "stepWeight": 40, "maxWeight": 80, "sessionAffinity": { "cookieName": "flagger-cookie", "maxAge": 3600 },
    });
    let life = Life::begin(stage, "affinity", &analysis)?;
    life.deliver("Succeeded")?;
    life.end(&["100/0", "0/100 60/40", "0/100 20/80", "100/0 100/0"])
}

fn flagger_begins_again_with_a_new_revision(stage: &Stage) -> Result {
    let life = Life::begin(stage, "new-revision", &json!({ "stepWeight": 30, "maxWeight": 60 }))?;
    life.app.change("2")?;
    life.app.until_canary_has(30)?;
    life.app.change("3")?;
    life.app.until_canary_has(0)?;
    life.app.until_phase("Succeeded")?;
    life.end(&["100/0", "70/30", "100/0", "70/30", "40/60", "100/0"])
}

/// The new version wants a port of the node, which only one of its two copies can have.
fn flagger_flees_a_failed_promotion(stage: &Stage) -> Result {
    let spec =
        json!({ "progressDeadlineSeconds": 20, "analysis": { "stepWeight": 50, "maxWeight": 50 } });
    let deployment = json!({ "progressDeadlineSeconds": 20, "strategy": { "type": "Recreate" } });
    let life = Life::begin_with(stage, "failed-promotion", &spec, &deployment)?;
    let port = json!([{ "op": "add", "path": "/spec/template/spec/containers/0/ports/0/hostPort", "value": 9898 }]);
    life.app.patch_deployment("json", &port)?;
    life.app.until_phase("Promoting")?;
    life.app.until_phase("Failed")?;
    life.end(&["100/0", "50/50", "0/100"])
}

fn flagger_cleans_up_after_a_deletion(stage: &Stage) -> Result {
    let life = Life::begin(stage, "deletion", &json!({ "stepWeight": 50, "maxWeight": 50 }))?;
    life.app.change("2")?;
    life.app.until_canary_has(50)?;
    life.app.kubectl.run(&["delete", "canary", "podinfo"])?.succeeded()?;
    life.app.until(Podinfo::ROUTES, "delete")?;
    eventually("the garbage collector's deletion is in the log", LONG, || {
        let collector = "system:serviceaccount:kube-system:generic-garbage-collector";
        let writes = life.node.audit().writes_in(&life.app.kubectl.namespace)?;
        Ok(writes
            .iter()
            .any(|own| own.user == collector && own.resource.starts_with("virtualservices")))
    })?;
    life.end(&["100/0", "50/50"])
}

/// A VirtualService that was there before, taken over and given back.
fn flagger_reverts_what_it_is_told_to(stage: &Stage) -> Result {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "podinfo" },
        "spec": { "selector": { "app": "podinfo" }, "ports": [{ "name": "http", "port": 80, "targetPort": "http" }] },
    });
    let routes = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "podinfo" },
        "spec": { "hosts": ["podinfo"], "http": [{ "route": [{ "destination": { "host": "podinfo" } }] }] },
    });
    let spec =
        json!({ "revertOnDeletion": true, "analysis": { "stepWeight": 50, "maxWeight": 50 } });
    let life = Life::among(stage, "revert", &[service, routes], &spec, &json!({}))?;
    life.app.change("2")?;
    life.app.until_canary_has(50)?;
    life.app.kubectl.run(&["delete", "canary", "podinfo", "--request-timeout=0"])?.succeeded()?;
    // The weight of a single destination is nothing, and Flagger writes it.
    life.end(&["100/0", "50/50", "0"])
}

fn a_person_gets_in_flaggers_way(stage: &Stage) -> Result {
    let life = Life::begin(stage, "person", &json!({ "stepWeight": 20, "maxWeight": 40 }))?;
    life.app.change("2")?;
    life.app.until_canary_has(20)?;
    answered(|| life.app.weigh(10, 90))?.refused(&[
        "managed-weights",
        "Canary flagger-person/podinfo drives it",
        "kubectl -n flagger-person edit canary podinfo",
    ])?;
    answered(|| life.app.weigh(100, 0))?.succeeded()?;
    // Flagger takes it for its own, and begins again.
    life.app.until_canary_has(20)?;
    life.app.until_phase("Succeeded")?;
    life.end(&["100/0", "80/20", "60/40", "100/0"])
}

/// Flagger owns labels and annotations, too: it writes all of it anew, and takes its first step again.
fn a_label_makes_flagger_begin_again(stage: &Stage) -> Result {
    let life = Life::begin(stage, "drift", &json!({ "stepWeight": 30, "maxWeight": 60 }))?;
    life.app.change("2")?;
    life.app.until_canary_has(30)?;
    life.app.kubectl.run(&["label", Podinfo::ROUTES, "team=shop"])?.succeeded()?;
    life.app.until_phase("Succeeded")?;
    life.end(&["100/0", "70/30", "100/0", "70/30", "40/60", "100/0"])
}

/// On a node of its own: the others want their gate.
fn flagger_outlives_every_replica_of_the_gate(stage: &Stage) -> Result {
    let _turn = stage.turn();
    let stage = &Stage::default();
    let gate = &stage.running()?.gate;
    let spec = json!({ "analysis": { "stepWeight": 5, "maxWeight": 60 } });
    let life = Life::begin_with(stage, "outage", &spec, &json!({}))?;
    life.app.change("2")?;
    life.app.until_canary_has(5)?;
    gate.kill_all()?;
    gate.until_ready(2)?;
    gate.scale(0)?;
    // Two steps without a gate.
    let path = "jsonpath={.spec.http[0].route[1].weight}";
    let answer = life.app.kubectl.run(&["get", Podinfo::ROUTES, "-o", path])?.succeeded()?;
    let weight: u32 = answer.stdout().trim().parse()?;
    life.app.until_canary_has(weight + 10)?;
    gate.scale(2)?;
    gate.until_ready(2)?;
    life.app.until_phase("Succeeded")?;
    let last = life.recording()?.own().next_back().map(Write::verdict);
    if last.as_deref() != Some("allow lowering") {
        return Err(format!("the gate came back and said {last:?} of the promotion").into());
    }
    let steps = (0..=12).map(|step| format!("{}/{}", 100 - 5 * step, 5 * step));
    let steps: Vec<_> = steps.chain(["100/0".to_owned()]).collect();
    life.end_after_an_outage(&steps.iter().map(String::as_str).collect::<Vec<_>>())
}
