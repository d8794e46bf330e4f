//! What a platform team does with the chart, by the real Helm 3 and Helm 4 on a real node: install, upgrade, roll back, remove, and
//! all that happens to a gate meanwhile, while people write.
//!
//! `make test-chart` builds what is needed and runs them, as root; see `tests/node`, whose cluster this is.

#[allow(dead_code, unused_imports)]
#[path = "../node/cluster/mod.rs"]
mod cluster;
#[allow(dead_code, unused_imports)]
#[path = "../e2e/harness/mod.rs"]
mod harness;
mod helm;
mod load;
mod release;
mod scenarios;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Some(arguments) = load::arguments() {
        return load::run(&arguments);
    }
    let mut arguments = Arguments::from_args();
    // Each has a node of its own, and counts what gets lost on it: nobody else should take its processors.
    arguments.test_threads = Some(1);
    if let Some(code) = cluster::unless_a_node_can_be_held(&arguments) {
        return code;
    }
    let trials = scenarios::all();
    let trials = trials.map(|(name, scenario)| Trial::test(name, scenario).with_ignored_flag(true));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
