//! What a Sidecar leaves a client to see: a slow literal translation of Istio's own code as oracle.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate::cluster;
use sluicegate::istio::{Host, Protocol, VirtualService};
use sluicegate::policy::{Operation, Policies, Review, evaluate};
use sluicegate::rules::ALL;
use sluicegate::world::{Client, Kind, Mesh, World};

/// Services of namespace `a` and `b`, and the host of a ServiceEntry of `b`.
const HOSTS: [&str; 4] =
    ["x.a.svc.cluster.local", "y.a.svc.cluster.local", "z.b.svc.cluster.local", "api.example.com"];

const PORTS: [i64; 3] = [80, 9080, 9090];

/// Whom a refusal is about, only Sidecars tell: before they are listed nobody is refused, and nobody admitted, because of clients.
#[test]
fn without_the_sidecars_a_rise_waits() {
    let route = |to: &str| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "x", "namespace": "a"},
            "spec": {"hosts": ["x"], "http": [{"route": [{"destination": {"host": to}}]}]},
        })
        .to_string()
    };
    let (old, new) = (route("x"), route("z.b.svc.cluster.local"));
    let operation = Operation::parse(Kind::VirtualService, Some(&old), Some(&new));
    let (namespace, name) = ("a".to_owned(), "x".to_owned());
    let review = Review { operation, namespace, name, user: String::new(), dry_run: false };
    let policies = Policies::new(Vec::new(), ALL);
    let mut world = World::new(Mesh::default());
    let listed = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Sidecar);
    listed.for_each(|kind| world.set_listed(kind));
    let verdict = evaluate(policies.in_force(&review, &world), &review, &world);
    assert_eq!(verdict.missing, [Kind::Sidecar]);
    world.set_listed(Kind::Sidecar);
    assert!(evaluate(policies.in_force(&review, &world), &review, &world).is_decided());
}

