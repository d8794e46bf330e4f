//! What the scenarios stand on: real processes, started once, stopped whatever happens.

mod app;
mod argo;
pub(crate) mod certs;
pub(crate) mod control_plane;
mod controller;
mod flagger;
mod gate;
pub(crate) mod http;
mod kubectl;
mod load;
pub(crate) mod process;
pub(crate) mod programs;
mod proxy;
pub(crate) mod registration;
pub(crate) mod sandbox;
pub(crate) mod site;
mod verb;
mod workloads;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

pub(crate) use self::app::{App, deployment, destination_rule, list, service, virtual_service};
pub(crate) use self::argo::ArgoRollouts;
pub(crate) use self::certs::Authority;
pub(crate) use self::control_plane::ControlPlane;
pub(crate) use self::flagger::Flagger;
pub(crate) use self::gate::Gate;
pub(crate) use self::kubectl::{Answer, Kubectl};
pub(crate) use self::load::Load;
pub(crate) use self::proxy::Proxy;
pub(crate) use self::registration::{Fails, Registration};
pub(crate) use self::sandbox::Sandbox;
pub(crate) use self::site::Site;
pub(crate) use self::verb::{Said, verb};

/// Any error is only ever read by a person, so its text is enough.
pub(crate) type Result<T = ()> = std::result::Result<T, Failed>;

/// The value of the namespace label that puts a namespace behind the shared gate.
const SHARED: &str = "shared";

/// The control plane and the gate that most scenarios share.
///
/// Started by the first scenario that asks, so that `--list`, or a filter that matches nothing, starts nothing.
#[derive(Default)]
pub(crate) struct Stage(OnceLock<std::result::Result<Running, String>>);

struct Running {
    // Fields are dropped in order: the gate before the API server that it watches.
    _gate: Gate,
    plane: ControlPlane,
}

impl Stage {
    /// The control plane alone, for scenarios with a gate of their own.
    pub(crate) fn plane(&self) -> Result<&ControlPlane> {
        let running = self.0.get_or_init(|| {
            Running::start().map_err(|error| {
                // In full once; every scenario would repeat it otherwise.
                let error = text(error);
                eprintln!("\n{error}");
                format!("{} (more above)", error.lines().next().unwrap_or_default())
            })
        });
        running.as_ref().map(|running| &running.plane).map_err(Failed::from)
    }

    /// What the gates said, for whoever reads why a scenario failed.
    pub(crate) fn print_logs(&self) {
        if let Some(Ok(running)) = self.0.get() {
            running.plane.sandbox().print_logs("gate-");
        }
    }

    /// A namespace behind the shared gate.
    pub(crate) fn namespace(&self, name: &str) -> Result<Kubectl> {
        self.plane()?.namespace(name, Some(SHARED))
    }
}

impl Running {
    fn start() -> Result<Self> {
        let plane = ControlPlane::start(Arc::new(Sandbox::new()?))?;
        let gate = Gate::start(&plane, SHARED)?;
        gate.register(&plane, SHARED)?;
        Ok(Self { _gate: gate, plane })
    }
}

/// What went wrong, to be said once more after the logs: of a long output often only the end is kept.
#[derive(Default)]
pub(crate) struct Failures(Mutex<Vec<String>>);

impl Failures {
    /// The most lines of one failure.
    const LINES: usize = 30;

    /// Takes a note of how a scenario ended.
    pub(crate) fn noted(&self, scenario: &str, ended: Result) -> Result {
        ended.inspect_err(|error| {
            let error = error.message().unwrap_or_default();
            let lines = error.lines().take(Self::LINES).collect::<Vec<_>>().join("\n");
            let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            own.push(format!("{scenario}: {lines}"));
        })
    }

    pub(crate) fn print(&self) {
        let own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        own.iter().for_each(|failure| eprintln!("\nfailed: {failure}"));
    }
}

pub(crate) fn text(failed: Failed) -> String {
    failed.message().unwrap_or("failed without a message").to_owned()
}

/// The first object of this kind that the manual shows: what people copy has to work.
pub(crate) fn manual(kind: &str) -> Result<&'static str> {
    manuals(kind).next().ok_or_else(|| format!("docs/webhook.md shows no {kind}").into())
}

/// All objects of this kind that the manual shows.
pub(crate) fn manuals(kind: &str) -> impl Iterator<Item = &'static str> {
    let text = include_str!("../../../docs/webhook.md");
    let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let line = format!("kind: {kind}");
    blocks.filter(move |block| block.lines().any(|own| own == line))
}

/// Asks until the answer is yes; an error ends the wait at once.
pub(crate) fn eventually(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<bool>,
) -> Result {
    let deadline = Instant::now() + limit;
    while !ask()? {
        if Instant::now() > deadline {
            return Err(format!("{what}: not within {limit:?}").into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
