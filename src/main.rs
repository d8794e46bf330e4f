//! `sluicegate`: see `sluicegate --help`.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A review of a large object makes a million small allocations and gives them back: that is a third of its time with the
/// allocator of the system.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    sluicegate::cli::main()
}
