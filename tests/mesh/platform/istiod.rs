use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::process::{Process, free_ports, unless_stolen};
use crate::harness::{ControlPlane, Result, http, programs};

const START: Duration = Duration::from_secs(60);

/// istiod, watching the API server, serving xDS in plain text on loopback.
pub(crate) struct Istiod {
    _process: Process,
    pub(crate) xds_port: u16,
}

impl Istiod {
    /// With further variables for its environment.
    pub(crate) fn start(plane: &ControlPlane, environment: &[(&str, &str)]) -> Result<Self> {
        let program = programs::find("pilot-discovery")?;
        unless_stolen(|| {
            let [http_port, monitoring_port, xds_port, outbound, inbound] = free_ports()?;
            let mesh = mesh_config(outbound, inbound).to_string();
            let mesh = plane.sandbox().write(&format!("mesh-{xds_port}.yaml"), mesh)?;
            let networks =
                plane.sandbox().write(&format!("networks-{xds_port}.yaml"), "networks: {}\n")?;
            let mut command = Command::new(&program);
            command
                .arg("discovery")
                .arg("--kubeconfig")
                .arg(plane.sandbox().path().join("admin.kubeconfig"))
                .arg("--meshConfig")
                .arg(mesh)
                .arg("--networksConfig")
                .arg(networks)
                .args(["--httpAddr", &format!("127.0.0.1:{http_port}")])
                .args(["--monitoringAddr", &format!("127.0.0.1:{monitoring_port}")])
                .args(["--grpcAddr", &format!("127.0.0.1:{xds_port}")])
                .args(["--secureGRPCAddr", "", "--httpsAddr", "", "--ctrlz_port", "0"])
                .args(["--domain", "cluster.local"])
                // Stock Envoy has no Istio filters.
                .env("PILOT_ENABLE_METADATA_EXCHANGE", "false")
                .env("PILOT_ENABLE_ALPN_FILTER", "false")
                .env("POD_NAMESPACE", "istio-system")
                .env("CLUSTER_ID", "Kubernetes")
                .env("REVISION", "default")
                .envs(environment.iter().copied())
                .current_dir(plane.sandbox().path());
            let mut process =
                Process::spawn(plane.sandbox(), &format!("istiod-{xds_port}"), &mut command)?;
            process
                .wait_until(START, || matches!(http::get(http_port, "/ready"), Some((200, _))))?;
            Ok(Self { _process: process, xds_port })
        })
    }
}

/// The ports are those that captured traffic goes through: free ones, because all Envoys of a run listen on this machine.
fn mesh_config(outbound: u16, inbound: u16) -> Value {
    json!({
        // Nobody serves certificates here; clusters would wait for them for ever.
        "enableAutoMtls": false,
        "proxyListenPort": outbound,
        "proxyInboundListenPort": inbound,
    })
}
