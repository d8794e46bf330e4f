use serde_json::{Value, json};

use super::dice::Dice;
use super::generate::{REVIEWS, export_to};

/// How the names of delegates begin; the place of the root follows.
const DELEGATE: &str = "delegate";

/// What the root at this place may delegate to: a VirtualService without hosts.
pub(super) fn delegate(dice: &mut Dice, place: usize) -> Value {
    let name = format!("{DELEGATE}{place}-@");
    let routes = dice.between(1, 2);
    let routes = (0..routes).map(|at| route(dice, &format!("{name}.{at}"))).collect::<Vec<_>>();
    let mut spec = json!({ "http": routes });
    if let Some(to) = export_to(dice) {
        spec["exportTo"] = to;
    }
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": name, "namespace": dice.pick(&["alpha", "beta"]) }, "spec": spec,
    })
}

/// A VirtualService whose routes are named, so that they can be recognised wherever they end up.
pub(super) fn virtual_service(dice: &mut Dice, place: usize) -> Value {
    let namespace = dice.pick(&["alpha", "alpha", "alpha", "beta", "beta", "istio-system"]);
    let hosts = [
        REVIEWS,
        REVIEWS,
        REVIEWS,
        "reviews-@",
        "ratings-@.beta.svc.cluster.local",
        "api-@.example.com",
        "*-@.alpha.svc.cluster.local",
        "REVIEWS-@.alpha.svc.cluster.local",
    ];
    let mut own = vec![dice.pick(&hosts)];
    if dice.chance(15) {
        let further = dice.pick(&hosts);
        // The same host twice is the same routes twice, also where only the case differs.
        let first = |host: &'static str| host.split('.').next().unwrap_or_default();
        let names = [first(own[0]), first(further)];
        let differ_in_case = names[0] != names[1] && names[0].eq_ignore_ascii_case(names[1]);
        if !further.eq_ignore_ascii_case(own[0]) && !differ_in_case {
            own.push(further);
        }
    }
    let name = format!("{}{place}-@", dice.pick(&["a", "b", "c"]));
    let routes = dice.between(1, 3);
    let mut routes = (0..routes).map(|at| route(dice, &format!("{name}.{at}"))).collect::<Vec<_>>();
    if dice.chance(20) {
        let at = dice.below(routes.len());
        let mut to = json!({ "name": format!("{DELEGATE}{place}-@") });
        if dice.chance(60) {
            to["namespace"] = dice.pick(&["alpha", "beta"]).into();
        }
        let mut root = json!({ "name": routes[at]["name"], "delegate": to });
        if let Some(own) = routes[at].get("match") {
            root["match"] = own.clone();
        }
        routes[at] = root;
    }
    let mut spec = json!({ "hosts": own, "http": routes });
    if let Some(to) = export_to(dice) {
        spec["exportTo"] = to;
    }
    match dice.below(10) {
        0..6 => {}
        6 => spec["gateways"] = json!(["mesh"]),
        7 => spec["gateways"] = json!(["ingress/edge"]),
        8 => spec["gateways"] = json!(["ingress/edge", "mesh"]),
        _ => spec["gateways"] = json!(["edge", "mesh"]),
    }
    let mut object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": name, "namespace": namespace }, "spec": spec,
    });
    if dice.chance(6) {
        let revision = dice.pick(&["default", "other"]);
        object["metadata"]["labels"] = json!({ "istio.io/rev": revision });
    }
    object
}

fn route(dice: &mut Dice, name: &str) -> Value {
    let mut route = json!({ "name": name });
    if dice.chance(55) {
        let blocks = if dice.chance(25) { 2 } else { 1 };
        route["match"] = (0..blocks).map(|_| block(dice)).collect();
    }
    match dice.below(20) {
        0 => route["redirect"] = json!({ "uri": "/elsewhere" }),
        1 => route["directResponse"] = json!({ "status": 418 }),
        _ => route["route"] = destinations(dice),
    }
    route
}

fn block(dice: &mut Dice) -> Value {
    let mut block = json!({});
    for _ in 0..dice.between(1, 2) {
        match dice.below(14) {
            0 => block["uri"] = json!({ "prefix": "/" }),
            1 | 2 => block["uri"] = json!({ "prefix": dice.pick(&["/pay", "/p", "/cart"]) }),
            3 => block["uri"] = json!({ "exact": dice.pick(&["/pay", "/PAY"]) }),
            4 => block["uri"] = json!({ "regex": dice.pick(&[".*", "/.*", "/pa.+"]) }),
            5 | 6 => block["headers"] = json!({ "x-beta": { "exact": "1" } }),
            7 => block["headers"] = json!({ "x-beta": {} }),
            8 => block["withoutHeaders"] = json!({ "x-beta": {} }),
            9 => block["method"] = json!({ "exact": dice.pick(&["GET", "POST"]) }),
            10 => block["queryParams"] = json!({ "beta": { "exact": "yes" } }),
            11 => block["port"] = json!([9080, 9081][dice.below(2)]),
            12 => block["sourceLabels"] = json!({ "app": dice.pick(&["web", "batch"]) }),
            _ => block["sourceNamespace"] = dice.pick(&["alpha", "beta"]).into(),
        }
    }
    if dice.chance(8) {
        block["gateways"] = json!([dice.pick(&["mesh", "ingress/edge"])]);
    }
    if dice.chance(5) && block.get("uri").is_some_and(|uri| uri.get("regex").is_none()) {
        block["ignoreUriCase"] = true.into();
    }
    block
}

pub(super) fn destinations(dice: &mut Dice) -> Value {
    let mut list = Vec::new();
    for _ in 0..[1, 1, 2, 2, 2, 3][dice.below(6)] {
        let hosts = [
            REVIEWS,
            REVIEWS,
            REVIEWS,
            REVIEWS,
            "reviews-@",
            "ratings-@.beta.svc.cluster.local",
            "api-@.example.com",
            "reviews-@.alpha",
        ];
        let mut destination = json!({ "host": dice.pick(&hosts) });
        if dice.chance(75) {
            destination["subset"] = dice.pick(&["v1", "v2", "v2", "v3"]).into();
        }
        if dice.chance(20) {
            let number = [9080, 9081, 7777][dice.below(3)];
            destination["port"] = json!({ "number": number });
        }
        let mut entry = json!({ "destination": destination });
        if let Some(weight) =
            [None, Some(0), Some(1), Some(10), Some(33), Some(50), Some(99), Some(950)]
                [dice.below(8)]
        {
            entry["weight"] = weight.into();
        }
        list.push(entry);
    }
    // A total of 0 freezes the route table of the port for every host: a world of its own.
    if list.len() > 1 && list.iter().all(|entry| entry["weight"].as_i64().unwrap_or(0) == 0) {
        list[0]["weight"] = 100.into();
    }
    list.into()
}