/// Objects as they are stored; later ones are younger or as old.
fn world(objects: &[Value]) -> World {
    let mut world = World::empty(Mesh::default());
    for object in objects {
        world.apply(cluster::object(object.clone()).expect("an object that is read"));
    }
    world
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

mod oracle {
    use super::*;

    /// `pilot/pkg/config/host/name.go` `SubsetOf`.
    fn subset_of(n: &str, o: &str) -> bool {
        match (n.starts_with('*'), o.starts_with('*')) {
            (true, true) => n.len() >= o.len() && n[1..].ends_with(&o[1..]),
            (true, false) => false,
            (false, true) => n.ends_with(&o[1..]),
            (false, false) => n == o,
        }
    }

    /// `Matches`.
    fn matches(n: &str, o: &str) -> bool {
        subset_of(n, o) || subset_of(o, n)
    }

    /// `pilot/pkg/model/push_context.go` `initSidecarScopes`, `doGetSidecarScope`.
    pub(super) fn sidecar<'a>(objects: &'a [Value], client: &Client) -> Option<&'a Value> {
        let mut all = objects
            .iter()
            .filter(|object| {
                let revision = object.pointer("/metadata/labels/istio.io~1rev");
                object["kind"] == "Sidecar" && revision.is_none_or(|own| own == "default")
            })
            .collect::<Vec<_>>();
        all.sort_by_key(|own| {
            let meta = |name: &str| text(own, &format!("/metadata/{name}")).to_owned();
            (meta("creationTimestamp"), meta("name"), meta("namespace"))
        });
        let (mut sorted, plain): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|own| own["spec"].get("workloadSelector").is_some());
        sorted.extend(plain);
        let namespace = |own: &Value| text(own, "/metadata/namespace").to_owned();
        for own in sorted.iter().filter(|own| namespace(own) == client.namespace) {
            let labels = own.pointer("/spec/workloadSelector/labels").and_then(Value::as_object);
            let labels = labels.cloned().unwrap_or_default();
            let carries = |(key, value): (&String, &Value)| {
                client.labels.get(key).map(String::as_str) == value.as_str()
            };
            if labels.iter().all(carries) {
                return Some(own);
            }
        }
        sorted.into_iter().find(|own| {
            namespace(own) == "istio-system" && own["spec"].get("workloadSelector").is_none()
        })
    }

    #[derive(Default)]
    struct Classified {
        hosts: Vec<String>,
        excluded: Vec<String>,
    }

    /// What one egress listener imports: VirtualServices by name, and services with their ports.
    pub(super) struct Listener {
        port: Option<i64>,
        pub(super) virtual_services: Vec<String>,
        pub(super) services: BTreeMap<String, Vec<i64>>,
    }

    /// `pilot/pkg/model/sidecar.go` `initSidecarScopeInternalIndexes`, `convertIstioListenerToWrapper`.
    pub(super) fn listeners(objects: &[Value], client: &Client) -> Vec<Listener> {
        let sidecar = sidecar(objects, client);
        let egress = sidecar.and_then(|own| own.pointer("/spec/egress")?.as_array().cloned());
        let egress = egress.filter(|all| !all.is_empty());
        let egress = egress.unwrap_or_else(|| vec![json!({"hosts": ["*/*"]})]);
        egress.iter().map(|own| listener(objects, client, own)).collect()
    }

    fn listener(objects: &[Value], client: &Client, egress: &Value) -> Listener {
        let mut by_namespace: BTreeMap<String, Classified> = BTreeMap::new();
        for host in egress["hosts"].as_array().into_iter().flatten() {
            let host = host.as_str().unwrap_or_default();
            if host.matches('/').count() != 1 {
                continue;
            }
            let (namespace, name) = host.split_once('/').unwrap_or_default();
            let is_excluded = namespace.starts_with('~');
            let mut namespace = namespace.trim_start_matches('~').to_owned();
            if is_excluded && namespace.is_empty() {
                namespace = "*".to_owned();
            }
            if namespace == "." {
                namespace.clone_from(&client.namespace);
            }
            let own = by_namespace.entry(namespace).or_default();
            if is_excluded { &mut own.excluded } else { &mut own.hosts }.push(name.to_owned());
        }
        let port = egress.pointer("/port/number").and_then(Value::as_i64);
        let excluded = |namespace: &str, host: &str| {
            let lists = [by_namespace.get(namespace), by_namespace.get("*")];
            let mut all = lists.into_iter().flatten().flat_map(|own| &own.excluded);
            all.any(|own| subset_of(host, own))
        };
        let lists = |namespace: &str| {
            let lists = [by_namespace.get(namespace), by_namespace.get("*")];
            lists.into_iter().flatten().flat_map(|own| own.hosts.clone()).collect::<Vec<_>>()
        };
        let hosts = |object: &Value| -> Vec<String> {
            serde_json::from_value(object["spec"]["hosts"].clone()).unwrap_or_default()
        };
        let mut found = Listener { port, virtual_services: Vec::new(), services: BTreeMap::new() };
        for object in objects {
            let namespace = text(object, "/metadata/namespace");
            let imported = lists(namespace);
            match text(object, "/kind") {
                "VirtualService" => {
                    let is_selected = hosts(object).iter().any(|host| {
                        imported.iter().any(|own| matches(host, own)) && !excluded(namespace, host)
                    });
                    if is_selected {
                        let name = format!("{namespace}/{}", text(object, "/metadata/name"));
                        found.virtual_services.push(name);
                    }
                }
                kind @ ("Service" | "ServiceEntry") => {
                    let names = match kind {
                        "Service" => {
                            let name = text(object, "/metadata/name");
                            vec![format!("{name}.{namespace}.svc.cluster.local")]
                        }
                        _ => hosts(object),
                    };
                    let field = if kind == "Service" { "port" } else { "number" };
                    let ports = object["spec"]["ports"].as_array().into_iter().flatten();
                    let ports = ports.filter_map(|own| own[field].as_i64());
                    let ports = ports.filter(|own| port.is_none_or(|port| port == *own));
                    let ports = ports.collect::<Vec<_>>();
                    for name in names {
                        let is_selected = imported.iter().any(|own| subset_of(&name, own))
                            && !excluded(namespace, &name);
                        if is_selected && !ports.is_empty() {
                            found.services.insert(name, ports.clone());
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// `GetEgressListenerForRDS`.
    pub(super) fn listener_of(all: &[Listener], port: i64) -> Option<&Listener> {
        all.iter().find(|own| own.port.is_none_or(|own| own == port))
    }

    /// The VirtualServices that the listener of a port imports for a host, the oldest first, and whether the host is a service
    /// there.
    fn imported(objects: &[Value], client: &Client, host: &str, port: i64) -> (Vec<String>, bool) {
        let all = listeners(objects, client);
        let Some(own) = listener_of(&all, port) else { return (Vec::new(), false) };
        let is_service = own.services.get(host).is_some_and(|ports| ports.contains(&port));
        let naming = objects.iter().filter(|object| {
            let mut named = object["spec"]["hosts"].as_array().into_iter().flatten();
            object["kind"] == "VirtualService" && named.any(|own| own == host)
        });
        let names = naming.filter_map(|object| {
            let name = text(object, "/metadata/name");
            let full = format!("{}/{name}", text(object, "/metadata/namespace"));
            own.virtual_services.contains(&full).then(|| name.to_owned())
        });
        (names.collect(), is_service)
    }

    /// The one that routes HTTP: the oldest, where the host is a service there, or on port 80 (`httproute.go`
    /// `BuildSidecarOutboundVirtualHosts`).
    pub(super) fn in_force(
        objects: &[Value],
        client: &Client,
        host: &str,
        port: i64,
    ) -> Option<String> {
        let (names, is_service) = imported(objects, client, host, port);
        names.into_iter().next().filter(|_| is_service || port == 80)
    }

    /// Those that route connections, one after the other: only a service has a listener (`tls.go`).
    pub(super) fn connected(
        objects: &[Value],
        client: &Client,
        host: &str,
        port: i64,
    ) -> Vec<String> {
        let (names, is_service) = imported(objects, client, host, port);
        if is_service { names } else { Vec::new() }
    }
}

/// Two digits of seconds, so that texts are ordered like times.
fn created(second: usize) -> String {
    format!("2026-01-01T00:00:{second:02}Z")
}

fn services() -> Vec<Value> {
    let service = |namespace: &str, name: &str, ports: &[i64]| {
        let ports = ports.iter().map(|port| json!({"port": port})).collect::<Vec<_>>();
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace}, "spec": {"ports": ports},
        })
    };
    let entry = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"name": "api", "namespace": "b"},
        "spec": {"hosts": ["api.example.com"], "ports": [{"number": 80}, {"number": 9080}]},
    });
    vec![
        service("a", "x", &[80, 9080]),
        service("a", "y", &[9080]),
        service("b", "z", &[80, 9090]),
        entry,
    ]
}

