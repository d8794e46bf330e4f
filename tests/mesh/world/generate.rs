use serde_json::{Value, json};

use super::dice::Dice;
use super::lower::add_connections;
use super::routes::{delegate, virtual_service};
use super::{Piece, World};

/// The full names of what the worlds are about.
pub(super) const REVIEWS: &str = "reviews-@.alpha.svc.cluster.local";
const RATINGS: &str = "ratings-@.beta.svc.cluster.local";
const OUTSIDE: &str = "api-@.example.com";

/// A world that this seed stands for.
pub(crate) fn generate(seed: u64) -> World {
    let mut dice = Dice::new(seed);
    let mut world = Vec::new();
    let mut add = |dice: &mut Dice, object: Value| {
        // Only what Istio orders by age needs an age.
        let ordered = ["DestinationRule", "VirtualService", "ServiceEntry"];
        let is_ordered = ordered.iter().any(|kind| object["kind"] == *kind);
        let wave = usize::from(is_ordered && dice.chance(40));
        world.push(Piece { wave, object });
    };

    let reviews = service(&mut dice, "reviews-@", "alpha");
    let version = ["v1", "v2", "v2", "v3"];
    for number in 1..=dice.between(0, 4) {
        let labels = json!({ "app": "reviews-@", "version": dice.pick(&version) });
        let pod = pod(&mut dice, number, labels);
        add(&mut dice, pod);
    }
    if reviews["spec"]["type"] != "ExternalName" {
        for part in slices(&mut dice) {
            add(&mut dice, part);
        }
    }
    add(&mut dice, reviews);
    if dice.chance(60) {
        let ratings = service(&mut dice, "ratings-@", "beta");
        add(&mut dice, ratings);
    }
    if dice.chance(40) {
        let entry = service_entry(&mut dice);
        add(&mut dice, entry);
    }
    if dice.chance(15) {
        let labels = json!({ "app": "reviews-@", "version": dice.pick(&version) });
        let object = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": { "name": "machine-@", "namespace": "alpha" },
            "spec": { "address": "ip:201", "labels": labels },
        });
        add(&mut dice, object);
    }
    for place in 0..[0, 1, 1, 2, 2, 3, 4][dice.below(7)] {
        let rule = destination_rule(&mut dice, place);
        add(&mut dice, rule);
    }
    for place in 0..[0, 1, 1, 1, 2, 2, 3][dice.below(7)] {
        let object = virtual_service(&mut dice, place);
        let names_a_delegate = object.to_string().contains("\"delegate\"");
        add(&mut dice, object);
        if names_a_delegate && dice.chance(90) {
            let object = delegate(&mut dice, place);
            add(&mut dice, object);
        }
    }
    add_connections(seed, &mut world);
    World(world)
}

fn service(dice: &mut Dice, name: &str, namespace: &str) -> Value {
    let mut ports = vec![json!({ "name": "http", "port": 9080 })];
    if dice.chance(25) {
        ports.push(json!({ "name": "http-admin", "port": 9081 }));
    }
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "selector": { "app": name }, "ports": ports },
    });
    match dice.below(20) {
        0 => object["spec"]["clusterIP"] = "None".into(),
        1 => object["spec"]["internalTrafficPolicy"] = "Local".into(),
        2 => {
            object["spec"]["type"] = "ExternalName".into();
            object["spec"]["externalName"] =
                dice.pick(&[OUTSIDE, RATINGS, "gone.example.com"]).into();
        }
        3 => object["spec"]["publishNotReadyAddresses"] = true.into(),
        4 | 5 => {
            let to = dice.pick(&[".", "*", "alpha,gamma", "beta", "ingress"]);
            object["metadata"]["annotations"] = json!({ "networking.istio.io/exportTo": to });
        }
        _ => {}
    }
    object
}

fn pod(dice: &mut Dice, number: usize, labels: Value) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("pod-{number}-@"), "namespace": "alpha", "labels": labels },
        "spec": {
            "nodeName": dice.pick(&["node-a", "node-b"]),
            "containers": [{ "name": "app", "image": "example.com/app" }],
        },
        "status": {
            "phase": "Running", "podIP": format!("ip:{number}"), "podIPs": [{ "ip": format!("ip:{number}") }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    });
    if dice.chance(8) {
        object["metadata"]["labels"]["istio.io/draining"] = "true".into();
    }
    object
}

