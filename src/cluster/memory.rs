//! What is remembered of routes, kept in a ConfigMap: neither a restart nor another leader forgets who was stable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PostParams;
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::client::said;
use super::files::Document;
use super::index::Index;
use super::lease::Lease;
use crate::world::RouteHistory;

/// The key of the ConfigMap.
const KEY: &str = "history.json";

/// An API server takes 1 MiB; what is older does not fit in any more.
const MOST_BYTES: usize = 768 * 1024;

/// How long the first reading may take; without it, the gate starts with what the cluster shows.
const FIRST: Duration = Duration::from_secs(10);
/// How often it is looked whether there is something new to keep.
const LOOK: Duration = Duration::from_secs(1);
/// How often the Lease is renewed, or asked for.
const RENEW: Duration = Duration::from_secs(5);
/// How often what has no history yet is noted anew: who carries these routes now, with which images.
const PRESENT: Duration = Duration::from_secs(600);

/// Where it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryName {
    /// The namespace of the ConfigMap and of the Lease.
    pub namespace: String,
    /// The name of both.
    pub name: String,
}

impl std::fmt::Display for MemoryName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConfigMap {}/{}", self.namespace, self.name)
    }
}

#[derive(Serialize)]
struct Written<'a> {
    routes: &'a [RouteHistory],
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Read {
    #[serde(deserialize_with = "super::read::null_as_default")]
    routes: Vec<Value>,
}

/// As it is kept: what does not fit is left out from the end.
fn text(mut routes: Vec<RouteHistory>) -> String {
    loop {
        let text = serde_json::to_string(&Written { routes: &routes }).unwrap_or_default();
        if text.len() <= MOST_BYTES || routes.is_empty() {
            return text;
        }
        let fitting = routes.len() * MOST_BYTES / text.len();
        routes.truncate(fitting.min(routes.len() - 1));
    }
}

/// Reads what was kept; a route that cannot be read is left out.
fn read(text: &str) -> Result<Vec<RouteHistory>, serde_json::Error> {
    let Read { routes } = serde_json::from_str(text)?;
    Ok(routes.into_iter().filter_map(|own| serde_json::from_value(own).ok()).collect())
}

/// Why a file holds nothing that is remembered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// Neither the ConfigMap nor what is in it.
    #[error(
        "no history is there: give the ConfigMap, as `kubectl get configmap sluicegate -o yaml` prints it, or its {KEY}"
    )]
    Absent,
    /// It is no JSON of this shape.
    #[error("the history cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// What is remembered in documents of a file: the ConfigMap, or what its key holds.
///
/// # Errors
/// Where there is no such thing, or nobody can read it.
pub fn memories_in(documents: &[Document]) -> Result<Vec<RouteHistory>, MemoryError> {
    let mut found = None;
    for Document { value, .. } in documents {
        let own = match value["data"][KEY].as_str() {
            Some(text) => read(text)?,
            None if value["routes"].is_array() => read(&value.to_string())?,
            None => continue,
        };
        found.get_or_insert_with(Vec::new).extend(own);
    }
    found.ok_or(MemoryError::Absent)
}

/// Keeps what the index remembers, while it holds the Lease.
#[derive(Debug)]
pub struct Memory {
    api: Api<ConfigMap>,
    lease: Lease,
    name: MemoryName,
    /// With what it is removed.
    owner: Option<OwnerReference>,
    index: Arc<Index>,
    /// What is stored, as far as is known.
    stored: Option<ConfigMap>,
    /// It has been read once.
    is_read: bool,
    /// Who carries the routes that have no history, and when that was found out.
    present: (Vec<RouteHistory>, Option<Instant>),
    /// The last version of the index that is kept.
    kept: Option<u64>,
    /// The last thing that was said about not being able to.
    complaint: Option<String>,
}

impl Memory {
    /// Of this index, in this place.
    pub fn new(client: Client, name: MemoryName, index: Arc<Index>) -> Self {
        Self {
            api: Api::namespaced(client.clone(), &name.namespace),
            lease: Lease::new(client, &name.namespace, &name.name),
            name,
            owner: None,
            index,
            stored: None,
            is_read: false,
            present: (Vec::new(), None),
            kept: None,
            complaint: None,
        }
    }

    /// Where it is kept.
    pub fn name(&self) -> &MemoryName {
        &self.name
    }

    /// Has what is made here removed with its owner.
    pub fn owned_by(&mut self, owner: Option<OwnerReference>) {
        self.lease.owned_by(owner.clone());
        self.owner = owner;
    }

    /// Hands the index what was kept; before it follows the cluster, so that nothing that is listed looks new. Where it cannot be
    /// had, the gate goes on without it.
    pub async fn recall(&mut self) {
        match tokio::time::timeout(FIRST, self.load()).await {
            Ok(Ok(count)) => {
                info!(source = %self.name, routes = count, "who carried routes before is known")
            }
            Ok(Err(error)) => self.complain(&error),
            Err(_) => {
                warn!(source = %self.name, "no answer within {} s: who carried routes before is not known", FIRST.as_secs());
            }
        }
    }

