//! What happened in a namespace, from the audit log, as `tests/offline/recorded.rs` replays it: every object as far as a verdict reads
//! it, and who wrote what traffic depends on.
//!
//! ```text
//! let recording = Recording::of(&node.audit(), "shop", "system:serviceaccount:istio-system:flagger")?;
//! recording.was_never_refused()?;               // what the API server and the gate said to that account
//! recording.keep("flagger", "promotion")?;      // tests/recorded/flagger/promotion.jsonl, with UPDATE_RECORDED set
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use sluicegate::cluster::{self, RESOURCES, Resource};
use sluicegate::world::Kind;

use super::audit::{Audit, Write};
use crate::harness::Result;

/// The longest file: who reads it should be able to.
const MOST_BYTES: usize = 150_000;

/// By which Argo Rollouts knows what it wrote.
const BY_ARGO: &str = "argo-rollouts.argoproj.io/managed-by-rollouts";

/// What happened in one namespace, in the order in which the API server stored it.
pub(crate) struct Recording {
    account: String,
    namespace: String,
    /// Everything that the account wrote.
    written: Vec<Write>,
    events: Vec<Value>,
}

impl Recording {
    /// Everything until now, which has to include the last write that counts. `account` is the delivery controller's.
    pub(crate) fn of(audit: &Audit, namespace: &str, account: &str) -> Result<Self> {
        let writes = audit.writes_in(namespace)?.into_iter();
        let writes = in_order(writes.filter(|write| !write.is_dry_run).collect());
        let mut scribe = Scribe::default();
        for write in &writes {
            scribe.take(write)?;
        }
        Ok(Self {
            account: account.to_owned(),
            namespace: namespace.to_owned(),
            written: writes.into_iter().filter(|write| write.user == account).collect(),
            events: scribe.events,
        })
    }

    /// Whether the account got everything stored that it wrote; a conflict with another writer is no refusal. The gate was asked.
    pub(crate) fn was_never_refused(&self) -> Result {
        self.was_never_stopped()?;
        // What nobody asked about shows nothing.
        if self.own().all(|write| write.verdict().is_empty()) {
            return Err(format!("nobody asked the gate about {:?}", self.written).into());
        }
        Ok(())
    }

    /// The same where there may have been no gate to ask.
    pub(crate) fn was_never_stopped(&self) -> Result {
        let is_refused = |write: &&Write| {
            let verdict = write.verdict();
            write.is_denial()
                || write.message.contains("webhook")
                || ["deny", "undecided", "error"].iter().any(|word| verdict.starts_with(word))
        };
        if let Some(write) = self.written.iter().find(is_refused) {
            return Err(format!("{} was refused: {write:?}", self.account).into());
        }
        Ok(())
    }

    /// What the account wrote of VirtualServices and DestinationRules, refused or not.
    pub(crate) fn own(&self) -> impl DoubleEndedIterator<Item = &Write> {
        self.written.iter().filter(|write| write.resource.ends_with(".networking.istio.io"))
    }

    /// Keeps it as a golden case, where `UPDATE_RECORDED` is set.
    pub(crate) fn keep(&self, tool: &str, scenario: &str) -> Result {
        if std::env::var_os("UPDATE_RECORDED").is_none() {
            return Ok(());
        }
        let head = json!({ "account": self.account, "namespace": self.namespace });
        let lines = std::iter::once(&head).chain(&self.events);
        let text: String = lines.map(|event| format!("{event}\n")).collect();
        if text.len() > MOST_BYTES {
            return Err(format!("{tool}/{scenario} has {} bytes", text.len()).into());
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(tool);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(format!("{scenario}.jsonl")), text)?)
    }
}

/// In the order in which they were stored: answers may come in another. What stored nothing keeps its place in the log.
fn in_order(writes: Vec<Write>) -> Vec<Write> {
    let mut newest = 0;
    let mut placed = Vec::new();
    let mut known = BTreeMap::new();
    for write in writes {
        let version = write.response["metadata"]["resourceVersion"].as_str();
        let version: u64 = version.and_then(|text| text.parse().ok()).unwrap_or(0);
        let key =
            (write.resource.split('/').next().unwrap_or_default().to_owned(), write.name.clone());
        let known = known.entry(key).or_insert(0);
        let is_stored = version > *known && write.code < 300;
        *known = version.max(*known);
        newest = newest.max(version);
        placed.push((if is_stored { version } else { newest }, write));
    }
    placed.sort_by_key(|(version, _)| *version);
    placed.into_iter().map(|(_, write)| write).collect()
}

