//! Connections: accepted, shaken hands with, served, and ended.
//!
//! hyper's own "auto" server waits for ever on a peer that says nothing; here the protocol comes from ALPN, and every wait
//! has an end.

use std::convert::Infallible;
use std::fmt::Display;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderValue, header};
use futures::FutureExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::Timeouts;
use super::metrics::Metrics;
use crate::certs::Certificates;

/// How many requests one HTTP/2 connection may have open.
const STREAMS: u32 = 100;
/// HTTP/2 asks a quiet peer whether it is still there.
const PING: Duration = Duration::from_secs(30);
/// How long accepting rests after an error such as "too many open files", at first and at most.
const REST: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What a listener's connections share.
pub(super) struct Listener {
    pub(super) router: Router,
    /// `None` speaks plain HTTP.
    pub(super) certificates: Option<Arc<Certificates>>,
    pub(super) timeouts: Timeouts,
    pub(super) metrics: Arc<Metrics>,
    /// One for each open connection.
    pub(super) connections: Arc<Semaphore>,
    /// Once cancelled, each answer ends its connection.
    pub(super) closing: CancellationToken,
    /// Once cancelled, nothing new is accepted and what is idle is closed.
    pub(super) draining: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Listener {
    /// Accepts until told to drain; then the tasks end by themselves. The socket is not a part of what they share: it must
    /// close at once, or the kernel would go on accepting for a server that is gone.
    pub(super) async fn run(self, socket: TcpListener) {
        let this = Arc::new(self);
        let mut rest = REST.0;
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = this.draining.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    rest = REST.0;
                    this.admit(stream, peer);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections; trying again");
                    tokio::time::sleep(rest).await;
                    rest = (rest * 2).min(REST.1);
                }
            }
        }
        // Whoever the kernel let in before is served, not reset.
        while let Some(Ok((stream, peer))) = socket.accept().now_or_never() {
            this.admit(stream, peer);
        }
        this.tasks.close();
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
            self.metrics.overloaded();
            tracing::debug!(%peer, "connection turned away: too many are open");
            return;
        };
        self.tasks.spawn(Arc::clone(self).welcome(stream, peer, permit));
    }

    async fn welcome(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        _: OwnedSemaphorePermit,
    ) {
        // Answers are small and awaited: waiting to fill a packet only costs.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "connection gone before it began");
            return;
        }
        let Some(certificates) = &self.certificates else {
            return self.serve(stream, false, peer).await;
        };
        let Some(config) = certificates.server_config() else {
            tracing::debug!(%peer, "connection turned away: there is no certificate yet");
            return;
        };
        let handshake = TlsAcceptor::from(config).accept(stream);
        match tokio::time::timeout(self.timeouts.handshake, handshake).await {
            Err(_) => tracing::debug!(%peer, "no TLS handshake in time"),
            Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS handshake"),
            Ok(Ok(stream)) => {
                let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.serve(stream, is_h2, peer).await;
            }
        }
    }

    async fn serve<S>(self: Arc<Self>, stream: S, is_h2: bool, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Arc::new(Activity::default());
        let (this, seen, opened) = (Arc::clone(&self), Arc::clone(&activity), Instant::now());
        let service = service_fn(move |request: Request<Incoming>| {
            let (this, busy) = (Arc::clone(&this), Busy::begin(&seen));
            async move {
                let Ok(mut response) = this.router.clone().oneshot(request).await;
                // An API server keeps using a connection to a Pod that is leaving, and every other it has: told with an
                // answer, it opens the next one elsewhere, and no request falls between.
                let is_old = opened.elapsed() > this.timeouts.connection_age;
                if !is_h2 && (is_old || this.closing.is_cancelled()) {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                drop(busy);
                Ok::<_, Infallible>(response)
            }
        });
        let io = TokioIo::new(stream);
        let ended = if is_h2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).max_concurrent_streams(STREAMS);
            builder.keep_alive_interval(PING).keep_alive_timeout(self.timeouts.handshake);
            self.drive(builder.serve_connection(io, service), &activity, true).await
        } else {
            let mut builder = http1::Builder::new();
            // The wait for the next head is also the wait of an idle connection: it must outlast the API server's 90 s.
            builder.timer(TokioTimer::new()).header_read_timeout(self.timeouts.idle);
            self.drive(builder.serve_connection(io, service), &activity, false).await
        };
        tracing::debug!(%peer, is_h2, ended, "connection ended");
    }

    /// Runs a connection to its end, and says why it ended.
    async fn drive<C>(&self, connection: C, activity: &Activity, is_h2: bool) -> String
    where
        C: GracefulConnection,
        C::Error: Display,
    {
        let mut connection = pin!(connection);
        let opened = Instant::now();
        let mut first = pin!(tokio::time::sleep(self.timeouts.first_request));
        let mut is_first_over = false;
        // HTTP/2 has no idle timeout of its own in hyper; and its farewell cannot cut off a request, so age needs no answer.
        let mut look = tokio::time::interval(self.timeouts.idle.min(self.timeouts.connection_age));
        look.tick().await;
        let mut seen = activity.begun();
        let mut farewell = pin!(tokio::time::sleep(Duration::MAX));
        let mut is_leaving = false;
        loop {
            let mut leave = false;
            tokio::select! {
                result = connection.as_mut() => {
                    return result.map_or_else(|error| error.to_string(), |()| "closed".to_owned());
                }
                () = &mut first, if !is_first_over => {
                    if activity.begun() == 0 {
                        return "no request in time".to_owned();
                    }
                    is_first_over = true;
                }
                _ = look.tick(), if is_h2 && !is_leaving => {
                    let is_idle = activity.open() == 0 && activity.begun() == seen;
                    leave = is_idle || opened.elapsed() > self.timeouts.connection_age;
                    seen = activity.begun();
                }
                () = self.draining.cancelled(), if !is_leaving => leave = true,
                () = &mut farewell, if is_leaving => return "no farewell in time".to_owned(),
            }
            if leave {
                is_leaving = true;
                connection.as_mut().graceful_shutdown();
                farewell.as_mut().reset(tokio::time::Instant::now() + self.timeouts.drain);
            }
        }
    }
}

/// What a connection has done so far.
#[derive(Default)]
struct Activity {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Activity {
    fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    fn open(&self) -> u64 {
        self.begun().saturating_sub(self.ended.load(Ordering::Relaxed))
    }
}

/// A request that is being answered, or was given up.
struct Busy(Arc<Activity>);

impl Busy {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether only the connection that was being accepted is lost.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
