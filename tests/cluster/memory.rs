//! What is remembered of routes, kept by one of several replicas.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use kube::runtime::watcher::Event;
use kube::{Client, Config};
use serde_json::{Value, json};
use sluicegate::cluster::{self, Feed, Index, Memory, MemoryName};
use sluicegate::world::{Kind, Mesh};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::api::until;
use super::index::watched;

/// ConfigMaps and Leases by path, each write with another resourceVersion.
#[derive(Default)]
struct Stored {
    objects: BTreeMap<String, Value>,
    version: u64,
    writes: Vec<String>,
    is_forbidden: bool,
}

type Store = Arc<Mutex<Stored>>;

async fn serve(store: Store) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
    let address = listener.local_addr().expect("is bound");
    let router = Router::new().fallback(move |request: Request| {
        let store = Arc::clone(&store);
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
            answer(&store, &parts.method, parts.uri.path(), &body)
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let uri = format!("http://{address}").parse().expect("is a URI");
    Client::try_from(Config::new(uri)).expect("needs no certificates")
}

fn answer(store: &Store, method: &Method, path: &str, body: &Bytes) -> Response {
    let refuse = |code: StatusCode| {
        let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
        let status = json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "message": "no", "reason": reason});
        (code, status.to_string()).into_response()
    };
    let mut store = store.lock().expect("no test panics here");
    if store.is_forbidden {
        return refuse(StatusCode::FORBIDDEN);
    }
    if method == Method::GET {
        return match store.objects.get(path) {
            Some(object) => object.to_string().into_response(),
            None => refuse(StatusCode::NOT_FOUND),
        };
    }
    let mut object: Value = serde_json::from_slice(body).expect("JSON");
    let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
    let path = if method == Method::POST { format!("{path}/{name}") } else { path.to_owned() };
    let known = store.objects.get(&path).map(|own| own["metadata"]["resourceVersion"].clone());
    match known {
        Some(_) if method == Method::POST => return refuse(StatusCode::CONFLICT),
        Some(known) if known != object["metadata"]["resourceVersion"] => {
            return refuse(StatusCode::CONFLICT);
        }
        None if method == Method::PUT => return refuse(StatusCode::NOT_FOUND),
        _ => {}
    }
    store.version += 1;
    object["metadata"]["resourceVersion"] = store.version.to_string().into();
    store.writes.push(path.clone());
    store.objects.insert(path, object.clone());
    object.to_string().into_response()
}

const MAP: &str = "/api/v1/namespaces/gate/configmaps/memory";

/// A replica that hears of VirtualServices from the test.
struct Replica {
    index: Arc<Index>,
    feed: Feed,
    stop: CancellationToken,
    keeping: JoinHandle<()>,
}

impl Replica {
    async fn start(client: &Client) -> Self {
        let index = Arc::new(Index::unconnected(Mesh::default()).wanting(&[]));
        let name = MemoryName { namespace: "gate".to_owned(), name: "memory".to_owned() };
        let mut memory = Memory::new(client.clone(), name, Arc::clone(&index));
        memory.recall().await;
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(memory.keep(stop.clone()));
        let feed = Feed::new(Arc::clone(&index), Kind::VirtualService);
        Self { index, feed, stop, keeping }
    }

    fn hear(&mut self, name: &str, subset: &str, version: u64) {
        let object = json!({
            "metadata": {"name": name, "namespace": "shop", "resourceVersion": version.to_string()},
            "spec": {"hosts": [name], "http": [{"route": [{"destination": {"host": name, "subset": subset}}]}]},
        });
        self.feed.take(Event::Apply(watched(&object)));
    }

    async fn end(self) {
        self.stop.cancel();
        self.keeping.await.expect("ends by itself");
    }

    fn remembers(&self, name: &str) -> Vec<String> {
        self.index.read(|world| {
            let routes = world.remembered("shop", name);
            let reigns = routes.and_then(|own| own.get("http"));
            reigns.into_iter().flatten().map(|own| own.subset.clone()).collect()
        })
    }
}

fn kept(store: &Store, name: &str) -> Vec<String> {
    let store = store.lock().expect("no test panics here");
    let Some(map) = store.objects.get(MAP) else { return Vec::new() };
    let documents = cluster::parse("kept", &map.to_string()).expect("an object");
    let routes = cluster::memories_in(&documents).expect("a history");
    let own = routes.iter().filter(|own| own.name == name);
    own.flat_map(|own| own.reigns.iter().map(|reign| reign.subset.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_replicas_keeps_what_both_see_and_the_other_takes_over() {
    let store = Store::default();
    let client = serve(Arc::clone(&store)).await;
    let mut first = Replica::start(&client).await;
    until("the Lease is held", || store.lock().expect("no panic").writes.len() == 2).await;
    let mut second = Replica::start(&client).await;
    for replica in [&mut first, &mut second] {
        replica.hear("reviews", "blue", 1);
        replica.hear("reviews", "green", 2);
    }
    until("it is kept", || kept(&store, "reviews") == ["blue", "green"]).await;

    // Only the first one hears of this: what it keeps when it ends, the second one must not write over.
    first.hear("cart", "old", 3);
    first.hear("cart", "new", 4);
    first.end().await;
    assert_eq!(kept(&store, "cart"), ["old", "new"]);
    second.hear("reviews", "blue", 5);
    until("the second one keeps", || kept(&store, "reviews") == ["blue", "green", "blue"]).await;
    assert_eq!(kept(&store, "cart"), ["old", "new"]);
    assert_eq!(second.remembers("cart"), ["old", "new"]);
    second.end().await;

    // All are gone; whoever comes next knows all of it.
    let third = Replica::start(&client).await;
    assert_eq!(third.remembers("reviews"), ["blue", "green", "blue"]);
    third.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_read_is_written_anew() {
    let store = Store::default();
    let strange = json!({"metadata": {"name": "memory", "resourceVersion": "0"}, "data": {"history.json": "{", "note": "mine"}});
    store.lock().expect("no panic").objects.insert(MAP.to_owned(), strange);
    let client = serve(Arc::clone(&store)).await;
    let mut replica = Replica::start(&client).await;
    replica.hear("reviews", "blue", 1);
    replica.hear("reviews", "green", 2);
    let is_kept = || {
        let own = store.lock().expect("no panic");
        own.objects[MAP]["data"]["history.json"].as_str().is_some_and(|text| text.contains("green"))
    };
    until("it is kept", is_kept).await;
    assert_eq!(store.lock().expect("no panic").objects[MAP]["data"]["note"], "mine");
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_permission_a_replica_goes_on_with_what_it_sees() {
    let store = Store::default();
    store.lock().expect("no panic").is_forbidden = true;
    let client = serve(Arc::clone(&store)).await;
    let mut replica = Replica::start(&client).await;
    replica.hear("reviews", "blue", 1);
    replica.hear("reviews", "green", 2);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(replica.remembers("reviews"), ["blue", "green"]);
    // As soon as it is granted, it is kept.
    store.lock().expect("no panic").is_forbidden = false;
    until("it is kept", || kept(&store, "reviews") == ["blue", "green"]).await;
    replica.end().await;
}
