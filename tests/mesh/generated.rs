//! Worlds that nobody thought of.

use crate::court::{Court, NOT_STORED};
use crate::harness::Result;
use crate::platform::Running;
use crate::world::{World, fence, generate, smaller};

/// How many worlds stand in the cluster at once.
const AT_ONCE: usize = 30;

/// Of so many worlds as are tried at all, one stands behind Sidecars, so many of them behind the same ones.
const FENCED: u64 = 3;
const BEHIND_ONE: usize = 20;

/// How many candidates for a smaller world are tried at once, and how often.
const CANDIDATES: usize = 60;
const ROUNDS: usize = 25;

/// The number of worlds, this one unless something else is asked for, and the first seed.
fn wanted(usual: u64) -> Result<(u64, u64)> {
    let number = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text.parse().map_err(|error| format!("{name}={text}: {error}")),
        Err(_) => Ok(default),
    };
    Ok((number("SLUICEGATE_MESH_CASES", usual)?, number("SLUICEGATE_MESH_SEED", 1)?))
}

pub(crate) fn agree_with_istio(running: &Running) -> Result {
    agree(running, 180)
}

/// So many of them, in the domain of this mesh.
pub(crate) fn agree(running: &Running, usual: u64) -> Result {
    let (cases, first) = wanted(usual)?;
    let court = Court::of(running)?;
    let domain = running.istiod.mesh.domain.as_str();
    let seeds = (first..first + cases).collect::<Vec<_>>();
    let behind = seeds[..(cases / FENCED) as usize].chunks(BEHIND_ONE);
    let rounds = seeds.chunks(AT_ONCE).map(|seeds| (World::default(), seeds));
    let rounds = rounds.chain(behind.map(|seeds| (fence(seeds[0]), seeds)));
    let mut failed = Vec::new();
    for (fence, seeds) in rounds {
        let worlds = seeds.iter().map(|seed| generate(*seed).in_domain(domain)).collect::<Vec<_>>();
        let found = court.judge_behind(&fence, &worlds)?;
        let found = seeds.iter().zip(worlds).zip(found).filter(|(_, found)| !found.is_empty());
        failed.extend(found.map(|((seed, world), found)| (*seed, fence.clone(), world, found)));
    }
    if failed.is_empty() {
        return Ok(());
    }
    let seeds = failed.iter().map(|(seed, ..)| seed.to_string()).collect::<Vec<_>>().join(", ");
    let count = failed.len();
    let mut report = format!("{count} of {cases} worlds differ from Istio (seeds {seeds})\n");
    if std::env::var_os("SLUICEGATE_MESH_ALL").is_some() {
        for (seed, fence, world, found) in &failed {
            let (found, world) = (found.join("\n  "), world.yaml());
            report += &format!("seed {seed}:\n  {found}\n{}{world}\n", fence.yaml());
        }
        return Err(report.into());
    }
    let (seed, fence, world, found) = failed.swap_remove(0);
    let (world, found) = shrink(&court, &fence, world, found)?;
    report += &format!(
        "the smallest that was found from seed {seed}:\n{}{}\n{}",
        fence.yaml(),
        world.yaml(),
        found.join("\n")
    );
    Err(report.into())
}

/// Goes on with the first smaller world that still differs, until none does.
fn shrink(
    court: &Court<'_>,
    fence: &World,
    mut world: World,
    mut found: Vec<String>,
) -> Result<(World, Vec<String>)> {
    for _ in 0..ROUNDS {
        let mut candidates = smaller(&world);
        candidates.truncate(CANDIDATES);
        let verdicts = court.judge_behind(fence, &candidates)?;
        let Some((smaller, differing)) = candidates
            .into_iter()
            .zip(verdicts)
            .find(|(_, found)| found.first().is_some_and(|first| !first.starts_with(NOT_STORED)))
        else {
            break;
        };
        (world, found) = (smaller, differing);
    }
    Ok((world, found))
}
