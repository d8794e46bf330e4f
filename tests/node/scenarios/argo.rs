//! What all scenarios of Argo Rollouts have in common: namespaces side by side, and that nothing was refused in them.

use std::sync::{Condvar, Mutex, PoisonError};
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
    let (running, argo) = (stage.running()?, stage.argo()?);
    let _place = Place::take();
    let demo = Demo::deploy(&running.node, argo, name, mode, plan)?;
    live(&demo)?;
    if stage.is_restless { demo.was_never_stopped() } else { demo.ends(&running.gate) }
}

/// So many at a time: unlike Flagger, Argo Rollouts goes on as fast as Pods start, and starting them is work.
const PLACES: usize = 8;

static FREE: (Mutex<usize>, Condvar) = (Mutex::new(PLACES), Condvar::new());

struct Place;

impl Place {
    fn take() -> Self {
        let free = FREE.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = FREE.1.wait_while(free, |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *FREE.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        FREE.1.notify_one();
    }
}
