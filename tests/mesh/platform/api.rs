use std::path::Path;

use futures::{StreamExt as _, TryStreamExt as _};
use http_body_util::BodyExt as _;
use hyper::Request;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::harness::Result;

/// How many writes are under way at once.
const AT_ONCE: usize = 16;

/// The kinds that worlds are made of, with the group they are deleted in and their plurals.
const KINDS: [(&str, &str, &str); 10] = [
    ("Service", "v1", "services"),
    ("Pod", "v1", "pods"),
    ("EndpointSlice", "discovery.k8s.io/v1", "endpointslices"),
    ("DestinationRule", "networking.istio.io/v1", "destinationrules"),
    ("VirtualService", "networking.istio.io/v1", "virtualservices"),
    ("ServiceEntry", "networking.istio.io/v1", "serviceentries"),
    ("WorkloadEntry", "networking.istio.io/v1", "workloadentries"),
    ("Gateway", "networking.istio.io/v1", "gateways"),
    ("Sidecar", "networking.istio.io/v1", "sidecars"),
    ("Node", "v1", "nodes"),
];

/// The API server, for many objects at once: kubectl takes a request after the other.
pub(crate) struct Api(Client);

impl Api {
    pub(crate) async fn new(kubeconfig: &Path) -> Result<Self> {
        Ok(Self(sluicegate::cluster::client(Some(kubeconfig)).await?))
    }

    /// The object as it was stored; its `status`, where it has one, is written too.
    pub(crate) async fn create(&self, object: &Value) -> Result<Value> {
        let place = place(object)?;
        let stored = self.send("POST", &place, object).await?;
        if object.get("status").is_none() {
            return Ok(stored);
        }
        let mut full = stored;
        full["status"] = object["status"].clone();
        let name = full["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.send("PUT", &format!("{place}/{name}/status"), &full).await
    }

    /// An answer for each of them.
    pub(crate) async fn create_all(&self, objects: &[Value]) -> Vec<Result<Value>> {
        let answers = futures::stream::iter(objects.iter().map(|object| self.create(object)));
        answers.buffered(AT_ONCE).collect().await
    }

    pub(crate) async fn delete(&self, object: &Value) -> Result {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        self.send("DELETE", &format!("{}/{name}", place(object)?), &json!({})).await?;
        Ok(())
    }

    /// Gives a Namespace a label, `key=value`, or takes it away; the Namespace as it is then stored.
    pub(crate) async fn label(&self, namespace: &str, label: &str, is_set: bool) -> Result<Value> {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        let value = is_set.then_some(value);
        let patch = json!({ "metadata": { "labels": { key: value } } });
        self.send("PATCH", &format!("/api/v1/namespaces/{namespace}"), &patch).await
    }

    /// Deletes all objects of these namespaces that carry the label.
    pub(crate) async fn delete_all(&self, namespaces: &[&str], label: &str) -> Result {
        let namespaced = KINDS.iter().filter(|(kind, _, _)| *kind != "Node");
        let places = namespaced.flat_map(|(_, version, plural)| {
            let group = group(version);
            namespaces
                .iter()
                .map(move |namespace| format!("{group}/namespaces/{namespace}/{plural}"))
        });
        let options = json!({ "gracePeriodSeconds": 0 });
        futures::stream::iter(places.map(|place| {
            let path = format!("{place}?labelSelector={label}");
            let options = &options;
            async move { self.send("DELETE", &path, options).await }
        }))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
        Ok(())
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .body(Body::from(body.to_string().into_bytes()))?;
        let response = self.0.send(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            let text = String::from_utf8_lossy(&bytes);
            return Err(format!("{method} {path}: {status}: {text}\n{body}").into());
        }
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// The path of the collection that an object belongs to, in the version that it is written in.
fn place(object: &Value) -> Result<String> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let (_, _, plural) =
        KINDS.iter().find(|(own, _, _)| *own == kind).ok_or_else(|| format!("kind {kind}"))?;
    let group = group(object["apiVersion"].as_str().unwrap_or_default());
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}"),
        None => format!("{group}/{plural}"),
    })
}

fn group(version: &str) -> String {
    if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") }
}
