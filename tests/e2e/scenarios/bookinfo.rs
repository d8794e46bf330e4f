//! Istio's own example, applied as its tutorials do: nothing that they teach is refused, and what they do not teach is.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::scenarios;
use crate::harness::{App, Kubectl, Result, Stage, list, virtual_service};

scenarios![
    bookinfo_is_shifted_as_in_the_tutorials,
    a_delegate_is_judged_for_its_root,
    a_host_outside_needs_its_service_entry,
];

/// For the watches of the gate to bring what was just written.
const SETTLE: Duration = Duration::from_millis(500);

/// A Service with one ready pod per version, and its DestinationRule.
fn application(name: &str, number: usize, versions: &[&str]) -> Vec<Value> {
    let labels = |version: &str| json!({ "app": name, "version": version });
    let subsets = versions.iter().map(|own| json!({ "name": own, "labels": { "version": own } }));
    let mut objects = vec![
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "selector": { "app": name }, "ports": [{ "name": "http", "port": 9080 }] },
        }),
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": { "name": name },
            "spec": { "host": name, "subsets": subsets.collect::<Vec<_>>() },
        }),
    ];
    for (index, version) in versions.iter().enumerate() {
        let pod = format!("{name}-{version}");
        objects.push(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod, "labels": labels(version) },
            "spec": { "containers": [{ "name": name, "image": "example.com/bookinfo" }] },
        }));
        objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": pod, "labels": { "kubernetes.io/service-name": name } },
            "ports": [{ "name": "http", "port": 9080 }],
            "endpoints": [{
                "addresses": [format!("10.1.{number}.{}", index + 1)],
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "targetRef": { "kind": "Pod", "name": pod },
            }],
        }));
    }
    objects
}

/// Where a part of a route goes: the subset and its weight; a single one needs none.
fn to(host: &str, subsets: &[(&str, u32)]) -> Vec<Value> {
    let one = |(subset, weight): &(&str, u32)| match weight {
        0 => json!({ "destination": { "host": host, "subset": subset } }),
        weight => {
            json!({ "destination": { "host": host, "subset": subset }, "weight": weight })
        }
    };
    subsets.iter().map(one).collect()
}

fn routes(host: &str, http: &[Value]) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": host },
        "spec": { "hosts": [host], "http": http },
    })
}

fn split(host: &str, subsets: &[(&str, u32)]) -> Value {
    routes(host, &[json!({ "route": to(host, subsets) })])
}

/// One user is sent to a version of their own, everybody else to another.
fn for_jason(host: &str, jason: Value, subset: &str) -> Value {
    let mut first = json!({ "match": [{ "headers": { "end-user": { "exact": "jason" } } }] });
    for (field, value) in jason.as_object().into_iter().flatten() {
        first[field] = value.clone();
    }
    routes(host, &[first, json!({ "route": to(host, &[(subset, 0)]) })])
}

fn bookinfo(kubectl: &Kubectl) -> Result {
    let services: [(&str, &[&str]); 4] = [
        ("productpage", &["v1"]),
        ("details", &["v1"]),
        ("ratings", &["v1"]),
        ("reviews", &["v1", "v2", "v3"]),
    ];
    let objects = services.iter().enumerate();
    let objects =
        objects.flat_map(|(number, (name, versions))| application(name, number, versions));
    kubectl
        .run_with(&["create", "-f", "-"], &list(&objects.collect::<Vec<_>>()).to_string())?
        .succeeded()?;
    thread::sleep(SETTLE);
    Ok(())
}

