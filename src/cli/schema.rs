use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::print;
use crate::policy;
use crate::rules;

/// Arguments of `sluicegate schema`.
#[derive(Debug, Args)]
pub(super) struct Schema {
    /// Of what.
    what: What,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// The `spec` of a CanaryPolicy.
    Policy,
}

impl Schema {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let schema = match self.what {
            What::Policy => policy::schema(rules::ALL),
        };
        print(&format!("{}\n", serde_json::to_string_pretty(&schema)?));
        Ok(ExitCode::SUCCESS)
    }
}
