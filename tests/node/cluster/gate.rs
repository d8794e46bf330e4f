//! The program under test as Pods, registered as the manual says.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::app::probe;
use super::image::Image;
use super::{Node, built};
use crate::harness::registration::{Probe, base64};
use crate::harness::{Kubectl, Result, eventually, manual, manuals};

/// The namespace that the manual's registration names.
pub(crate) const NAMESPACE: &str = "sluicegate-system";

const IMAGE: &str = "sluicegate.dev/sluicegate:node";
const SOON: Duration = Duration::from_secs(120);

/// Deployment `sluicegate`, in front of every namespace but its own and kube-system.
pub(crate) struct Gate {
    pub(crate) kubectl: Kubectl,
    probe: Probe,
}

impl Gate {
    pub(super) fn deploy(node: &Node, replicas: u32) -> Result<Self> {
        let program = static_program()?;
        node.import_image(&Image { name: IMAGE, program: &program, arguments: &["serve"] })?;
        let kubectl = node.kubectl(NAMESPACE);
        let name = "sluicegate.sluicegate-system.svc";
        let serving = node.authority().server_at("sluicegate", &[name])?;
        let mut objects = vec![
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": NAMESPACE, "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
            }}),
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "istio-system" } }),
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "sluicegate" } }),
            serde_saphyr::from_str(manual("ClusterRole")?)?,
            binding("ClusterRole", None),
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": { "name": "sluicegate-tls" },
                "stringData": { "tls.crt": serving.certificate, "tls.key": serving.key },
            }),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": { "name": "sluicegate" },
                "spec": { "selector": labels(), "ports": [{ "port": 443, "targetPort": "webhook" }] },
            }),
        ];
        for role in manuals("Role") {
            let role: Value = serde_saphyr::from_str(role)?;
            objects.push(binding("Role", role["metadata"]["namespace"].as_str()));
            objects.push(role);
        }
        objects.push(deployment(replicas));
        // One after the other: a namespace has to be there before what is in it.
        for object in objects {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or(NAMESPACE);
            let kubectl = node.kubectl(namespace);
            kubectl.run_with(&["create", "-f", "-"], &object.to_string())?.succeeded()?;
        }
        let probe = Probe(node.namespace("sluicegate-probe")?);
        let gate = Self { kubectl, probe };
        gate.until_ready(replicas)?;
        gate.register(node)?;
        Ok(gate)
    }

    /// As the manual shows it, and nothing but the certificate filled in.
    fn register(&self, node: &Node) -> Result {
        let mut configuration: Value =
            serde_saphyr::from_str(manual("ValidatingWebhookConfiguration")?)?;
        let trusted = base64(node.authority().certificate().as_bytes());
        for webhook in configuration["webhooks"].as_array_mut().into_iter().flatten() {
            webhook["clientConfig"]["caBundle"] = trusted.clone().into();
        }
        self.kubectl.run_with(&["create", "-f", "-"], &configuration.to_string())?.succeeded()?;
        self.until_asked()
    }

    /// Waits until the API server asks the gate and gets an answer.
    pub(crate) fn until_asked(&self) -> Result {
        self.probe.wait()
    }

    /// Waits until so many replicas are ready.
    pub(crate) fn until_ready(&self, replicas: u32) -> Result {
        let path = "jsonpath={.status.readyReplicas}";
        eventually(&format!("{replicas} replicas of the gate are ready"), SOON, || {
            let get = ["get", "deployment", "sluicegate", "-o", path];
            let ready = self.kubectl.run(&get)?.succeeded()?;
            Ok(ready.stdout().trim().parse().unwrap_or(0) == replicas)
        })
    }

    /// The names of the replicas.
    pub(crate) fn pods(&self) -> Result<Vec<String>> {
        let path = "jsonpath={.items[*].metadata.name}";
        let get = ["get", "pods", "--selector=app=sluicegate", "-o", path];
        let names = self.kubectl.run(&get)?.succeeded()?;
        Ok(names.stdout().split_whitespace().map(str::to_owned).collect())
    }

    /// Ends every replica at once, without notice. The Deployment makes new ones.
    pub(crate) fn kill_all(&self) -> Result {
        let delete = ["delete", "pods", "--selector=app=sluicegate", "--force", "--grace-period=0"];
        self.kubectl.run(&[&delete[..], &["--wait=false"]].concat())?.succeeded()?;
        Ok(())
    }

    /// Has every replica replaced, one after the other, as a new version would.
    pub(crate) fn restart(&self) -> Result {
        self.kubectl.run(&["rollout", "restart", "deployment", "sluicegate"])?.succeeded()?;
        Ok(())
    }

    pub(crate) fn scale(&self, replicas: u32) -> Result {
        let replicas = format!("--replicas={replicas}");
        self.kubectl.run(&["scale", "deployment", "sluicegate", &replicas])?.succeeded()?;
        Ok(())
    }

    /// The sum over the replicas of all samples that begin like this, `sluicegate_reviews_total{verdict="deny"`.
    pub(crate) fn count(&self, sample: &str) -> Result<f64> {
        let mut sum = 0.0;
        for pod in self.pods()? {
            let text = self.metrics(&pod)?;
            let samples = text.lines().filter(|line| line.starts_with(sample));
            sum += samples
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum::<f64>();
        }
        Ok(sum)
    }

    /// What one replica says under `/metrics`.
    pub(crate) fn metrics(&self, pod: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/metrics");
        Ok(self.kubectl.run(&["get", "--raw", &path])?.succeeded()?.stdout().to_owned())
    }

    /// Nothing that this account wrote in a namespace was refused, or got no verdict, as the logs of the replicas say. That the API
    /// server had no time for the gate is the machine's fault, as in [`Write::is_left_alone`](super::Write::is_left_alone).
    pub(crate) fn let_pass(&self, namespace: &str, account: &str) -> Result {
        let log = self.last_lines(-1)?;
        let (namespace, account) = (format!("\"{namespace}\""), format!("\"{account}\""));
        let is_stopped = |line: &&str| {
            let is_own = line.contains(&namespace) && line.contains(&account);
            let is_slow = line.contains("did not answer a live read within");
            let is_left_alone = line.contains("\"no verdict\"") && !is_slow;
            is_own && (line.contains("\"refused\"") || is_left_alone)
        };
        match log.lines().find(is_stopped) {
            Some(line) => Err(format!("the gate stopped the controller: {line}").into()),
            None => Ok(()),
        }
    }

    /// The ends of the logs of all replicas.
    pub(crate) fn log(&self) -> Result<String> {
        self.last_lines(200)
    }

    fn last_lines(&self, lines: i32) -> Result<String> {
        let tail = format!("--tail={lines}");
        let mut all = String::new();
        for pod in self.pods()? {
            eventually(&format!("the log of {pod} can be read"), SOON, || {
                let answer = self.kubectl.run(&["logs", &pod, "--prefix", &tail])?;
                all.push_str(if answer.is_success() { answer.stdout() } else { "" });
                // One that is gone has taken its log with it.
                Ok(answer.is_success() || answer.stderr().contains("NotFound"))
            })?;
        }
        Ok(all)
    }
}

