use serde_json::Value;

use super::{Piece, World};

/// Fields that an object may lose.
const OPTIONAL: [&str; 20] = [
    "exportTo",
    "workloadSelector",
    "gateways",
    "match",
    "weight",
    "annotations",
    "labels",
    "subset",
    "port",
    "conditions",
    "targetRef",
    "trafficPolicy",
    "sourceLabels",
    "sourceNamespace",
    "headers",
    "uri",
    "internalTrafficPolicy",
    "nodeName",
    "destinationSubnets",
    "tcp",
];

/// Every world that is one step simpler: without an object, without an element of a list, without a field.
pub(crate) fn smaller(world: &World) -> Vec<World> {
    let mut found = Vec::new();
    for at in 0..world.0.len() {
        let mut fewer = world.clone();
        fewer.0.remove(at);
        found.push(fewer);
    }
    if world.0.iter().any(|piece| piece.wave > 0) {
        let at_once = |piece: &Piece| Piece { wave: 0, object: piece.object.clone() };
        found.push(World(world.0.iter().map(at_once).collect()));
    }
    for (at, piece) in world.0.iter().enumerate() {
        let mut parts = Vec::new();
        simpler(&piece.object, &mut parts);
        for object in parts {
            let mut changed = world.clone();
            changed.0[at].object = object;
            found.push(changed);
        }
    }
    found.retain(|world| world.0.iter().all(|piece| is_harmless(&piece.object)));
    found
}

/// Weights that add up to 0 would freeze the route tables of the other worlds, too, and in TCP and TLS end istiod.
fn is_harmless(object: &Value) -> bool {
    let lists = ["http", "tls", "tcp"].map(|list| object["spec"][list].as_array());
    let routes = lists.into_iter().flatten().flatten();
    routes.filter_map(|route| route["route"].as_array()).all(|list| {
        list.len() < 2 || list.iter().any(|entry| entry["weight"].as_i64().unwrap_or(0) > 0)
    })
}

fn simpler(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Array(items) => {
            // The last element of a list gives it its meaning; the field itself goes where it may.
            if items.len() > 1 {
                for at in 0..items.len() {
                    let mut fewer = items.clone();
                    fewer.remove(at);
                    found.push(Value::Array(fewer));
                }
            }
            for (at, item) in items.iter().enumerate() {
                let mut parts = Vec::new();
                simpler(item, &mut parts);
                for part in parts {
                    let mut changed = items.clone();
                    changed[at] = part;
                    found.push(Value::Array(changed));
                }
            }
        }
        Value::Object(fields) => {
            for (key, own) in fields {
                if OPTIONAL.contains(&key.as_str()) {
                    let mut fewer = fields.clone();
                    fewer.remove(key);
                    found.push(Value::Object(fewer));
                }
                let mut parts = Vec::new();
                simpler(own, &mut parts);
                for part in parts {
                    let mut changed = fields.clone();
                    changed.insert(key.clone(), part);
                    found.push(Value::Object(changed));
                }
            }
        }
        _ => {}
    }
}
