//! What runs on every node of a cluster: the kubelet and kube-proxy.

use std::sync::Arc;

use serde_json::json;

use super::namespaces::{ADDRESS, Namespaces, Unshared};
use super::plane::PORT;
use super::runtime::{SOCKET, find_or_installed, path_with};
use crate::harness::control_plane::write_kubeconfig;
use crate::harness::process::{Process, in_network};
use crate::harness::sandbox::Sandbox;
use crate::harness::{Authority, Result, programs};

/// The name of the only node.
pub(crate) const NODE: &str = "node";

/// Fields are dropped in order: the kubelet goes first, which would start again what ends.
pub(super) struct Agents {
    _kubelet: Unshared,
    _proxy: Process,
}

impl Agents {
    pub(super) fn start(
        sandbox: &Arc<Sandbox>,
        authority: &Authority,
        namespaces: &Namespaces,
    ) -> Result<Self> {
        let proxy = start_proxy(sandbox, authority, namespaces)?;
        let kubelet = start_kubelet(sandbox, authority, namespaces)?;
        Ok(Self { _kubelet: kubelet, _proxy: proxy })
    }
}

fn start_kubelet(
    sandbox: &Arc<Sandbox>,
    authority: &Authority,
    namespaces: &Namespaces,
) -> Result<Unshared> {
    let (user, group) = (format!("system:node:{NODE}"), Some("system:nodes"));
    let kubeconfig = write_kubeconfig(sandbox, authority, "kubelet", &user, group, PORT)?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": false },
            "x509": { "clientCAFile": sandbox.path().join("ca.crt") },
        },
        "authorization": { "mode": "AlwaysAllow" },
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "podLogsDir": sandbox.path().join("pods"),
        // No name is looked up here.
        "resolvConf": "",
        // The machine belongs to others, too: nothing is taken from it, and nothing is evicted because it is full.
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": false,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "maxPods": 250,
        "serializeImagePulls": false,
    });
    let config = sandbox.write("kubelet.json", config.to_string())?;
    namespaces.spawn("kubelet", &programs::find("kubelet")?, |command| {
        command.args([
            &format!("--config={}", config.display()),
            &format!("--kubeconfig={}", kubeconfig.display()),
            &format!("--node-ip={ADDRESS}"),
            &format!("--hostname-override={NODE}"),
        ])
    })
}

fn start_proxy(
    sandbox: &Arc<Sandbox>,
    authority: &Authority,
    namespaces: &Namespaces,
) -> Result<Process> {
    let user = "system:kube-proxy";
    let kubeconfig = write_kubeconfig(sandbox, authority, "kube-proxy", user, None, PORT)?;
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": { "kubeconfig": kubeconfig },
        "hostnameOverride": NODE,
        "clusterCIDR": "10.244.0.0/24",
        // Zero leaves the values of the machine as they are.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        "nftables": { "minSyncPeriod": "100ms" },
    });
    let config = sandbox.write("kube-proxy.json", config.to_string())?;
    let mut command = in_network(&namespaces.network(), &programs::find("kube-proxy")?);
    command.arg(format!("--config={}", config.display()));
    // It finds nft by the PATH.
    command.env("PATH", path_with(&find_or_installed("nft")?));
    Process::spawn(sandbox, "kube-proxy", &mut command)
}
