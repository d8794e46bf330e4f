//! A node takes root. Who is not is told so, and with CI set that is a failure.

use std::process::{Command, ExitCode};

use libtest_mimic::Arguments;

use crate::harness::{Result, text};

/// How a run of tests that need a node ends, where there can be none.
pub(crate) fn unless_a_node_can_be_held(arguments: &Arguments) -> Option<ExitCode> {
    let wants_one = (arguments.include_ignored || arguments.ignored) && !arguments.list;
    let reason = wants_one.then(can_hold_a_node)?.err()?;
    eprintln!("\n*** NOTHING IS TESTED on a real node: {}\n", text(reason));
    let is_ci = std::env::var_os("CI").is_some_and(|value| value != "false");
    Some(if is_ci { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Whether this machine lets us make namespaces, mounts and cgroups.
fn can_hold_a_node() -> Result {
    let try_out = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "mount"];
    let output =
        Command::new("unshare").args(try_out).args(["-t", "tmpfs", "tmpfs", "/run"]).output();
    let output = output.map_err(|error| format!("unshare (util-linux): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("it needs root, and namespaces that may mount ({})", said.trim()).into())
}
