//! The demo: the real server on loopback, the scenes of `examples/`, AdmissionReviews over TLS as an API server sends them.

mod scenes;
mod show;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use tokio_util::sync::CancellationToken;

use self::scenes::Scene;
use super::caller::{Caller, Place};
use super::{policy, print};
use crate::certs::Certificates;
use crate::certs::self_signed::SelfSigned;
use crate::cluster;
use crate::rules;
use crate::server::{Config, Gate, Metrics, Server, StaticWorld};
use crate::world::Mesh;

/// How long the demo's certificate is good for.
const VALID_FOR: Duration = Duration::from_secs(24 * 3600);

/// Arguments of `sluicegate demo`.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Print without colours; they are also left out where the output is no terminal.
    #[arg(long)]
    plain: bool,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(self.play())
    }

    async fn play(self) -> anyhow::Result<ExitCode> {
        let world = cluster::parse("examples/world/shop.yaml", scenes::WORLD)?;
        let world = cluster::world(Mesh::default(), &world, scenes::NAMESPACE);
        let scenes = scenes::all()?;

        let pair = SelfSigned::generate(&[Ipv4Addr::LOCALHOST.to_string()], VALID_FOR)?;
        let certificates = Arc::new(Certificates::default());
        certificates.replace(pair.chain_pem.as_bytes(), pair.key_pem.as_bytes())?;
        let gate = Arc::new(Gate::new(policy::load(None)?, Arc::new(StaticWorld(world))));
        let metrics = Metrics::new(prometheus::Registry::new(), rules::ALL, &certificates)?;
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = Config {
            listen: free,
            status_listen: free,
            shutdown_delay: Duration::ZERO,
            ..Config::default()
        };
        let server = Server::bind(config, gate, certificates, Arc::new(metrics)).await?;
        let address = server.local_addr();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(server.run(shutdown.clone()));

        let show = show::Show::new(self.plain);
        print(&show.opening(address));
        let place = Place {
            address,
            name: address.ip().to_string(),
            host: address.to_string(),
            path: "/validate".to_owned(),
        };
        let mut client = Caller::connect(&place, pair.ca_pem.as_bytes())
            .await
            .context("connecting to the demo's own server")?;
        let mut as_expected = 0;
        for (index, scene) in scenes.iter().enumerate() {
            let asked = Instant::now();
            let answer = client.review(&scene.admission_review(index)).await?;
            let took = asked.elapsed();
            let answer = Answer::of(&answer).context("an answer that is no AdmissionReview")?;
            as_expected += usize::from(scene.is_expected(&answer));
            print(&show.scene(index, scene, &answer, took));
        }
        print(&show.closing(as_expected, scenes.len()));
        shutdown.cancel();
        drop(client);
        serving.await.context("the demo's server")?;
        Ok(ExitCode::from(u8::from(as_expected != scenes.len())))
    }
}

/// What the webhook answered.
#[derive(Debug, Clone, Default)]
struct Answer {
    allowed: bool,
    message: String,
    warnings: Vec<String>,
}

impl Answer {
    fn of(review: &serde_json::Value) -> Option<Self> {
        let response = review.get("response")?;
        let text = |pointer| {
            response
                .pointer(pointer)
                .and_then(|value| value.as_str())
                .unwrap_or_default()
                .to_owned()
        };
        let warnings =
            response.get("warnings").and_then(|warnings| warnings.as_array()).into_iter().flatten();
        Some(Self {
            allowed: response.get("allowed")?.as_bool()?,
            message: text("/status/message"),
            warnings: warnings.filter_map(|warning| warning.as_str()).map(str::to_owned).collect(),
        })
    }
}

impl Scene {
    fn is_expected(&self, answer: &Answer) -> bool {
        let by_rule = self
            .rule
            .as_deref()
            .is_none_or(|rule| answer.message.starts_with(&format!("{rule}: ")));
        answer.allowed == self.expect.admits() && by_rule
    }
}
