//! Which VirtualService routes a host for a client: a table, and a slow literal translation of Istio's own code as oracle.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate::istio::{
    Gateway, Host, Metadata, Protocol, Timestamp, VirtualService, host_covers,
};
use sluicegate::world::{Client, Kind, Mesh, Object, Pod, Routing, World};

const HOST: &str = "reviews.prod.svc.cluster.local";

fn host(name: &str) -> Host {
    Host::resolve(name, "prod", "cluster.local")
}

pub(super) fn client(namespace: &str, gateway: &str) -> Client {
    let gateway = (!gateway.is_empty()).then(|| gateway.to_owned());
    Client { gateway, ..Client::in_namespace(namespace) }
}

/// `-` is no `exportTo`; a route without anything, or with the matches given.
pub(super) fn object(
    at: &str,
    created: i64,
    host: &str,
    export_to: &str,
    rest: Value,
) -> VirtualService {
    let (namespace, name) = at.split_once('/').expect("namespace/name");
    let mut spec = json!({"hosts": [host], "http": [{"route": [{"destination": {"host": "a"}}]}]});
    if export_to != "-" {
        spec["exportTo"] = export_to.split(',').collect();
    }
    for (key, value) in rest.as_object().expect("fields") {
        spec[key] = value.clone();
    }
    let object = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
    let mut object: VirtualService = serde_json::from_value(object).expect("a VirtualService");
    object.metadata.creation_timestamp = Some(Timestamp(created));
    object
}

pub(super) fn world(mesh: Mesh, objects: &[VirtualService]) -> World {
    let mut world = World::empty(mesh);
    for object in objects {
        world.apply(Object::VirtualService(Box::new(object.clone())));
    }
    world
}

fn names(objects: Vec<&VirtualService>) -> String {
    let names = objects.into_iter().map(|object| object.metadata.name.as_str());
    names.collect::<Vec<_>>().join(",")
}

pub(super) fn in_force(routing: Routing<'_>, client: &Client) -> String {
    names(routing.in_force(&host("reviews"), client, Protocol::Http, Some(80)))
}

/// Namespaces, and what their clients see.
type Views<'a> = &'a [(&'a str, &'a str)];

