//! Which VirtualServices route connections: in the mesh by host, at a gateway by port.

use serde_json::{Value, json};
use sluicegate::istio::{
    Gateway, Host, PortProtocol, Protocol, ServiceEntry, Timestamp, VirtualService,
};
use sluicegate::policy::{Operation, Policies, Review, Verdict, evaluate};
use sluicegate::rules;
use sluicegate::world::{Client, Kind, Mesh, Object, Service, ServicePort, World};

fn object(name: &str, created: i64, spec: Value) -> VirtualService {
    let object = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
    let mut object: VirtualService = serde_json::from_value(object).expect("a VirtualService");
    object.metadata.creation_timestamp = Some(Timestamp(created));
    object
}

fn route(host: &str, extra: Value) -> Value {
    let mut route = json!({"route": [{"destination": {"host": host}}]});
    for (key, value) in extra.as_object().expect("fields") {
        route[key] = value.clone();
    }
    route
}

fn gateway(servers: Value) -> Gateway {
    let object = json!({
        "metadata": {"name": "edge", "namespace": "infra"}, "spec": {"servers": servers},
    });
    serde_json::from_value(object).expect("a Gateway")
}

fn service(name: &str, ports: &[(i64, PortProtocol)]) -> Service {
    let port = |(number, protocol): &(i64, PortProtocol)| ServicePort {
        number: *number,
        name: format!("port-{number}"),
        protocol: *protocol,
        ..ServicePort::default()
    };
    Service {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        ports: ports.iter().map(port).collect(),
        ..Service::default()
    }
}

fn world(objects: Vec<VirtualService>) -> World {
    let mut world = World::empty(Mesh::default());
    for object in objects {
        world.apply(Object::VirtualService(Box::new(object)));
    }
    world
}

fn in_force(world: &World, gateway: &str, host: &str, list: Protocol, port: i64) -> String {
    let gateway = (!gateway.is_empty()).then(|| gateway.to_owned());
    let client = Client { gateway, ..Client::in_namespace("shop") };
    let host = Host::resolve(host, "shop", "cluster.local");
    let found = world.routing().in_force(&host, &client, list, Some(port));
    found.iter().map(|own| own.metadata.name.as_str()).collect::<Vec<_>>().join(",")
}

#[test]
fn a_server_asks_for_the_port_and_takes_one_rule() {
    let tcp = |host: &str, extra| json!({"hosts": [host], "gateways": ["infra/edge"], "tcp": [route("a", extra)]});
    let mut world = world(vec![
        object("other-port", 1, tcp("a.com", json!({"match": [{"port": 7}]}))),
        object("other-gateway", 2, tcp("a.com", json!({"match": [{"gateways": ["infra/other"]}]}))),
        object("second", 4, tcp("b.com", json!({"match": [{"sourceLabels": {"app": "nobody"}}]}))),
        object("third", 5, tcp("a.com", json!({}))),
        object("mesh", 0, json!({"hosts": ["a.com"], "tcp": [route("a", json!({}))]})),
    ]);
    let servers = json!([
        {"port": {"number": 9, "protocol": "TCP"}, "hosts": ["*"]},
        {"port": {"number": 10, "protocol": "TCP"}, "hosts": ["other/*"]},
        {"port": {"number": 11, "protocol": "TCP"}, "hosts": ["shop/a.com"]},
        {"port": {"number": 12, "protocol": "HTTP"}, "hosts": ["*"]},
    ]);
    world.apply(Object::Gateway(Box::new(gateway(servers))));
    for (port, want) in [(9, "second"), (10, ""), (11, "third"), (12, ""), (7, "")] {
        assert_eq!(in_force(&world, "infra/edge", "unasked", Protocol::Tcp, port), want, "{port}");
    }
    world.delete(Kind::VirtualService, "shop", "second");
    assert_eq!(in_force(&world, "infra/edge", "unasked", Protocol::Tcp, 9), "third");
    world.delete(Kind::Gateway, "infra", "edge");
    // Nobody knows of the servers: as by host.
    assert_eq!(in_force(&world, "infra/edge", "a.com", Protocol::Tcp, 9), "third");
}

#[test]
fn servers_that_pass_tls_on_share_their_port() {
    let tls = |host: &str| {
        let matches = json!({"match": [{"sniHosts": [host]}]});
        json!({"hosts": [host], "gateways": ["infra/edge"], "tls": [route("a", matches)]})
    };
    let mut world = world(vec![
        object("b", 1, tls("b.com")),
        object("a", 2, tls("a.com")),
        object("c", 3, tls("c.com")),
    ]);
    let server = |host: &str, bind: &str| {
        json!({
            "port": {"number": 443, "protocol": "TLS"}, "bind": bind, "hosts": [host],
            "tls": {"mode": "PASSTHROUGH"},
        })
    };
    let servers = json!([server("a.com", ""), server("*.com", ""), server("c.com", "10.0.0.1")]);
    world.apply(Object::Gateway(Box::new(gateway(servers))));
    let listeners = world.listeners("infra/edge", Protocol::Tls).expect("a known Gateway");
    let client = Client { gateway: Some("infra/edge".to_owned()), ..Client::in_namespace("shop") };
    let names = listeners.iter().map(|listener| {
        let found = world.routing().arriving(listener, &client);
        found.iter().map(|own| own.metadata.name.clone()).collect::<Vec<_>>().join(",")
    });
    assert_eq!(names.collect::<Vec<_>>(), ["a,b,c", "c"]);
}

