//! A make-believe API server on loopback: a function from request to answer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A request, as far as a test looks at it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    /// How many requests came before it.
    pub(crate) before: usize,
}

impl Asked {
    pub(crate) fn has(&self, key: &str) -> bool {
        self.query.contains_key(key)
    }

    pub(crate) fn is_streaming_list(&self) -> bool {
        self.has("sendInitialEvents")
    }
}

pub(crate) enum Answer {
    Json(Value),
    Status(u16),
    /// Lines of a watch; the connection then stays open.
    Watch(Vec<Value>),
    /// Lines of a watch; the connection is then closed.
    Brief(Vec<Value>),
    Never,
}

pub(crate) struct Api {
    pub(crate) client: Client,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Api {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
        let address = listener.local_addr().expect("is bound");
        let (answer, log) = (Arc::new(answer), Arc::clone(&asked));
        let router = Router::new().fallback(move |request: Request| {
            let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
            async move {
                let asked = {
                    let mut log = log.lock().expect("no test panics here");
                    let asked = read(&request, log.len());
                    log.push(asked.clone());
                    asked
                };
                respond(answer(&asked)).await
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        let uri = format!("http://{address}").parse().expect("is a URI");
        let client = Client::try_from(Config::new(uri)).expect("needs no certificates");
        Self { client, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no test panics here").clone()
    }
}

fn read(request: &Request, before: usize) -> Asked {
    let plain = |text: &str| {
        text.replace("%3D", "=")
            .replace("%2F", "/")
            .replace("%28", "(")
            .replace("%29", ")")
            .replace("%2C", ",")
            .replace('+', " ")
    };
    let pairs = request.uri().query().unwrap_or_default().split('&');
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(key, value)| (key.to_owned(), plain(value))).collect();
    Asked { path: request.uri().path().to_owned(), query, before }
}

async fn respond(answer: Answer) -> Response {
    let lines = |lines: Vec<Value>| {
        let line = |value: Value| Ok::<_, Infallible>(Bytes::from(format!("{value}\n")));
        futures::stream::iter(lines.into_iter().map(line).collect::<Vec<_>>())
    };
    match answer {
        Answer::Json(value) => value.to_string().into_response(),
        Answer::Status(code) => {
            let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                "reason": "Test", "message": "as the test wants it"});
            let code = StatusCode::from_u16(code).expect("is a status code");
            (code, body.to_string()).into_response()
        }
        Answer::Watch(own) => {
            Body::from_stream(lines(own).chain(futures::stream::pending())).into_response()
        }
        Answer::Brief(own) => Body::from_stream(lines(own)).into_response(),
        Answer::Never => std::future::pending().await,
    }
}

pub(crate) fn added(object: &Value) -> Value {
    json!({"type": "ADDED", "object": object})
}

pub(crate) fn end_of_list(version: u64) -> Value {
    json!({"type": "BOOKMARK", "object": {"apiVersion": "v1", "kind": "X", "metadata":
        {"resourceVersion": version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}})
}

pub(crate) fn list(objects: &[Value], version: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": version.to_string()}, "items": objects})
}

/// Waits until `holds`, at most ten seconds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
