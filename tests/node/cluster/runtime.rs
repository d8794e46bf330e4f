//! containerd, and the images in it.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::image::Image;
use super::namespaces::{Namespaces, Unshared};
use crate::harness::sandbox::Sandbox;
use crate::harness::{Result, programs};

const START: Duration = Duration::from_secs(60);

/// Where containerd listens; in mounts of its own, so it is the same for every node.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";

/// What holds the network of a Pod.
const PAUSE: &str = "sluicegate.dev/pause:node";

pub(super) struct Runtime {
    _containerd: Unshared,
    ctr: PathBuf,
    sandbox: Arc<Sandbox>,
}

impl Runtime {
    pub(super) fn start(sandbox: &Arc<Sandbox>, namespaces: &Namespaces) -> Result<Self> {
        let programs = ["containerd", "containerd-shim-runc-v2", "ptp"];
        let [containerd, shim, plugin] = programs.map(programs::find);
        let (containerd, shim, plugin) = (containerd?, shim?, plugin?);
        let runc = find_or_installed("runc")?;
        let plugins = plugin.parent().ok_or("a plug-in without a folder")?;
        // Every Pod is reached through the node, so that kube-proxy sees what Pods send to Services.
        let pods = json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": [{
            "type": "ptp",
            "ipam": {
                "type": "host-local", "dataDir": "/run/cni",
                "ranges": [[{ "subnet": "10.244.0.0/24" }]], "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }]});
        let network = sandbox.write("cni/pods.conflist", pods.to_string())?;
        let network = network.parent().unwrap_or(Path::new(""));
        let config = config(&sandbox.path().join("containerd"), plugins, network, &shim, &runc);
        let config = sandbox.write("containerd.toml", config)?;
        let mut containerd = namespaces.spawn("containerd", &containerd, |command| {
            command.arg("--config").arg(config).env("PATH", path_with(&runc))
        })?;
        let ctr = programs::find("ctr")?;
        let version = ["--address", SOCKET, "--connect-timeout", "1s", "version"];
        containerd.process().wait_until(START, || {
            namespaces.run(&ctr, &version).is_ok_and(|output| output.status.success())
        })?;
        let runtime = Self { _containerd: containerd, ctr, sandbox: Arc::clone(sandbox) };
        let program = programs::find("pod")?;
        let pause = Image { name: PAUSE, program: &program, arguments: &["pause"] };
        runtime.import(namespaces, &pause)?;
        Ok(runtime)
    }

    pub(super) fn import(&self, namespaces: &Namespaces, image: &Image<'_>) -> Result {
        let name = image.name.replace(['/', ':'], "-");
        let file: PathBuf = self.sandbox.write(&format!("{name}.tar"), image.archive()?)?;
        let imported = self.import_archive(namespaces, &file);
        std::fs::remove_file(&file)?;
        imported
    }

    pub(super) fn import_archive(&self, namespaces: &Namespaces, archive: &Path) -> Result {
        self.ctr(namespaces, &["images", "import", &archive.display().to_string()])?;
        Ok(())
    }

    /// SIGKILL for the containers of a Pod.
    #[allow(dead_code, reason = "only the chart's tests, which share this, crash a single Pod")]
    pub(super) fn crash(&self, namespaces: &Namespaces, pod: &str) -> Result {
        let label = |name: &str, value: &str| format!("labels.\"{name}\"=={value}");
        let kind = label("io.cri-containerd.kind", "container");
        let filter = [label("io.kubernetes.pod.name", pod), kind].join(",");
        let found = self.ctr(namespaces, &["containers", "list", "--quiet", &filter])?;
        if found.trim().is_empty() {
            return Err(format!("{pod} has no container").into());
        }
        for container in found.split_whitespace() {
            self.ctr(namespaces, &["tasks", "kill", "--signal", "SIGKILL", container])?;
        }
        Ok(())
    }

    /// What it prints.
    fn ctr(&self, namespaces: &Namespaces, arguments: &[&str]) -> Result<String> {
        let head = ["--address", SOCKET, "--namespace", "k8s.io"];
        let output = namespaces.run(&self.ctr, &[&head[..], arguments].concat())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("ctr {}: {said}", arguments.join(" ")).into())
    }
}

fn config(state: &Path, plugins: &Path, network: &Path, shim: &Path, runc: &Path) -> String {
    let [state, plugins, network, shim, runc] = [state, plugins, network, shim, runc]
        .map(|path| format!("{:?}", path.display().to_string()));
    let runtime = "plugins.\"io.containerd.cri.v1.runtime\"";
    format!(
        r#"
version = 3
root = "/var/lib/containerd"
state = {state}
disabled_plugins = ["io.containerd.nri.v1.nri"]

[grpc]
address = "{SOCKET}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"

[{runtime}]
disable_apparmor = true
# A machine that is itself in a sandbox may not lower it.
restrict_oom_score_adj = true

[{runtime}.cni]
bin_dirs = [{plugins}]
conf_dir = {network}
use_internal_loopback = true

[{runtime}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = {shim}

[{runtime}.containerd.runtimes.runc.options]
BinaryName = {runc}
SystemdCgroup = false
"#
    )
}

/// A program that the system may have: `make platform-node` leaves out those on the PATH.
pub(super) fn find_or_installed(name: &str) -> Result<PathBuf> {
    let missing = match programs::find(name) {
        Ok(path) => return Ok(path),
        Err(missing) => missing,
    };
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).map(|folder| folder.join(name));
    places.into_iter().find(|path| path.is_file()).ok_or(missing)
}

/// The PATH with a program that others look for by its name.
pub(super) fn path_with(program: &Path) -> String {
    let folder = program.parent().unwrap_or(Path::new("/usr/sbin")).display();
    format!("{folder}:{}", env::var("PATH").unwrap_or_default())
}