/// Makes events of writes.
#[derive(Default)]
struct Scribe {
    /// What is stored, as events say it.
    stored: BTreeMap<(Kind, String), Value>,
    start: Option<f64>,
    events: Vec<Value>,
}

impl Scribe {
    fn take(&mut self, write: &Write) -> Result {
        let Some(resource) = resource_of(write) else { return Ok(()) };
        let kind = resource.kind;
        let key = (kind, write.name.clone());
        let routes = matches!(kind, Kind::VirtualService | Kind::DestinationRule);
        let is_stored = (200..300).contains(&write.code);
        if !(is_stored || routes && write.is_denial()) {
            return Ok(());
        }
        let mut event = Map::from_iter([("at".to_owned(), json!(self.seconds(&write.time)))]);
        if routes {
            event.insert("by".to_owned(), json!(write.user));
            event.insert("verb".to_owned(), json!(write.verb));
            event.insert("code".to_owned(), json!(write.code));
            event.insert("said".to_owned(), json!(write.verdict()));
        }
        if is_gone(write, is_stored) {
            if is_stored && self.stored.remove(&key).is_none() {
                return Ok(());
            }
            event.insert(
                "gone".to_owned(),
                json!({ "kind": resource.spelled(), "name": write.name }),
            );
        } else {
            let object = match is_stored {
                true => write.response.clone(),
                false => self.wanted(&key, write)?,
            };
            if object["kind"] != resource.spelled() {
                // A Binding, a Scale: what they do is seen in the next write of the object itself.
                return Ok(());
            }
            let pruned = prune(resource, &object);
            must_read_the_same(&object, &pruned)?;
            if is_stored {
                let old = self.stored.insert(key, pruned.clone());
                if old.as_ref() == Some(&pruned) && !routes {
                    return Ok(());
                }
            }
            event.insert("object".to_owned(), pruned);
        }
        self.events.push(Value::Object(event));
        Ok(())
    }

    /// Since the first event.
    fn seconds(&mut self, time: &str) -> f64 {
        let of_day = time.get(11..).unwrap_or_default().trim_end_matches('Z').split(':');
        let seconds = of_day.fold(0.0, |sum, part| sum * 60.0 + part.parse().unwrap_or(0.0));
        let since = seconds - *self.start.get_or_insert(seconds);
        (since.rem_euclid(86_400.0) * 10.0).round() / 10.0
    }

    /// What was to be stored and was not.
    fn wanted(&self, key: &(Kind, String), write: &Write) -> Result<Value> {
        if write.verb != "patch" {
            return Ok(write.request.clone());
        }
        let mut object = self.stored.get(key).cloned().unwrap_or_default();
        match &write.request {
            Value::Array(operations) => {
                for own in operations {
                    let at = own["path"].as_str().and_then(|path| object.pointer_mut(path));
                    let (Some(at), Some("replace")) = (at, own["op"].as_str()) else {
                        return Err(format!("{own} is not understood").into());
                    };
                    *at = own["value"].clone();
                }
            }
            patch => merge(&mut object, patch),
        }
        Ok(object)
    }
}

/// A JSON merge patch.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, patch) in fields {
        match patch {
            Value::Null => drop(object.as_object_mut().and_then(|own| own.remove(name))),
            patch => merge(&mut object[name], patch),
        }
    }
}

/// What was written, for kinds that a verdict reads.
fn resource_of(write: &Write) -> Option<&'static Resource> {
    let (plural, group) = match write.resource.split_once('.') {
        Some((plural, group)) => (plural, group.split('/').next()?),
        None => (write.resource.split('/').next()?, ""),
    };
    let plural = plural.split('/').next()?;
    RESOURCES.iter().find(|own| own.plural == plural && own.group == group)
}

/// Whether the object does not exist any more, or would not.
fn is_gone(write: &Write, is_stored: bool) -> bool {
    let metadata = &write.response["metadata"];
    let is_held = metadata["finalizers"].as_array().is_some_and(|own| !own.is_empty())
        || metadata["deletionGracePeriodSeconds"].as_u64().is_some_and(|seconds| seconds > 0);
    match write.verb.as_str() {
        "delete" => {
            let at_once = write.request["gracePeriodSeconds"] == 0;
            !is_stored || !is_held || at_once || write.response["kind"] == "Status"
        }
        // The last finalizer was taken away.
        _ => is_stored && !metadata["deletionTimestamp"].is_null() && !is_held,
    }
}

