//! What make has built for a node; an older one would prove nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::harness::Result;

/// A file below `target`, not older than the source, or what to do about it.
pub(crate) fn built(file: &str, command: &str) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("target").join(file);
    let built = fs::metadata(&path).and_then(|file| file.modified());
    let built = built.map_err(|_| format!("{} is missing: run `{command}`", path.display()))?;
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
