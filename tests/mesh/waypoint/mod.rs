//! What the gate believes about waypoints, against what istiod sends to them.
//!
//! Stock Envoy lacks filters of Istio's that a waypoint's listeners are made of, and refuses them. So the Envoys here only
//! connect, as a waypoint's Pod would, and istiod is asked what it sends them: its debug interface runs the generators that a
//! push runs. istiod has ambient mode on, and a control plane of its own for that: the other tests ask one that has it off.

mod ours;
mod theirs;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluicegate::cluster;
use sluicegate::istio::Host;
use sluicegate::world::{Client, Mesh, World as Cluster};
use tokio::runtime::Runtime;

use self::ours::Ours;
use self::theirs::Theirs;
use crate::harness::sandbox::Sandbox;
use crate::harness::{ControlPlane, Result, programs};
use crate::platform::{Api, Envoy, Istiod, Mode, Proxy};
use crate::world::{WAVES, World, fill_text};

/// Where the Services of the worlds stand, where the other waypoint stands, a third one, and Istio's.
const NAMESPACES: [&str; 4] = ["shop", "infra", "team", "istio-system"];

/// Name and namespace of each waypoint.
const WAYPOINTS: [(&str, &str); 2] = [("near", "shop"), ("far", "infra")];

/// Its Pods: their names, addresses, and what the Envoy in each asks for.
const PODS: [[(&str, &str, &str); 2]; 2] = [
    [("near-1", "10.200.3.1", "cds_config"), ("near-2", "10.200.3.2", "lds_config")],
    [("far-1", "10.200.3.3", "cds_config"), ("far-2", "10.200.3.4", "lds_config")],
];

/// The ports of the Services that the worlds bring along: HTTP, one more, and TCP.
const PORTS: [i64; 2] = [9080, 9081];
const TCP_PORT: i64 = 9090;

/// How long istiod may take to know everything, and how long it may go on disagreeing then.
const PUSH: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(5);

/// istiod's environment: nobody but the tests makes or describes the Pods of a waypoint.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("PILOT_ENABLE_AMBIENT", "true"),
    ("PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER", "false"),
    ("PILOT_ENABLE_GATEWAY_API_STATUS", "false"),
    ("PILOT_ENABLE_GATEWAY_API_GATEWAYCLASS_CONTROLLER", "false"),
];

pub(crate) fn agrees_with_istio() -> Result {
    let plane = ControlPlane::start(Arc::new(Sandbox::new()?))?;
    let crd = programs::find("gateway-api-crd.yaml")?;
    let admin = plane.admin();
    admin.run(&["create", "-f", &crd.display().to_string()])?.succeeded()?;
    let established = ["wait", "crd", "--all", "--for=condition=Established", "--timeout=30s"];
    admin.run(&established)?.succeeded()?;
    for name in NAMESPACES {
        plane.namespace(name, None)?;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let api = runtime.block_on(Api::new(&plane.sandbox().path().join("admin.kubeconfig")))?;
    let mut stored = Vec::new();
    for (waypoint, pods) in WAYPOINTS.into_iter().zip(PODS) {
        let objects = waypoint_of(waypoint, pods);
        stored.extend(create(&runtime, &api, &objects)?);
    }
    let istiod = Istiod::start(&plane, &Mesh::default(), &ENVIRONMENT)?;
    let found = judge(&plane, &runtime, &api, &istiod, stored);
    if found.is_err() {
        plane.sandbox().print_logs("istiod");
    }
    found
}

fn judge(
    plane: &ControlPlane,
    runtime: &Runtime,
    api: &Api,
    istiod: &Istiod,
    mut stored: Vec<Value>,
) -> Result {
    let mut envoys = Vec::new();
    for ((waypoint, namespace), pods) in WAYPOINTS.into_iter().zip(PODS) {
        for (name, address, asks) in pods {
            let labels = [(NAME.to_owned(), waypoint.to_owned())].into();
            let proxy = Proxy { name, mode: Mode::Waypoint(asks), namespace, labels, address };
            envoys.push(Envoy::start(plane.sandbox(), istiod, &proxy)?);
        }
    }
    let worlds = worlds()?;
    for wave in 0..WAVES {
        let copies = worlds.iter().enumerate();
        let objects = copies.flat_map(|(at, (_, world))| world.copy(at + 1, "round", wave));
        stored.extend(create(runtime, api, &objects.collect::<Vec<_>>())?);
        // Istio orders by creation time, which counts whole seconds.
        thread::sleep(Duration::from_millis(1_100));
    }
    let marker = marker();
    create(runtime, api, &marker)?;
    let mut world = Cluster::empty(Mesh::default());
    for object in stored {
        if let Some(object) = cluster::object(object) {
            world.apply(object);
        }
    }
    let ask = || -> Result<Vec<Theirs>> {
        let all = WAYPOINTS.iter().zip(PODS).map(|((_, namespace), pods)| {
            let mut theirs = Theirs::default();
            for (name, ..) in pods {
                let dump = runtime.block_on(istiod.dump(&format!("{name}.{namespace}")))?;
                theirs.add(&dump.unwrap_or_default());
            }
            Ok(theirs)
        });
        all.collect()
    };
    let deadline = Instant::now() + PUSH;
    while !ask()?.iter().any(has_marker) {
        if Instant::now() > deadline {
            return Err(format!("no waypoint was told of everything within {PUSH:?}").into());
        }
        thread::sleep(Duration::from_millis(100));
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = differences(&worlds, &world, &ask()?);
        if found.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let (count, all) = (found.len(), worlds.len());
            return Err(format!("{count} differences in {all} worlds\n{}", found.join("\n")).into());
        }
        thread::sleep(Duration::from_millis(300));
    }
}

