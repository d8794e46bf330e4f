//! The live read before a refusal.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::try_join_all;
use hyper::header::{ACCEPT, HeaderValue};
use kube::Client;
use kube::core::Request;
use kube::core::params::ListParams;
use serde::Deserialize;

use super::client::said;
use super::floor::{Scope, service_of};
use super::index::{Index, State, Versioned};
use super::question::{MOST_REQUESTS, Question, plan};
use super::resources::resource;
use super::watched::{self, Served, Watched};
use crate::policy::{Reference, Verdict};
use crate::world::{Kind, World};

/// How long all requests of one confirmation may take together.
const LIMIT: Duration = Duration::from_secs(2);

/// Of Pods and Namespaces only the labels are asked for: a tenth of the bytes.
const LABELS_ONLY: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// Why a refusal could not be confirmed; the write may be tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveReadError {
    /// The API server did not answer in time.
    #[error("the API server did not answer a live read within {0:?}")]
    Slow(Duration),
    /// The API server said no.
    #[error("{what} could not be read from the API server: {}", said(cause.as_ref()))]
    Failed {
        /// What was read.
        what: String,
        /// What the client said.
        cause: Box<kube::Error>,
    },
    /// So much to confirm that it would burden the API server.
    #[error(
        "{needed} live reads would be needed and {MOST_REQUESTS} are the most; correct one destination at a time"
    )]
    TooMany {
        /// How many it would take.
        needed: usize,
    },
    /// The index was made without a client.
    #[error("there is no API server to read from")]
    NoClient,
}

/// How many list requests it takes to read `references` again, without the one for the Namespaces.
pub fn requests(references: &[Reference], world: &World) -> usize {
    counted(&plan(references, world))
}

fn counted(questions: &[Question]) -> usize {
    questions.iter().filter(|question| question.kind != Kind::Namespace).count()
}

/// What the API server answered.
struct Answer {
    question: Question,
    objects: Vec<Versioned>,
    version: u64,
}

/// A list, as far as it is read; the items do not say what they are.
#[derive(Default, Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMetadata,
    #[serde(default, deserialize_with = "super::read::null_as_default")]
    items: Vec<Watched>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMetadata {
    resource_version: Option<String>,
}

impl Index {
    /// How many list requests [`Index::confirm`] would send.
    pub fn cost(&self, references: &[Reference]) -> usize {
        self.read(|world| requests(references, world))
    }

    /// Reads what `references` name from the API server and puts it into the index, what is gone included. A watch event that
    /// is older cannot undo it.
    ///
    /// # Errors
    /// When the API server does not answer everything in time; then nothing is changed.
    pub async fn confirm(&self, references: &[Reference]) -> Result<(), LiveReadError> {
        let answers = self.ask(references).await?;
        self.state_mut().take(answers);
        Ok(())
    }

    /// Reads like [`Index::confirm`] and judges before anything else can change.
    ///
    /// # Errors
    /// As [`Index::confirm`].
    pub async fn confirm_and_judge(
        &self,
        references: &[Reference],
        judge: &(dyn Fn(&World) -> Verdict + Sync),
    ) -> Result<Verdict, LiveReadError> {
        let answers = self.ask(references).await?;
        let mut state = self.state_mut();
        state.take(answers);
        Ok(judge(&state.world))
    }

    async fn ask(&self, references: &[Reference]) -> Result<Vec<Answer>, LiveReadError> {
        let client = self.client.as_ref().ok_or(LiveReadError::NoClient)?;
        let questions = self.read(|world| plan(references, world));
        let needed = counted(&questions);
        if needed > MOST_REQUESTS {
            return Err(LiveReadError::TooMany { needed });
        }
        let asked = questions.into_iter().map(|question| {
            let resource = resource(question.kind);
            let version = self.progress(question.kind).version;
            answer(client, Served { resource, version }, question)
        });
        tokio::time::timeout(LIMIT, try_join_all(asked))
            .await
            .unwrap_or(Err(LiveReadError::Slow(LIMIT)))
    }
}

async fn answer(
    client: &Client,
    served: Served,
    question: Question,
) -> Result<Answer, LiveReadError> {
    let failed =
        |cause| LiveReadError::Failed { what: question.to_string(), cause: Box::new(cause) };
    let namespace = Some(question.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let path = <Watched as kube::Resource>::url_path(&served, namespace);
    let parameters = ListParams {
        label_selector: question.labels.clone(),
        field_selector: question.fields.clone(),
        ..ListParams::default()
    };
    let request = Request::new(path).list(&parameters);
    let mut request = request.map_err(|cause| failed(kube::Error::BuildRequest(cause)))?;
    if matches!(question.kind, Kind::Pod | Kind::Namespace) {
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(LABELS_ONLY));
    }
    let list = match client.request::<List>(request).await {
        Ok(list) => list,
        // Without its CRD there is none of a kind.
        Err(kube::Error::Api(status)) if status.code == 404 && served.resource.is_custom => {
            List::default()
        }
        Err(cause) => return Err(failed(cause)),
    };
    let read = |own: &Watched| {
        own.read(question.kind).map(|object| Versioned { object, version: own.version() })
    };
    let objects = list.items.iter().filter_map(read).collect();
    let version = watched::version(list.metadata.resource_version.as_deref());
    Ok(Answer { question, objects, version })
}

impl State {
    fn take(&mut self, answers: Vec<Answer>) {
        for Answer { question: Question { kind, scope, .. }, objects, version } in answers {
            let found = objects
                .iter()
                .map(|own| super::read::name(&own.object))
                .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
                .collect::<BTreeSet<_>>();
            let scope = match (kind, scope) {
                // A Pod that is not among the answers may only carry other labels now.
                (Kind::Pod, Scope::Namespace(namespace)) => {
                    Scope::Named(namespace, found.iter().map(|(_, name)| name.clone()).collect())
                }
                (_, scope) => scope,
            };
            for own in objects {
                let (namespace, name) = super::read::name(&own.object);
                // A server that ignores a selector answers with more than was asked for.
                if scope.covers(namespace, name, service_of(Some(&own.object))) {
                    self.world.apply(own.object);
                }
            }
            for (namespace, name) in self.in_scope(kind, &scope) {
                if !found.contains(&(namespace.clone(), name.clone())) {
                    self.world.delete(kind, &namespace, &name);
                }
            }
            self.floors.raise(kind, scope, version);
        }
    }

    /// The objects of the world that a live read of `scope` speaks of.
    fn in_scope(&self, kind: Kind, scope: &Scope) -> Vec<(String, String)> {
        match scope {
            Scope::Named(namespace, names) => {
                names.iter().map(|name| (namespace.clone(), name.clone())).collect()
            }
            Scope::SlicesOf(namespace, services) => services
                .iter()
                .flat_map(|service| self.world.slice_names(namespace, service))
                .map(|name| (namespace.clone(), name.to_owned()))
                .collect(),
            Scope::All => self.world.names(kind),
            Scope::Namespace(own) => {
                let names = self.world.names(kind);
                names.into_iter().filter(|(namespace, _)| namespace == own).collect()
            }
        }
    }
}
