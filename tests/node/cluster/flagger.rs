//! The real Flagger on a node, and applications with Pods of their own that it delivers.

use std::time::Duration;

use serde_json::{Value, json};

use super::Node;
use super::app::{IMAGE, probe};
use super::audit::Write;
use crate::harness::process::Process;
use crate::harness::{Answer, Kubectl, Result, eventually, list, programs, text};

/// For a phase or a weight to come: some ticks of ten seconds each, on a machine that others use, too.
const SOON: Duration = Duration::from_secs(300);

/// Flagger in the node's network, under the account of its manifests. It ends with this.
pub(crate) struct Flagger {
    process: Process,
}

impl Flagger {
    /// As admission sees it.
    pub(crate) const ACCOUNT: &str = "system:serviceaccount:istio-system:flagger";

    /// Installs it as its manifests do, and waits until it works.
    pub(crate) fn start(node: &Node) -> Result<Self> {
        let admin = node.admin();
        let crds = programs::find("flagger-crd.yaml")?.display().to_string();
        admin.run(&["apply", "--server-side", "-f", &crds])?.succeeded()?;
        let wait = ["wait", "crd", "canaries.flagger.app", "--for=condition=Established"];
        admin.run(&wait)?.succeeded()?;
        eventually("Canaries are served", SOON, || {
            Ok(admin.run(&["get", "canaries.v1beta1.flagger.app"])?.is_success())
        })?;
        let system = node.kubectl("istio-system");
        system.apply(&list(&account()))?.succeeded()?;
        let kubeconfig = node.kubeconfig_for("istio-system", "flagger")?;
        let mut command = node.program("flagger")?;
        command
            .arg(format!("-kubeconfig={}", kubeconfig.display()))
            // Nobody listens there; these analyses have no metrics.
            .args(["-mesh-provider=istio", "-metrics-server=http://127.0.0.1:9"])
            .args(["-control-loop-interval=1s"]);
        let process = node.spawn("flagger", &mut command)?;
        eventually("Flagger works", SOON, || {
            Ok(process.log()?.contains("Started operator workers"))
        })
        .map_err(|error| format!("{}\n{}", text(error), process.tail()))?;
        Ok(Self { process })
    }

    /// Its log knows of no write that was refused.
    pub(crate) fn was_never_refused(&self) -> Result {
        let log = self.process.log()?;
        match log.lines().find(|line| line.contains("denied the request")) {
            Some(line) => Err(format!("Flagger was refused: {line}").into()),
            None => Ok(()),
        }
    }
}

/// Who it is, and what it may do: `artifacts/flagger/account.yaml` of Flagger 1.44.0, the kinds of other meshes left out.
fn account() -> [Value; 3] {
    let all = json!(["get", "list", "watch", "create", "update", "patch", "delete"]);
    let rule = |group: &str, resources: &[&str]| {
        let mut resources = resources.to_vec();
        let finalizers =
            resources.iter().map(|own| format!("{own}/finalizers")).collect::<Vec<_>>();
        resources.extend(finalizers.iter().map(String::as_str));
        json!({ "apiGroups": [group], "resources": resources, "verbs": all })
    };
    let group = "rbac.authorization.k8s.io";
    let own = [
        "canaries",
        "canaries/status",
        "metrictemplates",
        "metrictemplates/status",
        "alertproviders",
        "alertproviders/status",
    ];
    let role = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": { "name": "flagger" },
        "rules": [
            rule("", &["events", "configmaps", "secrets", "services"]),
            rule("coordination.k8s.io", &["leases"]),
            rule("apps", &["daemonsets", "deployments"]),
            rule("autoscaling", &["horizontalpodautoscalers"]),
            rule("flagger.app", &own),
            rule("networking.istio.io", &["virtualservices", "destinationrules"]),
            { "nonResourceURLs": ["/version"], "verbs": ["get"] },
        ],
    });
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": { "name": "flagger" },
        "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": "flagger" },
        "subjects": [{ "kind": "ServiceAccount", "name": "flagger", "namespace": "istio-system" }],
    });
    let account =
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "flagger" } });
    [account, role, binding]
}

/// Canary `podinfo` in a namespace of its own, with Pods that run.
pub(crate) struct Podinfo {
    pub(crate) kubectl: Kubectl,
}

impl Podinfo {
    /// The VirtualService that Flagger drives, as kubectl takes it.
    pub(crate) const ROUTES: &str = "virtualservices.v1.networking.istio.io/podinfo";

