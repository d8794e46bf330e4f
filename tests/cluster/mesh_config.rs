use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use sluicegate::cluster::{
    self, Feed, Index, MeshConfigName, Reading, follow_mesh_config, mesh_config, mesh_config_in,
};
use sluicegate::istio::Host;
use sluicegate::world::{Client, Kind, Mesh};
use tokio_util::sync::CancellationToken;

use super::api::{Answer, Api};
use super::index::watched;

const PRIVATE: &str = "rootNamespace: infra\ndefaultDestinationRuleExportTo: ['.']\n";

fn name(revision: &str) -> MeshConfigName {
    MeshConfigName::of("istio-system", revision)
}

fn config_map(name: &str, text: &str) -> Value {
    let metadata = json!({"name": name, "namespace": "istio-system"});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"mesh": text}})
}

fn found(reading: &Reading) -> (String, Vec<String>) {
    match reading {
        Reading::Found(config) => {
            (config.root_namespace.clone(), config.default_destination_rule_export_to.clone())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_revision_has_its_config_map() {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        config_map("istio", PRIVATE),
        config_map("istio-canary", "rootNamespace: edge"),
        config_map("istio-empty", ""),
        config_map("istio-broken", "a: b: c"),
        config_map("istio-odd", "rootNamespace: 7\ndefaultDestinationRuleExportTo: none"),
    ]});
    let documents = cluster::parse("files", &list.to_string()).expect("objects");
    let read = |revision| mesh_config_in(&documents, &name(revision));
    for revision in ["", "default"] {
        assert_eq!(found(&read(revision)), ("infra".to_owned(), vec![".".to_owned()]));
    }
    assert_eq!(found(&read("canary")), ("edge".to_owned(), vec![]));
    assert_eq!(found(&read("empty")), (String::new(), vec![]));
    assert_eq!(found(&read("odd")), ("7".to_owned(), vec![]), "what can be read is read");
    assert!(matches!(read("broken"), Reading::Unknown(_)));
    assert_eq!(read("other"), Reading::Absent);
    let elsewhere = MeshConfigName::of("infra", "default");
    assert_eq!(mesh_config_in(&documents, &elsewhere), Reading::Absent);
}

#[test]
fn discovery_selectors_are_read_as_istiod_reads_them() {
    let read = |text: &str| {
        let text = format!("discoverySelectors: {text}");
        let list =
            json!({"apiVersion": "v1", "kind": "List", "items": [config_map("istio", &text)]});
        let documents = cluster::parse("files", &list.to_string()).expect("objects");
        match mesh_config_in(&documents, &name("")) {
            Reading::Found(config) => config.discovery_selectors(),
            other => panic!("{other:?}"),
        }
    };
    let texts = |text: &str| {
        let selectors = read(text).expect(text);
        selectors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(texts("[]").is_empty() && texts("null").is_empty());
    assert_eq!(texts("[{}]"), ["everything"]);
    assert_eq!(texts("[{matchLabel: {a: b}}]"), ["everything"], "what there is not is ignored");
    let two = "[{matchLabels: {mesh: 'on', env: prod}}, {matchExpressions: [{key: team, operator: Exists}, {key: env, operator: NotIn, values: [a, b]}]}]";
    assert_eq!(texts(two), ["env=prod,mesh=on", "team,env notin (a,b)"]);
    for wrong in [
        "[{matchExpressions: [{key: a, operator: Sometimes}]}]",
        "[{matchExpressions: [{key: a, operator: In}]}]",
        "[{matchExpressions: [{key: a, operator: Exists, values: [b]}]}]",
        "[{matchLabels: {'not a key': b}}]",
        "[{matchLabels: {a: 'no value'}}]",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn that_it_may_not_be_read_is_no_error() {
    let api = Api::start(|asked| match asked.path.rsplit('/').next() {
        Some("istio") => Answer::Json(config_map("istio", PRIVATE)),
        Some("istio-gone") => Answer::Status(404),
        _ => Answer::Status(403),
    })
    .await;
    assert_eq!(found(&mesh_config(&api.client, &name("")).await).0, "infra");
    assert_eq!(mesh_config(&api.client, &name("gone")).await, Reading::Absent);
    assert!(matches!(mesh_config(&api.client, &name("secret")).await, Reading::Unknown(_)));
    assert_eq!(api.asked()[0].path, "/api/v1/namespaces/istio-system/configmaps/istio");
}

#[tokio::test]
async fn what_it_says_takes_effect_without_a_restart() {
    let api = Api::start(|_| Answer::Json(config_map("istio", PRIVATE))).await;
    let index = Arc::new(Index::new(Mesh::default(), api.client.clone()));
    let rule = json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"host": "reviews", "subsets": [{"name": "v1"}]}});
    let mut feed = Feed::new(Arc::clone(&index), Kind::DestinationRule);
    feed.take(Event::Apply(watched(&rule)));
    let seen = |index: &Index| {
        index.read(|world| {
            let host = Host::resolve("reviews", "shop", "cluster.local");
            world.subset(&host, "v1", &Client::anywhere()).is_some()
        })
    };
    assert!(seen(&index));
    let shutdown = CancellationToken::new();
    let follow = follow_mesh_config(
        api.client.clone(),
        Arc::clone(&index),
        name(""),
        |reading| {
            let to = found(reading).1;
            Mesh { default_destination_rule_export_to: to, ..Mesh::default() }
        },
        shutdown.clone(),
    );
    let follow = tokio::spawn(follow);
    let start = Instant::now();
    while seen(&index) {
        assert!(start.elapsed() < Duration::from_secs(10), "the setting never took effect");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shutdown.cancel();
    follow.await.expect("it ends when it is told to");
}
