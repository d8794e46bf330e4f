//! Two hundred writes a second, as people and pipelines send them: what becomes of each is known before it is sent.
//!
//! The load is a process of its own in the network of the node, this program once more.
//!
//! ```text
//! let mut load = Load::start(&node)?;
//! load.phase("steady", || { thread::sleep(TEN_SECONDS); Ok(()) })?.nothing_was_lost()?;
//! ```

mod shop;
mod writer;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use crate::cluster::Node;
use crate::harness::Result;
use crate::harness::process::in_network;

/// Writes a second.
pub(crate) const RATE: u32 = 200;

/// The namespace of what is written.
const NAMESPACE: &str = "load";

/// Tells this program that it is the load, and by which kubeconfig it writes.
const VARIABLE: &str = "SLUICEGATE_LOAD";

/// What became of the writes of one phase.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Counts {
    pub(crate) phase: String,
    pub(crate) seconds: f64,
    pub(crate) sent: u64,
    /// Small steps and rollbacks that were stored, as they should be.
    pub(crate) admitted: u64,
    /// Typos that were refused by canary-step, as they should be.
    pub(crate) refused: u64,
    /// Typos that were stored.
    pub(crate) let_through: u64,
    /// Steps and rollbacks that were refused.
    pub(crate) wrongly_refused: u64,
    /// No verdict: nobody answered for the gate, or it could not say.
    pub(crate) missed: u64,
    /// Seconds from the first of those to the last.
    pub(crate) missed_within: f64,
    /// Half of the answers came within so many milliseconds, and all but one of a hundred.
    pub(crate) median: f64,
    pub(crate) slow: f64,
    /// What was said of the first that went wrong, of each kind.
    pub(crate) complaints: BTreeMap<String, String>,
}

impl Counts {
    /// Every write got its verdict, and the right one.
    pub(crate) fn nothing_was_lost(&self) -> Result {
        if self.missed > 0 {
            return Err(format!("writes were lost: {self:?}").into());
        }
        self.nothing_was_wrong()
    }

    /// Whoever got a verdict got the right one; and there was load.
    pub(crate) fn nothing_was_wrong(&self) -> Result {
        if self.let_through + self.wrongly_refused > 0 {
            return Err(format!("wrong verdicts: {self:?}").into());
        }
        self.was_load()
    }

    /// Nobody was refused because there is no gate any more; from when on there is none nobody can say to the millisecond.
    pub(crate) fn nobody_was_stopped(&self) -> Result {
        if self.missed + self.wrongly_refused > 0 {
            return Err(format!("writes were refused: {self:?}").into());
        }
        self.was_load()
    }

    fn was_load(&self) -> Result {
        let rate = self.sent as f64 / self.seconds;
        // Where API server, etcd, kubelet and gate share two processors, the load gets what is left: some 160 on an idle machine.
        if rate < f64::from(RATE) * 0.25 || self.admitted == 0 {
            return Err(format!("only {rate:.0} writes a second: {self:?}").into());
        }
        Ok(())
    }
}

/// The load while it runs; dropped, it ends.
pub(crate) struct Load {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Load {
    /// Deploys what is written to, and begins.
    pub(crate) fn start(node: &Node) -> Result<Self> {
        if !node.admin().exists("namespace", NAMESPACE)? {
            shop::deploy(&node.namespace(NAMESPACE)?)?;
        }
        let mut command = in_network(&node.namespaces().network(), &std::env::current_exe()?);
        command
            .env(VARIABLE, &node.admin().kubeconfig)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().map_err(|error| format!("starting the load: {error}"))?;
        let orders = process.stdin.take();
        let answers = process.stdout.take().ok_or("a load that cannot be heard")?;
        let mut load = Self { process, orders, answers: BufReader::new(answers) };
        // The connections are there, and the first writes are through.
        load.order("start")?;
        Ok(load)
    }

    /// What becomes of the writes while something is done.
    pub(crate) fn phase(&mut self, name: &str, act: impl FnOnce() -> Result) -> Result<Counts> {
        self.order("idle")?;
        let acted = act();
        let counts = self.order(name)?;
        acted?;
        let Counts {
            seconds,
            sent,
            admitted,
            refused,
            let_through,
            wrongly_refused,
            missed,
            missed_within,
            median,
            slow,
            ..
        } = &counts;
        eprintln!(
            "{name:>24}: {sent} writes in {seconds:.0} s, {admitted} admitted, {refused} refused, {let_through} let through, \
             {wrongly_refused} wrongly refused, {missed} without a verdict within {missed_within:.1} s; answers in {median:.1} ms, all but 1 % in {slow:.1} ms"
        );
        Ok(counts)
    }

    /// Ends a phase by its name.
    fn order(&mut self, name: &str) -> Result<Counts> {
        let orders = self.orders.as_mut().ok_or("the load has ended")?;
        writeln!(orders, "{name}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            return Err("the load has ended by itself".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // The end of its input is its end.
        self.orders = None;
        let _ = self.process.wait();
    }
}

/// Whether this process is to be the load, and for which cluster.
pub(crate) fn arguments() -> Option<OsString> {
    std::env::var_os(VARIABLE)
}

/// Writes until its input ends.
pub(crate) fn run(kubeconfig: &OsString) -> ExitCode {
    match writer::run(kubeconfig.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}
