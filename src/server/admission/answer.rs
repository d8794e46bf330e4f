//! A verdict as an AdmissionReview response.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::text::{lines, warning};
use super::{API_VERSION, Asked, KIND};
use crate::policy::{Action, Finding, Verdict};
use crate::server::metrics::Outcome;

/// The API server drops warnings beyond 4096 characters in all.
const WARNINGS: usize = 15;
/// What a person still reads in a terminal.
const FINDINGS: usize = 10;
const LINES: usize = 5;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    status: Status,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    audit_annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Status {
    status: &'static str,
    code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// Says a decided verdict in Kubernetes' words.
pub fn respond(asked: &Asked, verdict: &Verdict) -> Vec<u8> {
    debug_assert!(verdict.is_decided(), "an undecided verdict is no response");
    let allowed = verdict.allowed();
    let status = if allowed {
        Status { status: "Success", code: 200, reason: None, message: None }
    } else {
        refused(403, "Forbidden", message(verdict))
    };
    let warned =
        verdict.of_action(Action::Warn).take(WARNINGS).map(|finding| warning(&finding.to_string()));
    let mut rules = Vec::new();
    for &Finding { rule, .. } in &verdict.findings {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    let mut audit_annotations = BTreeMap::from([
        ("verdict", Outcome::of(verdict).name().to_owned()),
        ("basis", verdict.basis.name().to_owned()),
    ]);
    if !rules.is_empty() {
        audit_annotations.insert("rules", rules.join(","));
    }
    let warnings = asked.note.iter().cloned().chain(warned).collect();
    answer(Response { uid: &asked.uid, allowed, status, warnings, audit_annotations })
}

/// Refuses a write that has no object: there is nothing to judge, and nothing that an API server could store.
pub fn respond_without_object(asked: &Asked) -> Vec<u8> {
    let message = format!(
        "request.object is missing; a {} always carries the object that is to be stored: send it again with the object",
        asked.operation
    );
    let annotations = BTreeMap::from([("verdict", Outcome::Error.name().to_owned())]);
    answer(Response {
        uid: &asked.uid,
        allowed: false,
        status: refused(400, "BadRequest", message),
        warnings: Vec::new(),
        audit_annotations: annotations,
    })
}

fn refused(code: u16, reason: &'static str, message: String) -> Status {
    Status { status: "Failure", code, reason: Some(reason), message: Some(message) }
}

fn answer(response: Response<'_>) -> Vec<u8> {
    serde_json::to_vec(&Answer { api_version: API_VERSION, kind: KIND, response })
        .expect("names, text and numbers are JSON")
}

/// The refusals, one after the other, most severe first, as a terminal shows them.
fn message(verdict: &Verdict) -> String {
    let mut message = String::new();
    for finding in verdict.of_action(Action::Deny).take(FINDINGS) {
        for line in lines(&finding.to_string()).take(LINES) {
            message.push_str(&line);
            message.push('\n');
        }
    }
    let more = verdict.of_action(Action::Deny).count().saturating_sub(FINDINGS);
    if more > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(message, "... and {more} more; correct these first.");
    }
    message.truncate(message.trim_end().len());
    message
}