#[test]
fn a_sidecar_uses_the_first_that_leaves_a_route() {
    let only = |conditions: Value| json!({"http": [{"match": [conditions], "route": [{"destination": {"host": "a"}}]}]});
    let cases: &[(&str, Vec<VirtualService>, Views<'_>)] = &[
        (
            "the oldest of the public ones",
            vec![
                object("prod/young", 2, "reviews", "-", json!({})),
                object("shop/old", 1, HOST, "*", json!({})),
            ],
            &[("prod", "old"), ("shop", "old"), ("", "old")],
        ),
        (
            "of one second the first by name",
            vec![
                object("prod/b", 1, HOST, "-", json!({})),
                object("shop/a", 1, HOST, "-", json!({})),
            ],
            &[("prod", "a"), ("shop", "a")],
        ),
        (
            "a private one beats an older public one, for its namespace alone",
            vec![
                object("prod/public", 1, HOST, "-", json!({})),
                object("shop/private", 2, HOST, ".", json!({})),
            ],
            &[("shop", "private"), ("prod", "public"), ("other", "public")],
        ),
        (
            "one that is exported by name stands between them",
            vec![
                object("prod/public", 1, HOST, "*", json!({})),
                object("prod/named", 3, HOST, "shop,other", json!({})),
                object("shop/private", 4, HOST, "shop", json!({})),
            ],
            &[("shop", "private"), ("other", "named"), ("prod", "public")],
        ),
        (
            "nobody sees ~",
            vec![object("prod/a", 1, HOST, "~", json!({}))],
            &[("prod", ""), ("shop", "")],
        ),
        (
            "one without a route for this client hands it to the next",
            vec![
                object("prod/other", 1, HOST, "-", only(json!({"sourceNamespace": "other"}))),
                object("prod/labels", 2, HOST, "-", only(json!({"sourceLabels": {"app": "web"}}))),
                object("prod/port", 3, HOST, "-", only(json!({"port": 9080}))),
                object("prod/all", 4, HOST, "-", json!({})),
            ],
            &[("other", "other"), ("shop", "all")],
        ),
        (
            "gateways in a match take the place of sourceNamespace",
            vec![object(
                "prod/a",
                1,
                HOST,
                "-",
                only(json!({"gateways": ["mesh"], "sourceNamespace": "other"})),
            )],
            &[("shop", "a")],
        ),
        (
            "an exact host hides the wildcard, newer or not",
            vec![
                object("prod/wild", 1, "*.prod.svc.cluster.local", "-", json!({})),
                object("prod/exact", 2, HOST, "-", json!({})),
            ],
            &[("shop", "exact")],
        ),
        (
            "and the wildcard does not come back where its routes are for others",
            vec![
                object("prod/wild", 1, "*.prod.svc.cluster.local", "-", json!({})),
                object("prod/exact", 2, HOST, "-", only(json!({"sourceNamespace": "other"}))),
            ],
            &[("other", "exact"), ("shop", "")],
        ),
        (
            "the longer wildcard wins, and of equal ones only the first",
            vec![
                object("prod/wide", 1, "*.cluster.local", "-", json!({})),
                object(
                    "prod/narrow",
                    2,
                    "*.prod.svc.cluster.local",
                    "-",
                    only(json!({"port": 9080})),
                ),
                object("prod/again", 3, "*.prod.svc.cluster.local", "-", json!({})),
            ],
            &[("shop", "")],
        ),
        (
            "a wildcard that the client does not see hides nothing",
            vec![
                object("prod/wide", 1, "*.cluster.local", "-", json!({})),
                object("prod/narrow", 2, "*.prod.svc.cluster.local", "other", json!({})),
            ],
            &[("shop", "wide"), ("other", "narrow")],
        ),
        (
            "a host in upper case steers the Service, and does not hide a wildcard",
            vec![
                object("prod/upper", 2, "Reviews", "-", json!({})),
                object("prod/wild", 1, "*.prod.svc.cluster.local", "-", json!({})),
            ],
            &[("shop", "wild")],
        ),
        (
            "a host in upper case alone",
            vec![object("prod/upper", 2, "Reviews", "-", json!({}))],
            &[("shop", "upper")],
        ),
        (
            "a name with two parts is not completed",
            vec![object("prod/a", 1, "reviews.prod", "-", json!({}))],
            &[("shop", "")],
        ),
        (
            "only for a gateway is nothing for the mesh",
            vec![object("prod/a", 1, HOST, "-", json!({"gateways": ["public"]}))],
            &[("shop", "")],
        ),
        (
            "mesh is not implied, and may be named beside others",
            vec![object("prod/a", 1, HOST, "-", json!({"gateways": ["public", "mesh"]}))],
            &[("shop", "a")],
        ),
        (
            "a root whose delegates are missing leaves no route",
            vec![
                object(
                    "prod/root",
                    1,
                    HOST,
                    "-",
                    json!({"http": [{"delegate": {"name": "gone"}}]}),
                ),
                object("prod/next", 2, HOST, "-", json!({})),
            ],
            &[("shop", "next")],
        ),
    ];
    for (statement, objects, views) in cases {
        let world = world(Mesh::default(), objects);
        for (namespace, want) in *views {
            let found = in_force(world.routing(), &client(namespace, ""));
            assert_eq!(found, *want, "{statement}: clients in {namespace:?}");
        }
    }
}

#[test]
fn settings_of_the_mesh_change_who_sees_it() {
    let one = [object("prod/a", 1, HOST, "-", json!({}))];
    let mesh = |to: &str| Mesh {
        default_virtual_service_export_to: vec![to.to_owned()],
        ..Mesh::default()
    };
    for (default, namespace, want) in
        [(".", "prod", "a"), (".", "shop", ""), ("shop", "shop", "a"), ("shop", "prod", "")]
    {
        let world = world(mesh(default), &one);
        assert_eq!(in_force(world.routing(), &client(namespace, "")), want, "{default}");
    }
    let mut canary = one[0].clone();
    canary.metadata.labels.insert("istio.io/rev".to_owned(), "canary".to_owned());
    let world = world(Mesh::default(), &[canary]);
    assert_eq!(in_force(world.routing(), &client("prod", "")), "");
    assert!(world.virtual_service("prod", "a").is_none(), "it is nobody's delegate either");
    assert_eq!(world.names(Kind::VirtualService).len(), 1, "a relist must know it");
}

#[test]
fn a_gateway_appends_the_routes_of_all() {
    let to = |gateway: &str| json!({"gateways": [gateway]});
    let objects = [
        object("prod/second", 2, "shop.example.com", "-", to("infra/public")),
        object("shop/first", 1, "shop.example.com", "-", to("infra/public")),
        object("shop/private", 3, "shop.example.com", "infra", to("infra/public")),
        object("prod/wild", 1, "*.example.com", "-", to("infra/public")),
        object("infra/dotted", 4, "shop.example.com", "-", to("./public")),
        object("infra/short", 5, "shop.example.com", "-", to("public")),
        object("prod/legacy", 6, "shop.example.com", "-", to("public.infra.svc.cluster.local")),
        object("prod/short", 7, "shop.example.com", "-", to("public")),
    ];
    let mut world = world(Mesh::default(), &objects);
    let seen = |world: &World, name: &str, port| {
        let client = client("infra", "infra/public");
        names(world.routing().in_force(&host(name), &client, Protocol::Http, port))
    };
    assert_eq!(
        seen(&world, "shop.example.com", Some(80)),
        "private,first,second,dotted,short,legacy"
    );
    assert_eq!(seen(&world, "other.example.com", Some(80)), "wild");

    let gateway = |servers: Value| -> Gateway {
        let metadata = json!({"name": "public", "namespace": "infra"});
        let spec = json!({"selector": {"istio": "ingress"}, "servers": servers});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a Gateway")
    };
    let only = json!([
        {"port": {"number": 80}, "hosts": ["shop/*.example.com"]},
        {"port": {"number": 443}, "hosts": ["prod/shop.example.com"]},
    ]);
    world.apply(Object::Gateway(Box::new(gateway(only))));
    assert_eq!(seen(&world, "shop.example.com", Some(80)), "private,first");
    // The server's own name is narrower than the wildcard's: both are tried under it.
    assert_eq!(seen(&world, "shop.example.com", Some(443)), "wild,second,legacy");
    assert_eq!(seen(&world, "other.example.com", Some(80)), "");
}

#[test]
fn the_pods_of_a_gateway_are_followed() {
    let mut world = World::empty(Mesh::default());
    let pod = |namespace: &str, name: &str, app: &str| {
        Object::Pod(Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
            ..Pod::default()
        })
    };
    let gateway = |name: &str, app: &str| {
        let mut metadata = Metadata::default();
        (metadata.namespace, metadata.name) = ("infra".to_owned(), name.to_owned());
        let spec = json!({"selector": {"app": app}});
        let spec = serde_json::from_value(spec).expect("a spec");
        Object::Gateway(Box::new(Gateway { metadata, spec }))
    };
    let seen = |world: &World, name: &str| {
        let pods = world.gateway_pods("infra", name).map(|(namespace, _)| namespace.to_owned());
        pods.collect::<Vec<_>>().join(",")
    };
    world.apply(pod("edge", "a", "ingress"));
    world.apply(pod("edge", "b", "ingress"));
    world.apply(gateway("public", "ingress"));
    world.apply(gateway("again", "ingress"));
    assert_eq!(seen(&world, "public"), "edge");
    world.apply(pod("outer", "c", "ingress"));
    world.apply(pod("outer", "d", "web"));
    assert_eq!(seen(&world, "public"), "edge,outer");
    world.apply(pod("outer", "c", "web"));
    world.delete(Kind::Pod, "edge", "a");
    assert_eq!(seen(&world, "public"), "edge");
    world.delete(Kind::Pod, "edge", "b");
    assert_eq!(seen(&world, "public"), "");
    world.delete(Kind::Gateway, "infra", "public");
    world.apply(gateway("again", "web"));
    assert_eq!(seen(&world, "again"), "outer");
}

