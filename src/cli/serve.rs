use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::future::BoxFuture;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::certificates::{CertificateArguments, Place};
use super::mesh::MeshArguments;
use crate::certs::Certificates;
use crate::cluster::{self, Index, Memory, MemoryName, Reading, WatchEnded};
use crate::policy::Policies;
use crate::policy::words::list;
use crate::rules;
use crate::server::{Config, Gate, Metrics, PolicyFile, Server, StaticWorld, WorldSource};
use crate::world::Kind;

/// How long the last write of what is remembered may take.
const LAST_WRITE: Duration = Duration::from_secs(3);

/// Arguments of `sluicegate serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "The world comes from the cluster of --kubeconfig (or of the Pod it runs in), or from files with --world."
)]
pub(super) struct Serve {
    /// Where the API server reaches the webhook: POST /validate over TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Where /healthz, /readyz and /metrics answer without TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    status_listen: SocketAddr,
    #[command(flatten)]
    certificate: Box<CertificateArguments>,
    /// How to reach the API server; without it as kubectl would, or as a Pod does.
    #[arg(long, value_name = "FILE", conflicts_with = "world")]
    kubeconfig: Option<PathBuf>,
    /// Files or folders with what the cluster holds, instead of a cluster.
    #[arg(long, value_name = "PATH")]
    world: Vec<PathBuf>,
    /// The ConfigMap in which it is kept who carried routes before, and the Lease of the one replica that writes it; "" keeps
    /// nothing over a restart.
    #[arg(long, value_name = "NAME", default_value = "sluicegate", conflicts_with = "world")]
    memory: String,
    /// The namespace of both; without it the Pod's own, or the kubeconfig's.
    #[arg(long, value_name = "NAMESPACE", conflicts_with = "world")]
    memory_namespace: Option<String>,
    /// The Deployment of this gate, in that namespace: what the gate makes there is removed with it.
    #[arg(long, value_name = "NAME", conflicts_with = "world")]
    deployment: Option<String>,
    /// The policy to judge by; followed when it changes. The built-in default without one.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// How often the file of --policy is read again.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    policy_poll: Duration,
    /// How long to go on answering after SIGTERM, while the API servers learn that this replica is gone.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    shutdown_delay: Duration,
    /// The most reviews that are judged at once; above it the answer is an immediate 503.
    #[arg(long, value_name = "COUNT", default_value_t = 128)]
    max_in_flight: usize,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
    #[command(flatten)]
    mesh: MeshArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        self.start_logging();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(self.serve())
    }

    async fn serve(self) -> anyhow::Result<ExitCode> {
        let shutdown = shutdown_on_signal()?;
        let certificates = Arc::new(Certificates::default());
        let metrics =
            Arc::new(Metrics::new(prometheus::Registry::new(), rules::ALL, &certificates)?);
        let (world, watches, memory) = self.world(&shutdown).await?;
        let mut file = self.policy.as_ref().map(|path| PolicyFile::new(path, rules::ALL));
        let builtin = || Policies::new(Vec::new(), rules::ALL);
        let policies = file.as_mut().map_or_else(builtin, |own| own.begin(&metrics));
        let gate = Arc::new(Gate::new(policies, world));
        if let Some(file) = file {
            let (gate, metrics) = (Arc::clone(&gate), Arc::clone(&metrics));
            tokio::spawn(file.follow(self.policy_poll, gate, metrics, shutdown.clone()));
        }
        let where_from = Place {
            kubeconfig: self.kubeconfig.as_deref(),
            namespace: self.memory_namespace.as_deref(),
            deployment: self.deployment.as_deref(),
        };
        let keeping = self.certificate.load(&certificates, where_from, &shutdown).await?;
        let config = Config {
            listen: self.listen,
            status_listen: self.status_listen,
            shutdown_delay: self.shutdown_delay,
            max_in_flight: self.max_in_flight,
            ..Config::default()
        };
        let server = Server::bind(config, gate, certificates, metrics).await?;
        let code = until_either_ends(server.run(shutdown.clone()), watches).await;
        shutdown.cancel();
        // What was seen last is kept, too, and nobody has to wait for a Lease.
        let last = async { tokio::join!(memory, keeping) };
        if tokio::time::timeout(LAST_WRITE, last).await.is_err() {
            tracing::warn!("what was remembered last could not be kept in time");
        }
        Ok(code)
    }

    /// The world; what keeps it up to date, which ends only with an error; and what keeps its memory, which ends after the shutdown.
    async fn world(
        &self,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<(
        Arc<dyn WorldSource>,
        BoxFuture<'static, anyhow::Error>,
        BoxFuture<'static, ()>,
    )> {
        let name = self.mesh.config();
        if !self.world.is_empty() {
            let documents = cluster::load(&self.world)?;
            let reading = cluster::mesh_config_in(&documents, &name);
            let mesh = self.mesh.settings(&reading);
            cluster::say(&mesh, &reading, &name);
            let world = cluster::world(mesh, &documents, "default");
            anyhow::ensure!(
                world.knows(Kind::Namespace),
                "discoverySelectors are set, and no file of --world says which labels namespace {} has",
                list(&world.undescribed_namespaces().into_iter().collect::<Vec<_>>())
            );
            let world = StaticWorld(world);
            return Ok((
                Arc::new(world),
                Box::pin(std::future::pending()),
                Box::pin(std::future::ready(())),
            ));
        }
        let client = cluster::client(self.kubeconfig.as_deref()).await?;
        let unread = Reading::Unknown("not yet".to_owned());
        let index = Arc::new(Index::new(self.mesh.settings(&unread), client.clone()));
        let (arguments, own, shutdown) = (self.mesh.clone(), Arc::clone(&index), shutdown.clone());
        let memory = (!self.memory.is_empty()).then(|| {
            let default = || client.default_namespace().to_owned();
            let namespace = self.memory_namespace.clone().unwrap_or_else(default);
            let name = MemoryName { namespace, name: self.memory.clone() };
            Memory::new(client.clone(), name, Arc::clone(&index))
        });
        let deployment = self.deployment.clone();
        let (keep, kept) = oneshot::channel();
        let follow = async move {
            // Nothing counts as listed before it is known which namespaces istiod reads, and what names mean to it.
            own.set_mesh(arguments.settings(&cluster::mesh_config(&client, &name).await));
            tokio::spawn(cluster::follow_mesh_config(
                client.clone(),
                Arc::clone(&own),
                name,
                move |reading| arguments.settings(reading),
                shutdown.clone(),
            ));
            if let Some(mut memory) = memory {
                if let Some(name) = deployment {
                    memory.owned_by(cluster::owner(&client, &memory.name().namespace, &name).await);
                }
                memory.recall().await;
                let _ = keep.send(tokio::spawn(memory.keep(shutdown.clone())));
            }
            cluster::follow(client, own, Kind::ALL.to_vec(), shutdown).await
        };
        let kept = async move {
            if let Ok(keeping) = kept.await {
                let _ = keeping.await;
            }
        };
        Ok((index, Box::pin(failure(tokio::spawn(follow))), Box::pin(kept)))
    }

    fn start_logging(&self) {
        use tracing_subscriber::EnvFilter;
        // The client says "error" for each attempt and never which; the watches say it once and in full.
        let usual = || EnvFilter::new("info,kube_client::client::builder=off");
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| usual());
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Json => log.json().flatten_event(true).init(),
            LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        }
    }
}

