//! Which namespaces istiod reads, as Namespaces and their labels come and go.

use std::sync::Arc;

use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use sluicegate::cluster::{Feed, Index};
use sluicegate::istio::Host;
use sluicegate::policy::{Basis, Operation, Policies, Reference, Review, Verdict, evaluate};
use sluicegate::rules;
use sluicegate::world::{Client, Kind, Mesh, World};

use super::api::{Answer, Api, Asked, list};
use super::index::{service, watched};

fn selecting(selectors: &[&str]) -> Mesh {
    let selectors = selectors.iter().map(|text| text.parse().expect("a selector"));
    Mesh { discovery_selectors: selectors.collect(), ..Mesh::default() }
}

fn namespace(name: &str, labels: Value, version: u64) -> Value {
    json!({"metadata": {"name": name, "labels": labels, "resourceVersion": version.to_string()}})
}

fn istio(name: &str, spec: Value) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name, "resourceVersion": "5"}, "spec": spec})
}

/// One object of each kind that counts, all in namespace shop.
fn objects() -> [(Kind, Value); 5] {
    let route = json!([{"route": [{"destination": {"host": "reviews", "subset": "v1"}}]}]);
    let ports = json!([{"number": 80, "name": "http"}]);
    [
        (Kind::Service, service("reviews", 5)),
        (
            Kind::DestinationRule,
            istio("rule", json!({"host": "reviews", "subsets": [{"name": "v1"}]})),
        ),
        (Kind::VirtualService, istio("routes", json!({"hosts": ["reviews"], "http": route}))),
        (Kind::ServiceEntry, istio("api", json!({"hosts": ["api.example.com"], "ports": ports}))),
        (Kind::Gateway, istio("edge", json!({"selector": {"app": "edge"}}))),
    ]
}

/// Which of [`objects`] look-ups find; all of them or none, the world is never torn.
fn is_read(world: &World) -> bool {
    let host = |host: &str| Host::resolve(host, "shop", "cluster.local");
    let client = Client::in_namespace("shop");
    let found = [
        world.host(&host("reviews")).is_some(),
        world.subset(&host("reviews"), "v1", &client).is_some(),
        !world.routing().virtual_services(&host("reviews"), &client).is_empty(),
        !world.users_of(&host("reviews")).is_empty(),
        world.virtual_service("shop", "routes").is_some(),
        world.host(&host("api.example.com")).is_some(),
        world.gateway("shop", "edge").is_some(),
    ];
    assert!(found.iter().all(|is_found| *is_found == found[0]), "{found:?}");
    found[0]
}

/// Everything listed, Namespaces last.
fn listed(index: &Arc<Index>, namespaces: &[Value]) {
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Namespace) {
        let mut feed = Feed::new(Arc::clone(index), kind);
        feed.take(Event::Init);
        for (_, object) in objects().iter().filter(|(own, _)| *own == kind) {
            feed.take(Event::InitApply(watched(object)));
        }
        feed.take(Event::InitDone);
    }
    let mut feed = Feed::new(Arc::clone(index), Kind::Namespace);
    feed.take(Event::Init);
    for namespace in namespaces {
        feed.take(Event::InitApply(watched(namespace)));
    }
    feed.take(Event::InitDone);
}

#[test]
fn a_namespace_that_is_labelled_later_comes_in_without_a_list() {
    let index = Arc::new(Index::unconnected(selecting(&["mesh=on", "team in (shop)"])));
    listed(&index, &[namespace("shop", json!({}), 1)]);
    assert!(!index.read(is_read));
    let mut feed = Feed::new(Arc::clone(&index), Kind::Namespace);
    for (labels, is_in) in [
        (json!({"mesh": "on"}), true),
        (json!({"mesh": "on", "team": "shop"}), true),
        (json!({"team": "shop"}), true),
        (json!({"team": "web"}), false),
        (json!({"mesh": "on"}), true),
    ] {
        feed.take(Event::Apply(watched(&namespace("shop", labels.clone(), 9))));
        assert_eq!(index.read(is_read), is_in, "{labels}");
        assert_eq!(index.read(|world| world.is_discovered("shop")), Some(is_in));
    }
    feed.take(Event::Delete(watched(&namespace("shop", json!({"mesh": "on"}), 10))));
    assert!(!index.read(is_read), "what nobody knows the labels of is not read");
    assert_eq!(index.read(|world| world.is_discovered("shop")), None);
    assert_eq!(index.progress(Kind::Service).lists, 1);
}

