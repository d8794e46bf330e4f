//! An application in several versions, with Pods that really run.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::answered;
use super::image::Image;
use crate::harness::{
    Answer, Kubectl, Result, destination_rule, eventually, list, service, virtual_service,
};

/// For Pods to become ready, or not to be any more.
const SOON: Duration = Duration::from_secs(60);

pub(super) const IMAGE: &str = "sluicegate.dev/pod:node";

/// The port of Service `reviews`, and of its Pods.
const PORT: u16 = 9080;

/// Service `reviews` and one Deployment per version; its Pods answer with their version.
pub(crate) struct App {
    pub(crate) kubectl: Kubectl,
}

impl App {
    pub(super) fn image(program: &Path) -> Image<'_> {
        Image { name: IMAGE, program, arguments: &[] }
    }

    /// The versions with one ready Pod each.
    pub(crate) fn deploy(kubectl: Kubectl, versions: &[&str]) -> Result<Self> {
        let app = Self { kubectl };
        app.apply(&service())?.succeeded()?;
        for version in versions {
            app.start(version, true)?;
        }
        for version in versions {
            app.until_ready(version, 1)?;
        }
        Ok(app)
    }

    /// The same with the subsets of both versions, and this split in force.
    pub(crate) fn serving(kubectl: Kubectl, weights: &[(&str, u32)]) -> Result<Self> {
        let app = Self::deploy(kubectl, &["v1", "v2"])?;
        app.apply(&list(&[destination_rule(&["v1", "v2"]), virtual_service(weights)]))?
            .succeeded()?;
        Ok(app)
    }

    /// Deploys a version with one Pod, which is or is not ready when it runs.
    pub(crate) fn start(&self, version: &str, is_ready: bool) -> Result {
        self.apply(&deployment(version, is_ready))?.succeeded()?;
        Ok(())
    }

    /// Tells all Pods of a version to be ready or not, and waits until the API server knows.
    pub(crate) fn set_ready(&self, version: &str, is_ready: bool) -> Result {
        let pods = self.pods(version)?;
        for pod in &pods {
            let path = format!("{}/ready?is={is_ready}", self.proxy("pods", pod));
            self.kubectl.run_with(&["create", "--raw", &path, "-f", "-"], "")?.succeeded()?;
        }
        self.until_ready(version, if is_ready { pods.len() } else { 0 })
    }

    /// The Pods of a version that run.
    pub(crate) fn pods(&self, version: &str) -> Result<Vec<String>> {
        let selector = format!("--selector=app=reviews,version={version}");
        let running = "--field-selector=status.phase=Running";
        let path = "jsonpath={.items[*].metadata.name}";
        let answer = self.kubectl.run(&["get", "pods", &selector, running, "-o", path])?;
        let names = answer.succeeded()?;
        Ok(names.stdout().split_whitespace().map(str::to_owned).collect())
    }

    /// What a Pod behind the Service answers.
    pub(crate) fn ask(&self) -> Result<String> {
        let path = format!("{}/", self.proxy("services", "reviews"));
        let answer = self.kubectl.run(&["get", "--raw", &path])?.succeeded()?;
        Ok(answer.stdout().trim().to_owned())
    }

    /// As a person who tries again where there is no verdict: on a machine with too much to do, the API server may not answer the
    /// gate in time.
    pub(crate) fn apply(&self, object: &Value) -> Result<Answer> {
        answered(|| self.kubectl.apply(object))
    }

    pub(crate) fn must_store(&self, weights: &str) -> Result {
        let stored = self.kubectl.weights("reviews")?;
        if stored == weights {
            return Ok(());
        }
        Err(format!("stored is {stored:?}, not {weights:?}").into())
    }

    /// Waits until all Pods of a version run and so many are ready.
    pub(crate) fn until_ready(&self, version: &str, wanted: usize) -> Result {
        let name = format!("reviews-{version}");
        eventually(&format!("{name}: {wanted} of its Pods are ready"), SOON, || {
            let path = "jsonpath={.status.readyReplicas}";
            let answer = self.kubectl.run(&["get", "deployment", &name, "-o", path])?;
            let ready = answer.succeeded()?.stdout().trim().parse().unwrap_or(0);
            Ok(ready == wanted && !self.pods(version)?.is_empty())
        })
    }

    /// Where the API server hands requests on to the application.
    fn proxy(&self, kind: &str, name: &str) -> String {
        format!("/api/v1/namespaces/{}/{kind}/{name}:{PORT}/proxy", self.kubectl.namespace)
    }
}

/// An HTTP probe that waits long: where a Pod gets no processor for a second it would count as not ready, or be ended.
pub(super) fn probe(path: &str, port: &str, period: u32) -> Value {
    json!({ "httpGet": { "path": path, "port": port }, "periodSeconds": period, "timeoutSeconds": 10 })
}

fn deployment(version: &str, is_ready: bool) -> Value {
    let mut readiness = probe("/ready", "http", 1);
    readiness["failureThreshold"] = 1.into();
    let labels = json!({ "app": "reviews", "version": version });
    let environment = json!([
        { "name": "PORT", "value": PORT.to_string() },
        { "name": "VERSION", "value": version },
        { "name": "READY", "value": is_ready.to_string() },
    ]);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": format!("reviews-{version}"), "labels": labels },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "reviews", "image": IMAGE, "imagePullPolicy": "Never", "env": environment,
                    "ports": [{ "name": "http", "containerPort": PORT }],
                    "readinessProbe": readiness,
                }],
            }},
        },
    })
}