fn labels() -> Value {
    json!({ "app": "sluicegate" })
}

fn binding(kind: &str, namespace: Option<&str>) -> Value {
    let group = "rbac.authorization.k8s.io";
    json!({
        "apiVersion": format!("{group}/v1"), "kind": format!("{kind}Binding"),
        "metadata": { "name": "sluicegate", "namespace": namespace },
        "roleRef": { "apiGroup": group, "kind": kind, "name": "sluicegate" },
        "subjects": [{ "kind": "ServiceAccount", "name": "sluicegate", "namespace": NAMESPACE }],
    })
}

fn deployment(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "sluicegate", "labels": labels() },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels() },
            "template": { "metadata": { "labels": labels() }, "spec": {
                "serviceAccountName": "sluicegate",
                "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
                "containers": [{
                    "name": "sluicegate", "image": IMAGE, "imagePullPolicy": "Never",
                    "args": ["serve", "--tls-dir", "/etc/sluicegate/tls"],
                    "ports": [{ "name": "webhook", "containerPort": 8443 }, { "name": "status", "containerPort": 8080 }],
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
                    },
                    "readinessProbe": probe("/readyz", "status", 1),
                    "livenessProbe": probe("/healthz", "status", 10),
                    "volumeMounts": [{ "name": "tls", "mountPath": "/etc/sluicegate/tls", "readOnly": true }],
                }],
                "volumes": [{ "name": "tls", "secret": { "secretName": "sluicegate-tls" } }],
            }},
        },
    })
}

/// What `make static` or `make release` has built, the newer of the two.
fn static_program() -> Result<PathBuf> {
    let folder = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let files = ["debug", "release"].map(|profile| format!("{folder}/{profile}/sluicegate"));
    built(&files, "make static")
}