/// Istio's code, line by line and slow: `push_context.go` `initVirtualServices`, `virtualservice.go` `SelectVirtualServices`,
/// `sidecar.go` `computeWildcardHostVirtualServiceIndex`, `route.go` `separateVSHostsAndServices`.
mod oracle {
    use super::*;

    pub(super) fn in_force(objects: &[VirtualService], client: &Client) -> String {
        let mut sorted = objects.to_vec();
        sorted.sort_by_key(|object| {
            let metadata = &object.metadata;
            (metadata.creation_timestamp, metadata.name.clone(), metadata.namespace.clone())
        });
        let resolved = |object: &VirtualService| {
            let all = object.spec.hosts.iter();
            let all =
                all.map(|own| Host::resolve(own, &object.metadata.namespace, "cluster.local"));
            all.map(|own| own.as_str().to_owned()).collect::<Vec<_>>()
        };
        let (mut private, mut exported, mut public) = (Vec::new(), Vec::new(), Vec::new());
        for object in &sorted {
            if !object.spec.gateways.is_empty()
                && !object.spec.gateways.contains(&"mesh".to_owned())
            {
                continue;
            }
            let own = &object.metadata.namespace;
            let to = object.spec.export_to.iter();
            let to =
                to.map(|to| if to == "." { own.clone() } else { to.clone() }).collect::<Vec<_>>();
            if to.is_empty() || to.contains(&"*".to_owned()) {
                public.push(object);
            } else if to.contains(&client.namespace) {
                if client.namespace == *own { private.push(object) } else { exported.push(object) }
            }
        }
        let visible = private.into_iter().chain(exported).chain(public).collect::<Vec<_>>();
        let (mut exact, mut wildcard) = (BTreeMap::new(), BTreeMap::new());
        for object in &visible {
            for own in resolved(object) {
                let index = if own.starts_with('*') { &mut wildcard } else { &mut exact };
                index.entry(own).or_insert(*object);
            }
        }
        let mut best = exact.get(HOST).copied();
        if best.is_none() {
            let mut hosts =
                wildcard.keys().filter(|own| host_covers(own, HOST)).collect::<Vec<_>>();
            hosts.sort_by_key(|own| (usize::MAX - own.len(), own.as_str()));
            best = hosts.first().map(|own| wildcard[*own]);
        }
        for object in &visible {
            let has_routes = object.spec.http.iter().any(|route| {
                route.r#match.is_empty()
                    || route.r#match.iter().any(|block| {
                        block.port.is_none_or(|port| port == 80)
                            && (block.source_namespace.is_empty()
                                || block.source_namespace == client.namespace)
                    })
            });
            if !has_routes {
                continue;
            }
            for own in resolved(object) {
                let own = own.to_lowercase();
                let is_its = if own.starts_with('*') {
                    host_covers(&own, HOST)
                        && best.is_some_and(|best| {
                            best.metadata.name == object.metadata.name
                                && best.metadata.namespace == object.metadata.namespace
                        })
                } else {
                    own == HOST
                };
                if is_its {
                    return object.metadata.name.clone();
                }
            }
        }
        String::new()
    }
}

