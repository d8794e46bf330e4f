//! Worlds that nobody thought of.

use crate::court::{Court, NOT_STORED};
use crate::harness::Result;
use crate::platform::Running;
use crate::world::{World, generate, smaller};

/// How many worlds stand in the cluster at once.
const AT_ONCE: usize = 30;

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
    let mut failed = Vec::new();
    for seeds in seeds.chunks(AT_ONCE) {
        let worlds = seeds.iter().map(|seed| generate(*seed).in_domain(domain)).collect::<Vec<_>>();
        let found = court.judge(&worlds)?;
        let found = seeds.iter().zip(worlds).zip(found).filter(|(_, found)| !found.is_empty());
        failed.extend(found.map(|((seed, world), found)| (*seed, world, found)));
    }
    if failed.is_empty() {
        return Ok(());
    }
    let seeds = failed.iter().map(|(seed, _, _)| seed.to_string()).collect::<Vec<_>>().join(", ");
    let count = failed.len();
    let mut report = format!("{count} of {cases} worlds differ from Istio (seeds {seeds})\n");
    if std::env::var_os("SLUICEGATE_MESH_ALL").is_some() {
        for (seed, world, found) in &failed {
            report += &format!("seed {seed}:\n  {}\n{}\n", found.join("\n  "), world.yaml());
        }
        return Err(report.into());
    }
    let (seed, world, found) = failed.swap_remove(0);
    let (world, found) = shrink(&court, world, found)?;
    report += &format!(
        "the smallest that was found from seed {seed}:\n{}\n{}",
        world.yaml(),
        found.join("\n")
    );
    Err(report.into())
}

/// Goes on with the first smaller world that still differs, until none does.
fn shrink(
    court: &Court<'_>,
    mut world: World,
    mut found: Vec<String>,
) -> Result<(World, Vec<String>)> {
    for _ in 0..ROUNDS {
        let mut candidates = smaller(&world);
        candidates.truncate(CANDIDATES);
        let verdicts = court.judge(&candidates)?;
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