fn create(runtime: &Runtime, api: &Api, objects: &[Value]) -> Result<Vec<Value>> {
    // istiod does not look again for the Pod that has an address: Pods come first, and slices last.
    let mut objects = objects.to_vec();
    objects.sort_by_key(|object| match object["kind"].as_str() {
        Some("Pod") => 0,
        Some("EndpointSlice") => 2,
        _ => 1,
    });
    let mut stored = Vec::new();
    for chunk in objects.chunk_by(|a, b| a["kind"] == b["kind"]) {
        for answer in runtime.block_on(api.create_all(chunk)) {
            stored.push(answer?);
        }
    }
    Ok(stored)
}

fn worlds() -> Result<Vec<(String, World)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mesh/waypoint/worlds");
    let files = fs::read_dir(&folder)?.collect::<std::io::Result<Vec<_>>>()?;
    let mut files = files.into_iter().map(|file| file.path()).collect::<Vec<_>>();
    files.sort();
    let read = |file: &std::path::PathBuf| {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let world = World::parse(&name, &fs::read_to_string(file)?)?;
        Ok((name, world))
    };
    files.iter().map(read).collect()
}

/// The label by which the Pods and the Service of a waypoint name it.
const NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// A waypoint as istiod makes one: the Gateway with its address, the Service, and ready Pods.
fn waypoint_of(
    (name, namespace): (&str, &str),
    pods: [(&'static str, &'static str, &'static str); 2],
) -> Vec<Value> {
    let labels = json!({ NAME: name, "gateway.istio.io/managed": "istio.io-mesh-controller" });
    let metadata = |name: &str, labels: &Value| json!({ "name": name, "namespace": namespace, "labels": labels });
    let mut of_slice = labels.clone();
    of_slice["kubernetes.io/service-name"] = json!(name);
    let endpoint = |(name, address, _): &(&str, &str, &str)| {
        let target = json!({ "kind": "Pod", "name": name, "namespace": namespace });
        json!({ "addresses": [address], "conditions": { "ready": true }, "targetRef": target })
    };
    let pod = |(name, address, _): &(&str, &str, &str)| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata(name, &labels),
            "spec": { "nodeName": "node-a", "containers": [{ "name": "proxy", "image": "example.com/proxy" }] },
            "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
                "conditions": [{ "type": "Ready", "status": "True" }] },
        })
    };
    let mut objects = pods.iter().map(pod).collect::<Vec<_>>();
    objects.extend([
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata(name, &json!({})),
            "spec": { "gatewayClassName": "istio-waypoint", "listeners": [
                { "name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": { "namespaces": { "from": "All" } } },
            ] },
            "status": { "addresses": [{ "type": "Hostname", "value": format!("{name}.{namespace}.svc.cluster.local") }] },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata(name, &labels),
            "spec": { "selector": labels, "ports": [{ "name": "mesh", "port": 15008, "appProtocol": "all" }] },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": metadata(name, &of_slice), "ports": [{ "name": "mesh", "port": 15008, "protocol": "TCP" }],
            "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
        }),
    ]);
    objects
}

