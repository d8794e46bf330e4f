//! Which hosts are reached through a waypoint, and what it routes them by, with a slow literal translation of Istio's own code as
//! oracle.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate::cluster;
use sluicegate::istio::{Host, Protocol, VirtualService, host_covers};
use sluicegate::world::{ANY_NAMESPACE, Client, INJECTED, Kind, Mesh, Object, World};

const HOST: &str = "reviews.prod.svc.cluster.local";

fn host(name: &str) -> Host {
    Host::resolve(name, "prod", "cluster.local")
}

fn apply(world: &mut World, object: Value) {
    world.apply(cluster::object(object).expect("an object that is read"));
}

fn labelled(kind: &str, namespace: &str, name: &str, labels: Value) -> Value {
    let metadata = json!({"name": name, "namespace": namespace, "labels": labels});
    json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": {"ports": [{"port": 80}]}})
}

fn namespace(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// One with an address; `from` says who may use it.
fn gateway(namespace: &str, class: &str, from: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "way", "namespace": namespace},
        "spec": {"gatewayClassName": class, "listeners": [
            {"name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": {"namespaces": {"from": from}}},
        ]},
        "status": {"addresses": [{"type": "IPAddress", "value": "10.0.0.1"}]},
    })
}

fn at(world: &World, name: &str) -> String {
    let own = world.waypoint_of(&host(name)).map(Client::at);
    own.and_then(|own| own.waypoint).unwrap_or_default()
}

#[test]
fn the_waypoint_of_a_host_is_followed() {
    let mut world = World::empty(Mesh::default());
    let service = |labels: Value| labelled("Service", "prod", "reviews", labels);
    let far = json!({"istio.io/use-waypoint": "way", "istio.io/use-waypoint-namespace": "infra"});
    let near = json!({"istio.io/use-waypoint": "way"});
    apply(&mut world, service(json!({})));
    apply(&mut world, namespace("prod", near.clone()));
    assert_eq!(at(&world, "reviews"), "", "there is none of that name");
    apply(&mut world, gateway("prod", "istio-waypoint", "Same"));
    assert_eq!(at(&world, "reviews"), "prod/way");
    apply(&mut world, service(json!({"istio.io/use-waypoint": "none"})));
    assert_eq!(at(&world, "reviews"), "", "the Service wants none");
    apply(&mut world, service(far.clone()));
    assert_eq!(
        at(&world, "reviews"),
        "",
        "what it names is not there, and the Namespace's does not count"
    );
    apply(&mut world, gateway("infra", "istio-waypoint", "Same"));
    assert_eq!(at(&world, "reviews"), "", "it is not for this namespace");
    apply(&mut world, gateway("infra", "istio-waypoint", "All"));
    assert_eq!(at(&world, "reviews"), "infra/way");
    apply(&mut world, gateway("infra", "nginx", "All"));
    assert_eq!(at(&world, "reviews"), "", "it is no waypoint");
    apply(&mut world, gateway("infra", "istio-waypoint", "All"));
    apply(&mut world, service(json!({})));
    apply(&mut world, namespace("prod", json!({})));
    assert_eq!(at(&world, "reviews"), "", "nobody names one");
    apply(&mut world, namespace("prod", far));
    assert_eq!(at(&world, "reviews"), "infra/way");
    world.delete(Kind::Waypoint, "infra", "way");
    assert_eq!(at(&world, "reviews"), "");
    apply(&mut world, namespace("prod", near));
    assert_eq!(at(&world, "reviews"), "prod/way");
    world.delete(Kind::Namespace, "", "prod");
    assert_eq!(at(&world, "reviews"), "");
    assert_eq!(world.names(Kind::Waypoint), [("prod".to_owned(), "way".to_owned())]);
}