fn bookinfo_is_shifted_as_in_the_tutorials(stage: &Stage) -> Result {
    let kubectl = stage.namespace("bookinfo")?;
    bookinfo(&kubectl)?;
    let apply = |step: &str, object: &Value| -> Result {
        let answer = kubectl.apply(object)?.succeeded();
        answer.map(drop).map_err(|error| format!("{step}: {error:?}").into())
    };
    let all_v1 = list(
        &["productpage", "reviews", "ratings", "details"].map(|host| split(host, &[("v1", 0)])),
    );
    let fault = |fault: Value| {
        for_jason("ratings", json!({ "fault": fault, "route": to("ratings", &[("v1", 0)]) }), "v1")
    };
    let everything = json!({ "value": 100.0 });
    let gateway = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "bookinfo" },
        "spec": {
            "hosts": ["*"], "gateways": ["bookinfo-gateway"],
            "http": [{
                "match": [{ "uri": { "exact": "/productpage" } }, { "uri": { "prefix": "/static" } }],
                "route": [{ "destination": { "host": "productpage", "port": { "number": 9080 } } }],
            }],
        },
    });
    let jason_v2 = json!({ "route": to("reviews", &[("v2", 0)]) });
    for (step, object) in [
        ("bookinfo-gateway", gateway),
        ("virtual-service-all-v1", all_v1.clone()),
        ("virtual-service-reviews-test-v2", for_jason("reviews", jason_v2.clone(), "v1")),
        (
            "virtual-service-ratings-test-delay",
            fault(json!({ "delay": { "percentage": everything, "fixedDelay": "7s" } })),
        ),
        (
            "virtual-service-ratings-test-abort",
            fault(json!({ "abort": { "percentage": everything, "httpStatus": 500 } })),
        ),
        ("back to virtual-service-all-v1", all_v1.clone()),
        ("virtual-service-reviews-50-v3", split("reviews", &[("v1", 50), ("v3", 50)])),
        ("virtual-service-reviews-v3", split("reviews", &[("v3", 0)])),
        ("virtual-service-reviews-jason-v2-v3", for_jason("reviews", jason_v2, "v3")),
        ("virtual-service-reviews-v2-v3", split("reviews", &[("v2", 50), ("v3", 50)])),
        ("once more virtual-service-all-v1", all_v1.clone()),
        ("virtual-service-reviews-90-10", split("reviews", &[("v1", 90), ("v2", 10)])),
        ("virtual-service-reviews-80-20", split("reviews", &[("v1", 80), ("v2", 20)])),
        ("and at the end virtual-service-all-v1", all_v1),
    ] {
        apply(step, &object)?;
    }
    // What no tutorial does: everything at once, and a version that nobody has deployed.
    kubectl.apply(&split("reviews", &[("v3", 0)]))?.refused(&["canary-step", "100 %"])?;
    kubectl.apply(&split("details", &[("v2", 0)]))?.refused(&["subset-defined"])?;
    let rule = ["delete", "destinationrules.networking.istio.io", "reviews"];
    kubectl.run(&rule)?.refused(&["subset-in-use", "100 % to reviews/v1"])?;
    Ok(())
}

fn a_delegate_is_judged_for_its_root(stage: &Stage) -> Result {
    let app = App::deploy(stage.namespace("delegates")?, &["v1", "v2"])?;
    let delegate = |weights| {
        let mut object = virtual_service(weights);
        object["metadata"]["name"] = "reviews-routes".into();
        object["spec"].as_object_mut().expect("a spec").remove("hosts");
        object
    };
    let root = routes(
        "reviews",
        &[json!({
            "match": [{ "uri": { "prefix": "/" } }],
            "delegate": { "name": "reviews-routes", "namespace": "delegates" },
        })],
    );
    let rule = crate::harness::destination_rule(&["v1", "v2"]);
    app.apply(&list(&[rule, delegate(&[("v1", 99), ("v2", 1)]), root]))?.succeeded()?;
    app.settle();
    app.apply(&delegate(&[("v1", 1), ("v2", 99)]))?.refused(&["canary-step", "99 %"])?;
    app.apply(&delegate(&[("v1", 60), ("v2", 40)]))?.succeeded()?;
    let stripped = crate::harness::destination_rule(&["v1"]);
    app.settle();
    app.apply(&stripped)?.refused(&["subset-in-use", "delegates/reviews-routes"])?;
    let gone =
        app.kubectl.run(&["delete", "virtualservices.networking.istio.io", "reviews-routes"])?;
    gone.warned(&["vs-in-use", "delegates/reviews still names it"])?;
    Ok(())
}

fn a_host_outside_needs_its_service_entry(stage: &Stage) -> Result {
    let kubectl = stage.namespace("outside")?;
    bookinfo(&kubectl)?;
    kubectl.apply(&split("ratings", &[("v1", 0)]))?.succeeded()?;
    let outside = routes(
        "ratings",
        &[json!({ "route": [{ "destination": { "host": "ratings.example.com" } }] })],
    );
    let refused = kubectl.apply(&outside)?;
    refused.refused(&["destination-exists", "ratings.example.com"])?;
    let entry = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": { "name": "ratings" },
        "spec": {
            "hosts": ["ratings.example.com"], "location": "MESH_EXTERNAL", "resolution": "DNS",
            "ports": [{ "number": 9080, "name": "http", "protocol": "HTTP" }],
        },
    });
    kubectl.apply(&entry)?.succeeded()?;
    thread::sleep(SETTLE);
    let half = routes(
        "ratings",
        &[json!({ "route": [
            { "destination": { "host": "ratings", "subset": "v1" }, "weight": 50 },
            { "destination": { "host": "ratings.example.com" }, "weight": 50 },
        ] })],
    );
    kubectl.apply(&half)?.succeeded()?;
    Ok(())
}