/// The last object of each kind.
fn marker() -> Vec<Value> {
    let istio = |kind: &str, spec: Value| {
        json!({ "apiVersion": "networking.istio.io/v1", "kind": kind,
            "metadata": { "name": "marker", "namespace": "shop" }, "spec": spec })
    };
    let labels = json!({ "istio.io/use-waypoint": "near" });
    vec![
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "marker", "namespace": "shop", "labels": labels },
            "spec": { "ports": [{ "name": "http", "port": 9080 }] },
        }),
        istio("DestinationRule", json!({ "host": "marker", "subsets": [{ "name": "marker" }] })),
        istio(
            "VirtualService",
            json!({ "hosts": ["marker"], "http": [
                { "name": "marker", "route": [{ "destination": { "host": "marker", "subset": "marker" } }] },
            ] }),
        ),
    ]
}

fn has_marker(theirs: &Theirs) -> bool {
    let host = "marker.shop.svc.cluster.local";
    theirs.has_cluster(&format!("inbound-vip|9080|http/marker|{host}"))
        && theirs.routes(host, 9080).is_some_and(|all| all.iter().any(|own| own.contains("marker")))
}

/// What istiod does otherwise than the gate believes.
fn differences(worlds: &[(String, World)], cluster: &Cluster, theirs: &[Theirs]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, (name, world)) in worlds.iter().enumerate() {
        let mut subsets = world.texts("subset");
        subsets.extend(["", "v1", "v2"].map(str::to_owned));
        for ((waypoint, namespace), theirs) in WAYPOINTS.iter().zip(theirs) {
            let client = Client {
                waypoint: Some(format!("{namespace}/{waypoint}")),
                ..Client::in_namespace(namespace)
            };
            let ours = Ours { world: cluster, client: &client };
            let mut say = |what: String| found.push(format!("{name}: {waypoint}: {what}"));
            for host in hosts(world, at + 1) {
                for port in PORTS {
                    let (own, their) =
                        (ours.routes(&host, port), theirs.routes(host.as_str(), port));
                    if own.as_ref().map(|own| &own.entries) != their.as_ref()
                        && !own.as_ref().zip(their.as_ref()).is_some_and(|(own, their)| {
                            // Behind a route that takes everything Istio may send more.
                            own.is_complete && their.starts_with(&own.entries)
                        })
                    {
                        let own = own.map(|own| own.entries);
                        say(format!("{host}:{port}\n      us    {own:?}\n      Istio {their:?}"));
                    }
                    for subset in &subsets {
                        for name in ours.names(&host, subset, port) {
                            let (own, their) = (
                                ours.has_cluster(&host, subset, port, &name),
                                theirs.has_cluster(&name),
                            );
                            if own != their {
                                say(format!("cluster {name}: {own} for us, {their} for Istio"));
                            }
                        }
                    }
                }
                let (own, their) = (
                    ours.connections(&host, TCP_PORT),
                    theirs.connections(host.as_str(), TCP_PORT),
                );
                if own != their {
                    say(format!("{host}:{TCP_PORT}\n      us    {own:?}\n      Istio {their:?}"));
                }
            }
        }
    }
    found
}

/// The Services of a world.
fn hosts(world: &World, number: usize) -> Vec<Host> {
    let services = world.0.iter().filter(|piece| piece.object["kind"] == "Service");
    let hosts = services.map(|piece| {
        let text = |field: &str| piece.object["metadata"][field].as_str().unwrap_or_default();
        Host::resolve(&fill_text(text("name"), number), text("namespace"), "cluster.local")
    });
    hosts.collect()
}
