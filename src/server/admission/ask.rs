//! An AdmissionReview request as a review.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::text::{short, warning};
use super::{API_VERSION, AdmissionError, Asked, KIND};
use crate::policy::{Operation, Review};
use crate::world::Kind;

const ISTIO_GROUP: &str = "networking.istio.io";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(borrow, default)]
    request: Option<Request<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource: Resource,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    user_info: UserInfo,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
    #[serde(borrow, default)]
    old_object: Option<&'a RawValue>,
    #[serde(default)]
    dry_run: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resource {
    group: String,
    version: String,
    resource: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct UserInfo {
    username: Option<String>,
}

/// Where an object has a name that the request does not repeat.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    metadata: Names,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Names {
    name: Option<String>,
    generate_name: Option<String>,
    namespace: Option<String>,
}

/// Reads the body of a request.
///
/// # Errors
/// Where it is not what an API server sends. What is wrong with the *object* is no error here but a matter of the verdict.
pub fn parse(body: &[u8]) -> Result<Asked, AdmissionError> {
    let Envelope { api_version, kind, request } =
        serde_json::from_slice(body).map_err(|error| shape_error(body, &error))?;
    if api_version != API_VERSION || kind != KIND {
        return Err(AdmissionError::Version { found: said(&api_version, &kind) });
    }
    let request = request.ok_or(AdmissionError::NoRequest)?;
    if request.uid.is_empty() {
        return Err(AdmissionError::Missing("uid"));
    }
    if request.resource.resource.is_empty() {
        return Err(AdmissionError::Missing("resource"));
    }
    let operation = match request.operation.as_str() {
        "CREATE" => "CREATE",
        "UPDATE" => "UPDATE",
        "DELETE" => "DELETE",
        "" => return Err(AdmissionError::Missing("operation")),
        other => return Err(AdmissionError::Operation { found: short(other, 40) }),
    };
    let note = note(&request.resource);
    let old = request.old_object.filter(|_| operation != "CREATE").map(RawValue::get);
    let new = request.object.filter(|_| operation != "DELETE").map(RawValue::get);
    let write = match written(&request) {
        None => Some(Operation::NotOurs),
        // These are their controllers': what nobody can read, nobody refuses.
        Some(Kind::Canary | Kind::Rollout) if new.is_none() && operation != "DELETE" => {
            Some(Operation::NotOurs)
        }
        // Only a deletion has no object.
        Some(_) if new.is_none() && operation != "DELETE" => None,
        Some(kind) => Some(Operation::parse(kind, old, new)),
    };
    let uid = request.uid.clone();
    let review = write.map(|write| review(request, write));
    Ok(Asked { uid, operation, review, note })
}

/// The kind that is written, where writes of it are judged.
fn written(request: &Request<'_>) -> Option<Kind> {
    let is_object = request.sub_resource.as_deref().unwrap_or_default().is_empty();
    judged(&request.resource).filter(|_| is_object)
}

fn judged(Resource { group, resource, .. }: &Resource) -> Option<Kind> {
    match (group.as_str(), resource.as_str()) {
        (ISTIO_GROUP, "virtualservices") => Some(Kind::VirtualService),
        (ISTIO_GROUP, "destinationrules") => Some(Kind::DestinationRule),
        ("flagger.app", "canaries") => Some(Kind::Canary),
        ("argoproj.io", "rollouts") => Some(Kind::Rollout),
        _ => None,
    }
}

/// Something that no rule of this gate will ever want shows a webhook configuration that is too wide, and each call costs.
fn note(asked: &Resource) -> Option<String> {
    let Resource { group, version, resource } = asked;
    let is_istios = group == "istio.io" || group.ends_with(".istio.io");
    let is_foreign = !is_istios && judged(asked).is_none();
    is_foreign.then(|| {
        let group_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
        warning(&format!(
            "Sluicegate was asked about {resource} ({group_version}), which it does not judge: narrow the rules of its ValidatingWebhookConfiguration to those of docs/webhook.md"
        ))
    })
}

fn review(request: Request<'_>, operation: Operation) -> Review {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (mut name, mut namespace) = (given(request.name), given(request.namespace));
    if name.is_none() || namespace.is_none() {
        // An object that cannot be read has no name to fall back to; the verdict says what is wrong with it.
        let object = request.object.or(request.old_object).map_or("{}", RawValue::get);
        let names = serde_json::from_str::<Named>(object).unwrap_or_default().metadata;
        name = name.or(given(names.name)).or(given(names.generate_name));
        namespace = namespace.or(given(names.namespace));
    }
    Review {
        operation,
        namespace: namespace.unwrap_or_default(),
        name: name.unwrap_or_default(),
        user: request.user_info.username.unwrap_or_default(),
        dry_run: request.dry_run.unwrap_or(false),
    }
}

/// Reads again, leniently, to tell JSON of another kind from a broken review.
fn shape_error(body: &[u8], error: &serde_json::Error) -> AdmissionError {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Head {
        api_version: serde_json::Value,
        kind: serde_json::Value,
    }
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    match serde_json::from_slice::<Head>(body) {
        Ok(head) if head.api_version != API_VERSION || head.kind != KIND => {
            AdmissionError::Version { found: said(&text(&head.api_version), &text(&head.kind)) }
        }
        _ => AdmissionError::Shape(short(&error.to_string(), 300)),
    }
}

fn said(api_version: &str, kind: &str) -> String {
    if api_version.is_empty() && kind.is_empty() {
        return "an object without apiVersion and kind".to_owned();
    }
    format!("apiVersion {:?}, kind {:?}", short(api_version, 80), short(kind, 80))
}