/// The endpoints of `reviews`: of Pods, of Pods that nobody knows, and addresses.
fn slices(dice: &mut Dice) -> Vec<Value> {
    let mut endpoints = Vec::new();
    for number in 1..=dice.between(0, 5) {
        let mut endpoint = json!({ "addresses": [format!("ip:{number}")] });
        if dice.chance(85) {
            endpoint["targetRef"] =
                json!({ "kind": "Pod", "name": format!("pod-{number}-@"), "namespace": "alpha" });
        }
        if dice.chance(70) {
            endpoint["nodeName"] = dice.pick(&["node-a", "node-b"]).into();
        }
        match dice.below(12) {
            0 => endpoint["conditions"] = json!({ "ready": false }),
            1 => {
                endpoint["conditions"] =
                    json!({ "ready": false, "serving": false, "terminating": false })
            }
            2 => {
                endpoint["conditions"] =
                    json!({ "ready": false, "serving": true, "terminating": true })
            }
            3 => {
                endpoint["conditions"] =
                    json!({ "ready": true, "serving": true, "terminating": true })
            }
            4 => {}
            _ => {
                endpoint["conditions"] =
                    json!({ "ready": true, "serving": true, "terminating": false })
            }
        }
        endpoints.push(endpoint);
    }
    let slice = |name: &str, ports: Value, endpoints: &[Value]| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": name, "namespace": "alpha", "labels": { "kubernetes.io/service-name": "reviews-@" },
            },
            "ports": ports, "endpoints": endpoints,
        })
    };
    let http = json!({ "name": "http", "port": 8080, "protocol": "TCP" });
    let admin = json!({ "name": "http-admin", "port": 8081, "protocol": "TCP" });
    let ports = match dice.below(10) {
        0 => json!([admin]),
        1 | 2 => json!([http]),
        _ => json!([http, admin]),
    };
    if endpoints.len() > 2 && dice.chance(30) {
        let (first, rest) = endpoints.split_at(1);
        return vec![
            slice("reviews-@-a", ports, first),
            slice("reviews-@-b", json!([http, admin]), rest),
        ];
    }
    vec![slice("reviews-@-a", ports, &endpoints)]
}

fn service_entry(dice: &mut Dice) -> Value {
    let mut spec = json!({
        "hosts": [dice.pick(&[OUTSIDE, OUTSIDE, OUTSIDE, "reviews-@.alpha", "app-@.alpha.svc.cluster-1.global"])],
        "ports": [{ "number": 9080, "name": "http", "protocol": "HTTP" }],
        "resolution": dice.pick(&["STATIC", "STATIC", "STATIC", "DNS", "NONE"]),
        "location": "MESH_EXTERNAL",
    });
    if spec["resolution"] == "NONE" {
        spec["addresses"] = json!(["ip:250"]);
    } else if spec["resolution"] == "STATIC" && dice.chance(30) {
        spec["workloadSelector"] = json!({ "labels": { "app": "reviews-@" } });
        spec["location"] = "MESH_INTERNAL".into();
    } else if spec["resolution"] == "STATIC" || dice.chance(70) {
        let endpoints = (0..dice.between(1, 3)).map(|number| {
            let mut endpoint = json!({ "address": format!("ip:{}", 100 + number) });
            if dice.chance(80) {
                endpoint["labels"] = json!({ "version": dice.pick(&["v1", "v2"]) });
            }
            endpoint
        });
        spec["endpoints"] = endpoints.collect();
    }
    if dice.chance(25) {
        spec["exportTo"] = json!([dice.pick(&[".", "*", "beta", "gamma", "ingress"])]);
    }
    let namespace = dice.pick(&["alpha", "alpha", "beta"]);
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": { "name": "outside-@", "namespace": namespace }, "spec": spec,
    })
}

/// Sets of namespaces, as `exportTo` says them.
pub(super) fn export_to(dice: &mut Dice) -> Option<Value> {
    Some(match dice.below(16) {
        0..8 => return None,
        8 | 9 => json!(["*"]),
        10 | 11 => json!(["."]),
        12 => json!(["alpha"]),
        13 => json!(["beta", "ingress"]),
        14 => json!([".", "beta"]),
        _ => json!(["beta"]),
    })
}

fn destination_rule(dice: &mut Dice, place: usize) -> Value {
    let namespace =
        dice.pick(&["alpha", "alpha", "alpha", "alpha", "beta", "beta", "istio-system", "ingress"]);
    let hosts = [
        REVIEWS,
        REVIEWS,
        REVIEWS,
        REVIEWS,
        "reviews-@",
        "*-@.alpha.svc.cluster.local",
        "*s-@.alpha.svc.cluster.local",
        RATINGS,
        OUTSIDE,
        "*-@.example.com",
    ];
    let mut subsets = Vec::new();
    for name in ["v1", "v2", "v3"] {
        if !dice.chance(60) {
            continue;
        }
        subsets.push(match dice.below(16) {
            0 => json!({ "name": name }),
            1 => json!({ "name": name, "labels": { "topology.kubernetes.io/zone": "north-a" } }),
            2 => json!({ "name": name, "labels": { "topology.istio.io/cluster": "Kubernetes" } }),
            3 => json!({ "name": name, "labels": { "kubernetes.io/hostname": "node-b", "version": name } }),
            4 => json!({ "name": name, "labels": { "app": "reviews-@", "version": name } }),
            5 => json!({ "name": name, "labels": { "version": "v2" } }),
            _ => json!({ "name": name, "labels": { "version": name } }),
        });
    }
    let mut spec = json!({ "host": dice.pick(&hosts), "subsets": subsets });
    if let Some(to) = export_to(dice) {
        spec["exportTo"] = to;
    }
    if dice.chance(15) {
        let app = dice.pick(&["web", "batch"]);
        spec["workloadSelector"] = json!({ "matchLabels": { "app": app } });
    }
    if dice.chance(5) {
        spec["trafficPolicy"] = json!({ "loadBalancer": { "simple": "PASSTHROUGH" } });
    }
    let prefix = dice.pick(&["a", "b", "c"]);
    let mut object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": { "name": format!("{prefix}{place}-@"), "namespace": namespace }, "spec": spec,
    });
    if dice.chance(6) {
        let revision = dice.pick(&["default", "other"]);
        object["metadata"]["labels"] = json!({ "istio.io/rev": revision });
    }
    object
}
