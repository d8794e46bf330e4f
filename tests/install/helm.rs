//! The real Helm, in the network of a node.

use std::path::Path;

use crate::cluster::Node;
use crate::harness::{Answer, Result};

/// The namespace of the documented command.
pub(crate) const NAMESPACE: &str = "sluicegate-system";

/// One of the two that are in use.
#[derive(Clone, Copy)]
pub(crate) enum Version {
    Three,
    Four,
}

impl Version {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Three => "helm3",
            Self::Four => "helm4",
        }
    }
}

pub(crate) struct Helm<'a> {
    version: Version,
    node: &'a Node,
}

impl<'a> Helm<'a> {
    pub(crate) fn new(version: Version, node: &'a Node) -> Self {
        Self { version, node }
    }

    /// Runs it where the repository is checked out, as a person would.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Answer> {
        let program = self.version.program();
        let mut command = self.node.program(program)?;
        let home = self.node.sandbox().path().join(program);
        command
            .args(arguments)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .env("KUBECONFIG", &self.node.admin().kubeconfig)
            .env("HOME", &home)
            .envs(
                ["CACHE", "CONFIG", "DATA"].map(|own| (format!("HELM_{own}_HOME"), home.join(own))),
            );
        let output = command.output().map_err(|error| format!("starting {program}: {error}"))?;
        Ok(Answer::of(format!("{program} {}", arguments.join(" ")), &output))
    }

    /// The documented command, and what else is asked for.
    pub(crate) fn install(&self, further: &[&str]) -> Result<Answer> {
        let install =
            ["install", "sluicegate", "charts/sluicegate", "-n", NAMESPACE, "--create-namespace"];
        self.run(&[&install[..], further].concat())?.succeeded()
    }

    /// Another set of values, on top of those that are in force.
    pub(crate) fn upgrade(&self, further: &[&str]) -> Result<Answer> {
        let upgrade =
            ["upgrade", "sluicegate", "charts/sluicegate", "-n", NAMESPACE, "--reuse-values"];
        self.run(&[&upgrade[..], further].concat())?.succeeded()
    }

    pub(crate) fn roll_back(&self, revision: u32) -> Result {
        let revision = revision.to_string();
        let roll_back = ["rollback", "sluicegate", &revision, "-n", NAMESPACE, "--wait"];
        // Helm 4 applies on the server's side, which refuses to undo what somebody did by hand unless told to.
        let force: &[&str] = match self.version {
            Version::Three => &[],
            Version::Four => &["--force-conflicts"],
        };
        self.run(&[&roll_back[..], force].concat())?.succeeded()?;
        Ok(())
    }

    /// As the documentation says it is removed.
    pub(crate) fn uninstall(&self) -> Result {
        self.run(&["uninstall", "sluicegate", "-n", NAMESPACE, "--wait"])?.succeeded()?;
        Ok(())
    }

    /// What `helm test` finds.
    pub(crate) fn test(&self) -> Result<Answer> {
        self.run(&["test", "sluicegate", "-n", NAMESPACE, "--timeout", "2m"])
    }
}