fn any_egress() -> impl Strategy<Value = Value> {
    let namespaces =
        prop::sample::select(vec!["*", ".", "a", "a", "b", "istio-system", "~a", "~", "~*", "~."]);
    let names = prop::sample::select(vec![
        "*",
        "*",
        "*.a.svc.cluster.local",
        "*.cluster.local",
        "*.com",
        "*.example.com",
        HOSTS[0],
        HOSTS[2],
        HOSTS[3],
        "a/b",
    ]);
    let host = (namespaces, names).prop_map(|(namespace, name)| format!("{namespace}/{name}"));
    let hosts = prop::collection::vec(host, 0..4);
    (hosts.clone(), prop::option::weighted(0.3, (prop::sample::select(PORTS.to_vec()), hosts)))
        .prop_map(|(rest, first)| {
            let first = first.map(|(port, hosts)| {
                json!({"port": {"number": port, "protocol": "HTTP"}, "hosts": hosts})
            });
            first.into_iter().chain([json!({"hosts": rest})]).collect()
        })
}

fn any_sidecar() -> impl Strategy<Value = Value> {
    let namespaces = prop::sample::select(vec!["a", "a", "b", "istio-system", "istio-system"]);
    let selectors = prop::sample::select(vec![None, None, Some("web"), Some("job")]);
    (
        namespaces,
        prop::sample::select(vec!["p", "q", "r"]),
        0..3usize,
        selectors,
        prop::option::weighted(0.9, any_egress()),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(namespace, name, second, selector, egress, is_other)| {
            let mut object = json!({
                "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
                "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created(second)},
                "spec": {},
            });
            if let Some(egress) = egress {
                object["spec"]["egress"] = egress;
            }
            if let Some(app) = selector {
                object["spec"]["workloadSelector"] = json!({"labels": {"app": app}});
            }
            if is_other {
                object["metadata"]["labels"] = json!({"istio.io/rev": "canary"});
            }
            object
        })
}

