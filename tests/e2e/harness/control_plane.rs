//! etcd and kube-apiserver, the real ones, on loopback, with Istio's CRDs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::certs::{Authority, LOOPBACK, token_keys};
use super::kubectl::Kubectl;
use super::process::{Process, free_ports, unless_stolen};
use super::sandbox::Sandbox;
use super::{Result, eventually, http, manual, programs};

/// Generous, because a busy machine is no failure; in practice about two seconds.
const START: Duration = Duration::from_secs(60);

const ISTIO_CRDS: &str = "istio-crds.yaml";

/// The namespace label that says which gate a namespace is behind.
pub(crate) const GATE_LABEL: &str = "e2e.sluicegate.dev/gate";

/// The user that the gates connect as.
pub(crate) const GATE_USER: &str = "sluicegate";

/// The gate's own namespace, as the manual calls it.
pub(super) const HOME: &str = "sluicegate-system";

pub(crate) struct ControlPlane {
    // Stopped in this order: whoever needs another goes first.
    controllers: Mutex<Option<Process>>,
    _api_server: Process,
    _etcd: Process,
    api_port: u16,
    admin: Kubectl,
    authority: Authority,
    sandbox: Arc<Sandbox>,
}

impl ControlPlane {
    pub(crate) fn start(sandbox: Arc<Sandbox>) -> Result<Self> {
        let plane = Self::bare(sandbox)?;
        plane.install_istio()?;
        Ok(plane)
    }

    /// Without Istio's kinds.
    pub(crate) fn bare(sandbox: Arc<Sandbox>) -> Result<Self> {
        // Looked for first: a missing program is said before anything has been started.
        programs::find(ISTIO_CRDS)?;
        let [kubectl, etcd, api_server] = ["kubectl", "etcd", "kube-apiserver"].map(programs::find);
        let (kubectl, etcd, api_server) = (kubectl?, etcd?, api_server?);

        let authority = Authority::new()?;
        write_credentials(&sandbox, &authority, LOOPBACK)?;
        let (etcd, etcd_port) = unless_stolen(|| start_etcd(&sandbox, &etcd))?;
        let (api_server, api_port, admin) = unless_stolen(|| {
            start_api_server(&sandbox, &authority, &api_server, etcd_port, &kubectl)
        })?;
        let plane = Self {
            controllers: Mutex::new(None),
            _api_server: api_server,
            _etcd: etcd,
            api_port,
            admin,
            authority,
            sandbox,
        };
        plane.allow_gates_to_read()?;
        Ok(plane)
    }

    pub(crate) fn api_port(&self) -> u16 {
        self.api_port
    }

