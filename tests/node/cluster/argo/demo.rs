//! Rollout `demo` in a namespace of its own, and the people around it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Argo;
use super::manifests::{self, Mode, Plan};
use crate::cluster::audit::Write;
use crate::cluster::{Gate, Node, Recording, answered};
use crate::harness::{Answer, Kubectl, Result, eventually};

/// For a step of a rollout: Pods start in it, beside many others.
const STEP: Duration = Duration::from_secs(150);

const ROLLOUT: &str = "rollouts.argoproj.io/demo";
const VIRTUAL_SERVICE: &str = "virtualservices.v1.networking.istio.io/demo";
const DESTINATION_RULE: &str = "destinationrules.v1.networking.istio.io/demo";

pub(crate) struct Demo<'a> {
    pub(crate) mode: Mode,
    pub(crate) kubectl: Kubectl,
    node: &'a Node,
    argo: &'a Argo,
}

impl<'a> Demo<'a> {
    /// Applies all of it, and waits until the first version serves.
    pub(crate) fn deploy(
        node: &'a Node,
        argo: &'a Argo,
        name: &str,
        mode: Mode,
        plan: &Plan,
    ) -> Result<Self> {
        let kubectl = node.namespace(&format!("argo-{name}-{}", mode.name()))?;
        let demo = Self { mode, kubectl, node, argo };
        for objects in [manifests::surroundings(mode, plan), manifests::rollout(mode, plan)] {
            answered(|| demo.kubectl.apply(&objects))?.succeeded()?;
        }
        demo.until_phase("Healthy")?;
        Ok(demo)
    }

    /// Has a version rolled out, 1 to 4, and waits until the controller has begun with it.
    pub(crate) fn release(&self, revision: u32) -> Result {
        self.roll_out(revision, true)
    }

    /// A version whose Pods run and never get ready.
    pub(crate) fn release_unready(&self, revision: u32) -> Result {
        self.roll_out(revision, false)
    }

    fn roll_out(&self, revision: u32, is_ready: bool) -> Result {
        let replace = |field: &str, value: Value| {
            let path = format!("/spec/template/spec/containers/0/{field}");
            json!({ "op": "replace", "path": path, "value": value })
        };
        let image = replace("image", manifests::image(revision).into());
        let change = json!([image, replace("env", manifests::environment(is_ready))]).to_string();
        let patch = ["patch", ROLLOUT, "--type=json", "-p", &change];
        self.kubectl.run(&patch)?.succeeded()?;
        // The controller may add to the generations.
        let path = "{.metadata.generation}={.status.observedGeneration}";
        eventually("the controller has seen the version", STEP, || {
            let seen = self.field("Rollout", path)?;
            Ok(seen.split_once('=').is_some_and(|(stored, seen)| stored == seen))
        })
    }

    /// As `kubectl argo rollouts promote` goes on from a pause.
    pub(crate) fn promote(&self) -> Result {
        self.tell(&json!({ "pauseConditions": null }))
    }

    /// As `kubectl argo rollouts promote --full`.
    pub(crate) fn promote_fully(&self) -> Result {
        self.tell(&json!({ "promoteFull": true }))
    }

    /// As `kubectl argo rollouts abort`.
    pub(crate) fn abort(&self) -> Result {
        self.tell(&json!({ "abort": true }))
    }

    /// As `kubectl argo rollouts retry rollout`.
    pub(crate) fn retry(&self) -> Result {
        self.tell(&json!({ "abort": false }))
    }

    fn tell(&self, status: &Value) -> Result {
        let change = json!({ "status": status }).to_string();
        let patch = ["patch", ROLLOUT, "--subresource=status", "--type=merge", "-p", &change];
        self.kubectl.run(&patch)?.succeeded()?;
        Ok(())
    }

    pub(crate) fn until_phase(&self, wanted: &str) -> Result {
        self.until(ROLLOUT, "{.status.phase}", wanted)
    }