/// Exported to everybody, with one route for everything, so that age alone decides.
fn any_virtual_services() -> impl Strategy<Value = Vec<Value>> {
    let namespaces = prop::sample::select(vec!["a", "b", "istio-system", "routes"]);
    let named = prop::sample::subsequence(HOSTS.to_vec(), 1..3);
    prop::collection::vec((namespaces, named), 0..5).prop_map(|all| {
        let object = |(at, (namespace, hosts)): (usize, (&str, Vec<&str>))| {
            json!({
                "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                "metadata": {"name": format!("vs{at}"), "namespace": namespace, "creationTimestamp": created(at)},
                "spec": {
                    "hosts": hosts, "http": [{"route": [{"destination": {"host": hosts[0]}}]}],
                    "tcp": [{"route": [{"destination": {"host": hosts[0]}}]}],
                },
            })
        };
        all.into_iter().enumerate().map(object).collect()
    })
}

/// The later one of two with the same name is the one that is stored.
fn any_objects() -> impl Strategy<Value = Vec<Value>> {
    let sidecars = prop::collection::vec(any_sidecar(), 0..6).prop_map(|all| {
        let key = |own: &Value| {
            (text(own, "/metadata/namespace").to_owned(), text(own, "/metadata/name").to_owned())
        };
        let all = all.into_iter().map(|own| (key(&own), own));
        all.collect::<BTreeMap<_, _>>().into_values().collect::<Vec<_>>()
    });
    (sidecars, any_virtual_services()).prop_map(|(sidecars, routes)| {
        services().into_iter().chain(sidecars).chain(routes).collect()
    })
}

