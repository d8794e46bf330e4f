//! A place where gates look after their certificates themselves: a namespace, the permissions that the manual tells people to
//! grant, and a configuration with a webhook for each gate.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};
use serde_json::{Value, json};

use super::control_plane::{ControlPlane, GATE_LABEL, GATE_USER};
use super::registration::Probe;
use super::{Gate, Kubectl, Result, list, manual};

/// The Secret and the Lease.
pub(crate) const SECRET: &str = "sluicegate-certs";

pub(crate) struct Site<'a> {
    plane: &'a ControlPlane,
    /// The namespace of the gates, the label of the namespaces behind them, and the configuration.
    pub(crate) name: String,
    pub(crate) kubectl: Kubectl,
}

impl<'a> Site<'a> {
    pub(crate) fn new(plane: &'a ControlPlane, name: &str) -> Result<Self> {
        let kubectl = plane.allow_gates_to_remember(name)?;
        let site = Self { plane, name: name.to_owned(), kubectl };
        site.allow_configuration(GATE_USER)?;
        Ok(site)
    }

    /// The line of the manual about the configuration, for this one's name.
    pub(crate) fn allow_configuration(&self, user: &str) -> Result {
        let role = manual("ClusterRole")?;
        let line = role.lines().find(|line| line.contains("validatingwebhookconfigurations"));
        let line = line.ok_or("the manual grants nothing on validatingwebhookconfigurations")?;
        let line =
            line.replace("resourceNames: [sluicegate]", &format!("resourceNames: [{}]", self.name));
        let rule: Value = serde_saphyr::from_str(line.trim().trim_start_matches("- "))?;
        let (group, name) = ("rbac.authorization.k8s.io", format!("{}-{user}", self.name));
        let objects = list(&[
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": name },
                "rules": [rule],
            }),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": name },
                "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": name },
                "subjects": [{ "apiGroup": group, "kind": "User", "name": user }],
            }),
        ]);
        self.kubectl.run_with(&["create", "-f", "-"], &objects.to_string())?.succeeded()?;
        Ok(())
    }

    /// A gate that has just started.
    pub(crate) fn spawn(&self, number: usize, arguments: &[&str]) -> Result<Gate> {
        self.spawn_as(GATE_USER, number, arguments)
    }

    pub(crate) fn spawn_as(&self, user: &str, number: usize, more: &[&str]) -> Result<Gate> {
        let mut arguments =
            vec!["--memory-namespace", &self.name, "--webhook-configuration", &self.name];
        arguments.extend(more);
        Gate::spawn_self_managed(self.plane, &format!("{}-{number}", self.name), user, &arguments)
    }

    /// A configuration as a chart has it, without `caBundle`: every write asks every gate.
    pub(crate) fn configuration(&self, gates: &[&Gate]) -> Value {
        let webhook = |(number, gate): (usize, &&Gate)| {
            json!({
                "name": format!("gate-{number}.{}.sluicegate.dev", self.name),
                "clientConfig": { "url": format!("https://127.0.0.1:{}/validate", gate.port()) },
                "rules": [{
                    "apiGroups": ["networking.istio.io"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                    "resources": ["virtualservices"], "scope": "Namespaced",
                }],
                "namespaceSelector": { "matchLabels": { GATE_LABEL: self.name } },
                "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 10,
            })
        };
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": { "name": self.name },
            "webhooks": gates.iter().enumerate().map(webhook).collect::<Vec<_>>(),
        })
    }

    /// Creates it, and a namespace behind the gates.
    pub(crate) fn register(&self, gates: &[&Gate]) -> Result<Probe> {
        let configuration = self.configuration(gates).to_string();
        self.kubectl.run_with(&["create", "-f", "-"], &configuration)?.succeeded()?;
        Ok(Probe(self.plane.namespace(&format!("{}-behind", self.name), Some(&self.name))?))
    }

    /// The configuration as it is stored.
    pub(crate) fn stored(&self) -> Result<Value> {
        let get = [
            "get",
            "validatingwebhookconfiguration",
            &self.name,
            "--show-managed-fields",
            "-o",
            "json",
        ];
        Ok(serde_json::from_str(self.kubectl.run(&get)?.succeeded()?.stdout())?)
    }

    /// The `caBundle` of every webhook; `None` where they are not the same, or there is none.
    pub(crate) fn bundle(&self) -> Result<Option<String>> {
        let each = "{{with .clientConfig.caBundle}}{{. | base64decode}}{{end}}#";
        let path = format!("go-template={{{{range .webhooks}}}}{each}{{{{end}}}}");
        let get = ["get", "validatingwebhookconfiguration", &self.name, "-o", &path];
        let answer = self.kubectl.run(&get)?.succeeded()?;
        let mut all = answer.stdout().split_terminator('#').collect::<Vec<_>>();
        all.dedup();
        Ok(match all.as_slice() {
            [one] if !one.is_empty() => Some((*one).to_owned()),
            _ => None,
        })
    }

    /// A key of the Secret; `None` without either.
    pub(crate) fn secret(&self, key: &str) -> Result<Option<String>> {
        let path = format!(
            "go-template={{{{with index .data \"{key}\"}}}}{{{{. | base64decode}}}}{{{{end}}}}"
        );
        let get = ["get", "secret", SECRET, "--ignore-not-found", "-o", &path];
        let answer = self.kubectl.run(&get)?.succeeded()?;
        Ok(Some(answer.stdout().to_owned()).filter(|text| !text.is_empty()))
    }

    /// A metric of all gates together.
    pub(crate) fn sum(gates: &[&Gate], metric: &str) -> Result<u64> {
        gates.iter().map(|gate| gate.metric(metric)).sum()
    }
}

/// Shakes hands with a gate as a client that trusts this bundle; the certificate that it showed.
pub(crate) fn handshake(port: u16, bundle: &str) -> Result<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(
        CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(std::result::Result::ok),
    );
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from("127.0.0.1")?)?;
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    let mut answer = [0; 1];
    let mut stream = Stream::new(&mut client, &mut socket);
    std::io::Write::write_all(&mut stream, request)?;
    std::io::Read::read_exact(&mut stream, &mut answer)?;
    let shown = client.peer_certificates().and_then(|chain| chain.first());
    Ok(shown.ok_or("no certificate was shown")?.to_vec())
}
