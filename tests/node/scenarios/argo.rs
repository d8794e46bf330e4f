//! What all scenarios of Argo Rollouts have in common: namespaces side by side, and that nothing was refused in them.

use std::thread;

use crate::Stage;
use crate::cluster::{Demo, Mode, Plan};
use crate::harness::Result;

/// By subsets and by Services, side by side.
pub(super) fn in_both_modes(
    stage: &Stage,
    name: &str,
    plan: &Plan,
    live: impl Fn(&Demo<'_>) -> Result + Sync,
) -> Result {
    let live = &live;
    thread::scope(|scope| {
        let modes = [Mode::Subsets, Mode::Services]
            .map(|mode| scope.spawn(move || in_mode(stage, name, mode, plan, live)));
        modes.into_iter().try_for_each(|mode| mode.join().map_err(|_| "a scenario panicked")?)
    })
}

/// Deploys `demo`, lets it live, and looks at every write of its controller.
pub(super) fn in_mode(
    stage: &Stage,
    name: &str,
    mode: Mode,
    plan: &Plan,
    live: impl Fn(&Demo<'_>) -> Result,
) -> Result {
    let running = stage.running()?;
    let demo = Demo::deploy(&running.node, running.argo()?, name, mode, plan)?;
    live(&demo)?;
    demo.was_never_refused(&running.gate)
}
