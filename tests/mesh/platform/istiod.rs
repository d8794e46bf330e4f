use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::process::{Process, free_ports, unless_stolen};
use crate::harness::{ControlPlane, Result, http, programs};

const START: Duration = Duration::from_secs(60);

/// istiod, watching the API server, serving xDS in plain text on loopback.
pub(crate) struct Istiod {
    _process: Process,
    pub(crate) xds_port: u16,
    mesh: PathBuf,
    ports: [u16; 2],
    /// How often everything was pushed.
    pushes: Mutex<u32>,
}

impl Istiod {
    /// With further variables for its environment.
    pub(crate) fn start(plane: &ControlPlane, environment: &[(&str, &str)]) -> Result<Self> {
        let program = programs::find("pilot-discovery")?;
        unless_stolen(|| {
            let [http_port, monitoring_port, xds_port, outbound, inbound] = free_ports()?;
            let ports = [outbound, inbound];
            let mesh = mesh_config(ports, 0).to_string();
            let mesh = plane.sandbox().write(&format!("mesh-{xds_port}.yaml"), mesh)?;
            let networks =
                plane.sandbox().write(&format!("networks-{xds_port}.yaml"), "networks: {}\n")?;
            let mut command = Command::new(&program);
            command
                .arg("discovery")
                .arg("--kubeconfig")
                .arg(plane.sandbox().path().join("admin.kubeconfig"))
                .arg("--meshConfig")
                .arg(&mesh)
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
            Ok(Self { _process: process, xds_port, mesh, ports, pushes: Mutex::default() })
        })
    }

    /// Makes istiod tell everybody everything; from then on clusters have a connect timeout of at least this.
    ///
    /// istiod tells a proxy of a change only if the proxy depends on what changed as it was before. A DestinationRule that
    /// is new and hides another one from a client without being visible to it is such a case: what the client would be
    /// told on its next connection it is not told now. What counts here is what Istio means, not when it says so.
    pub(crate) fn push_all(&self) -> Result<f64> {
        let mut pushes = self.pushes.lock().unwrap_or_else(PoisonError::into_inner);
        *pushes += 1;
        fs::write(&self.mesh, mesh_config(self.ports, *pushes).to_string())?;
        Ok(connect_timeout(*pushes))
    }
}

/// In seconds; a mark that nothing else depends on.
fn connect_timeout(pushes: u32) -> f64 {
    10.0 + f64::from(pushes) / 1000.0
}

/// The ports are those that captured traffic goes through: free ones, because all Envoys of a run listen on this machine.
fn mesh_config([outbound, inbound]: [u16; 2], pushes: u32) -> Value {
    json!({
        // Nobody serves certificates here; clusters would wait for them for ever.
        "enableAutoMtls": false,
        "connectTimeout": format!("{:.3}s", connect_timeout(pushes)),
        "proxyListenPort": outbound,
        "proxyInboundListenPort": inbound,
    })
}
