//! `sluicegate`: see `sluicegate --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluicegate::cli::main()
}
