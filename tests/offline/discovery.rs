//! What istiod does not read, compared with what was never there.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate::cluster;
use sluicegate::istio::Host;
use sluicegate::world::{Client, HostKind, Kind, Mesh, World};

const NAMESPACES: [&str; 3] = ["alpha", "beta", "istio-system"];

/// One of each of the kinds that are sifted, and one that is not.
const KINDS: [(&str, Kind); 6] = [
    ("networking.istio.io/v1", Kind::VirtualService),
    ("networking.istio.io/v1", Kind::DestinationRule),
    ("networking.istio.io/v1", Kind::ServiceEntry),
    ("networking.istio.io/v1", Kind::Gateway),
    ("v1", Kind::Service),
    ("v1", Kind::Pod),
];

/// Something that happens; namespaces, kinds and so on by number.
#[derive(Debug, Clone)]
enum Event {
    Apply { kind: usize, namespace: usize, variant: u8 },
    Delete { kind: usize, namespace: usize },
    Label { namespace: usize, value: Option<&'static str> },
    Forget { namespace: usize },
    Select { selectors: Vec<&'static str>, revision: &'static str },
}

fn event() -> impl Strategy<Value = Event> {
    let label = prop_oneof![Just(None), Just(Some("on")), Just(Some("off"))];
    let selectors = prop::sample::subsequence(vec!["mesh=on", "mesh=off", "!mesh"], 0..=2);
    prop_oneof![
        6 => (0..6_usize, 0..3_usize, 0..4_u8)
            .prop_map(|(kind, namespace, variant)| Event::Apply { kind, namespace, variant }),
        2 => (0..6_usize, 0..3_usize)
            .prop_map(|(kind, namespace)| Event::Delete { kind, namespace }),
        4 => (0..3_usize, label).prop_map(|(namespace, value)| Event::Label { namespace, value }),
        1 => (0..3_usize).prop_map(|namespace| Event::Forget { namespace }),
        2 => (selectors, prop_oneof![Just("default"), Just("other")])
            .prop_map(|(selectors, revision)| Event::Select { selectors, revision }),
    ]
}

/// Different variants are told apart by every look-up that finds them.
fn object(kind: usize, namespace: &str, variant: u8) -> Value {
    let (version, kind) = KINDS[kind];
    let subset = format!("v{variant}");
    let spec = match kind {
        Kind::VirtualService => {
            let to = json!({"host": "one.alpha.svc.cluster.local", "subset": subset});
            json!({"hosts": ["one.alpha.svc.cluster.local"], "http": [{"route": [{"destination": to}]}]})
        }
        Kind::DestinationRule => {
            json!({"host": "one.alpha.svc.cluster.local", "subsets": [{"name": subset}]})
        }
        Kind::ServiceEntry => {
            let ports = json!([{"number": 80 + u16::from(variant), "name": "http"}]);
            json!({"hosts": ["api.example.com"], "ports": ports, "resolution": "STATIC"})
        }
        Kind::Gateway => json!({"selector": {"app": subset}}),
        _ => json!({"selector": {"app": subset}}),
    };
    let labels = match variant {
        0 => json!({"app": subset}),
        1 => json!({"app": subset, "istio.io/rev": "other"}),
        _ => json!({"app": subset, "istio.io/rev": "default"}),
    };
    json!({"apiVersion": version, "kind": kind.name(), "spec": spec,
        "metadata": {"name": "one", "namespace": namespace, "labels": labels}})
}

fn namespace(name: &str, value: Option<&str>) -> Value {
    let labels = value.map_or_else(|| json!({}), |value| json!({"mesh": value}));
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn put(world: &mut World, value: Value) {
    world.apply(cluster::object(value).expect("a kind that is read"));
}

fn mesh(selectors: &[&str], revision: &str) -> Mesh {
    let selectors = selectors.iter().map(|text| text.parse().expect("a selector"));
    let revision = revision.to_owned();
    Mesh { discovery_selectors: selectors.collect(), revision, ..Mesh::default() }
}

/// Everything that can be seen of the objects.
fn seen(world: &World) -> Vec<String> {
    let host = |host: &str| Host::resolve(host, "alpha", "cluster.local");
    let (one, api) = (host("one"), host("api.example.com"));
    let mut seen = Vec::new();
    for namespace in NAMESPACES {
        let client = Client::in_namespace(namespace);
        let routes = world.routing().virtual_services(&one, &client);
        let routes = routes.iter().map(|own| format!("{:?}", own.spec.http)).collect::<Vec<_>>();
        let rules = world.destination_rules(&one, &client);
        let rules = rules.iter().map(|own| format!("{:?}", own.spec.subsets)).collect::<Vec<_>>();
        let gateway = world.gateway(namespace, "one").map(|own| own.spec.selector.clone());
        let pods = world.gateway_pods(namespace, "one").collect::<Vec<_>>();
        let service = world.service(namespace, "one").map(|own| own.selector.clone());
        let entries = world.service_entries(&api);
        let entries = entries.iter().map(|own| format!("{:?}", own.spec.ports)).collect::<Vec<_>>();
        seen.push(format!(
            "{namespace}: {routes:?} {rules:?} {gateway:?} {pods:?} {service:?} {entries:?}"
        ));
    }
    let users = world.users_of(&one).len();
    let kinds = [one, api].map(|host| match world.host(&host) {
        Some(HostKind::ServiceEntry(entry)) => entry.metadata.namespace.clone(),
        other => other.is_some().to_string(),
    });
    seen.push(format!("{users} {kinds:?} {:?}", world.namespaces_with_service("one")));
    seen
}

proptest! {
    #[test]
    fn what_is_not_read_is_as_if_it_were_not_there(events in prop::collection::vec(event(), 1..40)) {
        let mut told = (Vec::new(), "default");
        let mut world = World::empty(mesh(&told.0, told.1));
        let mut objects: BTreeMap<(usize, usize), Value> = BTreeMap::new();
        let mut labels: BTreeMap<usize, Option<&str>> = BTreeMap::new();
        for event in events {
            match event {
                Event::Apply { kind, namespace, variant } => {
                    let value = object(kind, NAMESPACES[namespace], variant);
                    put(&mut world, value.clone());
                    objects.insert((kind, namespace), value);
                }
                Event::Delete { kind, namespace } => {
                    world.delete(KINDS[kind].1, NAMESPACES[namespace], "one");
                    objects.remove(&(kind, namespace));
                }
                Event::Label { namespace: at, value } => {
                    put(&mut world, namespace(NAMESPACES[at], value));
                    labels.insert(at, value);
                }
                Event::Forget { namespace } => {
                    world.delete(Kind::Namespace, "", NAMESPACES[namespace]);
                    labels.remove(&namespace);
                }
                Event::Select { selectors, revision } => {
                    world.set_mesh(mesh(&selectors, revision));
                    told = (selectors, revision);
                }
            }
        }
        let is_read = |namespace: &usize| told.0.is_empty() || labels.get(namespace).is_some_and(|value| {
            told.0.contains(&value.map_or("!mesh", |value| if value == "on" { "mesh=on" } else { "mesh=off" }))
        });
        let mut plain = World::empty(mesh(&[], told.1));
        for ((kind, namespace), value) in &objects {
            // Another revision's label counts for all of Istio's kinds.
            let label = value.pointer("/metadata/labels/istio.io~1rev").and_then(Value::as_str);
            let is_istio = KINDS[*kind].0.starts_with("networking.istio.io");
            let is_mine = !is_istio || label.is_none_or(|label| label == told.1);
            // A gateway's Pods serve it wherever they are.
            if is_mine && (is_read(namespace) || KINDS[*kind].1 == Kind::Pod) {
                put(&mut plain, value.clone());
            }
        }
        prop_assert_eq!(seen(&world), seen(&plain));
        for (kind, (_, own)) in KINDS.iter().enumerate() {
            let mut names = world.names(*own);
            names.sort();
            let known = objects.keys().filter(|(other, _)| *other == kind);
            let known = known.map(|(_, at)| (NAMESPACES[*at].to_owned(), "one".to_owned()));
            prop_assert_eq!(names, known.collect::<Vec<_>>(), "a list must know what it replaces");
        }
    }
}
