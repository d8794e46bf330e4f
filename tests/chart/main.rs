//! The Helm chart: rendered by both Helms, checked against a real API server, and judged by the tools that people judge charts with.
//!
//! `make test-chart` builds what is needed and runs them. A plain `cargo test` leaves them out;
//! `cargo test --test chart -- --include-ignored NAME` runs those whose name contains NAME.

mod alerts;
// The end-to-end tests use all of it.
#[allow(dead_code, unused_imports)]
#[path = "../e2e/harness/mod.rs"]
mod harness;
mod helm;
mod judges;
mod permissions;
mod registration;
mod render;
mod stage;
mod values;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use self::harness::Result;
use self::stage::Stage;

/// A name, and what has to be so.
type Scenario = (String, Box<dyn FnOnce(&Stage) -> Result + Send>);

fn scenario(
    name: impl Into<String>,
    run: impl FnOnce(&Stage) -> Result + Send + 'static,
) -> Scenario {
    (name.into(), Box::new(run))
}

/// An own `main`, because the control plane has to be stopped after the last scenario and statics are never dropped.
fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let stage = Arc::new(Stage::default());
    let groups = [
        render::all(),
        values::all(),
        permissions::all(),
        registration::all(),
        alerts::all(),
        judges::all(),
    ];
    let trials = groups.into_iter().flatten().map(|(name, run)| {
        let stage = Arc::clone(&stage);
        Trial::test(name, move || run(&stage)).with_ignored_flag(true)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(stage);
    conclusion.exit_code()
}
