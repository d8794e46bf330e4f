//! Nodes, addresses, machines and ServiceEntries: what comes in any order counts the same, and what goes leaves nothing behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::runtime::watcher::Event;
use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate::cluster::{self, Feed, Index};
use sluicegate::istio::Host;
use sluicegate::policy::Reference;
use sluicegate::world::{Client, Kind, Mesh, Object, Statistics, World};

use super::api::{Answer, Api, list};
use super::host;
use super::index::watched;

fn object(value: Value) -> Object {
    cluster::object(value).expect("a kind that is read")
}

fn pod(name: usize, version: usize, node: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": format!("p{name}"), "labels": {"app": "a", "version": format!("v{version}")}},
        "spec": {"nodeName": format!("n{node}")},
        "status": {"phase": "Running", "podIP": format!("10.0.0.{name}"), "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn node(name: usize, zone: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("n{name}"),
        "labels": {"topology.kubernetes.io/zone": format!("z{zone}")}}})
}

fn machine(name: usize, version: usize) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
        "metadata": {"namespace": "shop", "name": format!("m{name}")},
        "spec": {"address": format!("10.1.0.{name}"), "locality": format!("r/z{version}"),
            "labels": {"app": "a", "version": format!("v{version}")}}})
}

fn entry(version: usize) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"namespace": "shop", "name": format!("s{version}")},
        "spec": {"hosts": ["ext.example.com"], "resolution": "STATIC", "ports": [{"number": 80, "name": "http"}],
            "endpoints": [{"address": "192.0.2.1", "labels": {"version": format!("v{version}")}}]}})
}

/// Half of the endpoints name their Pod, the others only its address.
fn slice(pods: &[usize]) -> Value {
    let endpoint = |&name: &usize| {
        let mut own =
            json!({"addresses": [format!("10.0.0.{name}")], "conditions": {"ready": true}});
        if name.is_multiple_of(2) {
            own["targetRef"] =
                json!({"kind": "Pod", "name": format!("p{name}"), "namespace": "shop"});
        }
        own
    };
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "shop", "name": "a", "labels": {"kubernetes.io/service-name": "a"}},
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>()})
}

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "a"},
        "spec": {"selector": {"app": "a"}, "ports": [{"name": "http", "port": 80}]}})
}

fn ready(world: &World, host: &Host, labels: &[(&str, &str)]) -> Option<u32> {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let found = world.selected(host, &labels.collect::<BTreeMap<_, _>>(), Some(80))?;
    Some(found.ready())
}

