//! The API server that renderings are shown to, started by the first that asks.

use std::sync::{Arc, OnceLock};

use serde_json::json;

use crate::harness::sandbox::Sandbox;
use crate::harness::{ControlPlane, Result, programs, text};

/// The namespace of the releases.
pub(crate) const NAMESPACE: &str = "sluicegate-system";

/// What objects of the chart may be of, beside Kubernetes' own kinds.
const CRDS: [&str; 5] = [
    "service-monitor-crd.yaml",
    "pod-monitor-crd.yaml",
    "prometheus-rule-crd.yaml",
    "certificate-crd.yaml",
    "issuer-crd.yaml",
];

#[derive(Default)]
pub(crate) struct Stage(OnceLock<std::result::Result<ControlPlane, String>>);

impl Stage {
    /// A real API server with the CRDs, and with the namespaces that renderings name.
    pub(crate) fn plane(&self) -> Result<&ControlPlane> {
        let plane = self.0.get_or_init(|| start().map_err(text));
        plane.as_ref().map_err(|error| error.as_str().into())
    }
}

fn start() -> Result<ControlPlane> {
    let crds = CRDS.map(programs::find).into_iter().collect::<Result<Vec<_>>>()?;
    let plane = ControlPlane::start(Arc::new(Sandbox::new()?))?;
    for crd in crds {
        // Larger than what a client-side apply could note down.
        let file = crd.display().to_string();
        plane.admin().run(&["create", "-f", &file])?.succeeded()?;
    }
    plane
        .admin()
        .run(&["wait", "crd", "--all", "--for=condition=Established", "--timeout=30s"])?
        .succeeded()?;
    // Restricted, so that the API server warns about every Pod that is not.
    for (name, level) in [(NAMESPACE, "restricted"), ("istio-system", "privileged")] {
        let labels = json!({ "pod-security.kubernetes.io/warn": level });
        // The manual's own namespace is there already.
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } });
        plane.admin().apply(&namespace)?.succeeded()?;
    }
    Ok(plane)
}