    pub(crate) fn admin(&self) -> &Kubectl {
        &self.admin
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    /// A new namespace, behind a gate or behind none, and the administrator's kubectl in it.
    pub(crate) fn namespace(&self, name: &str, gate: Option<&str>) -> Result<Kubectl> {
        let labels = gate.map_or_else(|| json!({}), |gate| json!({ GATE_LABEL: gate }));
        let space = Kubectl { namespace: name.to_owned(), ..self.admin.clone() };
        let objects = super::list(&[
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } }),
            // The controller that makes it does not run, and without it no pod is admitted.
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } }),
        ]);
        space.run_with(&["create", "-f", "-"], &objects.to_string())?.succeeded()?;
        Ok(space)
    }

    /// A kubeconfig in a folder of this run, for a user known by a client certificate.
    pub(crate) fn kubeconfig(&self, name: &str, user: &str, port: u16) -> Result<PathBuf> {
        write_kubeconfig(&self.sandbox, &self.authority, name, user, None, port)
    }

    /// Starts the controllers that clean up after deletions, once. No others: they would edit what the tests write
    /// (pods without a node, endpoint slices).
    pub(crate) fn start_controllers(&self) -> Result {
        let mut controllers = self.controllers.lock().unwrap_or_else(PoisonError::into_inner);
        if controllers.is_some() {
            return Ok(());
        }
        let program = programs::find("kube-controller-manager")?;
        let user = "system:kube-controller-manager";
        let kubeconfig = self.kubeconfig("kube-controller-manager", user, self.api_port)?;
        let process = unless_stolen(|| {
            let [port] = free_ports()?;
            let mut command = Command::new(&program);
            command
                .arg(format!("--kubeconfig={}", kubeconfig.display()))
                .arg(format!(
                    "--service-account-private-key-file={}",
                    self.sandbox.path().join("tokens.key").display()
                ))
                .arg(format!("--secure-port={port}"))
                .args([
                    "--bind-address=127.0.0.1",
                    "--leader-elect=false",
                    "--use-service-account-credentials",
                ])
                .arg("--controllers=namespace-controller,garbage-collector-controller")
                .arg(format!(
                    "--cert-dir={}",
                    self.sandbox.path().join("kube-controller-manager").display()
                ));
            let mut process =
                Process::spawn(&self.sandbox, "kube-controller-manager", &mut command)?;
            process.wait_until(START, || http::listens(port))?;
            Ok(process)
        })?;
        *controllers = Some(process);
        Ok(())
    }

    pub(crate) fn install_istio(&self) -> Result {
        install_crds(&self.admin, &programs::find(ISTIO_CRDS)?)
    }

    /// What the gates may read is what the manual tells people to grant, and not a word more.
    fn allow_gates_to_read(&self) -> Result {
        self.admin.run_with(&["create", "-f", "-"], manual("ClusterRole")?)?.succeeded()?;
        let group = "rbac.authorization.k8s.io";
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": GATE_USER },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": "sluicegate" },
            "subjects": [{ "apiGroup": group, "kind": "User", "name": GATE_USER }],
        });
        self.admin.run_with(&["create", "-f", "-"], &binding.to_string())?.succeeded()?;
        self.allow_gates_to_remember(HOME)?;
        Ok(())
    }

    /// A namespace in which gates may keep what they remember, by what the manual tells people to grant.
    pub(crate) fn allow_gates_to_remember(&self, namespace: &str) -> Result<Kubectl> {
        let own = self.namespace(namespace, None)?;
        let role = manual("Role")?.replace(HOME, namespace);
        own.run_with(&["create", "-f", "-"], &role)?.succeeded()?;
        let group = "rbac.authorization.k8s.io";
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": GATE_USER },
            "roleRef": { "apiGroup": group, "kind": "Role", "name": "sluicegate" },
            "subjects": [{ "apiGroup": group, "kind": "User", "name": GATE_USER }],
        });
        own.run_with(&["create", "-f", "-"], &binding.to_string())?.succeeded()?;
        Ok(own)
    }
}

/// Istio's kinds, and the moment in which they are served.
pub(crate) fn install_crds(admin: &Kubectl, file: &Path) -> Result {
    admin.run(&["create", "-f", &file.display().to_string()])?.succeeded()?;
    admin
        .run(&["wait", "crd", "--all", "--for=condition=Established", "--timeout=30s"])?
        .succeeded()?;
    // Established says that the names are taken; the handlers follow a moment later.
    eventually("serving Istio's kinds", START, || {
        let kinds =
            "virtualservices.v1.networking.istio.io,destinationrules.v1.networking.istio.io";
        Ok(admin.run(&["get", kinds])?.is_success())
    })
}

/// What the API server proves itself with, at these names and addresses, and the keys of the tokens that it issues.
pub(crate) fn write_credentials(
    sandbox: &Sandbox,
    authority: &Authority,
    names: &[&str],
) -> Result {
    let serving = authority.server_at("kube-apiserver", names)?;
    sandbox.write("ca.crt", authority.certificate())?;
    sandbox.write("api.crt", &serving.certificate)?;
    sandbox.write("api.key", &serving.key)?;
    let (private, public) = token_keys()?;
    sandbox.write("tokens.key", private)?;
    sandbox.write("tokens.pub", public)?;
    Ok(())
}

