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
    running.runtime.block_on(running.api.create(&service()))?;
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
    let object = virtual_service("tcp-all-zero", "tcp", &[0, 0]);
    must_be_refused_by_the_gate(&object)?;
    running.runtime.block_on(running.api.create(&object))?;
    within("tcp-all-zero: istiod dies", || running.istiod.has_ended())
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
        "spec": { "ports": [{ "name": "http", "port": 9080 }, { "name": "tcp", "port": 9090 }] },
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
