//! What the gate calls broken for everyone breaks the mesh for everyone: a control plane of its own, because it does not survive.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluicegate::policy::{Operation, Policies, Review, evaluate};
use sluicegate::rules;
use sluicegate::world::{Kind, Mesh, World};

use crate::harness::Result;
use crate::judge::Theirs;
use crate::platform::{Envoy, Mode, Proxy, Running};

const LIMIT: Duration = Duration::from_secs(20);

/// Weights, and what the mesh suffers from them.
const HTTP: &[(&str, &[i64])] =
    &[("all-zero", &[0, 0]), ("above-32-bits", &[2_147_483_647, 2_147_483_647, 2_147_483_647])];

pub(crate) fn breaks_the_mesh() -> Result {
    let mut running = Running::start()?;
    let proxy = Proxy {
        name: "victim",
        mode: Mode::Sidecar,
        namespace: "alpha",
        labels: [("app".to_owned(), "web".to_owned())].into(),
        address: "10.200.2.1",
    };
    let envoy = Envoy::start(running.plane.sandbox(), &running.istiod, &proxy)?;
    let labels = [("app".to_owned(), "edge".to_owned())].into();
    let edge = Proxy { name: "edge", mode: Mode::Gateway, labels, address: "10.200.2.2", ..proxy };
    let gateway = Envoy::start(running.plane.sandbox(), &running.istiod, &edge)?;
    running.runtime.block_on(running.api.create(&service()))?;
    running.runtime.block_on(running.api.create(&gateway_object()))?;
    let ask = |path: &str| running.runtime.block_on(envoy.ask(path));
    let host = "reviews.alpha.svc.cluster.local";
    within("the service has routes", || {
        Ok(running.runtime.block_on(Theirs::ask(&envoy))?.table("9080", host).is_some())
    })?;
    for (name, weights) in HTTP {
        let object = virtual_service(name, "http", weights);
        must_be_refused_by_the_gate(&object)?;
        let before = rejected(&ask(REJECTED)?);
        running.runtime.block_on(running.api.create(&object))?;
        within(&format!("{name}: Envoy rejects the routes of the port"), || {
            Ok(rejected(&ask(REJECTED)?) > before)
        })?;
        running.runtime.block_on(running.api.delete(&object))?;
    }
    for (place, name, spec) in LISTENERS {
        let envoy = if *place == "gateway" { &gateway } else { &envoy };
        loses_later_changes(&running, envoy, place, name, spec)?;
    }
    let object = virtual_service("tcp-all-zero", "tcp", &[0, 0]);
    must_be_refused_by_the_gate(&object)?;
    running.runtime.block_on(running.api.create(&object))?;
    within("tcp-all-zero: istiod dies", || running.istiod.has_ended())
}

