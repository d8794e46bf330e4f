//! The program under test, as its own process with its own user.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::certs::Pair;
use super::control_plane::{ControlPlane, GATE_USER, HOME};
use super::process::{Process, free_ports, unless_stolen};
use super::registration::{Fails, Registration};
use super::{Result, http};

const START: Duration = Duration::from_secs(30);

pub(crate) struct Gate {
    process: Process,
    port: u16,
    status_port: u16,
    tls: Option<PathBuf>,
}

impl Gate {
    /// A gate that is ready to judge.
    pub(crate) fn start(plane: &ControlPlane, name: &str) -> Result<Self> {
        Self::start_through(plane, name, plane.api_port())
    }

    /// A gate that reaches the API server by another port, and is ready.
    pub(crate) fn start_through(plane: &ControlPlane, name: &str, api_port: u16) -> Result<Self> {
        Self::start_as(plane, name, api_port, &[])
    }

    /// A gate with this policy, which is ready.
    pub(crate) fn start_with(plane: &ControlPlane, name: &str, policy: &Value) -> Result<Self> {
        let file = plane.sandbox().path().join(format!("gate-{name}-policy.yaml"));
        fs::write(&file, policy.to_string())?;
        let file = file.display().to_string();
        Self::start_as(plane, name, plane.api_port(), &["--policy", &file])
    }

    /// A gate that is told more on its command line, and is ready.
    pub(crate) fn start_as(
        plane: &ControlPlane,
        name: &str,
        api_port: u16,
        arguments: &[&str],
    ) -> Result<Self> {
        let mut gate = unless_stolen(|| Self::spawn(plane, name, api_port, arguments))?;
        let status_port = gate.status_port;
        gate.process.wait_until(START, || is_ready(status_port))?;
        Ok(gate)
    }

    /// A gate that answers but has never seen the cluster: nothing is behind `api_port`.
    pub(crate) fn start_blind(plane: &ControlPlane, name: &str, api_port: u16) -> Result<Self> {
        let gate = unless_stolen(|| Self::spawn(plane, name, api_port, &[]))?;
        if gate.is_ready() {
            return Err(format!("gate {name} says ready without having seen the cluster").into());
        }
        Ok(gate)
    }

    fn spawn(plane: &ControlPlane, name: &str, api_port: u16, arguments: &[&str]) -> Result<Self> {
        let [port, status_port] = free_ports()?;
        let kubeconfig = plane.kubeconfig(&format!("gate-{name}"), GATE_USER, api_port)?;
        let tls = plane.sandbox().path().join(format!("gate-{name}-tls-{port}"));
        fs::create_dir(&tls)?;
        mount(&tls, &plane.authority().server("sluicegate")?)?;
        let folder = tls.display().to_string();
        let mut own = vec!["--tls-dir", &folder, "--tls-poll", "1s"];
        own.extend(arguments);
        let gate = Self::run(plane, name, [port, status_port], &kubeconfig, &own)?;
        Ok(Self { tls: Some(tls), ..gate })
    }

    /// A gate that looks after its certificates itself, as this user. It answers, and need not be ready.
    pub(crate) fn spawn_self_managed(
        plane: &ControlPlane,
        name: &str,
        user: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let kubeconfig = plane.kubeconfig(&format!("gate-{name}"), user, plane.api_port())?;
        let own = [&["--certs", "self-managed", "--certs-name", "127.0.0.1"], arguments].concat();
        unless_stolen(|| Self::run(plane, name, free_ports()?, &kubeconfig, &own))
    }