    /// Reads what is stored into the index; how many routes that are.
    async fn load(&mut self) -> Result<usize, kube::Error> {
        self.stored = self.api.get_opt(&self.name.name).await?;
        let text = self.stored.as_ref().and_then(|own| own.data.as_ref()?.get(KEY));
        let kept = match text.map(|text| read(text)) {
            None => Vec::new(),
            Some(Ok(kept)) => kept,
            Some(Err(error)) => {
                warn!(source = %self.name, %error, "what was kept cannot be read, and is written anew");
                Vec::new()
            }
        };
        let count = kept.len();
        self.index.restore(kept);
        self.is_read = true;
        Ok(count)
    }

    /// Keeps what is new until told to stop, and then for the last time.
    pub async fn keep(mut self, shutdown: CancellationToken) {
        let mut renewed: Option<Instant> = None;
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            if renewed.is_none_or(|renewed| renewed.elapsed() >= RENEW) {
                renewed = Some(Instant::now());
                let had = self.lease.is_held();
                match self.lease.hold().await {
                    // Another one may have kept something since this one read it.
                    Ok(true) if !had => match self.load().await {
                        Ok(_) => {
                            info!(lease = %self.name.name, "keeps what is remembered from now on")
                        }
                        Err(error) => self.complain(&error),
                    },
                    Ok(false) if !self.is_read => self.recall().await,
                    Ok(_) => {}
                    Err(error) => self.complain(&error),
                }
            }
            if self.lease.is_held() {
                self.keep_what_is_new().await;
            }
        }
        if self.lease.is_held() {
            self.keep_what_is_new().await;
        }
        self.lease.release().await;
    }

    async fn keep_what_is_new(&mut self) {
        let version = self.index.history_version();
        let is_due = self.present.1.is_none_or(|found| found.elapsed() >= PRESENT);
        // Before everything is listed it is not known who carries what.
        if !self.index.missing().is_empty() || (self.kept == Some(version) && !is_due) {
            return;
        }
        if is_due {
            self.present = (self.index.read(|world| world.present()), Some(Instant::now()));
        }
        let mut routes = self.index.read(|world| world.memories());
        let has_one = |own: &RouteHistory| {
            routes.binary_search_by(|other| other.key().cmp(&own.key())).is_ok()
        };
        let others = self.present.0.iter().filter(|own| !has_one(own)).cloned();
        let mut others = others.collect::<Vec<_>>();
        RouteHistory::latest_first(&mut routes);
        RouteHistory::latest_first(&mut others);
        routes.append(&mut others);
        match self.store(text(routes)).await {
            Ok(()) => {
                self.kept = Some(version);
                self.complaint = None;
            }
            Err(error) => self.complain(&error),
        }
    }

    async fn store(&mut self, text: String) -> Result<(), kube::Error> {
        let known = self.stored.as_ref().and_then(|own| own.data.as_ref()?.get(KEY));
        if known == Some(&text) {
            return Ok(());
        }
        let mut object = self.stored.clone().unwrap_or_else(|| ConfigMap {
            metadata: ObjectMeta {
                name: Some(self.name.name.clone()),
                owner_references: self.owner.clone().map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        });
        object.data.get_or_insert_with(BTreeMap::new).insert(KEY.to_owned(), text);
        let written = match &self.stored {
            Some(_) => self.api.replace(&self.name.name, &PostParams::default(), &object).await,
            None => self.api.create(&PostParams::default(), &object).await,
        };
        match written {
            Ok(stored) => self.stored = Some(stored),
            // Somebody has changed, made or removed it: read it again, and try again in a second.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                self.load().await?;
                self.kept = None;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Says once what is the matter.
    fn complain(&mut self, error: &kube::Error) {
        let reason = match error {
            kube::Error::Api(status) if status.code == 403 => format!(
                "forbidden; grant this service account get, create and update on configmaps and leases of {}, or turn this off with --memory \"\"",
                self.name.namespace
            ),
            error => said(error),
        };
        if self.complaint.as_ref() != Some(&reason) {
            warn!(source = %self.name, reason, "who carries routes is remembered only until all replicas have gone");
            self.complaint = Some(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(number: usize) -> RouteHistory {
        let text = format!(
            r#"{{"namespace": "shop", "name": "reviews-{number}", "route": "http", "reigns": [{{"host": "reviews", "subset": "{}"}}]}}"#,
            "v".repeat(1000)
        );
        serde_json::from_str(&text).expect("a history")
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_the_end() {
        let many = (0..2000).map(route).collect::<Vec<_>>();
        let text = text(many.clone());
        assert!(text.len() <= MOST_BYTES && text.len() > MOST_BYTES / 2, "{}", text.len());
        let kept = read(&text).expect("was just written");
        assert_eq!(kept, many[..kept.len()]);
    }

    #[test]
    fn one_strange_route_costs_only_itself() {
        let good = serde_json::to_value(route(1)).expect("no strange keys");
        let text = serde_json::json!({"routes": [{"name": 7}, good, null]}).to_string();
        assert_eq!(read(&text).expect("is JSON"), [route(1)]);
        assert!(read("{routes").is_err());
    }
}
