//! What is written to: applications that all have the same Pods, each with a Service and routes of its own.

use serde_json::{Value, json};

use crate::cluster::App;
use crate::harness::{Kubectl, Result, list};

/// So many, so that one can be written to while the others still wait for their answers.
pub(super) const SHOPS: usize = 40;

pub(super) fn name(shop: usize) -> String {
    format!("shop-{shop}")
}

pub(super) fn deploy(kubectl: &Kubectl) -> Result {
    let app = App::deploy(kubectl.clone(), &["v1", "v2"])?;
    let objects = (0..SHOPS).flat_map(objects).collect::<Vec<_>>();
    app.apply(&list(&objects))?.succeeded()?;
    Ok(())
}

fn objects(shop: usize) -> [Value; 3] {
    let name = name(shop);
    let subset = |version: &str| json!({ "name": version, "labels": { "version": version } });
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "selector": { "app": "reviews" }, "ports": [{ "name": "http", "port": 9080 }] },
        }),
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": { "name": name },
            "spec": { "host": name, "subsets": [subset("v1"), subset("v2")] },
        }),
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": name },
            "spec": { "hosts": [name], "http": routes(&name, 0) },
        }),
    ]
}

/// The canary gets so many percent.
pub(super) fn routes(host: &str, canary: u32) -> Value {
    let to = |subset: &str, weight: u32| json!({ "destination": { "host": host, "subset": subset }, "weight": weight });
    json!([{ "route": [to("v1", 100 - canary), to("v2", canary)] }])
}
