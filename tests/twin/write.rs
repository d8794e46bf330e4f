//! Writes a case as its user would: the old object is stored, the new one is a dry run.

use std::collections::BTreeSet;

use axum::http::Method;
use serde_json::{Value, json};

use crate::api::Api;
use crate::golden::Case;
use crate::harness::{ControlPlane, Result};
use crate::policies::LABEL;

/// Keeps an object that is on its way out.
const FINALIZER: &str = "e2e.sluicegate.dev/stays";

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Answer {
    /// With these warnings.
    Admitted(Vec<String>),
    /// By a ValidatingAdmissionPolicy, with this message.
    Refused(String),
    /// By the CRD.
    Schema,
}

pub(crate) struct Writer<'a> {
    api: &'a Api,
}

impl<'a> Writer<'a> {
    /// Whoever a case says writes may write VirtualServices, in these namespaces.
    pub(crate) fn new(
        plane: &ControlPlane,
        api: &'a Api,
        namespaces: impl Iterator<Item = String>,
    ) -> Result<Self> {
        for namespace in namespaces.chain(["shop".to_owned()]).collect::<BTreeSet<_>>() {
            plane.namespace(&namespace, None)?;
        }
        let group = "rbac.authorization.k8s.io";
        let rules = json!([{ "apiGroups": ["networking.istio.io"], "resources": ["virtualservices"], "verbs": ["*"] }]);
        let role = json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": { "name": "everybody" }, "rules": rules,
        });
        let binding = json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": { "name": "everybody" },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": "everybody" },
            "subjects": [{ "apiGroup": group, "kind": "Group", "name": "system:authenticated" }],
        });
        api.create(&format!("/apis/{group}/v1/clusterroles"), &role)?;
        api.create(&format!("/apis/{group}/v1/clusterrolebindings"), &binding)?;
        Ok(Self { api })
    }

    /// Writes the case, judged by the policies of one set.
    pub(crate) fn write(&self, case: &Case, set: &str) -> Result<Answer> {
        let new = case.new.as_ref().ok_or("a deletion is judged by no twin")?;
        let user = Some(if case.user.is_empty() { "jane" } else { &case.user });
        let is_leaving = !new["metadata"]["deletionTimestamp"].is_null();
        let mut written = storable(new);
        written["metadata"]["labels"][LABEL] = json!(set);
        let Some(old) = &case.old else {
            let said =
                self.api.ask(Method::POST, &(path(&written) + "?dryRun=All"), user, Some(&written));
            return answer(said?);
        };
        let mut stored = storable(old);
        if is_leaving {
            stored["metadata"]["finalizers"] = json!([FINALIZER]);
            written["metadata"]["finalizers"] = json!([FINALIZER]);
        }
        let own = format!("{}/{}", path(&written), case.name());
        let stored = self.api.create(&path(&stored), &stored).map_err(|error| {
            format!("{}: the old object: {}", case.name(), crate::harness::text(error))
        })?;
        if is_leaving {
            self.api.delete(&own)?;
        }
        // The version is left out: what is written is written over whatever is there.
        written["metadata"]["uid"] = stored["metadata"]["uid"].clone();
        let current = self.api.ask(Method::GET, &own, None, None)?.succeeded()?;
        written["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
        let said = self.api.ask(Method::PUT, &format!("{own}?dryRun=All"), user, Some(&written))?;
        if is_leaving {
            let mut free = current;
            free["metadata"]["finalizers"] = json!([]);
            self.api.ask(Method::PUT, &own, None, Some(&free))?.succeeded()?;
        }
        self.api.delete(&own)?;
        answer(said)
    }
}

fn answer(said: crate::api::Said) -> Result<Answer> {
    let message = said.message().to_owned();
    match said.status {
        status if status < 300 => Ok(Answer::Admitted(said.warnings)),
        422 if message.contains("ValidatingAdmissionPolicy '") => Ok(Answer::Refused(message)),
        400 | 422 => Ok(Answer::Schema),
        status => Err(format!("{status}: {message}").into()),
    }
}

fn path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, namespace) =
        (text(&object["apiVersion"]), text(&object["metadata"]["namespace"]));
    format!("/apis/{version}/namespaces/{namespace}/virtualservices")
}

/// An object of a case without what only the API server writes, and with what it asks for.
fn storable(object: &Value) -> Value {
    let mut object = object.clone();
    let metadata = &mut object["metadata"];
    if metadata["namespace"].is_null() {
        metadata["namespace"] = json!("shop");
    }
    if let Some(metadata) = metadata.as_object_mut() {
        let written =
            ["creationTimestamp", "resourceVersion", "uid", "generation", "deletionTimestamp"];
        written.iter().for_each(|field| drop(metadata.remove(*field)));
    }
    for owner in metadata["ownerReferences"].as_array_mut().into_iter().flatten() {
        if owner["uid"].is_null() {
            owner["uid"] = json!("6b1c5a52-0000-4000-8000-000000000000");
        }
    }
    if metadata["ownerReferences"].is_null() {
        metadata.as_object_mut().map(|own| own.remove("ownerReferences"));
    }
    object
}
