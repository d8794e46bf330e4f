//! A policy in a file, as the kubelet mounts a ConfigMap: read at start and followed from then on.
//!
//! The file is read every few seconds and compared, for the reason that [`crate::certs::files`] names.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::metrics::Metrics;
use crate::cluster::{self, Document, FileError};
use crate::policy::{Entry, Policies, Policy, PolicyError};

/// The API group of a CanaryPolicy.
const GROUP: &str = "sluicegate.dev/";

/// Why a file is no policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFileError {
    /// It cannot be read, or it is no YAML.
    #[error(transparent)]
    File(#[from] FileError),
    /// It says something that no policy can say.
    #[error("{}: {cause}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: PolicyError,
    },
}

/// Reads the policies of a file, in the shape of a CanaryPolicy or only its `spec`; the rules come from `entries`.
///
/// # Errors
/// Where the file cannot be read or says something that no policy can say.
pub fn policies(path: &Path, entries: &'static [Entry]) -> Result<Policies, PolicyFileError> {
    parse(path, &cluster::load(&[path.to_owned()])?, entries)
}

fn parse(
    path: &Path,
    documents: &[Document],
    entries: &'static [Entry],
) -> Result<Policies, PolicyFileError> {
    let policies = specs(documents).map(|(name, spec)| Policy::parse(entries, &name, spec));
    let policies = policies.collect::<Result<Vec<_>, _>>();
    let policies =
        policies.map_err(|cause| PolicyFileError::Policy { path: path.to_owned(), cause })?;
    Ok(Policies::new(policies, entries))
}

/// The name and the `spec` of each policy.
fn specs(documents: &[Document]) -> impl Iterator<Item = (String, Value)> {
    documents.iter().enumerate().map(|(index, document)| named_spec(&document.value, index))
}

fn named_spec(value: &Value, index: usize) -> (String, Value) {
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

/// A file with policies that is followed.
#[derive(Debug)]
pub struct PolicyFile {
    path: PathBuf,
    entries: &'static [Entry],
    /// What the file said when it was last put in force.
    in_force: Option<Vec<Document>>,
    /// What is wrong with the file now; repeated in the log only when it changes.
    complaint: Option<String>,
}

impl PolicyFile {
    /// This file, or every file of this folder; nothing is read yet. The rules come from `entries`.
    pub fn new(path: impl Into<PathBuf>, entries: &'static [Entry]) -> Self {
        Self { path: path.into(), entries, in_force: None, complaint: None }
    }

    /// The policies to begin with. A file that cannot be used does not keep the gate from serving: a gate that is not there
    /// refuses everything, rollbacks included, while what can be read of the file, and the defaults for the rest, refuse what is
    /// unsafe. The log and the metrics say so until the file is good.
    pub fn begin(&mut self, metrics: &Metrics) -> Policies {
        let file = self.path.display();
        let documents = match cluster::load(std::slice::from_ref(&self.path)) {
            Ok(documents) => documents,
            Err(error) => {
                tracing::error!(%file, %error, "the policy cannot be read, and there is no last good one; the built-in default is in force");
                self.complaint = Some(error.to_string());
                metrics.policy_failed();
                return Policies::new(Vec::new(), self.entries);
            }
        };
        let error = match parse(&self.path, &documents, self.entries) {
            Ok(policies) => {
                tracing::info!(%file, policies = names(&policies), "policy in force");
                self.in_force = Some(documents);
                metrics.policy_is_current();
                return policies;
            }
            Err(error) => error,
        };
        let (mut kept, mut left_out) = (Vec::new(), Vec::new());
        for (name, spec) in specs(&documents) {
            let (policy, fields) = Policy::salvage(self.entries, &name, spec);
            kept.extend(policy);
            left_out.extend(fields.into_iter().map(|field| format!("{name}: {field}")));
        }
        let left_out = left_out.join(", ");
        tracing::error!(%file, %error, left_out, "the policy cannot be used as it is, and there is no last good one; what can be read of it is in force, with the defaults for the rest");
        self.complaint = Some(error.to_string());
        metrics.policy_failed();
        Policies::new(kept, self.entries)
    }

    /// Keeps in force what the file says, until told to stop. What cannot be used is logged once and counted each time, and the last
    /// good policies stay.
    pub async fn follow(
        mut self,
        every: Duration,
        gate: Arc<Gate>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = stop.cancelled() => return,
            }
            let documents = match self.load().await {
                // The mount was swapped in this moment.
                Err(_) => self.load().await,
                read => read,
            };
            self.refresh(documents, &gate, &metrics);
        }
    }

    async fn load(&self) -> Result<Vec<Document>, FileError> {
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || cluster::load(&[path]));
        reading.await.expect("nothing panics where files are read")
    }

    fn refresh(
        &mut self,
        documents: Result<Vec<Document>, FileError>,
        gate: &Gate,
        metrics: &Metrics,
    ) {
        let file = self.path.display();
        let read = documents.map_err(PolicyFileError::from).and_then(|documents| {
            if self.in_force.as_ref() == Some(&documents) {
                return Ok(None);
            }
            let policies = parse(&self.path, &documents, self.entries)?;
            Ok(Some((documents, policies)))
        });
        match read {
            Ok(new) => {
                let had_complaint = self.complaint.take().is_some();
                metrics.policy_is_current();
                match new {
                    Some((documents, policies)) => {
                        tracing::info!(%file, policies = names(&policies), "new policy in force");
                        gate.set_policies(policies);
                        self.in_force = Some(documents);
                    }
                    None if had_complaint => {
                        tracing::info!(%file, "the file says again what is in force");
                    }
                    None => {}
                }
            }
            Err(error) => {
                metrics.policy_failed();
                let complaint = Some(error.to_string());
                if self.complaint != complaint {
                    let has_last = self.in_force.is_some();
                    tracing::warn!(%file, %error, has_last, "policy not replaced; what was in force stays");
                    self.complaint = complaint;
                }
            }
        }
    }
}

/// The names of the policies that somebody wrote.
fn names(policies: &Policies) -> String {
    let written = policies.written().map(Policy::name).collect::<Vec<_>>();
    if written.is_empty() { "none; the built-in default".to_owned() } else { written.join(", ") }
}