#[test]
fn entries_have_waypoints_and_aliases_have_none() {
    let mut world = World::empty(Mesh::default());
    let near = json!({"istio.io/use-waypoint": "way"});
    apply(&mut world, gateway("prod", "istio-waypoint", "Same"));
    let mut alias = labelled("Service", "prod", "alias", near.clone());
    alias["spec"] = json!({"type": "ExternalName", "externalName": "a.example.com"});
    apply(&mut world, alias);
    let mut entry = labelled("ServiceEntry", "prod", "entry", near);
    entry["apiVersion"] = json!("networking.istio.io/v1");
    entry["spec"] = json!({"hosts": ["a.example.com"]});
    apply(&mut world, entry);
    assert_eq!(at(&world, "alias"), "");
    assert_eq!(at(&world, "a.example.com"), "prod/way");
    assert_eq!(at(&world, "b.example.com"), "");
}

#[test]
fn a_wildcard_means_the_services_of_its_namespace() {
    let mut world = World::empty(Mesh::default());
    apply(&mut world, gateway("prod", "istio-waypoint", "Same"));
    apply(&mut world, namespace("prod", json!({"istio.io/use-waypoint": "way"})));
    for name in ["b", "a"] {
        apply(&mut world, labelled("Service", "prod", name, json!({})));
    }
    let none = json!({"istio.io/use-waypoint": "none"});
    apply(&mut world, labelled("Service", "prod", "c", none));
    let found = |pattern: &str, at: &str| {
        let all = world.through_waypoints(&[host("d"), host(pattern)], at).into_iter();
        let all = all.inspect(|(number, ..)| assert_eq!(*number, 1, "nobody has the other host"));
        all.map(|(_, host, _)| host.as_str().to_owned()).collect::<Vec<_>>().join(",")
    };
    let (a, b) = ("a.prod.svc.cluster.local", "b.prod.svc.cluster.local");
    assert_eq!(found("*.prod.svc.cluster.local", "prod"), format!("{a},{b}"));
    assert_eq!(found("*.other.svc.cluster.local", "prod"), "");
    assert_eq!(found("*.prod.svc.cluster.local", "other"), "");
    assert_eq!(found("a", "prod"), a);
    assert_eq!(found("c", "prod"), "");
}

#[test]
fn pods_with_a_sidecar_are_counted() {
    let mut world = World::empty(Mesh::default());
    let pod = |name: &str, labels: Value| labelled("Pod", "shop", name, labels);
    let injected = json!({INJECTED: "istio", "app": "a"});
    let seen = |world: &World| {
        assert_eq!(world.has_injected_pods("shop"), world.has_injected_pods(ANY_NAMESPACE));
        assert!(!world.has_injected_pods("other"));
        world.has_injected_pods("shop")
    };
    apply(&mut world, pod("plain", json!({"app": "a"})));
    assert!(!seen(&world));
    apply(&mut world, pod("a", injected.clone()));
    apply(&mut world, pod("b", injected.clone()));
    apply(&mut world, pod("b", injected));
    assert!(seen(&world));
    world.delete(Kind::Pod, "shop", "a");
    assert!(seen(&world));
    apply(&mut world, pod("b", json!({"app": "a"})));
    assert!(!seen(&world));
    world.delete(Kind::Pod, "shop", "b");
    assert!(!seen(&world));
    let world = World::empty(Mesh { is_multi_cluster: true, ..Mesh::default() });
    assert!(world.has_injected_pods("shop"), "one may run in another cluster");
}

/// Service reviews of prod, which is reached through a waypoint in infra, and these VirtualServices.
fn world(objects: &[VirtualService]) -> World {
    let mut world = World::empty(Mesh::default());
    apply(&mut world, gateway("infra", "istio-waypoint", "All"));
    let far = json!({"istio.io/use-waypoint": "way", "istio.io/use-waypoint-namespace": "infra"});
    apply(&mut world, labelled("Service", "prod", "reviews", far));
    for object in objects {
        world.apply(Object::VirtualService(Box::new(object.clone())));
    }
    world
}

fn waypoint() -> Client {
    Client { waypoint: Some("infra/way".to_owned()), ..Client::in_namespace("infra") }
}

