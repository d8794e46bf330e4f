//! The chart's ValidatingAdmissionPolicies, rendered by Helm and put in force, several sets side by side.

use std::process::Command;
use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use crate::api::Api;
use crate::harness::sandbox::Sandbox;
use crate::harness::{Result, eventually, programs};

/// The label by which a write says which set judges it.
pub(crate) const LABEL: &str = "e2e.sluicegate.dev/set";

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";

/// What a chart with these values holds besides, it holds without them.
#[derive(Clone)]
pub(crate) struct Set {
    pub(crate) label: String,
    objects: Vec<Value>,
}

impl Set {
    /// The set for a policy, under a name of its own.
    pub(crate) fn render(sandbox: &Sandbox, label: &str, policy: &Value) -> Result<Self> {
        let mut values = json!({ "fullnameOverride": label, "vap": { "enabled": true } });
        if !policy.is_null() {
            values["policy"] = policy.clone();
        }
        let file = sandbox.write(&format!("{label}.values.json"), values.to_string())?;
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/sluicegate");
        let output = Command::new(programs::find("helm4")?)
            .args(["template", label, chart, "--namespace", "sluicegate-system"])
            .args(["--show-only", "templates/validatingadmissionpolicy.yaml", "--values"])
            .arg(file)
            .env("HOME", sandbox.path())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!("helm template with {policy}: {said}").into());
        }
        let text = String::from_utf8(output.stdout)?;
        let documents = sluicegate::cluster::parse(label, &text)?;
        let objects = documents.into_iter().map(|document| document.value);
        Ok(Self { label: label.to_owned(), objects: objects.collect() })
    }

    /// The same with something else in it, under another name.
    pub(crate) fn with(&self, label: &str, change: impl Fn(&mut Value)) -> Self {
        let text = Value::from(self.objects.clone()).to_string().replace(&self.label, label);
        let mut objects: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
        objects.iter_mut().for_each(change);
        Self { label: label.to_owned(), objects }
    }
}

/// Puts sets in force; the last one must refuse an object that is broken for everyone.
pub(crate) fn put_in_force(api: &Api, sets: &[Set]) -> Result {
    let all = || sets.iter().flat_map(|set| set.objects.iter().map(move |object| (set, object)));
    let is = |object: &Value, kind: &str| object["kind"] == kind;
    for (_, policy) in all().filter(|(_, own)| is(own, "ValidatingAdmissionPolicy")) {
        api.create(POLICIES, policy)?;
    }
    for (set, binding) in all().filter(|(_, own)| is(own, "ValidatingAdmissionPolicyBinding")) {
        let mut binding = binding.clone();
        binding["spec"]["matchResources"]["objectSelector"]["matchLabels"][LABEL] =
            json!(set.label);
        api.create(BINDINGS, &binding)?;
    }
    let last = sets.last().map(|set| set.label.as_str()).ok_or("no set")?;
    let broken = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": "broken", "labels": { LABEL: last } }, "spec": { "hosts": ["a"] },
    });
    let path = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices?dryRun=All";
    eventually("the policies are in force", Duration::from_secs(60), || {
        Ok(api.ask(Method::POST, path, None, Some(&broken))?.status >= 400)
    })
}
