//! The program's other verbs, as a Pod of the chart runs them.

use std::path::Path;
use std::process::Command;

use super::Result;

/// What a verb said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `sluicegate ARGUMENTS` with this kubeconfig.
pub(crate) fn verb(kubeconfig: &Path, arguments: &[&str]) -> Result<Said> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    command.args(arguments).arg("--kubeconfig").arg(kubeconfig).env_remove("RUST_LOG");
    let output = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    Ok(Said { code: output.status.code(), out, err })
}

impl Said {
    /// It ended with this code and said all of these words, on whichever stream.
    pub(crate) fn with(self, code: i32, words: &[&str]) -> Result<Self> {
        let Self { out, err, .. } = &self;
        let missing = words.iter().find(|word| !out.contains(**word) && !err.contains(**word));
        if self.code == Some(code) && missing.is_none() {
            return Ok(self);
        }
        let ended = format!("expected {code} and {words:?}, ended with {:?}", self.code);
        Err(format!("{ended}\n{out}{err}").into())
    }
}
