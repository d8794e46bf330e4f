//! The worlds of `worlds/`: what people write and what Istio makes of it, each a statement of its own.

use std::fs;
use std::path::Path;

use crate::court::Court;
use crate::harness::Result;
use crate::platform::Running;
use crate::world::World;

/// Their names, and themselves.
pub(crate) fn worlds() -> Result<(Vec<String>, Vec<World>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mesh/worlds");
    let mut names = Vec::new();
    let mut worlds = Vec::new();
    let files = fs::read_dir(&folder)?.collect::<std::io::Result<Vec<_>>>()?;
    let mut files = files.into_iter().map(|file| file.path()).collect::<Vec<_>>();
    files.sort();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        worlds.push(World::parse(&name, &fs::read_to_string(&file)?)?);
        names.push(name);
    }
    Ok((names, worlds))
}

pub(crate) fn agree_with_istio(running: &Running) -> Result {
    let (names, worlds) = worlds()?;
    let court = Court::of(running)?;
    // Sidecars are for whole namespaces: a world that has one is alone.
    let (fenced, open): (Vec<_>, Vec<_>) =
        (0..worlds.len()).partition(|&at| worlds[at].is_fenced());
    let mut found = vec![Vec::new(); worlds.len()];
    for round in std::iter::once(open).chain(fenced.into_iter().map(|at| vec![at])) {
        let together = round.iter().map(|&at| worlds[at].clone()).collect::<Vec<_>>();
        for (at, own) in round.into_iter().zip(court.judge(&together)?) {
            found[at] = own;
        }
    }
    report(&names, &found)
}

/// An error where any world differs.
pub(crate) fn report(names: &[String], found: &[Vec<String>]) -> Result {
    let differing = names.iter().zip(found).filter(|(_, found)| !found.is_empty());
    let report = differing.map(|(name, found)| format!("{name}:\n  {}", found.join("\n  ")));
    let report = report.collect::<Vec<_>>();
    if report.is_empty() {
        return Ok(());
    }
    let count = report.len();
    Err(format!("{count} of {} worlds differ from Istio\n{}", names.len(), report.join("\n"))
        .into())
}