fn clients() -> Vec<Client> {
    let with = |namespace: &str, app: &str| Client {
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
        ..Client::in_namespace(namespace)
    };
    let plain = ["a", "b", "istio-system", "routes", ""].map(Client::in_namespace);
    plain.into_iter().chain([with("a", "web"), with("a", "job"), with("b", "web")]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn every_client_sees_what_istio_computes(objects in any_objects()) {
        let world = world(&objects);
        for client in clients() {
            let own = world.sidecar(&client).map(|own| (&*own.metadata.namespace, &*own.metadata.name));
            let their = oracle::sidecar(&objects, &client);
            let their = their.map(|own| (text(own, "/metadata/namespace"), text(own, "/metadata/name")));
            prop_assert_eq!(own, their, "{:?}", &client);
            let listeners = oracle::listeners(&objects, &client);
            for object in objects.iter().filter(|object| object["kind"] == "VirtualService") {
                let own = serde_json::from_value::<VirtualService>(object.clone()).expect("a VirtualService");
                let name = format!("{}/{}", own.metadata.namespace, own.metadata.name);
                let told = listeners.iter().any(|own| own.virtual_services.contains(&name));
                prop_assert_eq!(world.is_told(&own, &own.metadata.namespace, &client), told, "{} {:?}", name, &client);
                let mut is_routed = false;
                for (host, port) in HOSTS.iter().flat_map(|host| PORTS.map(|port| (host, port))) {
                    let has_port = services_with(port).contains(*host);
                    let only = objects.iter().filter(|other| other["kind"] != "VirtualService" || *other == object);
                    let only = only.cloned().collect::<Vec<_>>();
                    is_routed |= has_port && oracle::in_force(&only, &client, host, port).is_some();
                }
                prop_assert_eq!(world.shows(&own, &own.metadata.namespace, &client), is_routed, "{} {:?}", name, &client);
            }
            for (name, port) in HOSTS.iter().flat_map(|host| PORTS.map(|port| (host, port))) {
                if !services_with(port).contains(*name) {
                    continue;
                }
                let host = Host::literal(name);
                let their = oracle::listener_of(&listeners, port);
                let their = their.is_some_and(|own| own.services.get(*name).is_some_and(|all| all.contains(&port)));
                prop_assert_eq!(world.is_imported(&host, &client, Some(port)), their, "{}:{} {:?}", name, port, &client);
                let routing = world.routing();
                let own = routing.in_force(&host, &client, Protocol::Http, Some(port));
                let own = own.first().map(|own| own.metadata.name.clone());
                let their = oracle::in_force(&objects, &client, name, port);
                prop_assert_eq!(own, their, "{}:{} {:?}", name, port, &client);
                let own = routing.in_force(&host, &client, Protocol::Tcp, Some(port)).into_iter();
                let own = own.map(|own| own.metadata.name.clone()).collect::<Vec<_>>();
                prop_assert_eq!(own, oracle::connected(&objects, &client, name, port), "{}:{} {:?}", name, port, &client);
            }
        }
    }

    /// What came and went leaves nothing, and what is listed by namespace is what is there.
    #[test]
    fn the_order_of_events_does_not_count(objects in any_objects(), gone in prop::collection::vec(any_sidecar(), 0..5)) {
        let expected = world(&objects);
        let mut own = world(&gone);
        for object in objects.iter().rev() {
            own.apply(cluster::object(object.clone()).expect("an object"));
        }
        let there = objects.iter().filter(|object| object["kind"] == "Sidecar");
        let there = there.map(|own| (text(own, "/metadata/namespace"), text(own, "/metadata/name")));
        let there = there.collect::<BTreeSet<_>>();
        for object in &gone {
            let name = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
            if !there.contains(&name) {
                own.delete(Kind::Sidecar, name.0, name.1);
            }
        }
        prop_assert_eq!(own.has_sidecars(), !there.is_empty());
        for namespace in ["a", "b", "istio-system", "routes"] {
            let shown = |world: &World| world.namespaces_shown(namespace).map(str::to_owned).collect::<BTreeSet<_>>();
            prop_assert_eq!(shown(&own), shown(&expected), "{}", namespace);
            prop_assert_eq!(own.sidecar_selectors(namespace), expected.sidecar_selectors(namespace));
            // Nobody with a Sidecar of its own that tells of this namespace is left out.
            for client in clients().iter().filter(|own| !own.namespace.is_empty()) {
                let is_own = own.sidecar(client).is_some_and(|sidecar| sidecar.metadata.namespace == client.namespace);
                let route = json!({"spec": {"hosts": HOSTS}});
                let route = serde_json::from_value::<VirtualService>(route).expect("a VirtualService");
                if is_own && own.is_told(&route, namespace, client) {
                    prop_assert!(shown(&own).contains(&client.namespace), "{} {:?}", namespace, client);
                }
            }
        }
        for client in clients() {
            let name = |world: &World| world.sidecar(&client).map(|own| own.metadata.name.clone());
            prop_assert_eq!(name(&own), name(&expected), "{:?}", &client);
        }
    }
}

/// The hosts that have this port.
fn services_with(port: i64) -> BTreeSet<&'static str> {
    match port {
        80 => [HOSTS[0], HOSTS[2], HOSTS[3]].into(),
        9080 => [HOSTS[0], HOSTS[1], HOSTS[3]].into(),
        _ => [HOSTS[2]].into(),
    }
}
