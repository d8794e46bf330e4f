//! An application in two versions, as far as the API server can tell: no pod runs.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Kubectl, Result};

/// For the watches of a gate to bring what was just written. A gate that has not heard of an application yet takes it
/// for a first install and lets more pass, so scenarios about serving applications must not race with it.
const SETTLE: Duration = Duration::from_millis(500);

/// Pods per version.
const PODS: usize = 2;

/// Service `reviews` and one workload per version, all ready.
pub(crate) struct App {
    pub(crate) kubectl: Kubectl,
}

impl App {
    pub(crate) fn deploy(kubectl: Kubectl, versions: &[&str]) -> Result<Self> {
        let mut objects = vec![service()];
        objects.extend(versions.iter().map(|version| deployment(version)));
        for version in versions {
            objects.extend((0..PODS).map(|i| pod(version, i)));
            objects.push(endpoint_slice(version, true));
        }
        kubectl.run_with(&["create", "-f", "-"], &list(&objects).to_string())?.succeeded()?;
        let app = Self { kubectl };
        for version in versions {
            app.pods_ready(version, true)?;
        }
        app.settle();
        Ok(app)
    }

    /// The same with both versions' subsets defined and this split in force.
    pub(crate) fn serving(kubectl: Kubectl, weights: &[(&str, u32)]) -> Result<Self> {
        let app = Self::deploy(kubectl, &["v1", "v2"])?;
        let objects = list(&[destination_rule(&["v1", "v2"]), virtual_service(weights)]);
        app.kubectl.apply(&objects)?.succeeded()?;
        app.settle();
        Ok(app)
    }

    /// Makes all pods of a version fail, or recover.
    pub(crate) fn set_ready(&self, version: &str, ready: bool) -> Result {
        self.pods_ready(version, ready)?;
        self.kubectl
            .run_with(&["replace", "-f", "-"], &endpoint_slice(version, ready).to_string())?
            .succeeded()?;
        self.settle();
        Ok(())
    }

    pub(crate) fn apply(&self, object: &Value) -> Result<super::Answer> {
        self.kubectl.apply(object)
    }

    pub(crate) fn must_store(&self, weights: &str) -> Result {
        let stored = self.kubectl.weights("reviews")?;
        if stored == weights {
            Ok(())
        } else {
            Err(format!("stored is {stored:?}, not {weights:?}").into())
        }
    }

    pub(crate) fn settle(&self) {
        thread::sleep(SETTLE);
    }

    fn pods_ready(&self, version: &str, ready: bool) -> Result {
        let status = if ready { "True" } else { "False" };
        let status =
            json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": status }] });
        let pods: Vec<_> = (0..PODS)
            .map(|i| {
                let name = format!("reviews-{version}-{i}");
                json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "status": status })
            })
            .collect();
        let args =
            ["apply", "--server-side", "--subresource=status", "--field-manager=e2e", "-f", "-"];
        self.kubectl.run_with(&args, &list(&pods).to_string())?.succeeded()?;
        Ok(())
    }
}

/// Several objects as one file.
pub(crate) fn list(objects: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects })
}

/// VirtualService `reviews` with one route to these subsets.
pub(crate) fn virtual_service(weights: &[(&str, u32)]) -> Value {
    let route: Vec<_> = weights
        .iter()
        .map(|(subset, weight)| json!({ "destination": { "host": "reviews", "subset": subset }, "weight": weight }))
        .collect();
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "reviews" },
        "spec": { "hosts": ["reviews"], "http": [{ "route": route }] },
    })
}

/// DestinationRule `reviews` with these subsets.
pub(crate) fn destination_rule(subsets: &[&str]) -> Value {
    let subsets: Vec<_> = subsets
        .iter()
        .map(|subset| json!({ "name": subset, "labels": { "version": subset } }))
        .collect();
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": { "name": "reviews" },
        "spec": { "host": "reviews", "subsets": subsets },
    })
}

pub(crate) fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "reviews", "labels": { "app": "reviews" } },
        "spec": { "selector": { "app": "reviews" }, "ports": [{ "name": "http", "port": 9080 }] },
    })
}

pub(crate) fn deployment(version: &str) -> Value {
    let labels = labels(version);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": format!("reviews-{version}"), "labels": labels },
        "spec": {
            "replicas": PODS,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": containers() },
        },
    })
}

fn pod(version: &str, i: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("reviews-{version}-{i}"), "labels": labels(version) },
        "spec": containers(),
    })
}

fn endpoint_slice(version: &str, ready: bool) -> Value {
    // Any address will do, except loopback, which the API server refuses.
    let net = version.bytes().fold(0u8, |sum, byte| sum.wrapping_mul(7).wrapping_add(byte));
    let endpoints: Vec<_> = (0..PODS)
        .map(|i| {
            json!({
                "addresses": [format!("10.0.{net}.{}", i + 1)],
                "conditions": { "ready": ready, "serving": ready, "terminating": false },
                "targetRef": { "kind": "Pod", "name": format!("reviews-{version}-{i}") },
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": format!("reviews-{version}"), "labels": { "kubernetes.io/service-name": "reviews" } },
        "ports": [{ "name": "http", "port": 9080 }],
        "endpoints": endpoints,
    })
}

fn labels(version: &str) -> Value {
    json!({ "app": "reviews", "version": version })
}

fn containers() -> Value {
    json!({ "containers": [{ "name": "reviews", "image": "example.com/reviews" }] })
}
