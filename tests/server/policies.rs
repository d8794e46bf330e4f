//! A policy in a mounted ConfigMap: what `sluicegate serve` makes of it when it starts, and when it changes.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use sluicegate::certs::self_signed::SelfSigned;
use tempfile::TempDir;

use crate::harness::{Client, SOON, probe, typo};
use crate::process::Gate;

const WARN: &str = "mode: Warn\n";
const ENFORCE: &str = "mode: Enforce\n";
const NAMED: &str = "{apiVersion: sluicegate.dev/v1alpha1, kind: CanaryPolicy, metadata: {name: shop}, spec: {mode: Warn}}\n";
const BROKEN: &str = "mode: Warn\nsteps: {max: 10}\n";
const CURRENT: &str = "sluicegate_policy_current";
const FAILURES: &str = "sluicegate_policy_reload_failures_total";

/// A ConfigMap as the kubelet mounts it.
struct Mount {
    root: TempDir,
    version: usize,
}

impl Mount {
    fn new(policy: Option<&str>) -> Self {
        let mut mount = Self { root: TempDir::new().expect("a directory"), version: 0 };
        mount.put(policy);
        symlink("..data/policy.yaml", mount.file()).expect("a link");
        mount
    }

    fn file(&self) -> std::path::PathBuf {
        self.root.path().join("policy.yaml")
    }

    /// Puts a new version in place of the old one.
    fn put(&mut self, policy: Option<&str>) {
        let of = |version| self.root.path().join(format!("..version_{version}"));
        let (old, new) = (of(self.version), of(self.version + 1));
        fs::create_dir(&new).expect("a directory");
        if let Some(policy) = policy {
            fs::write(new.join("policy.yaml"), policy).expect("a file");
        }
        let next = self.root.path().join("..data_tmp");
        symlink(&new, &next).expect("a link");
        fs::rename(&next, self.root.path().join("..data")).expect("a swap");
        if old.exists() {
            fs::remove_dir_all(old).expect("the old version goes");
        }
        self.version += 1;
    }
}

/// A gate that follows a mount.
struct Followed {
    gate: Gate,
    mount: Mount,
    client: Client,
    status: SocketAddr,
    _root: TempDir,
}

impl Followed {
    async fn start(policy: Option<&str>) -> Self {
        let root = TempDir::new().expect("a directory");
        let ca = root.path().join("ca.crt");
        let mount = Mount::new(policy);
        let file = mount.file().display().to_string();
        let gate = Gate::start(&ca, &["--policy", &file, "--policy-poll", "50ms"]);
        let (address, status) = gate.addresses().await;
        let ca_pem = fs::read_to_string(&ca).expect("the CA");
        let trusted = SelfSigned { ca_pem, chain_pem: String::new(), key_pem: String::new() };
        let client = Client::new(address, &[&trusted]);
        assert_eq!(probe(status, "/readyz").await.code, StatusCode::OK);
        Self { gate, mount, client, status, _root: root }
    }

    async fn admits_the_typo(&self) -> bool {
        let answer = self.client.review(typo()).await.json();
        answer["response"]["allowed"].as_bool().expect("a verdict")
    }

