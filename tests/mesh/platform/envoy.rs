use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sluicegate::world::Mesh;

use super::{Istiod, web};
use crate::harness::process::Process;
use crate::harness::sandbox::Sandbox;
use crate::harness::{Result, programs};
use std::path::PathBuf;
use std::sync::Arc;

const START: Duration = Duration::from_secs(30);

/// For whom an Envoy stands.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    /// For logs and messages.
    pub(crate) name: &'static str,
    pub(crate) mode: Mode,
    pub(crate) namespace: &'static str,
    pub(crate) labels: BTreeMap<String, String>,
    /// Unique among the proxies of a run.
    pub(crate) address: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A sidecar that traffic is captured for, as in most meshes.
    Sidecar,
    /// A sidecar that listens on 127.0.0.1 and the port of each service, so that a test can send requests through it.
    Loopback,
    /// The Pod of a gateway.
    Gateway,
    /// The Pod of a waypoint, which asks for nothing but this: `cds_config`, `lds_config`. It refuses the listeners that it is
    /// sent, because it lacks Istio's own filters, and stays connected; and with both it would not ask for the listeners before
    /// it has all that belongs to the clusters.
    Waypoint(&'static str),
}

/// A running Envoy with the configuration that istiod gives it.
pub(crate) struct Envoy {
    _process: Process,
    admin: u16,
}

impl Envoy {
    pub(crate) fn start(sandbox: &Arc<Sandbox>, istiod: &Istiod, proxy: &Proxy) -> Result<Self> {
        let name = format!("envoy-{}", proxy.name);
        let port_file = sandbox.path().join(format!("{name}.admin"));
        let bootstrap =
            sandbox.write(&format!("{name}.json"), bootstrap(istiod, proxy).to_string())?;
        let mut command = Command::new(program()?);
        command
            .arg("--config-path")
            .arg(bootstrap)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"])
            .arg("--admin-address-path")
            .arg(&port_file);
        let mut process = Process::spawn(sandbox, &name, &mut command)?;
        let mut admin = None;
        process.wait_until(START, || {
            let text = fs::read_to_string(&port_file).unwrap_or_default();
            admin = text.trim().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            admin.is_some()
        })?;
        let admin = admin.ok_or("Envoy told no admin port")?;
        Ok(Self { _process: process, admin })
    }

    /// What the admin interface says at this path.
    pub(crate) async fn ask(&self, path: &str) -> Result<Value> {
        let (status, body) = web::get(self.admin, path).await?;
        if status != 200 {
            return Err(format!("Envoy answers {status} to {path}: {body}").into());
        }
        Ok(serde_json::from_str(&body)?)
    }
}

/// `SLUICEGATE_ENVOY`, or what `make platform-mesh` fetched.
fn program() -> Result<PathBuf> {
    match std::env::var_os("SLUICEGATE_ENVOY") {
        Some(path) => Ok(PathBuf::from(path)),
        None => programs::find("envoy"),
    }
}

fn bootstrap(istiod: &Istiod, proxy: &Proxy) -> Value {
    let Proxy { namespace, labels, address, name, mode } = proxy;
    let (kind, interception) = match mode {
        Mode::Sidecar => ("sidecar", "REDIRECT"),
        Mode::Loopback => ("sidecar", "NONE"),
        Mode::Gateway => ("router", "REDIRECT"),
        Mode::Waypoint(_) => ("waypoint", "NONE"),
    };
    let Mesh { domain, cluster, .. } = &istiod.mesh;
    let source = json!({ "ads": {}, "resource_api_version": "V3" });
    let mut resources = json!({ "ads_config": {
        "api_type": "DELTA_GRPC", "transport_api_version": "V3",
        "grpc_services": [{ "envoy_grpc": { "cluster_name": "istiod" } }],
    } });
    let asked = match mode {
        Mode::Waypoint(one) => vec![*one],
        _ => vec!["lds_config", "cds_config"],
    };
    for one in asked {
        resources[one] = source.clone();
    }
    json!({
        "node": {
            "id": format!("{kind}~{address}~{name}.{namespace}~{namespace}.svc.{domain}"),
            "cluster": format!("{name}.{namespace}"),
            "locality": { "region": "north", "zone": "north-a" },
            "metadata": {
                "NAMESPACE": namespace, "LABELS": labels, "CLUSTER_ID": cluster, "NAME": name, "MESH_ID": domain,
                "INTERCEPTION_MODE": interception, "ISTIO_VERSION": "1.32.0", "NODE_NAME": "node-a",
            },
        },
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
        "dynamic_resources": resources,
        "static_resources": { "clusters": [{
            "name": "istiod", "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            } },
            "load_assignment": { "cluster_name": "istiod", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": {
                "socket_address": { "address": "127.0.0.1", "port_value": istiod.xds_port },
            } } }] }] },
        }] },
    })
}
