use std::sync::Arc;

use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use sluicegate::cluster::{Feed, Index, Next, Watched};
use sluicegate::world::{Kind, Mesh};

use super::{counts, ready_of};

fn index() -> Arc<Index> {
    Arc::new(Index::unconnected(Mesh::default()).wanting(&[
        Kind::Service,
        Kind::Pod,
        Kind::EndpointSlice,
    ]))
}

pub(crate) fn watched(value: &Value) -> Watched {
    serde_json::from_value(value.clone()).expect("anything can be taken in")
}

pub(crate) fn service(name: &str, version: u64) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name, "resourceVersion": version.to_string()},
        "spec": {"selector": {"app": name}}})
}

pub(crate) fn pod(name: &str, labels: &Value, version: u64) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name, "labels": labels, "resourceVersion": version.to_string()}})
}

pub(crate) fn slice(name: &str, service: &str, pods: &[(&str, bool)], version: u64) -> Value {
    let endpoint = |&(pod, ready): &(&str, bool)| json!({"targetRef": {"kind": "Pod", "name": pod}, "conditions": {"ready": ready, "terminating": false}});
    json!({"metadata": {"namespace": "shop", "name": name, "resourceVersion": version.to_string(),
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>()})
}

fn list(feed: &mut Feed, objects: &[Value]) -> Next {
    feed.take(Event::Init);
    for object in objects {
        feed.take(Event::InitApply(watched(object)));
    }
    feed.take(Event::InitDone)
}

#[test]
fn a_kind_is_listed_when_its_list_is_complete() {
    let index = index();
    let mut feed = Feed::new(Arc::clone(&index), Kind::Service);
    assert_eq!(index.missing(), [Kind::Service, Kind::EndpointSlice, Kind::Pod]);
    feed.take(Event::Init);
    feed.take(Event::InitApply(watched(&service("reviews", 1))));
    assert!(index.missing().contains(&Kind::Service), "half a list is none");
    assert!(!index.progress(Kind::Service).is_listed);
    assert_eq!(feed.take(Event::InitDone), Next::Follow);
    assert_eq!(index.missing(), [Kind::EndpointSlice, Kind::Pod]);
    assert!(index.read(|world| world.service("shop", "reviews").is_some()));
    let progress = index.progress(Kind::Service);
    assert!(progress.is_listed && progress.last_event.is_some());
    assert_eq!((progress.lists, progress.events, progress.failures), (1, 1, 0));
}

#[test]
fn a_new_list_replaces_the_old_one_at_once() {
    let index = index();
    let mut feed = Feed::new(Arc::clone(&index), Kind::Service);
    list(&mut feed, &[service("a", 1), service("b", 2)]);
    let there = |name: &str| index.read(|world| world.service("shop", name).is_some());

    feed.take(Event::Init);
    feed.take(Event::InitApply(watched(&service("c", 3))));
    assert!(there("a") && there("b") && !there("c"), "nothing is absent while the list comes in");
    // It breaks off and begins again.
    feed.take(Event::Init);
    feed.take(Event::InitApply(watched(&service("b", 2))));
    feed.take(Event::InitDone);
    assert!(!there("a") && there("b") && !there("c"));
    assert_eq!(index.progress(Kind::Service).lists, 2);
}

#[test]
fn a_list_longer_than_what_is_held_back_is_complete_too() {
    let index = index();
    let mut feed = Feed::new(Arc::clone(&index), Kind::Pod);
    let labels = json!({"app": "reviews"});
    let pods = |range: std::ops::Range<u64>| {
        range.map(|i| pod(&format!("p{i}"), &labels, i + 1)).collect::<Vec<_>>()
    };
    list(&mut feed, &pods(0..2500));
    assert_eq!(index.read(|world| world.names(Kind::Pod).len()), 2500);
    list(&mut feed, &pods(1000..2700));
    let names = index.read(|world| world.names(Kind::Pod));
    assert_eq!(names.len(), 1700);
    assert!(!names.contains(&("shop".to_owned(), "p999".to_owned())));
    list(&mut feed, &[]);
    assert_eq!(index.read(|world| world.statistics()), sluicegate::world::Statistics::default());
}

#[test]
fn events_change_one_object_each() {
    let index = index();
    let mut services = Feed::new(Arc::clone(&index), Kind::Service);
    let mut pods = Feed::new(Arc::clone(&index), Kind::Pod);
    let mut slices = Feed::new(Arc::clone(&index), Kind::EndpointSlice);
    list(&mut services, &[service("reviews", 1)]);
    list(&mut pods, &[]);
    list(&mut slices, &[]);
    let found = || index.read(|world| counts(world, "shop", "reviews"));
    let v2 = || index.read(|world| ready_of(world, "shop", "reviews", "v2"));
    assert_eq!(found(), Some((0, 0)));

    // The slice may come before its Pod.
    slices.take(Event::Apply(watched(&slice("s", "reviews", &[("a", true), ("b", false)], 2))));
    assert_eq!(
        found(),
        Some((1, 0)),
        "the label of an unready Pod that is not known yet is no matter"
    );
    pods.take(Event::Apply(watched(&pod("a", &json!({"version": "v1"}), 3))));
    pods.take(Event::Apply(watched(&pod("b", &json!({"version": "v2"}), 4))));
    assert_eq!((found(), v2()), (Some((1, 1)), 0));
    slices.take(Event::Apply(watched(&slice("s", "reviews", &[("a", true), ("b", true)], 5))));
    assert_eq!((found(), v2()), (Some((2, 0)), 1));
    pods.take(Event::Apply(watched(&pod("a", &json!({"version": "v2"}), 6))));
    assert_eq!(v2(), 2);
    // A delete goes by name: what else the object says is no matter.
    slices.take(Event::Delete(watched(
        &json!({"metadata": {"namespace": "shop", "name": "s", "labels": 7, "resourceVersion": "7"}, "endpoints": "?"}),
    )));
    assert_eq!(found(), Some((0, 0)));
    services.take(Event::Delete(watched(&service("reviews", 8))));
    assert_eq!(found(), None);
}

#[test]
fn an_object_that_cannot_be_read_still_takes_its_place() {
    let index = index();
    let mut feed = Feed::new(Arc::clone(&index), Kind::Service);
    list(
        &mut feed,
        &[
            service("a", 1),
            json!({"metadata": {"namespace": "shop", "name": "b", "resourceVersion": "2"}, "spec": "?"}),
        ],
    );
    assert!(index.read(|world| world.service("shop", "b").is_some()));
    feed.take(Event::Apply(watched(
        &json!({"metadata": {"namespace": "shop", "name": "a", "resourceVersion": "3"}, "spec": [1]}),
    )));
    let selector = index.read(|world| world.service("shop", "a").map(|own| own.selector.clone()));
    assert_eq!(selector, Some(std::collections::BTreeMap::new()), "its old self is gone");
}