    /// At the pause that is this step, the first is 0.
    pub(crate) fn until_paused_at(&self, step: usize) -> Result {
        self.until(ROLLOUT, "{.status.currentStepIndex}", &step.to_string())?;
        self.until_phase("Paused")
    }

    /// The version is the stable one, and everything has its place.
    pub(crate) fn until_delivered(&self, revision: u32) -> Result {
        self.until_phase("Healthy")?;
        let path = "jsonpath={.spec.template.spec.containers[0].image} {.status.currentPodHash}={.status.stableRS}";
        let answer = self.kubectl.run(&["get", ROLLOUT, "-o", path])?.succeeded()?;
        let (image, hashes) = answer.stdout().trim().split_once(' ').unwrap_or_default();
        let (current, stable) = hashes.split_once('=').unwrap_or_default();
        if image != manifests::image(revision) || current != stable || stable.is_empty() {
            return Err(format!("{image} with {hashes} is not version {revision}").into());
        }
        Ok(())
    }

    /// The weights of its own route, in the order of the manifest: both are written at once.
    pub(crate) fn until_weights(&self, first: u32, second: u32) -> Result {
        let path = "{.spec.http[?(@.name==\"primary\")].route[1].weight}";
        self.until(VIRTUAL_SERVICE, path, &second.to_string())?;
        let path = "{.spec.http[?(@.name==\"primary\")].route[*].weight}";
        let stored = self.field("VirtualService", path)?;
        // An experiment has a third one.
        if stored.starts_with(&format!("{first} {second}")) {
            return Ok(());
        }
        Err(format!("stored are {stored}, not {first} {second}").into())
    }

    /// The first of its routes has this name.
    pub(crate) fn until_front(&self, route: &str) -> Result {
        self.until(VIRTUAL_SERVICE, "{.spec.http[0].name}", route)
    }

    /// Waits until a field of its Rollout, VirtualService or DestinationRule has a value.
    pub(crate) fn until_field(&self, kind: &str, path: &str, wanted: &str) -> Result {
        self.until(object(kind), path, wanted)
    }

    /// kubectl watches, so that nobody has to ask again and again.
    fn until(&self, object: &str, path: &str, wanted: &str) -> Result {
        let condition = format!("--for=jsonpath={path}={wanted}");
        let deadline = Instant::now() + STEP;
        loop {
            let wait = ["wait", object, &condition, "--timeout=20s"];
            let answer = self.kubectl.run(&wait)?;
            if answer.is_success() {
                return Ok(());
            }
            if Instant::now() > deadline || !answer.stderr().contains("timed out") {
                let is = self.kubectl.run(&["get", object, "-o", "yaml"])?;
                return Err(format!("{answer}\n{}\n{}", is.stdout(), self.argo.tail()).into());
            }
        }
    }

    /// One field of its Rollout, VirtualService or DestinationRule.
    pub(crate) fn field(&self, kind: &str, path: &str) -> Result<String> {
        let path = format!("jsonpath={path}");
        let answer = self.kubectl.run(&["get", object(kind), "-o", &path])?.succeeded()?;
        Ok(answer.stdout().trim().to_owned())
    }

    /// What a person does who takes the weights of its route for hers, until somebody answers.
    pub(crate) fn weigh(&self, first: u32, second: u32) -> Result<Answer> {
        answered(|| self.weigh_once(&[], first, second))
    }

    pub(crate) fn weigh_once(&self, flags: &[&str], first: u32, second: u32) -> Result<Answer> {
        let weight = |at: u32, value: u32| {
            let path = format!("/spec/http/0/route/{at}/weight");
            json!({ "op": "replace", "path": path, "value": value })
        };
        let change = json!([weight(0, first), weight(1, second)]).to_string();
        let patch = ["patch", VIRTUAL_SERVICE, "--type=json", "-p", &change];
        self.kubectl.run(&[&patch[..], flags].concat())
    }

