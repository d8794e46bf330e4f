use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::{complain, print};
use crate::cluster::{self, RegistrationError};

/// How long until an API server is asked again that did not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// Arguments of `sluicegate unregister`.
#[derive(Debug, Args)]
#[command(
    after_help = "From then on no write is judged, and none is refused because no gate answers. `helm uninstall` does this first."
)]
pub(super) struct Unregister {
    /// The ValidatingWebhookConfiguration to delete.
    #[arg(long, value_name = "NAME", default_value = "sluicegate")]
    webhook_configuration: String,
    /// How long to wait afterwards: API servers learn of the deletion by a watch, each for itself.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    settle: Duration,
    /// How long to try where the API server does not answer.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// How to reach the API server; without it as kubectl would, or as a Pod does.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl Unregister {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.take_away())
    }

    async fn take_away(self) -> anyhow::Result<ExitCode> {
        let client = cluster::client(self.kubeconfig.as_deref()).await?;
        let name = &self.webhook_configuration;
        let begun = Instant::now();
        let was_there = loop {
            match cluster::unregister(&client, name).await {
                Err(RegistrationError::Unreadable { .. }) if begun.elapsed() < self.timeout => {
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => {
                    complain(&error.to_string());
                    return Ok(ExitCode::FAILURE);
                }
                Ok(was_there) => break was_there,
            }
        };
        if !was_there {
            print(&format!("There is no ValidatingWebhookConfiguration {name}; nothing to do.\n"));
            return Ok(ExitCode::SUCCESS);
        }
        print(&format!("ValidatingWebhookConfiguration {name} deleted.\n"));
        tokio::time::sleep(self.settle).await;
        let settle = humantime::format_duration(self.settle);
        print(&format!("Waited {settle} for the API servers to notice; the gate may go now.\n"));
        Ok(ExitCode::SUCCESS)
    }
}