#[test]
fn a_list_counts_on_ports_of_its_kind() {
    use PortProtocol::{Detected, Http, Tcp, Tls, Udp};
    let lists = |name| {
        json!({
            "hosts": [name], "http": [route("a", json!({}))], "tcp": [route("a", json!({}))],
            "tls": [route("a", json!({"match": [{"sniHosts": ["a.com"]}]}))],
        })
    };
    let mut world = world(vec![object("own", 1, lists("reviews"))]);
    let ports = [(80, Http), (443, Tls), (5432, Tcp), (9000, Detected), (53, Udp)];
    world.apply(Object::Service(service("reviews", &ports)));
    for (port, want) in
        [(80, "own,,"), (443, ",own,"), (5432, ",,own"), (9000, "own,,own"), (53, ",,"), (7, ",,")]
    {
        let found = Protocol::ALL.map(|list| in_force(&world, "", "reviews", list, port));
        assert_eq!(found.join(","), want, "{port}");
    }
    // Without a port 80 of its own the host is routed there by `http`.
    world.apply(Object::Service(service("reviews", &[(5432, Tcp)])));
    assert_eq!(in_force(&world, "", "reviews", Protocol::Http, 80), "own");
    assert_eq!(in_force(&world, "", "reviews", Protocol::Http, 5432), "");
    // What nobody knows may be anything.
    world.delete(Kind::Service, "shop", "reviews");
    for list in Protocol::ALL {
        assert_eq!(in_force(&world, "", "reviews", list, 5432), "own");
    }
}

#[test]
fn service_entries_of_one_host_count_together() {
    let mut world = World::empty(Mesh::default());
    for (namespace, protocol) in [("a", "TCP"), ("b", "HTTP")] {
        let entry = json!({
            "metadata": {"name": "api", "namespace": namespace},
            "spec": {"hosts": ["api.com"], "ports": [{"number": 80, "name": "x", "protocol": protocol}]},
        });
        let entry: ServiceEntry = serde_json::from_value(entry).expect("a ServiceEntry");
        world.apply(Object::ServiceEntry(Box::new(entry)));
    }
    let host = Host::literal("api.com");
    assert_eq!(world.ports_routed_by(&host, Protocol::Http), Some(vec![80]));
    assert_eq!(world.ports_routed_by(&host, Protocol::Tcp), Some(vec![80]));
    assert_eq!(world.ports_routed_by(&host, Protocol::Tls), Some(vec![]));
}

/// The verdict about a VirtualService whose tcp rules for so many of the 200 ports of a gateway go from `reviews` to `host`.
fn tcp_rules(count: i64, host: &str) -> Verdict {
    let rules = |host: &str| {
        let rules = (0..count).map(|port| route(host, json!({"match": [{"port": 1000 + port}]})));
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "own", "namespace": "shop"},
            "spec": {"hosts": ["a.com"], "gateways": ["infra/edge"], "tcp": rules.collect::<Vec<_>>()},
        })
        .to_string()
    };
    let mut world = World::empty(Mesh::default());
    let servers = (0..200)
        .map(|port| json!({"port": {"number": 1000 + port, "protocol": "TCP"}, "hosts": ["*"]}));
    world.apply(Object::Gateway(Box::new(gateway(servers.collect()))));
    let review = Review {
        operation: Operation::parse(
            Kind::VirtualService,
            Some(&rules("reviews")),
            Some(&rules(host)),
        ),
        namespace: "shop".to_owned(),
        name: "own".to_owned(),
        user: String::new(),
        dry_run: false,
    };
    let policies = Policies::new(Vec::new(), rules::ALL);
    evaluate(policies.in_force(&review, &world), &review, &world)
}

#[test]
fn more_servers_than_are_compared_are_still_judged() {
    let told = |verdict: Verdict| {
        let messages = verdict.findings.iter().map(|finding| finding.message.clone());
        messages.collect::<Vec<_>>().join("\n")
    };
    let partial = "there is more here than is compared";
    assert!(told(tcp_rules(200, "gone")).contains(partial));
    // Only those count for which there is a route.
    let few = told(tcp_rules(3, "gone"));
    assert!(!few.contains(partial) && few.contains("gone"), "{few}");
}
