//! The folder of a run, and the guard that ends what the run started if the run itself is killed.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

use super::Result;

/// Reads which processes run; its input ends with the run, however that ends, even by SIGKILL.
///
/// A process of its own, because nothing in the killed one can act any more, and asking the kernel (PR_SET_PDEATHSIG)
/// takes `unsafe`. It ignores the signals of a terminal: those reach the whole group before the run has cleaned up.
const GUARD: &str = r#"
trap '' HUP INT TERM
pids= folder=
while read -r word value; do
    case $word in
    started) pids="$pids $value" ;;
    stopped) rest=; for pid in $pids; do [ "$pid" = "$value" ] || rest="$rest $pid"; done; pids=$rest ;;
    folder) folder=$value ;;
    esac
done
for pid in $pids; do kill -KILL "$pid"; done
[ -z "$folder" ] || {
    [ ! -e "$folder/clean-up" ] || sh "$folder/clean-up"
    rm -rf "$folder"
}
"#;

pub(crate) struct Sandbox {
    // `None` only while being dropped.
    folder: Option<TempDir>,
    guard: Mutex<Child>,
}

impl Sandbox {
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sluicegate-e2e-").tempdir()?;
        let guard = Command::new("sh")
            .args(["-c", GUARD])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("starting the guard (sh): {error}"))?;
        let sandbox = Self { folder: Some(folder), guard: Mutex::new(guard) };
        if !keep() {
            sandbox.tell("folder", &sandbox.path().display().to_string());
        }
        Ok(sandbox)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.as_ref().map_or_else(|| Path::new(""), TempDir::path)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content)?;
        Ok(path)
    }

    /// The last lines of each log whose name begins like this.
    pub(crate) fn print_logs(&self, prefix: &str) {
        for entry in fs::read_dir(self.path()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(name) = name.strip_suffix(".log").filter(|name| name.starts_with(prefix)) {
                eprintln!("{}", tail(name, &entry.path(), 15));
            }
        }
    }

    pub(crate) fn started(&self, pid: u32) {
        self.tell("started", &pid.to_string());
    }

    /// To be called before the process is waited for: after that its number may belong to somebody else.
    pub(crate) fn stopped(&self, pid: u32) {
        self.tell("stopped", &pid.to_string());
    }

    fn tell(&self, word: &str, value: &str) {
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        // A guard that is gone only matters when the run is killed, too; no reason to fail now.
        let _ = guard.stdin.as_mut().map(|stdin| writeln!(stdin, "{word} {value}"));
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(folder) = self.folder.take() {
            if keep() {
                eprintln!("e2e: logs and state are kept in {}", folder.keep().display());
            } else if let Err(error) = folder.close() {
                eprintln!("e2e: removing the folder of this run: {error}");
            }
        }
        let guard = self.guard.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(guard.stdin.take());
        let _ = guard.wait();
    }
}

/// For looking at the logs afterwards.
fn keep() -> bool {
    std::env::var_os("SLUICEGATE_E2E_KEEP").is_some()
}

pub(crate) fn tail(name: &str, log: &Path, lines: usize) -> String {
    let log = fs::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let all: Vec<_> = log.lines().collect();
    let last = &all[all.len().saturating_sub(lines)..];
    format!("--- end of the log of {name}\n{}\n---", last.join("\n"))
}
