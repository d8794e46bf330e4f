use serde_json::{Value, json};

use super::dice::Dice;
use super::{Piece, World};

/// Sidecars for the namespaces of a round, that this seed stands for; they are for all of its worlds.
pub(crate) fn fence(seed: u64) -> World {
    let mut dice = Dice::new(seed ^ 0x51de_ca25);
    let mut world = Vec::new();
    for namespace in ["alpha", "beta", "istio-system"] {
        for place in 0..[0, 1, 1, 2][dice.below(4)] {
            let mut spec = json!({ "egress": egress(&mut dice) });
            if dice.chance(40) {
                let app = dice.pick(&["web", "batch", "other"]);
                spec["workloadSelector"] = json!({ "labels": { "app": app } });
            }
            let prefix = dice.pick(&["a", "b"]);
            let mut object = json!({
                "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
                "metadata": { "name": format!("{prefix}{place}-@"), "namespace": namespace }, "spec": spec,
            });
            if dice.chance(10) {
                object["metadata"]["labels"] = json!({ "istio.io/rev": "other" });
            }
            let wave = usize::from(dice.chance(40));
            world.push(Piece { wave, object });
        }
    }
    World(world)
}

fn egress(dice: &mut Dice) -> Value {
    if dice.chance(8) {
        return json!([]);
    }
    let mut listeners = Vec::new();
    if dice.chance(25) {
        let number = [9080, 9081][dice.below(2)];
        let port = json!({ "number": number, "name": "http", "protocol": "HTTP" });
        listeners.push(json!({ "port": port, "hosts": hosts(dice) }));
    }
    listeners.push(json!({ "hosts": hosts(dice) }));
    listeners.into()
}

/// Everybody is told of namespace gamma, where the last objects of a round are: who waits for them looks for these.
fn hosts(dice: &mut Dice) -> Vec<&'static str> {
    let all = [
        "./*",
        "./*",
        "alpha/*",
        "alpha/*",
        "beta/*",
        "istio-system/*",
        "*/*",
        "alpha/*.alpha.svc.cluster.local",
        "*/*.beta.svc.cluster.local",
        "*/*.example.com",
        "~beta/*",
        "~*/*.beta.svc.cluster.local",
        "~./*.alpha.svc.cluster.local",
    ];
    let mut hosts = vec!["gamma/*"];
    for _ in 0..dice.between(1, 3) {
        let host = dice.pick(&all);
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}