    /// What a person does who takes the labels of its subsets for hers; a hash, or none.
    pub(crate) fn relabel(&self, stable: Option<&str>, canary: Option<&str>) -> Result<Answer> {
        let labels = |hash: Option<&str>| match hash {
            None => json!({ "app": "demo" }),
            Some(hash) => json!({ "app": "demo", "rollouts-pod-template-hash": hash }),
        };
        let subset = |at: usize, hash: Option<&str>| {
            let path = format!("/spec/subsets/{at}/labels");
            json!({ "op": "replace", "path": path, "value": labels(hash) })
        };
        let change = json!([subset(0, stable), subset(1, canary)]).to_string();
        let patch = ["patch", DESTINATION_RULE, "--type=json", "-p", &change];
        answered(|| self.kubectl.run(&patch))
    }

    /// What the repository says of weights and of labels is applied again, by the account of a GitOps tool.
    pub(crate) fn sync(&self) -> Result {
        let user = [
            "--as=system:serviceaccount:argocd:argocd-application-controller",
            "--as-group=system:masters",
        ];
        for object in manifests::routing(self.mode) {
            answered(|| self.kubectl.apply_with(&user, &object))?.succeeded()?;
        }
        Ok(())
    }

    pub(crate) fn delete(&self) -> Result {
        self.kubectl.run(&["delete", ROLLOUT, "--wait=false"])?.succeeded()?;
        Ok(())
    }

    /// Nobody and nothing stopped the controller here, and it did write. Kept as a golden case.
    pub(crate) fn ends(&self, gate: &Gate) -> Result {
        let own = self.controllers_writes()?;
        if let Some(write) = own.iter().find(|write| write.is_left_alone()) {
            return Err(format!("the gate had no answer: {}", said(write)).into());
        }
        self.ends_after_an_outage(gate)
    }

    /// The same where there was no gate for a while.
    pub(crate) fn ends_after_an_outage(&self, gate: &Gate) -> Result {
        self.was_never_stopped()?;
        let namespace = &self.kubectl.namespace;
        gate.let_pass(namespace, Argo::ACCOUNT)?;
        let recording = Recording::of(&self.node.audit(), namespace, Argo::ACCOUNT)?;
        if recording.own().next().is_none() {
            // Services alone say who serves, and nothing of it is to be judged.
            return Ok(());
        }
        recording.was_never_refused()?;
        recording.keep("argo", namespace.trim_start_matches("argo-"))
    }

    /// Whatever the controller wrote was stored.
    pub(crate) fn was_never_stopped(&self) -> Result {
        let own = self.controllers_writes()?;
        // Who was overtaken by another write tries again.
        let is_fine = |write: &&Write| write.code < 300 || write.code == 409;
        if let Some(write) = own.iter().find(|write| !is_fine(write)) {
            return Err(format!("the controller was stopped: {}", said(write)).into());
        }
        if own.is_empty() {
            return Err("a controller that writes nothing proves nothing".into());
        }
        Ok(())
    }

    /// What the controller wrote here of what moves traffic, and of its Rollout beside the status.
    fn controllers_writes(&self) -> Result<Vec<Write>> {
        let mut own = self.node.audit().writes_in(&self.kubectl.namespace)?;
        let counts = |what: &str| {
            ["services", "rollouts.argoproj.io"].contains(&what)
                || what.ends_with(".networking.istio.io")
        };
        own.retain(|write| write.user == Argo::ACCOUNT && counts(&write.resource));
        Ok(own)
    }
}

fn said(write: &Write) -> String {
    let Write { verb, resource, code, message, annotations, request, .. } = write;
    format!("{verb} {resource}: {code} {message}\n{annotations}\n{}", request["spec"])
}

fn object(kind: &str) -> &'static str {
    match kind {
        "Rollout" => ROLLOUT,
        "DestinationRule" => DESTINATION_RULE,
        _ => VIRTUAL_SERVICE,
    }
}