/// Only what a verdict reads.
fn prune(resource: &Resource, object: &Value) -> Value {
    let (mut labels, mut spec, mut status) = (true, &["spec"][..], &[][..]);
    match resource.kind {
        Kind::Service => {
            spec = &[
                "spec.selector",
                "spec.ports",
                "spec.type",
                "spec.externalName",
                "spec.clusterIP",
                "spec.internalTrafficPolicy",
            ];
        }
        Kind::EndpointSlice => {
            spec = &["addressType", "ports.name"];
            status = &[
                "endpoints.addresses",
                "endpoints.conditions.ready",
                "endpoints.conditions.terminating",
                "endpoints.targetRef.kind",
                "endpoints.targetRef.name",
            ];
        }
        Kind::Pod => {
            spec = &["spec.nodeName"];
            status = &[
                "status.phase",
                "status.podIP",
                "status.conditions.type",
                "status.conditions.status",
            ];
        }
        Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet | Kind::DaemonSet => {
            labels = false;
            spec = &[
                "spec.replicas",
                "spec.template.metadata.labels",
                "spec.template.spec.containers.image",
            ];
        }
        Kind::Canary => status = &["status.phase"],
        Kind::Rollout => {
            status = &["status.phase", "status.stableRS", "status.currentPodHash", "status.canary"];
        }
        _ => {}
    }
    let metadata = [
        "apiVersion",
        "kind",
        "metadata.name",
        "metadata.creationTimestamp",
        "metadata.deletionTimestamp",
        "metadata.ownerReferences.apiVersion",
        "metadata.ownerReferences.kind",
        "metadata.ownerReferences.name",
        "metadata.ownerReferences.controller",
    ];
    let mut pruned = Value::Null;
    let labels = labels.then_some("metadata.labels");
    for path in metadata.iter().chain(&labels).chain(spec).chain(status) {
        copy(object, &mut pruned, &path.split('.').collect::<Vec<_>>());
    }
    match resource.kind {
        Kind::Pod => {
            if let Some(conditions) =
                pruned.pointer_mut("/status/conditions").and_then(Value::as_array_mut)
            {
                conditions.retain(|own| own["type"] == "Ready");
            }
        }
        Kind::Service => {
            if let Some(spec) = pruned["spec"].as_object_mut() {
                spec.retain(|name, value| name != "clusterIP" || value == "None");
            }
        }
        Kind::Rollout => {
            // The template is that of its ReplicaSets.
            drop(pruned["spec"].as_object_mut().and_then(|spec| spec.remove("template")));
        }
        _ => {}
    }
    if resource.group == "networking.istio.io" {
        let mark = &object["metadata"]["annotations"][BY_ARGO];
        if mark.is_string() {
            pruned["metadata"]["annotations"] = json!({ BY_ARGO: mark });
        }
        let written =
            |own: &&Value| own["subresource"].is_null() && !own["fieldsV1"]["f:spec"].is_null();
        let writes = object["metadata"]["managedFields"].as_array().into_iter().flatten();
        let last = writes.filter(written).max_by_key(|own| own["time"].as_str().map(str::to_owned));
        if let Some(last) = last {
            pruned["metadata"]["managedFields"] = json!([{ "manager": last["manager"], "time": last["time"], "fieldsV1": { "f:spec": {} } }]);
        }
    }
    pruned
}

/// Copies what a path names, through lists.
fn copy(from: &Value, to: &mut Value, path: &[&str]) {
    let Some((name, rest)) = path.split_first() else {
        *to = from.clone();
        return;
    };
    match from {
        Value::Array(items) => {
            if !to.is_array() {
                *to = Value::Array(vec![json!({}); items.len()]);
            }
            for (at, item) in items.iter().enumerate() {
                copy(item, &mut to[at], path);
            }
        }
        Value::Object(fields) => {
            if !to.is_object() {
                *to = json!({});
            }
            if let Some(from) = fields.get(*name).filter(|own| !own.is_null()) {
                copy(from, &mut to[*name], rest);
            }
        }
        _ => {}
    }
}

/// What was left out is read by nobody.
fn must_read_the_same(object: &Value, pruned: &Value) -> Result {
    let read = |value: &Value| format!("{:?}", cluster::object_in(value.clone(), "shop"));
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("namespace");
        // Of many entries one is kept, which says the same.
        metadata.remove("managedFields");
    }
    let mut pruned = pruned.clone();
    if let Some(metadata) = pruned["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    let (whole, kept) = (read(&object), read(&pruned));
    if whole == kept {
        Ok(())
    } else {
        Err(format!("pruning loses something:\n{whole}\n{kept}").into())
    }
}
