use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use sluicegate::world::{LabelSelector, Mesh, Operator};

use super::web;
use crate::harness::process::{Process, free_ports, unless_stolen};
use crate::harness::{ControlPlane, Result, http, programs};

const START: Duration = Duration::from_secs(60);

/// istiod, watching the API server, serving xDS in plain text on loopback.
pub(crate) struct Istiod {
    process: Process,
    pub(crate) xds_port: u16,
    http_port: u16,
    /// What it was told about the mesh.
    pub(crate) mesh: Mesh,
    config: PathBuf,
    ports: [u16; 2],
    /// How often everything was pushed.
    pushes: Mutex<u32>,
}

impl Istiod {
    /// One that is told this about the mesh, with further variables for its environment.
    pub(crate) fn start(
        plane: &ControlPlane,
        mesh: &Mesh,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let program = programs::find("pilot-discovery")?;
        unless_stolen(|| {
            let [http_port, monitoring_port, xds_port, outbound, inbound] = free_ports()?;
            let ports = [outbound, inbound];
            let config = mesh_config(mesh, ports, 0).to_string();
            let config = plane.sandbox().write(&format!("mesh-{xds_port}.yaml"), config)?;
            let networks =
                plane.sandbox().write(&format!("networks-{xds_port}.yaml"), "networks: {}\n")?;
            let mut command = Command::new(&program);
            command
                .arg("discovery")
                .arg("--kubeconfig")
                .arg(plane.sandbox().path().join("admin.kubeconfig"))
                .arg("--meshConfig")
                .arg(&config)
                .arg("--networksConfig")
                .arg(networks)
                .args(["--httpAddr", &format!("127.0.0.1:{http_port}")])
                .args(["--monitoringAddr", &format!("127.0.0.1:{monitoring_port}")])
                .args(["--grpcAddr", &format!("127.0.0.1:{xds_port}")])
                .args(["--secureGRPCAddr", "", "--httpsAddr", "", "--ctrlz_port", "0"])
                .args(["--domain", &mesh.domain])
                // Stock Envoy has no Istio filters.
                .env("PILOT_ENABLE_METADATA_EXCHANGE", "false")
                .env("PILOT_ENABLE_ALPN_FILTER", "false")
                .env("POD_NAMESPACE", "istio-system")
                .env("CLUSTER_ID", &mesh.cluster)
                .env("REVISION", &mesh.revision)
                .env("ENABLE_ENHANCED_DESTINATIONRULE_MERGE", mesh.has_enhanced_merge.to_string())
                .envs(environment.iter().copied())
                .current_dir(plane.sandbox().path());
            let mut process =
                Process::spawn(plane.sandbox(), &format!("istiod-{xds_port}"), &mut command)?;
            process
                .wait_until(START, || matches!(http::get(http_port, "/ready"), Some((200, _))))?;
            let (mesh, pushes) = (mesh.clone(), Mutex::default());
            Ok(Self { process, xds_port, http_port, mesh, config, ports, pushes })
        })
    }

    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        self.process.has_ended()
    }

    /// What istiod sends to a proxy of this name, made by the same code as for a push; `None` where it is not connected. Only
    /// what the proxy has asked for is in it.
    pub(crate) async fn dump(&self, proxy: &str) -> Result<Option<Value>> {
        let path = format!("/debug/config_dump?proxyID={proxy}");
        let (status, body) = web::get(self.http_port, &path).await?;
        match status {
            200 => Ok(Some(serde_json::from_str(&body)?)),
            404 => Ok(None),
            _ => Err(format!("istiod answers {status} to {path}: {body}").into()),
        }
    }

    /// Makes istiod tell everybody everything; from then on clusters have a connect timeout of at least this.
    ///
    /// istiod tells a proxy of a change only if the proxy depends on what changed as it was before. A DestinationRule that
    /// is new and hides another one from a client without being visible to it is such a case: what the client would be
    /// told on its next connection it is not told now. What counts here is what Istio means, not when it says so.
    pub(crate) fn push_all(&self) -> Result<f64> {
        let mut pushes = self.pushes.lock().unwrap_or_else(PoisonError::into_inner);
        *pushes += 1;
        fs::write(&self.config, mesh_config(&self.mesh, self.ports, *pushes).to_string())?;
        Ok(connect_timeout(*pushes))
    }
}

/// In seconds; a mark that nothing else depends on.
fn connect_timeout(pushes: u32) -> f64 {
    10.0 + f64::from(pushes) / 1000.0
}

/// The ports are those that captured traffic goes through: free ones, because all Envoys of a run listen on this machine.
fn mesh_config(mesh: &Mesh, [outbound, inbound]: [u16; 2], pushes: u32) -> Value {
    json!({
        // Nobody serves certificates here; clusters would wait for them for ever.
        "enableAutoMtls": false,
        "connectTimeout": format!("{:.3}s", connect_timeout(pushes)),
        "proxyListenPort": outbound,
        "proxyInboundListenPort": inbound,
        "rootNamespace": mesh.root_namespace,
        "defaultVirtualServiceExportTo": mesh.default_virtual_service_export_to,
        "defaultDestinationRuleExportTo": mesh.default_destination_rule_export_to,
        "defaultServiceExportTo": mesh.default_service_export_to,
        "discoverySelectors": mesh.discovery_selectors.iter().map(selector).collect::<Vec<_>>(),
    })
}

fn selector(LabelSelector { match_labels, match_expressions }: &LabelSelector) -> Value {
    let expressions = match_expressions.iter().map(|own| {
        let operator = match own.operator {
            Operator::In => "In",
            Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
        };
        json!({ "key": own.key, "operator": operator, "values": own.values })
    });
    json!({ "matchLabels": match_labels, "matchExpressions": expressions.collect::<Vec<_>>() })
}