    /// Deploys it, and waits until Flagger has made what it makes. `spec` is the Canary's beside target and service, `template`
    /// what the Deployment has beside the usual.
    pub(crate) fn deploy(kubectl: Kubectl, spec: &Value, deployment: &Value) -> Result<Self> {
        let mut own = self::deployment();
        merge(&mut own["spec"], deployment);
        kubectl.apply(&own)?.succeeded()?;
        let mut canary = json!({
            "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": { "name": "podinfo" },
            "spec": {
                "targetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo" },
                "service": { "port": 80, "targetPort": "http" },
                "analysis": { "interval": "10s", "threshold": 1 },
            },
        });
        merge(&mut canary["spec"], spec);
        kubectl.apply(&canary)?.succeeded()?;
        let own = Self { kubectl };
        own.until_phase("Initialized")?;
        Ok(own)
    }

    /// Begins a rollout.
    pub(crate) fn change(&self, version: &str) -> Result {
        let change = json!([{ "op": "replace", "path": "/spec/template/spec/containers/0/env/1/value", "value": version }]);
        self.patch_deployment("json", &change)
    }

    /// Changes the target's Deployment, by a patch of this type.
    pub(crate) fn patch_deployment(&self, how: &str, change: &Value) -> Result {
        let how = format!("--type={how}");
        let patch = ["patch", "deployment", "podinfo", &how, "-p", &change.to_string()];
        self.kubectl.run(&patch)?.succeeded()?;
        Ok(())
    }

    pub(crate) fn until_phase(&self, wanted: &str) -> Result {
        self.until("canary/podinfo", &format!("jsonpath={{.status.phase}}={wanted}"))
    }

    /// Until the first route gives this to the canary.
    pub(crate) fn until_canary_has(&self, weight: u32) -> Result {
        let path = format!("jsonpath={{.spec.http[0].route[1].weight}}={weight}");
        self.until(Self::ROUTES, &path)
    }

    /// Waits by a watch, because many of these wait at once.
    pub(crate) fn until(&self, object: &str, what: &str) -> Result {
        let (what, limit) = (format!("--for={what}"), format!("--timeout={}s", SOON.as_secs()));
        let answer = self.kubectl.run(&["wait", object, &what, &limit, "--request-timeout=0"])?;
        if answer.is_success() {
            return Ok(());
        }
        let state = self.kubectl.run(&["describe", "canary", "podinfo"])?;
        Err(format!("{answer}\n{state}").into())
    }

    /// Weights by the hand of a person, to the primary and to the canary.
    pub(crate) fn weigh(&self, primary: u32, canary: u32) -> Result<Answer> {
        let change = json!([
            { "op": "replace", "path": "/spec/http/0/route/0/weight", "value": primary },
            { "op": "replace", "path": "/spec/http/0/route/1/weight", "value": canary },
        ]);
        self.kubectl.run(&["patch", Self::ROUTES, "--type=json", "-p", &change.to_string()])
    }
}

/// The weights that were stored one after the other, `100/0` for each route, without repetitions.
pub(crate) fn weights<'a>(writes: impl IntoIterator<Item = &'a Write>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for write in writes {
        let routes = write.response["spec"]["http"].as_array();
        if !write.resource.starts_with("virtualservices") || write.code >= 300 {
            continue;
        }
        let route = |route: &Value| {
            let to = route["route"].as_array().into_iter().flatten();
            let weight =
                |to: &Value| to["weight"].as_u64().map_or("-".to_owned(), |own| own.to_string());
            let mirror = if route["mirror"].is_null() { "" } else { "+mirror" };
            to.map(weight).collect::<Vec<_>>().join("/") + mirror
        };
        let said = routes.into_iter().flatten().map(route).collect::<Vec<_>>().join(" ");
        if all.last() != Some(&said) {
            all.push(said);
        }
    }
    all
}

fn merge(object: &mut Value, more: &Value) {
    match more {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, own)| merge(&mut object[name], own))
        }
        _ => *object = more.clone(),
    }
}

fn deployment() -> Value {
    let labels = json!({ "app": "podinfo" });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "podinfo", "labels": labels },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "podinfo", "image": IMAGE, "imagePullPolicy": "Never",
                    "env": [{ "name": "PORT", "value": "9898" }, { "name": "VERSION", "value": "1" }],
                    "ports": [{ "name": "http", "containerPort": 9898 }],
                    "readinessProbe": probe("/ready", "http", 1),
                }],
            }},
        },
    })
}