fn any_object() -> impl Strategy<Value = VirtualService> {
    let at =
        prop::sample::select(vec!["prod/a", "prod/b", "shop/a", "shop/c", "other/d", "prod/e"]);
    let own = prop::sample::select(vec![
        HOST,
        HOST,
        "reviews",
        "Reviews",
        "*.prod.svc.cluster.local",
        "*.cluster.local",
        "*",
        "reviews.prod",
    ]);
    let export_to =
        prop::sample::select(vec!["-", "-", "*", ".", "shop", "prod,other", ".,shop", "prod"]);
    let conditions = prop::sample::select(vec![
        json!({}),
        json!({}),
        json!({"gateways": ["public"]}),
        json!({"gateways": ["mesh", "public"]}),
        json!({"http": [{"match": [{"sourceNamespace": "shop"}]}]}),
        json!({"http": [{"match": [{"port": 9080}]}]}),
        json!({"http": [{"match": [{"port": 9080}, {"port": 80, "sourceNamespace": "other"}]}]}),
        json!({"http": []}),
    ]);
    (at, 0..3i64, own, export_to, conditions)
        .prop_map(|(at, created, own, to, rest)| object(at, created, own, to, rest))
}

fn any_objects() -> impl Strategy<Value = Vec<VirtualService>> {
    prop::collection::vec(any_object(), 0..7).prop_map(|objects| {
        let key = |object: &VirtualService| {
            (object.metadata.namespace.clone(), object.metadata.name.clone())
        };
        let all = objects.into_iter().map(|object| (key(&object), object));
        all.collect::<BTreeMap<_, _>>().into_values().collect()
    })
}

fn clients() -> Vec<Client> {
    ["prod", "shop", "other", "third", ""].map(|namespace| client(namespace, "")).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_sidecar_is_routed_by_what_istio_computes(objects in any_objects()) {
        let world = world(Mesh::default(), &objects);
        for client in clients() {
            prop_assert_eq!(in_force(world.routing(), &client), oracle::in_force(&objects, &client), "{:?}", client);
        }
    }

    /// The world with one object put in, replaced or taken out answers as if it had been so from the start.
    #[test]
    fn a_changed_world_is_the_world_after_the_change(
        objects in any_objects(),
        new in any_object(),
        is_deleted in any::<bool>(),
    ) {
        let before = world(Mesh::default(), &objects);
        let mut after = world(Mesh::default(), &objects);
        let (namespace, name) = (new.metadata.namespace.as_str(), new.metadata.name.as_str());
        if is_deleted {
            after.delete(Kind::VirtualService, namespace, name);
        } else {
            after.apply(Object::VirtualService(Box::new(new.clone())));
        }
        let changed = before.with_virtual_service((!is_deleted).then_some(&new), namespace, name);
        for client in clients() {
            prop_assert_eq!(in_force(changed.routing(), &client), in_force(after.routing(), &client));
        }
    }
}
