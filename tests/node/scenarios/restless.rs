//! Every life cycle of the delivery controllers once more, while every replica of the gate is killed again and again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Scenario, argo_people, argo_ramps, argo_routes, flagger, scenarios};
use crate::cluster::{Argo, Flagger};
use crate::harness::{Result, text};
use crate::{Running, Stage};

scenarios![every_life_cycle_goes_on_while_the_gate_is_killed_again_and_again];

/// From one end of all replicas to the next: they are back after some five seconds, and judge for the rest.
const PERIOD: Duration = Duration::from_secs(15);

/// Lives at a time: the Pods of the gate, which start all the time, need room, too.
const LIVES: usize = 8;

/// The first has a node of its own, and does more to its gate. In the other a person has to be in time, and without a gate she waits.
const ELSEWHERE: [&str; 2] =
    ["flagger_outlives_every_replica_of_the_gate", "a_person_gets_in_flaggers_way"];

/// What a person gets to hear in these, and what the controllers do, are as on any other day.
fn every_life_cycle_goes_on_while_the_gate_is_killed_again_and_again(stage: &Stage) -> Result {
    let _turn = stage.turn();
    let stage = Stage::restless();
    let ended = live_without_rest(&stage);
    if ended.is_err() {
        stage.print_logs();
    }
    ended
}

fn live_without_rest(stage: &Stage) -> Result {
    let running = stage.running()?;
    stage.flagger()?;
    stage.argo()?;
    let lives = [flagger::ALL, argo_ramps::ALL, argo_routes::ALL, argo_people::ALL];
    let lives = lives.into_iter().flatten().copied();
    let lives = lives.filter(|(name, _)| !ELSEWHERE.contains(name)).collect::<Vec<_>>();
    let over = AtomicBool::new(false);
    let (kills, failures) = thread::scope(|scope| {
        let killing = scope.spawn(|| kill_again_and_again(running, &over));
        let failures = live_side_by_side(&lives, stage);
        over.store(true, Ordering::Relaxed);
        (killing.join(), failures)
    });
    let kills = kills.map_err(|_| "the killer panicked")??;
    if !failures.is_empty() {
        return Err(failures.join("\n\n").into());
    }
    it_was_in_the_middle(running, lives.len(), kills)
}

/// In their order, so many at a time; what went wrong.
fn live_side_by_side(lives: &[Scenario], stage: &Stage) -> Vec<String> {
    let next = Mutex::new(lives.iter());
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    let failures = Mutex::new(Vec::new());
    let live = || {
        while let Some((name, live)) = take() {
            if let Err(error) = live(stage) {
                let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.push(format!("{name}: {}", text(error)));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..LIVES {
            scope.spawn(live);
        }
    });
    failures.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// How often, until it is over.
fn kill_again_and_again(running: &Running, over: &AtomicBool) -> Result<usize> {
    const LOOK: Duration = Duration::from_millis(500);
    let mut kills = 0;
    let mut waited = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
        waited += LOOK;
        if waited >= PERIOD {
            waited = Duration::ZERO;
            running.gate.kill_all()?;
            kills += 1;
        }
    }
    Ok(kills)
}

/// The controllers wrote both while the gate was there and while it was not, and neither stopped one of them.
fn it_was_in_the_middle(running: &Running, lives: usize, kills: usize) -> Result {
    let (mut judged, mut missed) = (0, 0);
    for account in [Flagger::ACCOUNT, Argo::ACCOUNT] {
        for write in running.node.audit().writes_of(account)? {
            if write.is_denial() {
                return Err(format!("refused: {write:?}").into());
            }
            let mut notes = write.annotations.as_object().into_iter().flatten();
            let is_missed = notes.any(|(key, _)| key.starts_with("failed-open."));
            missed += usize::from(is_missed);
            judged += usize::from(!write.verdict().is_empty());
        }
    }
    eprintln!(
        "{lives} life cycles, {kills} times without any replica: {judged} writes judged, {missed} without a gate"
    );
    if kills < 5 || judged == 0 || missed == 0 {
        return Err("that was not in the middle of anything".into());
    }
    Ok(())
}
