use std::path::Path;

use anyhow::Context as _;

use crate::cluster;
use crate::policy::{Policies, Policy};
use crate::rules;

/// The API group of a CanaryPolicy.
const GROUP: &str = "sluicegate.dev/";

/// Reads the policies of a file, in the shape of a CanaryPolicy or only its `spec`; without a file the built-in default.
///
/// # Errors
/// Where the file cannot be read or says something that no policy can say.
pub(super) fn load(path: Option<&Path>) -> anyhow::Result<Policies> {
    let Some(path) = path else { return Ok(Policies::new(Vec::new(), rules::ALL)) };
    let mut policies = Vec::new();
    for document in cluster::load(&[path.to_owned()])? {
        let (name, spec) = named_spec(&document.value, policies.len());
        let policy =
            Policy::parse(rules::ALL, &name, spec).with_context(|| path.display().to_string())?;
        policies.push(policy);
    }
    Ok(Policies::new(policies, rules::ALL))
}

fn named_spec(value: &serde_json::Value, index: usize) -> (String, serde_json::Value) {
    let is_object = value.get("kind").is_some_and(|kind| kind == "CanaryPolicy")
        || value
            .get("apiVersion")
            .and_then(|version| version.as_str())
            .is_some_and(|version| version.starts_with(GROUP));
    if !is_object {
        return (format!("policy-{}", index + 1), value.clone());
    }
    let name = value.pointer("/metadata/name").and_then(|name| name.as_str()).unwrap_or("unnamed");
    (name.to_owned(), value.get("spec").cloned().unwrap_or_else(|| serde_json::json!({})))
}
