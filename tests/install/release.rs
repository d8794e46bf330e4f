//! What a release of the chart has put into the cluster.

use std::time::Duration;

use crate::cluster::{Node, built};
use crate::harness::registration::Probe;
use crate::harness::{Kubectl, Result, eventually};
use crate::helm::NAMESPACE;

const SOON: Duration = Duration::from_secs(120);

const SELECTOR: &str = "app.kubernetes.io/instance=sluicegate,app.kubernetes.io/component=gate";

/// Lets the node's Pods use what `make image` built, under the name that the chart gives it.
pub(crate) fn import_image(node: &Node) -> Result {
    node.import_archive(&built(&["image/sluicegate.tar"], "make image")?)
}

/// The gate of a release.
pub(crate) struct Release {
    pub(crate) kubectl: Kubectl,
    probe: Probe,
}

impl Release {
    pub(crate) fn on(node: &Node) -> Result<Self> {
        Ok(Self { kubectl: node.kubectl(NAMESPACE), probe: Probe(node.namespace("probe")?) })
    }

    /// The API server asks it, and gets an answer.
    pub(crate) fn until_asked(&self) -> Result {
        self.probe.wait()
    }

    /// Whether a write that is broken for everyone is refused, by the gate and not for want of one.
    pub(crate) fn is_asked(&self) -> Result<bool> {
        self.probe.is_asked()
    }

    pub(crate) fn until_ready(&self, replicas: u32) -> Result {
        let path = "jsonpath={.status.readyReplicas} {.status.updatedReplicas} {.status.replicas}";
        eventually(&format!("{replicas} replicas are ready, and no other is left"), SOON, || {
            let get = ["get", "deployment", "sluicegate", "-o", path];
            let numbers = self.kubectl.run(&get)?.succeeded()?;
            let wanted = format!("{replicas} {replicas} {replicas}");
            Ok(numbers.stdout().trim() == wanted && self.pods()?.len() == replicas as usize)
        })
    }

    /// The names of its Pods, those that are about to end included.
    pub(crate) fn pods(&self) -> Result<Vec<String>> {
        let selector = format!("--selector={SELECTOR}");
        let path = "jsonpath={.items[*].metadata.name}";
        let names = self.kubectl.run(&["get", "pods", &selector, "-o", path])?.succeeded()?;
        Ok(names.stdout().split_whitespace().map(str::to_owned).collect())
    }

    /// Has the kubelet look at its Pods now, and bring them what has changed in ConfigMaps; by itself it does so once a minute.
    ///
    /// Source: <https://kubernetes.io/docs/tasks/configure-pod-container/configure-pod-configmap/#mounted-configmaps-are-updated-automatically>.
    pub(crate) fn hurry(&self) -> Result {
        let selector = format!("--selector={SELECTOR}");
        let now = std::time::UNIX_EPOCH.elapsed()?.as_millis();
        let mark = format!("sluicegate.dev/hurry={now}");
        self.kubectl.run(&["annotate", "pods", &selector, "--overwrite", &mark])?.succeeded()?;
        Ok(())
    }

    /// How often containers of its Pods were started again.
    pub(crate) fn restarts(&self) -> Result<u32> {
        let selector = format!("--selector={SELECTOR}");
        let path = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
        let counts = self.kubectl.run(&["get", "pods", &selector, "-o", path])?.succeeded()?;
        Ok(counts.stdout().split_whitespace().filter_map(|own| own.parse::<u32>().ok()).sum())
    }

    /// A sample of each replica, by its exact name and labels.
    pub(crate) fn samples(&self, sample: &str) -> Result<Vec<f64>> {
        let mut found = Vec::new();
        for pod in self.pods()? {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/metrics");
            let text = self.kubectl.run(&["get", "--raw", &path])?.succeeded()?;
            let lines = text.stdout().lines().filter_map(|line| line.rsplit_once(' '));
            let mut values = lines.filter(|(name, _)| *name == sample);
            let (_, value) = values.next().ok_or_else(|| format!("{pod} has no {sample}"))?;
            found.push(value.parse::<f64>()?);
        }
        Ok(found)
    }

    /// The PEM that the API server trusts it by, of every entry, which have to be the same.
    pub(crate) fn trusted(&self) -> Result<String> {
        let path = "jsonpath={.webhooks[*].clientConfig.caBundle}";
        let get = ["get", "validatingwebhookconfiguration", "sluicegate", "-o", path];
        let bundles = self.kubectl.run(&get)?.succeeded()?;
        let mut bundles = bundles.stdout().split_whitespace();
        let first = bundles.next().unwrap_or_default().to_owned();
        match bundles.find(|other| *other != first) {
            Some(_) => Err("the entries trust different authorities".into()),
            None => Ok(first),
        }
    }

    /// The serving certificate as it is stored.
    pub(crate) fn certificate(&self) -> Result<String> {
        let path = "jsonpath={.data.tls\\.crt}";
        let get = ["get", "secret", "sluicegate-certs", "-o", path];
        Ok(self.kubectl.run(&get)?.succeeded()?.stdout().trim().to_owned())
    }

    /// What it said.
    pub(crate) fn log(&self) -> Result<String> {
        let selector = format!("--selector={SELECTOR}");
        let logs = ["logs", &selector, "--prefix", "--tail=60"];
        Ok(self.kubectl.run(&logs)?.stdout().to_owned())
    }

    /// Whatever a namespace and a cluster still have of it; empty once it is removed.
    pub(crate) fn leftovers(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let label = "--selector=app.kubernetes.io/instance=sluicegate";
        let kinds =
            self.kubectl.run(&["api-resources", "--verbs=list", "-o", "name"])?.succeeded()?;
        // Events say what was, and metrics of Pods have no API here.
        let kinds = kinds.stdout().lines().filter(|kind| !kind.starts_with("events"));
        let kinds = kinds.collect::<Vec<_>>().join(",");
        let get = ["get", &kinds, "--ignore-not-found", "-o", "name"];
        for further in [&["--all-namespaces", label][..], &[]] {
            let named = self.kubectl.run(&[&get[..], further].concat())?.succeeded()?;
            left.extend(
                named
                    .stdout()
                    .lines()
                    .filter(|name| name.contains("sluicegate"))
                    .map(str::to_owned),
            );
        }
        // The namespace was made by the command, and Helm leaves it; so does Kubernetes its account and its certificate.
        left.retain(|name| !["namespace/sluicegate-system"].contains(&name.as_str()));
        left.retain(|name| !name.ends_with(".sluicegate.dev") && !name.starts_with("node"));
        Ok(left)
    }
}