/// Serves until told to stop, or until nobody feeds the world any more: answers from yesterday are worse than a restart.
async fn until_either_ends(
    server: impl Future<Output = ()>,
    watches: impl Future<Output = anyhow::Error>,
) -> ExitCode {
    tokio::select! {
        () = server => ExitCode::SUCCESS,
        error = watches => {
            tracing::error!(error = format!("{error:#}"), "the cluster is not followed any more; ending");
            ExitCode::FAILURE
        }
    }
}

/// Why the watches failed; told to stop they do not, and the server, which is draining then, has the last word.
async fn failure(watches: JoinHandle<Result<(), WatchEnded>>) -> anyhow::Error {
    match watches.await {
        Ok(Err(ended)) => ended.into(),
        Err(panicked) => panicked.into(),
        Ok(Ok(())) => std::future::pending().await,
    }
}

/// Told to stop by SIGTERM (Kubernetes) or SIGINT (a terminal).
fn shutdown_on_signal() -> anyhow::Result<CancellationToken> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    });
    Ok(shutdown)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn watches_that_fail_end_the_process_and_a_shutdown_does_not_count_as_that() {
        let ended = tokio::spawn(ready(Err(WatchEnded { cause: "a panic".to_owned() })));
        assert_eq!(until_either_ends(pending(), failure(ended)).await, ExitCode::FAILURE);

        let panicking = tokio::spawn(async { panic!("told to, by a test") });
        assert_eq!(until_either_ends(pending(), failure(panicking)).await, ExitCode::FAILURE);

        let told = tokio::spawn(ready(Ok(())));
        let drained = tokio::time::sleep(Duration::from_millis(50));
        assert_eq!(until_either_ends(drained, failure(told)).await, ExitCode::SUCCESS);
    }
}