#[test]
fn what_changes_while_it_is_left_out_is_as_it_then_is() {
    let index = Arc::new(Index::unconnected(selecting(&["mesh=on"])));
    listed(&index, &[namespace("shop", json!({}), 1)]);
    let mut services = Feed::new(Arc::clone(&index), Kind::Service);
    services.take(Event::Apply(watched(&service("ratings", 6))));
    services.take(Event::Delete(watched(&service("reviews", 7))));
    let mut rules = Feed::new(Arc::clone(&index), Kind::DestinationRule);
    // A new list in which the old rule is missing.
    let rule = istio("other", json!({"host": "ratings", "subsets": [{"name": "v9"}]}));
    rules.take(Event::Init);
    rules.take(Event::InitApply(watched(&rule)));
    rules.take(Event::InitDone);
    let mut namespaces = Feed::new(Arc::clone(&index), Kind::Namespace);
    namespaces.take(Event::Apply(watched(&namespace("shop", json!({"mesh": "on"}), 9))));
    index.read(|world| {
        assert!(world.service("shop", "ratings").is_some());
        assert!(world.service("shop", "reviews").is_none(), "it was deleted");
        assert!(world.undiscovered_service("shop", "reviews").is_none());
        let client = Client::in_namespace("shop");
        let host = |name: &str| Host::resolve(name, "shop", "cluster.local");
        assert!(world.subset(&host("ratings"), "v9", &client).is_some());
        assert!(world.subset(&host("reviews"), "v1", &client).is_none(), "it was in no list");
    });
}

#[test]
fn selectors_that_change_sort_everything_out_again() {
    let index = Arc::new(Index::unconnected(Mesh::default()));
    listed(&index, &[namespace("shop", json!({"team": "shop"}), 1)]);
    for (mesh, is_in) in [
        (selecting(&["mesh=on"]), false),
        (selecting(&["team=shop"]), true),
        (selecting(&["mesh=on"]), false),
        (Mesh::default(), true),
    ] {
        index.set_mesh(mesh.clone());
        assert_eq!(index.read(is_read), is_in, "{mesh:?}");
        for (kind, object) in objects() {
            let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
            let names = index.read(|world| world.names(kind));
            assert_eq!(names, [("shop".to_owned(), name)], "a list must know what it replaces");
        }
    }
}

/// Weights in namespace shop that do not add up to 100.
fn review() -> Review {
    let object = |weights: [u8; 2]| {
        let route = json!([{"destination": {"host": "reviews"}, "weight": weights[0]},
            {"destination": {"host": "canary"}, "weight": weights[1]}]);
        istio("routes", json!({"hosts": ["reviews"], "http": [{"route": route}]})).to_string()
    };
    let (old, new) = (object([100, 0]), object([60, 10]));
    Review {
        operation: Operation::parse(Kind::VirtualService, Some(&old), Some(&new)),
        namespace: "shop".to_owned(),
        name: "routes".to_owned(),
        user: String::new(),
        dry_run: false,
    }
}

fn judge(world: &World) -> Verdict {
    let policies = Policies::new(Vec::new(), rules::ALL);
    evaluate(policies.in_force(&review(), world), &review(), world)
}

#[test]
fn without_selectors_nobody_waits_for_namespaces() {
    for (mesh, missing) in
        [(Mesh::default(), vec![]), (selecting(&["mesh=on"]), vec![Kind::Namespace])]
    {
        let mut world = World::new(mesh);
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Namespace) {
            world.set_listed(kind);
        }
        assert_eq!(judge(&world).missing, missing);
    }
}

#[tokio::test]
async fn labels_are_read_again_before_anybody_is_refused() {
    let api = Api::start(|asked: &Asked| {
        Answer::Json(match asked.path.as_str() {
            "/api/v1/namespaces" => list(&[namespace("shop", json!({"team": "web"}), 8)], 20),
            _ => list(&[], 20),
        })
    })
    .await;
    let index = Arc::new(Index::new(selecting(&["mesh=on"]), api.client.clone()));
    // The watch has not brought the Namespace yet: nobody can say, and its labels can be read.
    listed(&index, &[]);
    let verdict = index.judge(&judge);
    assert!(!verdict.is_decided() && verdict.missing == [Kind::Namespace]);
    assert_eq!(verdict.to_confirm(&[].into()), [[Reference::Namespaces]]);
    assert!(verdict.to_confirm(&[Reference::Namespaces].into()).is_empty());
    // It says what it said when it still had the label: what is refused there may not be read by istiod any more.
    let mut feed = Feed::new(Arc::clone(&index), Kind::Namespace);
    feed.take(Event::Apply(watched(&namespace("shop", json!({"mesh": "on"}), 3))));
    let refused = index.judge(&judge);
    assert!(!refused.allowed());
    let rests_on = refused.to_confirm(&[].into()).concat();
    assert!(rests_on.contains(&Reference::Namespaces), "{rests_on:?}");
    let cost = index.cost(&rests_on);
    index.confirm(&rests_on).await.expect("it answers");
    assert_eq!(api.asked().len(), cost + 1, "the labels come on top");
    let admitted = index.judge(&judge);
    assert!(admitted.allowed() && admitted.basis == Basis::Unread, "{admitted:?}");
}
