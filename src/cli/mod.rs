//! The command line: arguments in, one of the verbs, an exit code out.
//!
//! Exit codes: 0 admitted, 1 denied, 2 unusable input; of `serve`: 0 told to stop, 1 the cluster cannot be followed any more; of
//! `self-test` and `unregister`: 1 it did not succeed.

mod caller;
mod certificates;
mod check;
mod demo;
mod mesh;
mod policy;
mod rules;
mod schema;
mod self_test;
mod serve;
mod unregister;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
pub use rules::table as rules_table;

/// The exit code of input that cannot be used.
const UNUSABLE: u8 = 2;

/// A Kubernetes admission webhook that refuses unsafe Istio traffic shifts before they reach the mesh.
#[derive(Debug, Parser)]
#[command(name = "sluicegate", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve the webhook.
    Serve(Box<serve::Serve>),
    /// Judge VirtualServices and DestinationRules in files, without a cluster.
    Check(Box<check::Check>),
    /// Start the real server with an example world and show what it refuses and what it never refuses.
    Demo(demo::Demo),
    /// List the rules, or print one rule's manual.
    Rules(rules::Rules),
    /// Print a JSON schema, for editors and for Helm.
    Schema(schema::Schema),
    /// Ask an installed gate what an API server asks, and say whether it answers as it should.
    SelfTest(self_test::SelfTest),
    /// Take an installed gate out of the API server's way.
    Unregister(unregister::Unregister),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Serve(serve) => serve.run(),
        Verb::Check(check) => check.run(),
        Verb::Demo(demo) => demo.run(),
        Verb::Rules(rules) => rules.run(),
        Verb::Schema(schema) => schema.run(),
        Verb::SelfTest(test) => test.run(),
        Verb::Unregister(unregister) => unregister.run(),
    };
    outcome.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::from(UNUSABLE)
    })
}

/// Says something to the person at the terminal, beside the output proper.
#[expect(clippy::print_stderr, reason = "the command line's own voice")]
fn complain(text: &str) {
    eprintln!("sluicegate: {text}");
}

/// Writes output; a reader that has gone away (`| head`) is no error.
fn print(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
