//! The real Istio as the judge of what the gate believes about it: istiod, Envoy, and the real API server.
//!
//! `make platform platform-mesh` builds what is needed, once; because that takes minutes, a plain `cargo test` leaves these
//! tests out. `cargo test --test mesh -- --include-ignored NAME` runs those whose name contains NAME. `SLUICEGATE_MESH_CASES`
//! is the number of generated worlds, `SLUICEGATE_MESH_SEED` the seed of the first; with `SLUICEGATE_E2E_KEEP` set, the folder
//! with all logs stays.

mod broken;
mod comparison;
mod court;
mod demo;
mod fixed;
mod generated;
// The end-to-end tests use all of it; these need the processes and the control plane.
#[allow(dead_code, unused_imports)]
#[path = "../e2e/harness/mod.rs"]
mod harness;
mod judge;
mod platform;
mod road;
mod settings;
mod traffic;
mod waypoint;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use self::harness::Result;
use self::platform::{Running, Stage};

type Test = (&'static str, fn(&Running) -> Result);

/// Every test, with the control plane and the istiod that they share.
const ALL: &[Test] = &[
    ("the_traps_agree_with_istio", fixed::agree_with_istio),
    ("generated_worlds_agree_with_istio", generated::agree_with_istio),
    ("requests_go_where_the_gate_says", traffic::goes_where_we_say),
    ("the_incident_goes_as_told", demo::goes_as_told),
];

/// An own `main`, because what runs has to be stopped after the last test and statics are never dropped.
fn main() -> ExitCode {
    if std::env::var_os("SLUICEGATE_MESH_DEMO").is_some() {
        return show(demo::show);
    }
    let arguments = Arguments::from_args();
    let stage = Arc::new(Stage::default());
    let alone = [
        Trial::test("other_settings_agree_with_istio", settings::agree_with_istio),
        Trial::test("the_comparison_is_up_to_date", comparison::is_up_to_date),
        Trial::test("what_is_broken_for_everyone_breaks_the_mesh", broken::breaks_the_mesh),
        Trial::test("a_waypoint_agrees_with_istio", waypoint::agrees_with_istio),
    ];
    let trials = ALL.iter().map(|(name, test)| {
        let stage = Arc::clone(&stage);
        Trial::test(*name, move || test(stage.running()?)).with_ignored_flag(true)
    });
    let trials = trials.chain(alone.map(|trial| trial.with_ignored_flag(true)));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if conclusion.has_failed() {
        stage.print_logs();
    }
    drop(stage);
    conclusion.exit_code()
}

/// Something for a person to watch, with a control plane of its own; the exit code tells whether it went well.
fn show(what: fn(&Running) -> Result) -> ExitCode {
    match Running::start().and_then(|running| what(&running)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{}", error.message().unwrap_or("failed"));
            ExitCode::FAILURE
        }
    }
}
