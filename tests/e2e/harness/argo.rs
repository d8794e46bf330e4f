//! The real Argo Rollouts, and an application that it drives, as far as the API server can tell: no pod runs.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::controller::{self, let_do_everything};
use super::process::{Process, free_ports, unless_stolen};
use super::workloads::Workloads;
use super::{Answer, ControlPlane, Kubectl, Result, eventually, http, list, programs};

const START: Duration = Duration::from_secs(60);

/// Rollout `demo` in a namespace of its own, in subset mode, with the controller.
pub(crate) struct ArgoRollouts {
    process: Process,
    _workloads: Workloads,
    pub(crate) kubectl: Kubectl,
}

impl ArgoRollouts {
    /// The account of its manifests.
    pub(crate) const ACCOUNT: &str = "system:serviceaccount:argo-rollouts:argo-rollouts";

    /// Installs its kinds and lets its account do what it wants.
    pub(crate) fn install(plane: &ControlPlane) -> Result {
        let admin = plane.admin();
        for kind in [
            "rollout",
            "analysis-run",
            "analysis-template",
            "cluster-analysis-template",
            "experiment",
        ] {
            let crd = programs::find(&format!("{kind}-crd.yaml"))?.display().to_string();
            // Too large for the annotation of a client-side apply.
            admin.run(&["apply", "--server-side", "-f", &crd])?.succeeded()?;
        }
        eventually("serving Rollouts", START, || {
            let kinds = "rollouts.v1alpha1.argoproj.io,experiments.v1alpha1.argoproj.io";
            Ok(admin.run(&["get", kinds])?.is_success())
        })?;
        let_do_everything(plane, "argo-rollouts", Self::ACCOUNT)
    }

    /// Deploys demo with these steps and with two subsets, and waits until its first version is there.
    pub(crate) fn deploy(plane: &ControlPlane, kubectl: Kubectl, steps: &Value) -> Result<Self> {
        let istio = json!({
            "virtualService": { "name": "demo", "routes": ["primary"] },
            "destinationRule": { "name": "demo", "stableSubsetName": "stable", "canarySubsetName": "canary" },
        });
        let rollout = rollout(&json!({
            "trafficRouting": { "istio": istio }, "scaleDownDelaySeconds": 1, "steps": steps,
        }));
        let route = json!([
            { "destination": { "host": "demo", "subset": "stable" }, "weight": 100 },
            { "destination": { "host": "demo", "subset": "canary" }, "weight": 0 },
        ]);
        let objects = [service("demo"), virtual_service(&route), destination_rule(), rollout];
        Self::start(plane, kubectl, &objects)
    }

    /// The same with two Services, and with routes that it may put in front.
    pub(crate) fn deploy_services(
        plane: &ControlPlane,
        kubectl: Kubectl,
        managed: &[&str],
        steps: &Value,
    ) -> Result<Self> {
        let managed = managed.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
        let rollout = rollout(&json!({
            "stableService": "demo-stable", "canaryService": "demo-canary",
            "trafficRouting": {
                "managedRoutes": managed,
                "istio": { "virtualService": { "name": "demo", "routes": ["primary"] } },
            },
            "scaleDownDelaySeconds": 1, "steps": steps,
        }));
        let route = json!([
            { "destination": { "host": "demo-stable" }, "weight": 100 },
            { "destination": { "host": "demo-canary" }, "weight": 0 },
        ]);
        let services = ["demo", "demo-stable", "demo-canary"].map(service);
        let objects = [&services[..], &[virtual_service(&route), rollout]].concat();
        Self::start(plane, kubectl, &objects)
    }

