//! How the API server comes to ask a gate.

use std::time::Duration;

use serde_json::{Value, json};

use super::control_plane::{ControlPlane, GATE_LABEL};
use super::{Kubectl, Result, eventually, manual};

/// A ValidatingWebhookConfiguration for the namespaces with one label.
pub(crate) struct Registration {
    pub(crate) label: String,
    pub(crate) port: u16,
    pub(crate) fails: Fails,
    /// Certificates (PEM) of the authorities that the API server believes.
    pub(crate) trusted: String,
}

/// What the API server does when it cannot reach the gate (`failurePolicy`).
#[derive(Clone, Copy)]
pub(crate) enum Fails {
    Closed,
    Open,
}

/// Finds out whether the API server asks: it learns of a registration by a watch, so a moment late. It asks in a namespace behind
/// the gate.
pub(crate) struct Probe(pub(crate) Kubectl);

impl Registration {
    pub(crate) fn create(&self, plane: &ControlPlane) -> Result<Probe> {
        let Self { label, .. } = self;
        self.put(plane, &json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": { "name": format!("sluicegate-{label}") },
            "webhooks": [{
                "name": format!("{label}.sluicegate.dev"),
                "clientConfig": self.client(),
                "rules": [{
                    "apiGroups": ["networking.istio.io"],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE", "UPDATE", "DELETE"],
                    "resources": ["virtualservices", "destinationrules"],
                    "scope": "Namespaced",
                }],
                "namespaceSelector": { "matchLabels": { GATE_LABEL: label } },
                "matchPolicy": "Equivalent",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 3,
                "failurePolicy": match self.fails { Fails::Closed => "Fail", Fails::Open => "Ignore" },
            }],
        }))
    }

    /// As the manual shows it, for the namespaces with the label and without a Service.
    pub(crate) fn create_documented(&self, plane: &ControlPlane) -> Result<Probe> {
        let text = manual("ValidatingWebhookConfiguration")?;
        let mut configuration: Value = serde_saphyr::from_str(text)?;
        configuration["metadata"]["name"] = format!("sluicegate-{}", self.label).into();
        for webhook in configuration["webhooks"].as_array_mut().into_iter().flatten() {
            webhook["clientConfig"] = self.client();
            webhook["namespaceSelector"] = json!({ "matchLabels": { GATE_LABEL: self.label } });
        }
        self.put(plane, &configuration)
    }

    fn client(&self) -> Value {
        json!({
            "url": format!("https://127.0.0.1:{}/validate", self.port),
            "caBundle": base64(self.trusted.as_bytes()),
        })
    }

    fn put(&self, plane: &ControlPlane, configuration: &Value) -> Result<Probe> {
        let label = &self.label;
        let admin = plane.admin();
        admin.run_with(&["create", "-f", "-"], &configuration.to_string())?.succeeded()?;
        Ok(Probe(plane.namespace(&format!("probe-{label}"), Some(label))?))
    }
}

impl Probe {
    pub(crate) fn is_asked(&self) -> Result<bool> {
        // Any gate refuses a route that does nothing, whatever it knows of the cluster.
        let broken = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "probe" },
            "spec": { "hosts": ["probe"], "http": [{ "name": "leads-nowhere" }] },
        });
        let answer =
            self.0.run_with(&["create", "--dry-run=server", "-f", "-"], &broken.to_string())?;
        Ok(answer.stderr().contains("denied the request"))
    }

    pub(crate) fn wait(&self) -> Result {
        eventually("the API server asks the gate", Duration::from_secs(20), || self.is_asked())
    }
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| usize::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digits = (0..4).map(|i| char::from(DIGITS[bits >> (18 - 6 * i) & 63]));
        text.extend(digits.take(chunk.len() + 1));
        text.extend(std::iter::repeat_n('=', 3 - chunk.len()));
    }
    text
}
