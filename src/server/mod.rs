//! The webhook: TLS and HTTP around a [`Gate`], an AdmissionReview in and its answer out.
//!
//! Two listeners: one with TLS for the API server, one without for probes and metrics. Every wait has an end, every queue a
//! bound, and what cannot be answered is said in a way that lets the webhook's `failurePolicy` decide.

pub mod admission;
mod connection;
mod gate;
mod journal;
mod metrics;
mod policy_file;
mod refusal;
mod routes;
mod status;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use gate::{CONFIRM_LIMIT, ConfirmError, Gate, StaticWorld, WorldSource};
pub use metrics::{Metrics, Outcome};
pub use policy_file::{PolicyFile, PolicyFileError, policies};

use self::connection::Listener;
use self::routes::App;
use self::status::Health;
use crate::certs::Certificates;

/// The largest body that is read: an update carries the object twice, and etcd takes 1.5 MiB, an API server 3 MiB.
pub const BODY_LIMIT: usize = 7 << 20;

/// How many connections the listener for probes and metrics holds open.
const STATUS_CONNECTIONS: usize = 64;

/// How the server listens and what it bounds.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where reviews arrive, with TLS.
    pub listen: SocketAddr,
    /// Where probes and Prometheus ask, without TLS.
    pub status_listen: SocketAddr,
    /// How long everything is served on after shutdown began: until every API server has learned that this Pod leaves.
    pub shutdown_delay: Duration,
    /// How many reviews are read and judged at once; one more is turned away. Bodies take up to [`BODY_LIMIT`] each.
    pub max_in_flight: usize,
    /// How many connections are open at once; one more is turned away. An idle one takes about 35 KB.
    pub max_connections: usize,
    /// How long it waits for whom.
    pub timeouts: Timeouts,
}

/// How long the server waits.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For the first request's head on a fresh connection.
    pub first_request: Duration,
    /// For the next request. API servers drop idle connections after 90 s; whoever closes first must not be this side.
    pub idle: Duration,
    /// For a request's body.
    pub body: Duration,
    /// For what is still open once draining began.
    pub drain: Duration,
    /// After this long an answer ends its connection, so that load finds new replicas.
    pub connection_age: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            body: Duration::from_secs(10),
            drain: Duration::from_secs(10),
            connection_age: Duration::from_secs(300),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            status_listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            shutdown_delay: Duration::from_secs(10),
            max_in_flight: 128,
            max_connections: 1024,
            timeouts: Timeouts::default(),
        }
    }
}

/// Why the server cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {cause}; choose another address or stop what holds it")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
}

/// Two bound listeners, not yet serving.
#[derive(Debug)]
pub struct Server {
    config: Config,
    gate: Arc<Gate>,
    certificates: Arc<Certificates>,
    metrics: Arc<Metrics>,
    main: TcpListener,
    status: TcpListener,
    addresses: (SocketAddr, SocketAddr),
}

impl Server {
    /// Listens; the kernel queues connections until [`run`](Self::run).
    ///
    /// # Errors
    /// Where one of the two addresses cannot be had.
    pub async fn bind(
        config: Config,
        gate: Arc<Gate>,
        certificates: Arc<Certificates>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ServeError> {
        let listen = async |address: SocketAddr| {
            let bind = async {
                let socket = TcpListener::bind(address).await?;
                let bound = socket.local_addr()?;
                Ok((socket, bound))
            };
            bind.await.map_err(|cause| ServeError::Bind { address, cause })
        };
        let (main, main_address) = listen(config.listen).await?;
        let (status, status_address) = listen(config.status_listen).await?;
        let addresses = (main_address, status_address);
        Ok(Self { config, gate, certificates, metrics, main, status, addresses })
    }

    /// Where reviews arrive; the port is the real one where the configuration said 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses.0
    }

    /// Where probes and Prometheus ask.
    pub fn status_addr(&self) -> SocketAddr {
        self.addresses.1
    }

    /// Serves until `shutdown`, then leaves in order: not ready at once, answering on for the delay and ending each connection
    /// with its answer, then closing what is idle and waiting, within bounds, for what is not.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { config, gate, certificates, metrics, main, status, addresses } = self;
        let (draining, over) = (CancellationToken::new(), CancellationToken::new());
        // Dropped in the middle, everything it started must end, too.
        let _guards = (draining.clone().drop_guard(), over.clone().drop_guard());
        let health = Health {
            gate: Arc::clone(&gate),
            metrics: Arc::clone(&metrics),
            certificates: Arc::clone(&certificates),
            closing: shutdown.clone(),
        };
        let app = App {
            gate,
            metrics: Arc::clone(&metrics),
            slots: Semaphore::new(config.max_in_flight),
            body_timeout: config.timeouts.body,
        };
        let tasks = TaskTracker::new();
        let reviews = Listener {
            router: routes::router(Arc::new(app)),
            certificates: Some(certificates),
            timeouts: config.timeouts,
            metrics: Arc::clone(&metrics),
            connections: Arc::new(Semaphore::new(config.max_connections)),
            closing: shutdown.clone(),
            draining: draining.clone(),
            tasks: tasks.clone(),
        };
        let probes = Listener {
            router: status::router(Arc::new(health)),
            certificates: None,
            timeouts: config.timeouts,
            metrics,
            connections: Arc::new(Semaphore::new(STATUS_CONNECTIONS)),
            closing: shutdown.clone(),
            draining: over.clone(),
            tasks: TaskTracker::new(),
        };
        let accepting = tokio::spawn(reviews.run(main));
        tokio::spawn(probes.run(status));
        tracing::info!(reviews = %addresses.0, status = %addresses.1, "serving");

        shutdown.cancelled().await;
        tracing::info!(delay = ?config.shutdown_delay, "shutting down: not ready, still answering");
        tokio::time::sleep(config.shutdown_delay).await;
        draining.cancel();
        let drained = async {
            // A listener that panicked has nothing left to drain.
            let _ = accepting.await;
            tasks.wait().await;
        };
        if tokio::time::timeout(config.timeouts.drain, drained).await.is_err() {
            tracing::warn!(open = tasks.len(), "connections still open at the end were cut off");
        }
        tracing::info!("stopped");
    }
}

/// Listens and serves until `shutdown`: [`Server::bind`] and [`Server::run`] in one.
///
/// # Errors
/// Where one of the two addresses cannot be had.
pub async fn serve(
    config: Config,
    gate: Arc<Gate>,
    certificates: Arc<Certificates>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    Server::bind(config, gate, certificates, metrics).await?.run(shutdown).await;
    Ok(())
}
