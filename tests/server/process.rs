//! `sluicegate serve` as its own process: what a Pod does from its first line of log to its exit code.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::Value;
use sluicegate::certs::self_signed::SelfSigned;
use tempfile::TempDir;

use crate::harness::{Client, SOON, harmless, probe, review_over, typo};

const DELAY: Duration = Duration::from_millis(1500);

/// Ended with the test, whatever becomes of it.
pub(crate) struct Gate {
    child: Child,
    log: Arc<Mutex<Vec<Value>>>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gate {
    pub(crate) fn start(ca: &Path, more: &[&str]) -> Self {
        let world = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/world");
        let mut child = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
            .args(["serve", "--listen", "127.0.0.1:0", "--status-listen", "127.0.0.1:0"])
            .arg("--world")
            .arg(world)
            .args(["--shutdown-delay", "1500ms", "--self-signed", "--self-signed-ca"])
            .arg(ca)
            .args(more)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (said, lines) = (child.stderr.take().expect("piped"), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                lines.lock().expect("no test panics here").push(line);
            }
        });
        Self { child, log }
    }

    pub(crate) fn said(&self, message: &str) -> Vec<Value> {
        let log = self.log.lock().expect("no test panics here");
        log.iter().filter(|line| line["message"] == message).cloned().collect()
    }

    /// Where it listens, as it says itself.
    pub(crate) async fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let deadline = Instant::now() + SOON;
        loop {
            if let [line, ..] = self.said("serving").as_slice() {
                let address = |name: &str| line[name].as_str()?.parse().ok();
                return address("reviews").zip(address("status")).expect("two addresses");
            }
            assert!(Instant::now() < deadline, "does not serve: {:?}", self.log);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn it_tells_of_each_refusal_once_and_leaves_in_order() {
    let root = TempDir::new().expect("a directory");
    let ca = root.path().join("ca.crt");
    let mut gate = Gate::start(&ca, &[]);
    let (address, status) = gate.addresses().await;
    let ca_pem = std::fs::read_to_string(&ca).expect("the CA");
    let trusted = SelfSigned { ca_pem, chain_pem: String::new(), key_pem: String::new() };
    let client = Client::new(address, &[&trusted]);
    assert_eq!(probe(status, "/readyz").await.code, StatusCode::OK);

    let mut kept = client.http1().await;
    for (body, allowed) in [(typo(), false), (harmless(), true), (typo(), false)] {
        let answer = review_over(&mut kept, body).await.expect("an answer");
        assert_eq!(answer.json()["response"]["allowed"], allowed, "{}", answer.text());
    }

    let told = Instant::now();
    let pid = gate.child.id().to_string();
    let status_of = Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid]).status();
    assert!(status_of.expect("a shell").success());
    while probe(status, "/readyz").await.code == StatusCode::OK {
        assert!(told.elapsed() < DELAY, "still ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Over a connection that was open, and over a new one: both are answered and then closed.
    let over_open = review_over(&mut kept, harmless()).await.expect("an answer");
    for answer in [over_open, client.review(harmless()).await] {
        assert_eq!(answer.json()["response"]["allowed"], true, "{}", answer.text());
        assert_eq!(answer.headers["connection"], "close");
    }
    assert!(told.elapsed() < DELAY, "the machine is too slow for this test");
    let exit = loop {
        if let Some(exit) = gate.child.try_wait().expect("a child") {
            break exit;
        }
        assert!(told.elapsed() < DELAY + SOON, "does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(exit.code(), Some(0));
    assert!(told.elapsed() >= DELAY, "left before the delay was over: {:?}", told.elapsed());

    let refused = gate.said("refused");
    assert_eq!(refused.len(), 2, "one line for each refusal: {refused:?}");
    for line in refused {
        assert_eq!(line["level"], "WARN", "{line}");
        for (field, want) in
            [("operation", "UPDATE"), ("namespace", "shop"), ("name", "reviews"), ("user", "ada")]
        {
            assert_eq!(line[field], want, "{line}");
        }
        assert!(
            line["rules"].as_str().is_some_and(|rules| rules.contains("canary-step")),
            "{line}"
        );
        let reason = line["reason"].as_str().expect("a reason");
        assert!(
            reason.starts_with("canary-step: spec.http[0]") && !reason.contains('\n'),
            "{line}"
        );
    }
}