/// Whose listener: each makes Envoy refuse it, and with it what others write later.
const LISTENERS: &[(&str, &str, &str)] = &[
    (
        "mesh",
        "names-overlap",
        r#"{"tls": [{"match": [{"sniHosts": ["a.shop", "b.shop"]}]}, {"match": [{"sniHosts": ["b.shop"]}]}]}"#,
    ),
    (
        "mesh",
        "names-in-another-case",
        r#"{"tls": [{"match": [{"sniHosts": ["A.shop"]}]}, {"match": [{"sniHosts": ["a.shop"]}]}]}"#,
    ),
    ("mesh", "a-name-twice", r#"{"tls": [{"match": [{"sniHosts": ["a.shop", "a.shop"]}]}]}"#),
    ("mesh", "a-partial-wildcard", r#"{"tls": [{"match": [{"sniHosts": ["*-eu.shop"]}]}]}"#),
    (
        "mesh",
        "a-range-is-kept",
        r#"{"tls": [{"match": [{"sniHosts": ["a.shop"], "destinationSubnets": ["10.0.0.0/8"]}]}, {"match": [{"sniHosts": ["a.shop"]}]}]}"#,
    ),
    (
        "mesh",
        "equal-ranges",
        r#"{"tcp": [{"match": [{"destinationSubnets": ["10.1.2.3/8"]}]}, {"match": [{"destinationSubnets": ["10.0.0.0/8"]}]}]}"#,
    ),
    (
        "mesh",
        "a-range-twice",
        r#"{"tcp": [{"match": [{"destinationSubnets": ["10.0.0.0/8"]}, {"destinationSubnets": ["10.0.0.0/8"]}]}]}"#,
    ),
    (
        "mesh",
        "everything-twice",
        r#"{"tcp": [{"match": [{"destinationSubnets": ["0.0.0.0/0"]}]}, {"match": [{"destinationSubnets": ["0.0.0.0/0"]}]}]}"#,
    ),
    (
        "gateway",
        "a-name-twice-at-a-gateway",
        r#"{"tls": [{"match": [{"sniHosts": ["a.shop", "a.shop"]}]}]}"#,
    ),
    (
        "gateway",
        "names-in-another-case-at-a-gateway",
        r#"{"tls": [{"match": [{"sniHosts": ["A.shop"]}]}, {"match": [{"sniHosts": ["a.shop"]}]}]}"#,
    ),
];

/// Envoy refuses the listener, and a later route that is good does not get there before the broken one is gone.
fn loses_later_changes(
    running: &Running,
    envoy: &Envoy,
    place: &str,
    name: &str,
    spec: &str,
) -> Result {
    let ask = |path: &str| running.runtime.block_on(envoy.ask(path));
    let create = |object: &Value| running.runtime.block_on(running.api.create(object)).map(drop);
    let delete = |object: &Value| running.runtime.block_on(running.api.delete(object));
    let object = connections(name, place, serde_json::from_str(spec)?);
    must_be_refused_by_the_gate(&object)?;
    let before = rejected(&ask(REFUSED)?);
    create(&object)?;
    within(&format!("{name}: Envoy refuses the listener"), || {
        Ok(rejected(&ask(REFUSED)?) > before)
    })?;
    let before = rejected(&ask(REFUSED)?);
    let (field, later) = match object["spec"].get("tls") {
        Some(_) => ("tls", json!({ "sniHosts": ["later.shop"] })),
        None => ("tcp", json!({ "destinationSubnets": ["10.222.0.0/16"] })),
    };
    let later = connections("later", place, json!({ field: [{ "match": [later] }] }));
    create(&later)?;
    within(&format!("{name}: Envoy refuses the listener again"), || {
        Ok(rejected(&ask(REFUSED)?) > before)
    })?;
    let has_it = || {
        let dump = ask("/config_dump?resource=dynamic_listeners")?;
        // What Envoy refused stands there, too, as the error that it is.
        let states = dump["configs"].as_array().into_iter().flatten();
        let states = states.flat_map(|own| [&own["active_state"], &own["warming_state"]]);
        let text = states.map(Value::to_string).collect::<String>();
        Ok(text.contains("later.shop") || text.contains("10.222.0.0"))
    };
    if has_it()? {
        return Err(format!("{name}: a later change got there").into());
    }
    delete(&object)?;
    within(&format!("{name}: without it the later change gets there"), has_it)?;
    delete(&later)?;
    within(&format!("{name}: the later change goes again"), || Ok(!has_it()?))
}

/// How often Envoy rejected listeners.
const REFUSED: &str = "/stats?format=json&filter=listener_manager.lds.update_rejected";

fn gateway_object() -> Value {
    let server = json!({
        "port": { "number": 19443, "name": "tls", "protocol": "TLS" },
        "hosts": ["*"], "tls": { "mode": "PASSTHROUGH" },
    });
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
        "metadata": { "name": "edge", "namespace": "alpha" },
        "spec": { "selector": { "app": "edge" }, "servers": [server] },
    })
}

/// Routes of connections, each to the Service.
fn connections(name: &str, place: &str, mut spec: Value) -> Value {
    for route in spec.as_object_mut().into_iter().flat_map(|own| own.values_mut()) {
        for route in route.as_array_mut().into_iter().flatten() {
            route["route"] =
                json!([{ "destination": { "host": "reviews", "port": { "number": 9090 } } }]);
        }
    }
    spec["hosts"] = json!(["reviews"]);
    spec["gateways"] = json!([if place == "gateway" { "edge" } else { place }]);
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": name, "namespace": "alpha" }, "spec": spec,
    })
}

/// How often Envoy rejected the routes of the service's port.
const REJECTED: &str = "/stats?format=json&filter=rds.9080.update_rejected";

fn rejected(stats: &Value) -> u64 {
    let values = stats["stats"].as_array().into_iter().flatten();
    values.filter_map(|stat| stat["value"].as_u64()).sum()
}

fn within(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result {
    let deadline = Instant::now() + LIMIT;
    while !is_so()? {
        if Instant::now() > deadline {
            return Err(format!("{what}: not within {LIMIT:?}").into());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn must_be_refused_by_the_gate(object: &Value) -> Result {
    let review = Review {
        operation: Operation::parse(Kind::VirtualService, None, Some(&object.to_string())),
        namespace: "alpha".to_owned(),
        name: "broken".to_owned(),
        user: String::new(),
        dry_run: false,
    };
    // Even in a world that nobody knows, whoever writes it.
    let world = World::new(Mesh::default());
    let policies = Policies::new(Vec::new(), rules::ALL);
    let verdict = evaluate(policies.in_force(&review, &world), &review, &world);
    if verdict.allowed() { Err(format!("the gate admits {object}").into()) } else { Ok(()) }
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "reviews", "namespace": "alpha" },
        "spec": { "ports": [{ "name": "http", "port": 9080 }, { "name": "tcp", "port": 9090 }, { "name": "tls", "port": 9443 }] },
    })
}

fn virtual_service(name: &str, protocol: &str, weights: &[i64]) -> Value {
    let route = weights.iter().enumerate().map(|(at, weight)| {
        let destination =
            json!({ "host": "reviews", "subset": format!("v{at}"), "port": { "number": 9080 } });
        json!({ "destination": destination, "weight": weight })
    });
    let route = route.collect::<Vec<_>>();
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": name, "namespace": "alpha" },
        "spec": { "hosts": ["reviews"], protocol: [{ "route": route }] },
    })
}