/// A kubeconfig in a folder of this run, for a user known by a client certificate.
pub(crate) fn write_kubeconfig(
    sandbox: &Sandbox,
    authority: &Authority,
    name: &str,
    user: &str,
    group: Option<&str>,
    port: u16,
) -> Result<PathBuf> {
    let pair = authority.client(user, group)?;
    let certificate = sandbox.write(&format!("{name}.crt"), &pair.certificate)?;
    let key = sandbox.write(&format!("{name}.key"), &pair.key)?;
    let user = json!({ "client-certificate": certificate, "client-key": key });
    write_kubeconfig_with(sandbox, name, &user, port)
}

/// The same for a user who says in another way who they are.
pub(crate) fn write_kubeconfig_with(
    sandbox: &Sandbox,
    name: &str,
    user: &Value,
    port: u16,
) -> Result<PathBuf> {
    // JSON is YAML, and every reader of a kubeconfig takes it.
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "e2e",
        "contexts": [{ "name": "e2e", "context": { "cluster": "e2e", "user": name } }],
        "clusters": [{ "name": "e2e", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority": sandbox.path().join("ca.crt"),
        }}],
        "users": [{ "name": name, "user": user }],
    });
    sandbox.write(&format!("{name}.kubeconfig"), config.to_string())
}

fn start_etcd(sandbox: &Arc<Sandbox>, program: &Path) -> Result<(Process, u16)> {
    let [port, peer_port] = free_ports()?;
    let (client, peer) =
        (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    let mut command = Command::new(program);
    command
        .arg("--data-dir")
        .arg(sandbox.path().join(format!("etcd-{port}")))
        // Nobody wants this data back after a crash.
        .arg("--unsafe-no-fsync")
        .args(["--name", "e2e", "--initial-cluster", &format!("e2e={peer}")])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    let mut process = Process::spawn(sandbox, "etcd", &mut command)?;
    process.wait_until(START, || matches!(http::get(port, "/health"), Some((200, _))))?;
    Ok((process, port))
}

fn start_api_server(
    sandbox: &Arc<Sandbox>,
    authority: &Authority,
    program: &Path,
    etcd_port: u16,
    kubectl: &Path,
) -> Result<(Process, u16, Kubectl)> {
    let [port] = free_ports()?;
    let kubeconfig =
        write_kubeconfig(sandbox, authority, "admin", "admin", Some("system:masters"), port)?;
    let admin = Kubectl {
        program: kubectl.to_owned(),
        kubeconfig,
        home: sandbox.path().to_owned(),
        namespace: "default".to_owned(),
        network: None,
    };
    let file = |name: &str| sandbox.path().join(name).display().to_string();
    let mut command = Command::new(program);
    command
        .arg(format!("--etcd-servers=http://127.0.0.1:{etcd_port}"))
        .arg(format!("--secure-port={port}"))
        .args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
        ])
        .arg(format!("--cert-dir={}", file("kube-apiserver")))
        .arg(format!("--client-ca-file={}", file("ca.crt")))
        .arg(format!("--tls-cert-file={}", file("api.crt")))
        .arg(format!("--tls-private-key-file={}", file("api.key")))
        .args([
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
        ])
        .arg(format!("--service-account-key-file={}", file("tokens.pub")))
        .arg(format!("--service-account-signing-key-file={}", file("tokens.key")))
        .arg("--authorization-mode=RBAC");
    let mut process = Process::spawn(sandbox, "kube-apiserver", &mut command)?;
    process.wait_until(START, || {
        // kubectl would only take the processor from a server that is still starting.
        http::listens(port)
            && admin.run(&["get", "--raw", "/readyz"]).is_ok_and(|answer| answer.is_success())
    })?;
    Ok((process, port, admin))
}
