use serde_json::{Value, json};

use super::Piece;
use super::dice::Dice;
use super::routes::destinations;

/// Gives some worlds ports and routes of connections. It has dice of its own, so that the rest of a world stays as it was.
pub(super) fn add_connections(seed: u64, world: &mut Vec<Piece>) {
    let mut dice = Dice::new(seed ^ 0x7cb_0443);
    if dice.chance(40) {
        return;
    }
    let has_gateway = dice.chance(40);
    // Equal ranges in two rules make a listener that Envoy refuses.
    let mut ranges = (1..).map(|number| format!("10.{}.0.0/16", 96 + number));
    let mut is_wide_taken = false;
    for piece in world.iter_mut() {
        let object = &mut piece.object;
        let spec = object["spec"].clone();
        let has_address = spec["type"] != "ExternalName" && spec["clusterIP"] != "None";
        if object["kind"] == "Service" && has_address {
            let ports = [port(&mut dice, 9090, "tcp"), port(&mut dice, 9443, "tls")];
            if let Some(all) = object["spec"]["ports"].as_array_mut() {
                all.extend(ports);
            }
        }
        if object["kind"] != "VirtualService" || spec.get("hosts").is_none() || dice.chance(30) {
            continue;
        }
        let is_at_gateway = has_gateway && dice.chance(60);
        if is_at_gateway {
            object["spec"]["gateways"] = json!(["mesh", "ingress/lower-@"]);
        }
        let mut range = |dice: &mut Dice| {
            if !is_wide_taken && dice.chance(30) {
                is_wide_taken = true;
                return "10.0.0.0/8".to_owned();
            }
            ranges.next().unwrap_or_default()
        };
        let tcp = (0..dice.between(0, 2)).map(|_| {
            let mut route = json!({ "route": destinations(&mut dice) });
            if dice.chance(70) {
                let mut block = source(&mut dice);
                if dice.chance(40) {
                    block["destinationSubnets"] = json!([range(&mut dice)]);
                }
                route["match"] = json!([block]);
            }
            route
        });
        let tcp = tcp.collect::<Vec<_>>();
        let tls = (0..dice.between(0, 3)).map(|_| {
            let mut block = source(&mut dice);
            let names =
                ["a.@.example.com", "b.a.@.example.com", "*.@.example.com", "*.a.@.example.com"];
            block["sniHosts"] = json!([dice.pick(&names)]);
            json!({ "match": [block], "route": destinations(&mut dice) })
        });
        let tls = tls.collect::<Vec<_>>();
        if !tcp.is_empty() {
            object["spec"]["tcp"] = tcp.into();
        }
        if !tls.is_empty() {
            object["spec"]["tls"] = tls.into();
        }
    }
    if has_gateway {
        let mut server = |number: u16, name: &str| {
            let hosts = dice.pick(&["*", "*", "alpha/*", "*.alpha.svc.cluster.local"]);
            json!({
                "bind": "lo:@", "hosts": [hosts],
                "port": { "number": number, "name": name, "protocol": name.to_uppercase() },
            })
        };
        let tcp = server(9090, "tcp");
        let mut tls = server(9443, "tls");
        tls["tls"] = json!({ "mode": "PASSTHROUGH" });
        let object = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
            "metadata": { "name": "lower-@", "namespace": "ingress" },
            "spec": { "selector": { "app": "edge" }, "servers": [tcp, tls] },
        });
        world.push(Piece { wave: 0, object });
    }
}

/// A port, mostly of the kind that its number stands for.
fn port(dice: &mut Dice, number: u16, kind: &str) -> Value {
    match dice.below(12) {
        0 => json!({ "name": format!("main-{number}"), "port": number }),
        1 => json!({ "name": format!("http-{number}"), "port": number }),
        2 => json!({ "name": format!("tcp-{number}"), "port": number }),
        3 => json!({ "name": format!("https-{number}"), "port": number }),
        4 => json!({ "name": format!("http-other-{number}"), "port": number, "appProtocol": kind }),
        5 => {
            let app = "kubernetes.io/h2c";
            json!({ "name": format!("tcp-other-{number}"), "port": number, "appProtocol": app })
        }
        _ => json!({ "name": format!("{kind}-main"), "port": number }),
    }
}

/// What a match says of the client.
fn source(dice: &mut Dice) -> Value {
    let mut block = json!({});
    match dice.below(8) {
        0 => block["port"] = json!([9090, 9443, 9080][dice.below(3)]),
        1 => block["sourceLabels"] = json!({ "app": dice.pick(&["web", "batch"]) }),
        2 => block["sourceNamespace"] = dice.pick(&["alpha", "beta"]).into(),
        3 => block["gateways"] = json!([dice.pick(&["mesh", "ingress/lower-@"])]),
        4 => {
            block["gateways"] = json!([dice.pick(&["mesh", "ingress/lower-@"])]);
            block["sourceLabels"] = json!({ "app": dice.pick(&["web", "batch"]) });
        }
        _ => {}
    }
    block
}
