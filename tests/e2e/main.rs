//! A real API server, the real kubectl and the gate as its own process.
//!
//! `make platform` builds what is needed, once. `cargo test --test e2e NAME` runs the scenarios whose name contains NAME;
//! with SLUICEGATE_E2E_KEEP set, the folder with all logs stays.

mod harness;
mod scenarios;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use self::harness::{Failures, Stage};

/// An own `main`, because the control plane has to be stopped after the last scenario and statics are never dropped.
fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let (stage, failures) = (Arc::new(Stage::default()), Arc::new(Failures::default()));
    let trials = scenarios::all().map(|(name, scenario)| {
        let (stage, failures) = (Arc::clone(&stage), Arc::clone(&failures));
        Trial::test(name, move || failures.noted(name, scenario(&stage)))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if conclusion.has_failed() {
        stage.print_logs();
        failures.print();
    }
    drop(stage);
    conclusion.exit_code()
}
