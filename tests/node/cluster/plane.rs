//! etcd, API server, controllers and scheduler, in the network of a node.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::audit::{self, Audit};
use super::namespaces::{ADDRESS, Namespaces};
use crate::harness::certs::LOOPBACK;
use crate::harness::control_plane::{write_credentials, write_kubeconfig};
use crate::harness::process::{Process, in_network};
use crate::harness::sandbox::Sandbox;
use crate::harness::{Authority, Kubectl, Result, programs};

/// Generous, because a busy machine is no failure; in practice about three seconds.
const START: Duration = Duration::from_secs(120);

/// The same in every network: nobody else is there.
pub(super) const PORT: u16 = 6443;

/// The address of Service `kubernetes`, the first of the range.
const SERVICE: &str = "10.96.0.1";

/// What a cluster has beside its nodes. Fields are dropped in order: whoever needs another goes first.
pub(super) struct Plane {
    pub(super) admin: Kubectl,
    _scheduler: Process,
    _controllers: Process,
    _api_server: Process,
    _etcd: Process,
}

impl Plane {
    pub(super) fn start(
        sandbox: &Arc<Sandbox>,
        authority: &Authority,
        namespaces: &Namespaces,
    ) -> Result<Self> {
        let names = [LOOPBACK, &[ADDRESS, SERVICE, "kubernetes.default.svc"]].concat();
        write_credentials(sandbox, authority, &names)?;
        let network = namespaces.network();
        let starter = Starter { sandbox, authority, network: &network };
        let etcd = starter.etcd()?;
        let admin = Kubectl {
            program: programs::find("kubectl")?,
            kubeconfig: starter.kubeconfig("admin", "admin", Some("system:masters"))?,
            home: sandbox.path().to_owned(),
            namespace: "default".to_owned(),
            network: Some(network.clone()),
        };
        let mut api_server = starter.api_server()?;
        api_server.wait_until(START, || {
            admin.run(&["get", "--raw", "/readyz"]).is_ok_and(|answer| answer.is_success())
        })?;
        let tokens = sandbox.path().join("tokens.key");
        let root = sandbox.path().join("ca.crt");
        let controllers = starter.controller(
            "kube-controller-manager",
            &[
                "--use-service-account-credentials".to_owned(),
                format!("--service-account-private-key-file={}", tokens.display()),
                format!("--root-ca-file={}", root.display()),
            ],
        )?;
        let scheduler = starter.controller("kube-scheduler", &[])?;
        Ok(Self {
            admin,
            _scheduler: scheduler,
            _controllers: controllers,
            _api_server: api_server,
            _etcd: etcd,
        })
    }
}

struct Starter<'a> {
    sandbox: &'a Arc<Sandbox>,
    authority: &'a Authority,
    network: &'a Path,
}

impl Starter<'_> {
    fn kubeconfig(&self, name: &str, user: &str, group: Option<&str>) -> Result<PathBuf> {
        write_kubeconfig(self.sandbox, self.authority, name, user, group, PORT)
    }

    fn start(&self, name: &str, arguments: &[String]) -> Result<Process> {
        let mut command = in_network(self.network, &programs::find(name)?);
        Process::spawn(self.sandbox, name, command.args(arguments))
    }

    fn etcd(&self) -> Result<Process> {
        let data = self.sandbox.path().join("etcd");
        // Nobody wants this data back after a crash.
        self.start("etcd", &[format!("--data-dir={}", data.display()), "--unsafe-no-fsync".into()])
    }

    fn api_server(&self) -> Result<Process> {
        let file = |name: &str| self.sandbox.path().join(name).display().to_string();
        let policy = self.sandbox.write("audit-policy.json", audit::policy().to_string())?;
        let kubelet = self.authority.client("kube-apiserver", Some("system:masters"))?;
        self.sandbox.write("kubelet-client.crt", &kubelet.certificate)?;
        self.sandbox.write("kubelet-client.key", &kubelet.key)?;
        self.start(
            "kube-apiserver",
            &[
                "--etcd-servers=http://127.0.0.1:2379".to_owned(),
                format!("--secure-port={PORT}"),
                format!("--advertise-address={ADDRESS}"),
                format!("--client-ca-file={}", file("ca.crt")),
                format!("--tls-cert-file={}", file("api.crt")),
                format!("--tls-private-key-file={}", file("api.key")),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", file("tokens.pub")),
                format!("--service-account-signing-key-file={}", file("tokens.key")),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                "--authorization-mode=Node,RBAC".to_owned(),
                "--enable-admission-plugins=NodeRestriction".to_owned(),
                "--allow-privileged=true".to_owned(),
                format!("--kubelet-client-certificate={}", file("kubelet-client.crt")),
                format!("--kubelet-client-key={}", file("kubelet-client.key")),
                "--kubelet-preferred-address-types=InternalIP".to_owned(),
                format!("--audit-policy-file={}", policy.display()),
                format!("--audit-log-path={}", Audit::file(self.sandbox.path()).display()),
            ],
        )
    }

    /// One of the programs that only talk to the API server.
    fn controller(&self, name: &str, further: &[String]) -> Result<Process> {
        let kubeconfig = self.kubeconfig(name, &format!("system:{name}"), None)?;
        let mut arguments = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--cert-dir={}", self.sandbox.path().join(name).display()),
            "--leader-elect=false".to_owned(),
        ];
        arguments.extend_from_slice(further);
        self.start(name, &arguments)
    }
}