fn in_force(world: &World, protocol: Protocol, port: i64) -> Vec<String> {
    let routing = world.routing();
    let found = routing.in_force(&host("reviews"), &waypoint(), protocol, Some(port));
    found.into_iter().map(|object| object.metadata.name.clone()).collect()
}

/// Istio's code, line by line and slow: `push_context.go` `initVirtualServices`, `VirtualServicesForGateway`,
/// `listener_waypoint.go`.
mod oracle {
    use super::*;
    use sluicegate::istio::{Route, RouteMatch};

    /// `getVirtualServiceForWaypoint`, of what `VirtualServicesForGateway` lists for infra.
    fn matching(objects: &[VirtualService]) -> Vec<&VirtualService> {
        let mut sorted = objects.iter().collect::<Vec<_>>();
        sorted.sort_by_key(|object| {
            let metadata = &object.metadata;
            (metadata.creation_timestamp, metadata.name.clone(), metadata.namespace.clone())
        });
        let (mut private, mut exported, mut public) = (Vec::new(), Vec::new(), Vec::new());
        for object in sorted {
            let own = object.metadata.namespace.as_str();
            let is_for_mesh = object.spec.gateways.is_empty()
                || object.spec.gateways.contains(&"mesh".to_owned());
            let to = object.spec.export_to.iter();
            let to = to.map(|to| if to == "." { own } else { to }).collect::<Vec<_>>();
            if !is_for_mesh {
                continue;
            }
            if to.is_empty() || to.contains(&"*") {
                public.push(object);
            } else if to.contains(&"infra") {
                if own == "infra" { private.push(object) } else { exported.push(object) }
            }
        }
        let mut found = Vec::new();
        for object in private.into_iter().chain(exported).chain(public) {
            let own = object.metadata.namespace.as_str();
            if own != "infra" && own != "prod" {
                continue;
            }
            let covers = |written: &String| {
                host_covers(Host::resolve(written, own, "cluster.local").as_str(), HOST)
            };
            if object.spec.hosts.iter().any(covers) {
                found.push(object);
            }
        }
        found
    }

    fn has_mesh(block: &RouteMatch) -> bool {
        block.gateways.iter().any(|own| own == "mesh")
    }

    /// `waypointInboundRoute` leaves a route.
    fn leaves_http(routes: &[Route], port: i64) -> bool {
        routes.iter().any(|route| {
            route.r#match.is_empty()
                || route.r#match.iter().any(|block| {
                    if !block.source_labels.is_empty() {
                        return false;
                    }
                    if block.port.is_some_and(|own| own != 0 && own != port) {
                        return false;
                    }
                    if !block.gateways.is_empty() {
                        return has_mesh(block);
                    }
                    block.source_namespace.is_empty() || block.source_namespace == "infra"
                })
        })
    }

    /// `matchTCP` and `matchTLS` with no labels and no namespace.
    fn is_matched(block: &RouteMatch, port: i64) -> bool {
        (block.gateways.is_empty() || has_mesh(block))
            && block.source_labels.is_empty()
            && block.port.is_none_or(|own| own == 0 || own == port)
            && block.source_namespace.is_empty()
    }

    fn first<'a>(
        found: &[&'a VirtualService],
        routes: impl Fn(&'a VirtualService) -> &'a [Route],
        is_matched: impl Fn(&RouteMatch) -> bool,
    ) -> Option<&'a VirtualService> {
        found.iter().copied().find(|object| {
            routes(object)
                .iter()
                .any(|route| route.r#match.is_empty() || route.r#match.iter().any(&is_matched))
        })
    }

    pub(super) fn in_force(
        objects: &[VirtualService],
        protocol: Protocol,
        port: i64,
    ) -> Vec<String> {
        let found = matching(objects);
        let name = |object: &VirtualService| object.metadata.name.clone();
        if protocol == Protocol::Http {
            let all = found.into_iter().filter(|own| leaves_http(&own.spec.http, port));
            return all.map(name).collect();
        }
        // `getWaypointTCPRoutes`
        let is_for_host =
            |block: &RouteMatch| block.sni_hosts.len() == 1 && block.sni_hosts[0] == HOST;
        let tls = first(
            &found,
            |own| &own.spec.tls,
            |block| is_for_host(block) && is_matched(block, port),
        );
        let tcp = first(&found, |own| &own.spec.tcp, |block| is_matched(block, port));
        let taken = match protocol {
            Protocol::Tls => tls,
            _ => tcp.filter(|_| tls.is_none()),
        };
        taken.map(name).into_iter().collect()
    }
}