    fn start(plane: &ControlPlane, kubectl: Kubectl, objects: &[Value]) -> Result<Self> {
        let program = programs::find("rollouts-controller")?;
        let name = format!("argo-rollouts-{}", kubectl.namespace);
        let kubeconfig = plane.kubeconfig(&name, Self::ACCOUNT, plane.api_port())?;
        let workloads = Workloads::start(kubectl.clone());
        let process = unless_stolen(|| {
            let [health, metrics] = free_ports()?;
            let mut command = Command::new(&program);
            command
                .arg(format!("--kubeconfig={}", kubeconfig.display()))
                .arg(format!("--healthzPort={health}"))
                .arg(format!("--metricsport={metrics}"))
                .args(["--leader-elect=false", "--namespaced"])
                .arg(format!("--namespace={}", kubectl.namespace));
            let mut process = Process::spawn(plane.sandbox(), &name, &mut command)?;
            process.wait_until(START, || http::listens(health))?;
            Ok(process)
        })?;
        kubectl.run_with(&["create", "-f", "-"], &list(objects).to_string())?.succeeded()?;
        let argo = Self { process, _workloads: workloads, kubectl };
        argo.until_phase("Healthy")?;
        Ok(argo)
    }

    /// Begins a rollout.
    pub(crate) fn change_template(&self, revision: &str) -> Result {
        let change = json!({ "spec": { "template": { "metadata": { "annotations": { "revision": revision } } } } });
        self.patch(&[], &change)
    }

    /// As `kubectl argo rollouts promote` goes on from a pause.
    pub(crate) fn promote(&self) -> Result {
        self.patch(&["--subresource=status"], &json!({ "status": { "pauseConditions": null } }))
    }

    /// As `kubectl argo rollouts abort`.
    pub(crate) fn abort(&self) -> Result {
        self.patch(&["--subresource=status"], &json!({ "status": { "abort": true } }))
    }

    fn patch(&self, flags: &[&str], change: &Value) -> Result {
        let change = change.to_string();
        let patch = ["patch", "rollouts.argoproj.io", "demo", "--type=merge", "-p", &change];
        self.kubectl.run(&[&patch[..], flags].concat())?.succeeded()?;
        Ok(())
    }

    pub(crate) fn until_phase(&self, wanted: &str) -> Result {
        let command = ["get", "rollouts.argoproj.io", "demo", "-o", "jsonpath={.status.phase}"];
        self.until(wanted, || Ok(self.kubectl.run(&command)?.stdout().trim().to_owned()))
    }

    pub(crate) fn until_weights(&self, wanted: &str) -> Result {
        self.until(wanted, || self.kubectl.last_weights("demo"))
    }

    /// Waits until its VirtualService has these routes, by name.
    pub(crate) fn until_routes(&self, wanted: &str) -> Result {
        self.until(wanted, || self.kubectl.route_names("demo"))
    }

    fn until(&self, wanted: &str, ask: impl FnMut() -> Result<String>) -> Result {
        controller::until(&self.process, wanted, Duration::from_secs(60), ask)
    }

    /// Whether a write failed because nobody answered for the gate.
    pub(crate) fn met_no_gate(&self) -> Result<bool> {
        Ok(self.process.log()?.contains("failed calling webhook"))
    }

    /// The controller met no webhook that said no.
    pub(crate) fn was_never_refused(&self) -> Result {
        controller::was_never_refused(&self.process)
    }

    /// Weights by the hand of a person, to the stable side and to the canary.
    pub(crate) fn weigh(&self, stable: u32, canary: u32) -> Result<Answer> {
        controller::weigh(&self.kubectl, "demo", stable, canary)
    }
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "selector": { "app": "demo" }, "ports": [{ "name": "http", "port": 80 }] },
    })
}

fn virtual_service(route: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "demo" },
        "spec": { "hosts": ["demo"], "http": [{ "name": "primary", "route": route }] },
    })
}

fn destination_rule() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": { "name": "demo" },
        "spec": { "host": "demo", "subsets": [
            { "name": "stable", "labels": { "app": "demo" } },
            { "name": "canary", "labels": { "app": "demo" } },
        ]},
    })
}

fn rollout(canary: &Value) -> Value {
    let labels = json!({ "app": "demo" });
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": { "name": "demo" },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "demo", "image": "example.com/demo" }] },
            },
            "strategy": { "canary": canary },
        },
    })
}