    async fn value(&self, metric: &str) -> f64 {
        let text = probe(self.status, "/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        line.expect(metric).parse().expect("a number")
    }

    /// Waits for a line of the log, the so-and-so-many'th with these words; the whole line.
    async fn line(&self, message: &str, count: usize) -> serde_json::Value {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(line) = self.gate.said(message).get(count - 1) {
                return line.clone();
            }
            assert!(Instant::now() < deadline, "never says {message:?} {count} times");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_policy_that_changes_is_in_force_without_a_restart() {
    let mut gate = Followed::start(Some(ENFORCE)).await;
    assert_eq!(gate.line("policy in force", 1).await["policies"], "policy-1");
    assert!(!gate.admits_the_typo().await);
    // A watch on the file would see the first of these at best.
    for (count, policy, admits, names) in
        [(1, WARN, true, "policy-1"), (2, ENFORCE, false, "policy-1"), (3, NAMED, true, "shop")]
    {
        gate.mount.put(Some(policy));
        assert_eq!(gate.line("new policy in force", count).await["policies"], names);
        assert_eq!(gate.admits_the_typo().await, admits, "{policy}");
        assert_eq!((gate.value(CURRENT).await, gate.value(FAILURES).await), (1.0, 0.0));
    }
    // The same again says nothing.
    gate.mount.put(Some(NAMED));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(gate.gate.said("new policy in force").len(), 3);
}

#[tokio::test]
async fn a_policy_that_cannot_be_used_leaves_the_last_good_one_in_force() {
    let message = "policy not replaced; what was in force stays";
    let mut gate = Followed::start(Some(WARN)).await;
    let unreadable = [
        ("mode: Enforce\nsteps: {max: 10}\n", "unknown field `steps`"),
        ("mode: Enforce\n  step: [\n", "policy.yaml:2"),
        ("rules: {canary-stop: {}}\n", "no rule is called \"canary-stop\""),
    ];
    for (count, (policy, words)) in (1..).zip(unreadable) {
        let failures = gate.value(FAILURES).await;
        gate.mount.put(Some(policy));
        let line = gate.line(message, count).await;
        assert!(line["error"].as_str().is_some_and(|error| error.contains(words)), "{line}");
        assert!(gate.admits_the_typo().await, "the last good policy warns");
        assert_eq!(gate.value(CURRENT).await, 0.0);
        let deadline = Instant::now() + SOON;
        while gate.value(FAILURES).await < failures + 3.0 {
            assert!(Instant::now() < deadline, "each reading counts");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(gate.gate.said(message).len(), count, "one line for each complaint");
    }
    gate.mount.put(None);
    gate.line(message, 4).await;
    assert!(gate.admits_the_typo().await, "a file that is gone says nothing");

    gate.mount.put(Some(WARN));
    gate.line("the file says again what is in force", 1).await;
    assert_eq!(gate.value(CURRENT).await, 1.0);
    gate.mount.put(Some(BROKEN));
    gate.line(message, 5).await;
    gate.mount.put(Some(ENFORCE));
    gate.line("new policy in force", 1).await;
    assert_eq!(gate.value(CURRENT).await, 1.0);
    assert!(!gate.admits_the_typo().await);
}

#[tokio::test]
async fn a_gate_that_starts_with_an_unusable_policy_serves_what_can_be_read_of_it() {
    // It asks for a warning and has a slip elsewhere: who was never refused is not refused now.
    let mut gate = Followed::start(Some(BROKEN)).await;
    let message = "the policy cannot be used as it is, and there is no last good one; what can be read of it is in force, with the defaults for the rest";
    let line = gate.line(message, 1).await;
    assert_eq!((&line["level"], &line["left_out"]), (&"ERROR".into(), &"policy-1: steps".into()));
    assert!(gate.admits_the_typo().await);
    assert_eq!(gate.value(CURRENT).await, 0.0);
    assert!(gate.value(FAILURES).await >= 1.0);
    gate.mount.put(Some(ENFORCE));
    gate.line("new policy in force", 1).await;
    assert!(!gate.admits_the_typo().await);
    assert_eq!(gate.value(CURRENT).await, 1.0);
}

#[tokio::test]
async fn a_gate_that_starts_without_a_readable_policy_serves_the_default() {
    let message = "the policy cannot be read, and there is no last good one; the built-in default is in force";
    for policy in [None, Some("mode: [\n"), Some("- Warn\n")] {
        let mut gate = Followed::start(policy).await;
        assert_eq!(gate.line(message, 1).await["level"], "ERROR", "{policy:?}");
        assert!(!gate.admits_the_typo().await, "{policy:?}");
        assert_eq!(gate.value(CURRENT).await, 0.0, "{policy:?}");
        gate.mount.put(Some(WARN));
        gate.line("new policy in force", 1).await;
        assert!(gate.admits_the_typo().await);
        assert_eq!(gate.value(CURRENT).await, 1.0);
    }
}
