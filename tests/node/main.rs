//! The gate as Pods of a real cluster with one node: kubelet, containerd and kube-proxy, in namespaces of their own.
//!
//! `make test-cluster` builds what is needed and runs them, as root. A plain `cargo test` leaves them out;
//! `cargo test --test node -- --include-ignored NAME` runs those whose name contains NAME. Who is not root is told so, and nothing
//! is tested; with CI set, that is a failure. With `SLUICEGATE_E2E_KEEP` set, the folders with all logs stay.

mod cluster;
// The end-to-end tests use all of it; these have an application and a gate of their own.
#[allow(dead_code, unused_imports)]
#[path = "../e2e/harness/mod.rs"]
mod harness;
mod scenarios;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use libtest_mimic::{Arguments, Trial};

use self::cluster::{Argo, Flagger, Gate, Node};
use self::harness::{Failures, Result, text};

/// Scenarios side by side. Those with a delivery controller wait most of the time: it takes a step in ten seconds.
const THREADS: usize = 10;

/// The node and the gate that most scenarios share, started by the first that asks.
///
/// What is started last is dropped first.
#[derive(Default)]
pub(crate) struct Stage {
    argo: OnceLock<std::result::Result<Argo, String>>,
    turn: Mutex<()>,
    flagger: OnceLock<std::result::Result<Flagger, String>>,
    running: OnceLock<std::result::Result<Running, String>>,
    is_restless: bool,
}

pub(crate) struct Running {
    pub(crate) gate: Gate,
    pub(crate) node: Node,
}

impl Stage {
    /// One whose gate comes and goes: what it counts and logs is lost, and only the API server knows of all writes.
    pub(crate) fn restless() -> Self {
        Self { is_restless: true, ..Self::default() }
    }

    /// Whoever starts a node of its own waits here for the one before: nodes that all start at once starve each other.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> Result<&Running> {
        let running = self.running.get_or_init(|| Running::start().map_err(text));
        running.as_ref().map_err(|error| error.as_str().into())
    }

    /// Flagger on that node.
    fn flagger(&self) -> Result<&Flagger> {
        let node = &self.running()?.node;
        let flagger = self.flagger.get_or_init(|| Flagger::start(node).map_err(text));
        flagger.as_ref().map_err(|error| error.as_str().into())
    }

    /// Argo Rollouts on that node.
    fn argo(&self) -> Result<&Argo> {
        let node = &self.running()?.node;
        let argo = self.argo.get_or_init(|| Argo::start(node).map_err(text));
        argo.as_ref().map_err(|error| error.as_str().into())
    }

    fn print_logs(&self) {
        if let Some(Ok(running)) = self.running.get() {
            running.node.print_logs();
            eprintln!("{}", running.gate.log().unwrap_or_else(text));
        }
    }
}

impl Running {
    pub(crate) fn start() -> Result<Self> {
        let node = Node::start()?;
        let gate = node.deploy_gate(2).inspect_err(|_| node.print_logs())?;
        Ok(Self { gate, node })
    }
}

/// An own `main`, because the node has to be ended after the last scenario and statics are never dropped.
fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    if let Some(code) = cluster::unless_a_node_can_be_held(&arguments) {
        return code;
    }
    let (stage, failures) = (Arc::new(Stage::default()), Arc::new(Failures::default()));
    let trials = scenarios::all().map(|(name, scenario)| {
        let (stage, failures) = (Arc::clone(&stage), Arc::clone(&failures));
        let run = move || failures.noted(name, scenario(&stage));
        Trial::test(name, run).with_ignored_flag(true)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if conclusion.has_failed() {
        stage.print_logs();
        failures.print();
    }
    drop(stage);
    conclusion.exit_code()
}