/// What is asked of a world: ready endpoints by version, by zone, by both, and by Node.
fn answers(world: &World) -> Vec<Option<u32>> {
    let (own, ext) = (host("shop", "a"), Host::literal("ext.example.com"));
    let zone = "topology.kubernetes.io/zone";
    let mut all = vec![ready(world, &own, &[]), ready(world, &ext, &[])];
    for at in ["0", "1"] {
        let (version, place) = (format!("v{at}"), format!("z{at}"));
        all.push(ready(world, &own, &[("version", &version)]));
        all.push(ready(world, &own, &[(zone, &place)]));
        all.push(ready(world, &own, &[("version", &version), (zone, &place)]));
        all.push(ready(world, &own, &[("kubernetes.io/hostname", &format!("n{at}"))]));
        all.push(ready(world, &ext, &[("version", &version)]));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Earlier selves of the same objects, and the order in which everything comes, make no difference.
    #[test]
    fn the_order_means_nothing(
        before in prop::collection::vec((0usize..6, 0usize..2, 0usize..2), 0..8),
        pods in prop::collection::vec((0usize..2, 0usize..2), 6),
        zones in prop::collection::vec(0usize..2, 2),
        machines in prop::collection::vec(0usize..2, 0..3),
        in_slice in prop::collection::btree_set(0usize..6, 0..6),
        order in any::<prop::sample::Index>(),
    ) {
        let in_slice = in_slice.into_iter().collect::<Vec<_>>();
        let mut last = vec![service(), slice(&in_slice), entry(0), entry(1)];
        last.extend(pods.iter().enumerate().map(|(name, (version, at))| pod(name, *version, *at)));
        last.extend(zones.iter().enumerate().map(|(name, zone)| node(name, *zone)));
        last.extend(machines.iter().enumerate().map(|(name, version)| machine(name, *version)));

        let mut straight = World::empty(Mesh::default());
        last.iter().cloned().map(object).for_each(|own| straight.apply(own));
        let mut other = World::empty(Mesh::default());
        for (name, version, at) in before {
            other.apply(object(pod(name, version, at)));
            other.apply(object(node(at, version)));
            other.apply(object(slice(&[name])));
            other.apply(object(machine(at, version)));
            other.apply(object(entry(version)));
        }
        for name in machines.len()..2 {
            other.delete(Kind::WorkloadEntry, "shop", &format!("m{name}"));
        }
        let at = order.index(last.len());
        last.rotate_left(at);
        last.iter().cloned().map(object).for_each(|own| other.apply(own));
        prop_assert_eq!(answers(&straight), answers(&other));

        // A model of its own: what the slice names or has the address of, and every machine.
        let v0 = in_slice.iter().filter(|name| pods[**name].0 == 0).count();
        let v0 = v0 + machines.iter().filter(|version| **version == 0).count();
        prop_assert_eq!(ready(&straight, &host("shop", "a"), &[("version", "v0")]), u32::try_from(v0).ok());
        let z1 = in_slice.iter().filter(|name| zones[pods[**name].1] == 1).count();
        let z1 = z1 + machines.iter().filter(|version| **version == 1).count();
        let zone = [("topology.kubernetes.io/zone", "z1")];
        prop_assert_eq!(ready(&straight, &host("shop", "a"), &zone), u32::try_from(z1).ok());

        for mut world in [straight, other] {
            for kind in Kind::ALL {
                for (namespace, name) in world.names(kind) {
                    world.delete(kind, &namespace, &name);
                }
            }
            prop_assert_eq!(world.statistics(), Statistics::default());
        }
    }
}

#[test]
fn visible_is_what_exporting_says() {
    for (export_to, default, want) in [
        ("", vec![], [true, true, true]),
        ("*", vec![".".to_owned()], [true, true, true]),
        ("", vec![".".to_owned()], [true, false, false]),
        (".", vec![], [true, false, false]),
        (" front , .", vec![], [true, true, false]),
        ("front", vec![], [false, true, false]),
        ("~", vec![], [false, false, false]),
    ] {
        let mesh = Mesh { default_service_export_to: default, ..Mesh::default() };
        let mut world = World::empty(mesh);
        let mut own = service();
        own["metadata"]["annotations"] = json!({"networking.istio.io/exportTo": export_to});
        world.apply(object(own));
        let clients =
            [Client::in_namespace("shop"), Client::in_namespace("front"), Client::anywhere()];
        let seen = clients.map(|client| world.is_visible(&host("shop", "a"), &client));
        assert_eq!(seen, want, "{export_to:?}");
        assert!(world.is_visible(&host("shop", "unknown"), &Client::anywhere()));
    }
}

/// Of Pods only the labels are read live; on which Node one runs is then as it was, or unknown.
#[tokio::test]
async fn a_live_read_of_labels_keeps_the_node() {
    let labels = json!({"app": "a", "version": "v1"});
    let bare = |name: &str| json!({"metadata": {"namespace": "shop", "name": name, "labels": labels, "resourceVersion": "9"}});
    let (known, new) = (bare("p0"), bare("p2"));
    let api = Api::start(move |asked| {
        Answer::Json(match asked.path.rsplit('/').next() {
            Some("endpointslices") => list(&[slice(&[0, 2])], 20),
            Some("pods") => list(&[known.clone(), new.clone()], 20),
            _ => list(&[], 20),
        })
    })
    .await;
    let index = Arc::new(Index::new(Mesh::default(), api.client.clone()));
    for (kind, objects) in [
        (Kind::Service, vec![service()]),
        (Kind::Node, vec![node(0, 1)]),
        (Kind::Pod, vec![pod(0, 0, 0)]),
    ] {
        let mut feed = Feed::new(Arc::clone(&index), kind);
        feed.take(Event::Init);
        for own in &objects {
            feed.take(Event::InitApply(watched(own)));
        }
        feed.take(Event::InitDone);
    }
    let endpoints = Reference::Endpoints { namespace: "shop".to_owned(), service: "a".to_owned() };
    index.confirm(&[endpoints]).await.expect("answers");
    index.read(|world| {
        let own = host("shop", "a");
        assert_eq!(ready(world, &own, &[("version", "v1")]), Some(2));
        let zone = BTreeMap::from([("topology.kubernetes.io/zone".to_owned(), "z1".to_owned())]);
        let found = world.selected(&own, &zone, None).expect("Nodes are listed");
        assert_eq!((found.ready() - found.unknown_ready, found.unknown_ready), (1, 1));
    });
}
