//! What make has built for a node; an older one would prove nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::harness::Result;

/// The one of these files below `target` that was built last, not older than the source, or what to do about it.
pub(crate) fn built(files: &[impl AsRef<str>], command: &str) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let paths = files.iter().map(|file| root.join("target").join(file.as_ref()));
    let times = paths.filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)));
    let Some((built, path)) = times.max() else {
        let names = files.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
        return Err(format!("target has no {names}: run `{command}`").into());
    };
    if newest(&root.join("src"))? > built {
        return Err(format!("{} is older than src: run `{command}`", path.display()).into());
    }
    Ok(path)
}

fn newest(folder: &Path) -> Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let time = if kind.is_dir() {
            self::newest(&entry.path())?
        } else {
            entry.metadata()?.modified()?
        };
        newest = newest.max(time);
    }
    Ok(newest)
}