    fn run(
        plane: &ControlPlane,
        name: &str,
        [port, status_port]: [u16; 2],
        kubeconfig: &Path,
        arguments: &[&str],
    ) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        command
            .arg("serve")
            .args([
                "--listen",
                &format!("127.0.0.1:{port}"),
                "--status-listen",
                &format!("127.0.0.1:{status_port}"),
            ])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            // The pause is for load balancers that have not heard of the end yet; there is none here.
            .args(["--shutdown-delay", "0s"])
            .args(arguments);
        if !arguments.contains(&"--memory-namespace") {
            command.args(["--memory-namespace", HOME]);
        }
        let mut process = Process::spawn(plane.sandbox(), &format!("gate-{name}"), &mut command)?;
        process.wait_until(START, || http::listens(port) && http::listens(status_port))?;
        Ok(Self { process, port, status_port, tls: None })
    }

    pub(crate) fn is_ready(&self) -> bool {
        is_ready(self.status_port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where /metrics answers.
    #[allow(dead_code)] // The chart's tests ask for it.
    pub(crate) fn status_port(&self) -> u16 {
        self.status_port
    }

    /// How the API server reaches this gate for the namespaces with this label; writes wait for it.
    pub(crate) fn registration(&self, plane: &ControlPlane, label: &str) -> Registration {
        Registration {
            label: label.to_owned(),
            port: self.port,
            fails: Fails::Closed,
            trusted: plane.authority().certificate().to_owned(),
        }
    }

    /// Puts the gate in front of the namespaces with this label, and waits until it is asked.
    pub(crate) fn register(&self, plane: &ControlPlane, label: &str) -> Result {
        self.registration(plane, label).create(plane)?.wait()
    }

    /// How many writes it has been asked about.
    pub(crate) fn reviews(&self) -> Result<u64> {
        self.metric("sluicegate_reviews_total")
    }

    /// A metric, all its series together.
    pub(crate) fn metric(&self, name: &str) -> Result<u64> {
        let metrics = self.metrics()?;
        let is_it =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let lines = metrics.lines().filter(is_it);
        let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        Ok(counts.sum())
    }

    pub(crate) fn metrics(&self) -> Result<String> {
        let (_, metrics) = http::get(self.status_port, "/metrics").ok_or("no metrics")?;
        Ok(metrics)
    }

    /// How many lines of its log have these words.
    pub(crate) fn said(&self, words: &[&str]) -> Result<usize> {
        let log = self.process.log()?;
        Ok(log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count())
    }

    /// Waits until it is ready.
    pub(crate) fn wait(&mut self) -> Result {
        let status_port = self.status_port;
        self.process.wait_until(START, || is_ready(status_port))
    }

    /// All that it has said.
    pub(crate) fn log(&self) -> Result<String> {
        self.process.log()
    }

    /// It refused nothing to this account.
    pub(crate) fn refused_nothing_of(&self, account: &str) -> Result {
        let is_refusal = |line: &&str| line.contains("refused") && line.contains(account);
        match self.process.log()?.lines().find(is_refusal) {
            Some(line) => Err(format!("the gate refused {account}: {line}").into()),
            None => Ok(()),
        }
    }

    /// Gives it another certificate, as the kubelet does when the Secret changes.
    pub(crate) fn rotate(&self, pair: &Pair) -> Result {
        mount(self.tls.as_ref().ok_or("it has no folder with a certificate")?, pair)
    }

    /// Ends it as the kernel would when memory runs out.
    pub(crate) fn kill(&mut self) -> Result {
        self.process.kill()
    }

    /// Asks it to end, as the kubelet does.
    pub(crate) fn terminate(&self) -> Result {
        self.process.terminate()
    }

    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        self.process.has_ended()
    }
}

fn is_ready(status_port: u16) -> bool {
    matches!(http::get(status_port, "/readyz"), Some((200, _)))
}

/// Lays a certificate out as the kubelet mounts a Secret: the names lead through `..data`, and only that link changes.
fn mount(folder: &Path, pair: &Pair) -> Result {
    let content = tempfile::Builder::new().prefix("..").tempdir_in(folder)?.keep();
    fs::write(content.join("tls.crt"), &pair.certificate)?;
    fs::write(content.join("tls.key"), &pair.key)?;
    let data = folder.join("..data");
    let first = !data.exists();
    let next = folder.join("..data_tmp");
    symlink(content.file_name().unwrap_or_default(), &next)?;
    fs::rename(&next, &data)?;
    if first {
        symlink("..data/tls.crt", folder.join("tls.crt"))?;
        symlink("..data/tls.key", folder.join("tls.key"))?;
    }
    Ok(())
}