fn any_object() -> impl Strategy<Value = VirtualService> {
    let at =
        prop::sample::select(vec!["prod/a", "prod/b", "infra/c", "infra/d", "team/e", "prod/f"]);
    let own = prop::sample::select(vec![
        HOST,
        HOST,
        "reviews",
        "Reviews",
        "*.prod.svc.cluster.local",
        "*.cluster.local",
        "*",
        "reviews.prod",
        "other",
    ]);
    let export_to = prop::sample::select(vec![
        json!([]),
        json!([]),
        json!(["*"]),
        json!(["."]),
        json!(["infra"]),
        json!(["prod", "team"]),
    ]);
    let gateways = prop::sample::select(vec![
        json!([]),
        json!([]),
        json!(["public"]),
        json!(["mesh", "public"]),
    ]);
    let block = prop::sample::select(vec![
        json!({}),
        json!({"port": 9080}),
        json!({"sourceLabels": {"app": "web"}}),
        json!({"gateways": ["mesh"], "sourceLabels": {"app": "web"}}),
        json!({"gateways": ["public"]}),
        json!({"gateways": ["mesh"], "sourceNamespace": "team"}),
        json!({"sourceNamespace": "team"}),
        json!({"sourceNamespace": "infra"}),
        json!({"sniHosts": [HOST]}),
        json!({"sniHosts": [HOST], "port": 9080}),
        json!({"sniHosts": [HOST, "b.example.com"]}),
        json!({"destinationSubnets": ["10.0.0.0/8"]}),
    ]);
    let routes = prop::collection::vec(prop::collection::vec(block, 0..3), 0..3);
    let list = prop::sample::select(vec!["http", "http", "tls", "tcp"]);
    (at, 0..3i64, own, export_to, gateways, list, routes).prop_map(
        |(at, created, own, export_to, gateways, list, routes)| {
            let (namespace, name) = at.split_once('/').expect("namespace/name");
            let routes = routes.into_iter().map(
                |blocks| json!({"match": blocks, "route": [{"destination": {"host": "reviews"}}]}),
            );
            let routes = routes.collect::<Vec<_>>();
            let created = format!("2026-01-01T00:00:0{created}Z");
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
                "spec": {"hosts": [own], "exportTo": export_to, "gateways": gateways, list: routes},
            }))
            .expect("a VirtualService")
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_waypoint_routes_by_what_istio_computes(objects in prop::collection::vec(any_object(), 0..7)) {
        let key = |object: &VirtualService| object.metadata.name.clone();
        let objects = objects.into_iter().map(|object| (key(&object), object));
        let objects = objects.collect::<BTreeMap<_, _>>().into_values().collect::<Vec<_>>();
        let world = world(&objects);
        for protocol in Protocol::ALL {
            for port in [80, 9080] {
                let (ours, want) =
                    (in_force(&world, protocol, port), oracle::in_force(&objects, protocol, port));
                prop_assert_eq!(ours, want, "{:?} {}", protocol, port);
            }
        }
        // Nobody who does not reach the host through it is routed there.
        let client = Client { waypoint: Some("infra/other".to_owned()), ..waypoint() };
        prop_assert!(world.routing().virtual_services(&host("reviews"), &client).is_empty());
        prop_assert!(world.routing().virtual_services(&host("other"), &waypoint()).is_empty());
    }
}
