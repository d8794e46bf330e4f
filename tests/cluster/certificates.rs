//! Certificates that replicas look after, with an API server whose clock and whose Lease are not what they should be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use kube::{Client, Config};
use serde_json::{Value, json};
use sluicegate::certs::Certificates;
use sluicegate::certs::plan::Durations;
use sluicegate::cluster::{CertificateKeeper, SelfManaged};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::api::until;

/// One Secret; everybody who asks holds the Lease; there is no configuration.
struct Stored {
    secret: Option<Value>,
    version: u64,
    writes: usize,
    conflicts: usize,
    /// How many seconds its clock is ahead.
    ahead: i64,
}

type Store = Arc<Mutex<Stored>>;

async fn serve(ahead: i64) -> (Store, Client) {
    let store = Stored { secret: None, version: 0, writes: 0, conflicts: 0, ahead };
    let store = Arc::new(Mutex::new(store));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
    let address = listener.local_addr().expect("is bound");
    let own = Arc::clone(&store);
    let router = Router::new().fallback(move |request: Request| {
        let store = Arc::clone(&own);
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
            let query = parts.uri.query().unwrap_or_default();
            let mut response = answer(&store, &parts.method, parts.uri.path(), query, &body);
            let ahead = store.lock().expect("no test panics here").ahead;
            let now = Timestamp::now().as_second() + ahead;
            let now = Timestamp::from_second(now).expect("a time");
            let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&now).expect("a date");
            response.headers_mut().insert(header::DATE, date.parse().expect("a header"));
            response
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let uri = format!("http://{address}").parse().expect("is a URI");
    (store, Client::try_from(Config::new(uri)).expect("needs no certificates"))
}

fn answer(store: &Store, method: &Method, path: &str, query: &str, body: &[u8]) -> Response {
    let refuse = |code: StatusCode| {
        let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
        let status = json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "message": "no", "reason": reason});
        (code, status.to_string()).into_response()
    };
    let mut store = store.lock().expect("no test panics here");
    if query.contains("watch=true") {
        return Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>())
            .into_response();
    }
    if query.contains("fieldSelector") {
        let items = store.secret.iter().filter(|_| path.ends_with("/secrets")).collect::<Vec<_>>();
        return json!({"metadata": {"resourceVersion": "1"}, "items": items})
            .to_string()
            .into_response();
    }
    if path.contains("/leases") {
        return match *method == Method::GET {
            true => refuse(StatusCode::NOT_FOUND),
            false => body.to_vec().into_response(),
        };
    }
    if *method == Method::GET {
        return match &store.secret {
            Some(secret) => secret.to_string().into_response(),
            None => refuse(StatusCode::NOT_FOUND),
        };
    }
    let mut object: Value = serde_json::from_slice(body).expect("JSON");
    let known = store.secret.as_ref().map(|own| own["metadata"]["resourceVersion"].clone());
    let is_good = match known {
        Some(known) => *method == Method::PUT && known == object["metadata"]["resourceVersion"],
        None => *method == Method::POST,
    };
    if !is_good {
        store.conflicts += 1;
        return refuse(StatusCode::CONFLICT);
    }
    store.version += 1;
    store.writes += 1;
    object["metadata"]["resourceVersion"] = store.version.to_string().into();
    store.secret = Some(object.clone());
    object.to_string().into_response()
}

struct Replica {
    certificates: Arc<Certificates>,
    stop: CancellationToken,
    keeping: JoinHandle<()>,
}

impl Replica {
    fn start(client: &Client) -> Self {
        let settings = SelfManaged {
            namespace: "gate".to_owned(),
            secret: "certs".to_owned(),
            webhook_configuration: "gate".to_owned(),
            names: vec!["gate.gate.svc".to_owned()],
            durations: Durations::default(),
        };
        let certificates = Arc::new(Certificates::default());
        let keeper = CertificateKeeper::new(client.clone(), settings, Arc::clone(&certificates));
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(keeper.run(stop.clone()));
        Self { certificates, stop, keeping }
    }

    async fn end(self) {
        self.stop.cancel();
        self.keeping.await.expect("ends by itself");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_is_good_for_the_clock_of_the_api_server() {
    let days = 24 * 3600;
    for ahead in [-400 * days, 400 * days] {
        let (_, client) = serve(ahead).await;
        let replica = Replica::start(&client);
        until("a certificate is served", || replica.certificates.not_after().is_some()).await;
        let not_after = replica.certificates.not_after().expect("is served");
        let expected = Timestamp::now().as_second() + ahead + 90 * days;
        assert!((not_after - expected).abs() < 30, "{ahead}: {not_after} and not {expected}");
        // It is not found due, or ended, by the clock of this machine.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(replica.certificates.not_after(), Some(not_after));
        replica.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_all_believe_to_hold_the_lease_never_write_over_each_other() {
    let (store, client) = serve(0).await;
    let replicas = (0..5).map(|_| Replica::start(&client)).collect::<Vec<_>>();
    let are_serving = || replicas.iter().all(|own| own.certificates.not_after().is_some());
    until("all serve", are_serving).await;
    let served = replicas.iter().map(|own| own.certificates.server_config().expect("serves"));
    assert_eq!(served.count(), 5);
    {
        let store = store.lock().expect("no panic");
        assert_eq!(store.writes, 1, "with {} conflicts", store.conflicts);
    }

    // Deleted in front of all of them, it is made anew by one.
    store.lock().expect("no panic").secret = None;
    for replica in replicas {
        replica.end().await;
    }
    let replicas = (0..5).map(|_| Replica::start(&client)).collect::<Vec<_>>();
    let are_serving = || replicas.iter().all(|own| own.certificates.not_after().is_some());
    until("all serve", are_serving).await;
    assert_eq!(store.lock().expect("no panic").writes, 2);
    let failures = |own: &Replica| own.certificates.self_managed.issue_failures.get();
    assert_eq!(replicas.iter().map(failures).sum::<u64>(), 0);
    for replica in replicas {
        replica.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_somebody_chose_and_labels_stay() {
    let (store, client) = serve(0).await;
    let mine = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "certs", "namespace": "gate", "resourceVersion": "0", "labels": {"team": "mesh"}},
    });
    store.lock().expect("no panic").secret = Some(mine);
    let replica = Replica::start(&client);
    until("a certificate is served", || replica.certificates.not_after().is_some()).await;
    let secret = store.lock().expect("no panic").secret.clone().expect("is stored");
    assert_eq!(
        (secret["type"].as_str(), secret["metadata"]["labels"]["team"].as_str()),
        (Some("Opaque"), Some("mesh"))
    );
    let data = serde_json::from_value::<BTreeMap<String, String>>(secret["data"].clone());
    let keys = data.expect("is a map").into_keys().collect::<Vec<_>>();
    assert_eq!(keys, ["ca.crt", "ca.key", "tls.crt", "tls.key"]);
    replica.end().await;
}
