//! The real Flagger, and an application that it drives, as far as the API server can tell: no pod runs.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::controller::{self, let_do_everything};
use super::process::{Process, free_ports, unless_stolen};
use super::workloads::Workloads;
use super::{Answer, ControlPlane, Kubectl, Result, eventually, http, list, programs};

const START: Duration = Duration::from_secs(60);

/// Canary `podinfo` in a namespace of its own, with Flagger.
pub(crate) struct Flagger {
    process: Process,
    _workloads: Workloads,
    pub(crate) kubectl: Kubectl,
}

impl Flagger {
    /// The account of its manifests.
    pub(crate) const ACCOUNT: &str = "system:serviceaccount:istio-system:flagger";

    /// Installs Flagger's kinds and lets its account do what it wants. More than once is no error.
    pub(crate) fn install(plane: &ControlPlane) -> Result {
        let admin = plane.admin();
        let crds = programs::find("flagger-crd.yaml")?.display().to_string();
        admin.run(&["apply", "--server-side", "-f", &crds])?.succeeded()?;
        let wait = ["wait", "crd", "canaries.flagger.app", "--for=condition=Established"];
        admin.run(&wait)?.succeeded()?;
        eventually("serving Canaries", START, || {
            Ok(admin.run(&["get", "canaries.v1beta1.flagger.app"])?.is_success())
        })?;
        let_do_everything(plane, "flagger", Self::ACCOUNT)
    }

    /// Deploys podinfo with this analysis, and waits until Flagger has made its VirtualService.
    pub(crate) fn deploy(plane: &ControlPlane, kubectl: Kubectl, analysis: &Value) -> Result<Self> {
        let program = programs::find("flagger")?;
        let name = format!("flagger-{}", kubectl.namespace);
        let kubeconfig = plane.kubeconfig(&name, Self::ACCOUNT, plane.api_port())?;
        let canary = json!({
            "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": { "name": "podinfo" },
            "spec": {
                "targetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo" },
                "service": { "port": 80 },
                "analysis": analysis,
            },
        });
        let objects = list(&[
            deployment(),
            pod("podinfo"),
            pod("podinfo-primary"),
            slice("podinfo", "podinfo-primary"),
            slice("podinfo-primary", "podinfo-primary"),
            slice("podinfo-canary", "podinfo"),
            canary,
        ]);
        kubectl.run_with(&["create", "-f", "-"], &objects.to_string())?.succeeded()?;
        let workloads = Workloads::start(kubectl.clone());
        let process = unless_stolen(|| {
            let [port] = free_ports()?;
            let mut command = Command::new(&program);
            command
                .arg(format!("-kubeconfig={}", kubeconfig.display()))
                .arg(format!("-namespace={}", kubectl.namespace))
                .arg(format!("-port={port}"))
                // Nobody listens there; these analyses have no metrics.
                .args(["-mesh-provider=istio", "-metrics-server=http://127.0.0.1:9"])
                .args(["-control-loop-interval=1s", "-enable-config-tracking=false"]);
            let mut process = Process::spawn(plane.sandbox(), &name, &mut command)?;
            process.wait_until(START, || http::listens(port))?;
            Ok(process)
        })?;
        let flagger = Self { process, _workloads: workloads, kubectl };
        flagger.until_phase("Initialized")?;
        flagger.until_weights("podinfo-primary=100 podinfo-canary=0")?;
        Ok(flagger)
    }

    /// Begins a rollout.
    pub(crate) fn change_template(&self, revision: &str) -> Result {
        let change = json!({ "spec": { "template": { "metadata": { "annotations": { "revision": revision } } } } });
        let change = change.to_string();
        let patch = ["patch", "deployment", "podinfo", "--type=merge", "-p", &change];
        self.kubectl.run(&patch)?.succeeded()?;
        Ok(())
    }

    pub(crate) fn until_phase(&self, wanted: &str) -> Result {
        let command = ["get", "canary", "podinfo", "-o", "jsonpath={.status.phase}"];
        self.until(wanted, || Ok(self.kubectl.run(&command)?.stdout().trim().to_owned()))
    }

    /// Waits for these weights of the VirtualService's last route.
    pub(crate) fn until_weights(&self, wanted: &str) -> Result {
        self.until(wanted, || self.kubectl.last_weights("podinfo"))
    }

    fn until(&self, wanted: &str, ask: impl FnMut() -> Result<String>) -> Result {
        controller::until(&self.process, wanted, Duration::from_secs(120), ask)
    }

    /// Flagger met no webhook that said no.
    pub(crate) fn was_never_refused(&self) -> Result {
        controller::was_never_refused(&self.process)
    }

    /// Weights by the hand of a person, to the stable side and to the canary.
    pub(crate) fn weigh(&self, stable: u32, canary: u32) -> Result<Answer> {
        controller::weigh(&self.kubectl, "podinfo", stable, canary)
    }
}

fn deployment() -> Value {
    let labels = json!({ "app": "podinfo" });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "podinfo", "labels": labels },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "podinfo", "image": "example.com/podinfo" }] },
            },
        },
    })
}

fn pod(app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("{app}-0"), "labels": { "app": app } },
        "spec": { "containers": [{ "name": "podinfo", "image": "example.com/podinfo" }] },
    })
}

fn slice(service: &str, app: &str) -> Value {
    let address = if app == "podinfo" { "10.0.2.1" } else { "10.0.1.1" };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": service, "labels": { "kubernetes.io/service-name": service } },
        "ports": [{ "name": "http", "port": 80 }],
        "endpoints": [{
            "addresses": [address],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "targetRef": { "kind": "Pod", "name": format!("{app}-0") },
        }],
    })
}
