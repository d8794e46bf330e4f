//! A way for real requests: an Envoy that listens on this machine, and a service with two local backends, v1 and v2.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::Result;
use crate::harness::process::free_ports;
use crate::platform::{Connection, Envoy, Mode, Proxy, Running};

/// One connection for each of so many clients.
pub(crate) const CLIENTS: usize = 8;

pub(crate) struct Road {
    _envoy: Envoy,
    /// Where the Envoy takes requests for the services of the namespace.
    pub(crate) port: u16,
    backends: [u16; 2],
    namespace: &'static str,
}

/// How many requests each version answered, and how many nobody did.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) v1: AtomicU64,
    pub(crate) v2: AtomicU64,
    pub(crate) failed: AtomicU64,
}

impl Tally {
    pub(crate) fn add(&self, status: u16, body: &str) {
        let own = match (status, body) {
            (200, "v1") => &self.v1,
            (200, "v2") => &self.v2,
            _ => &self.failed,
        };
        own.fetch_add(1, Relaxed);
    }

    /// v1, v2, failed.
    pub(crate) fn counts(&self) -> [u64; 3] {
        [&self.v1, &self.v2, &self.failed].map(|count| count.load(Relaxed))
    }
}

impl Road {
    pub(crate) fn open(
        running: &Running,
        name: &'static str,
        namespace: &'static str,
        address: &'static str,
    ) -> Result<Self> {
        let [port] = free_ports()?;
        // Its listeners really listen here, so it must not hear of the services of other tests.
        let sidecar = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
            "metadata": { "name": "default", "namespace": namespace },
            "spec": { "egress": [{ "hosts": ["./*"] }] },
        });
        let backends = running.runtime.block_on(async {
            running.api.create(&sidecar).await?;
            Ok::<_, libtest_mimic::Failed>([backend("v1").await?, backend("v2").await?])
        })?;
        let labels = [("app".to_owned(), "shopper".to_owned())].into();
        let proxy = Proxy { name, mode: Mode::Loopback, namespace, labels, address };
        let envoy = Envoy::start(running.plane.sandbox(), &running.istiod, &proxy)?;
        Ok(Self { _envoy: envoy, port, backends, namespace })
    }

    /// A service of two versions, and what makes them subsets.
    pub(crate) fn service(&self, name: &str, host: &str) -> Vec<Value> {
        let endpoint = |version: &str, port: u16| json!({ "address": "127.0.0.1", "ports": { "http": port }, "labels": { "version": version } });
        let subset = |version: &str| json!({ "name": version, "labels": { "version": version } });
        vec![
            self.object("ServiceEntry", name, json!({
                "hosts": [host], "location": "MESH_INTERNAL", "resolution": "STATIC",
                "ports": [{ "number": self.port, "name": "http", "protocol": "HTTP" }],
                "endpoints": [endpoint("v1", self.backends[0]), endpoint("v2", self.backends[1])],
            })),
            self.object("DestinationRule", name, json!({ "host": host, "subsets": [subset("v1"), subset("v2")] })),
        ]
    }

    pub(crate) fn object(&self, kind: &str, name: &str, spec: Value) -> Value {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": kind,
            "metadata": { "name": name, "namespace": self.namespace }, "spec": spec,
        })
    }

    /// Sends so many requests over [`CLIENTS`] connections.
    pub(crate) async fn send(
        &self,
        host: &str,
        headers: &[(&str, &str)],
        requests: usize,
    ) -> Result<Tally> {
        let tally = Arc::new(Tally::default());
        let client = || async {
            let mut connection = Connection::open(self.port).await?;
            for _ in 0..requests / CLIENTS {
                let (status, body) = connection.get(host, "/", headers).await?;
                tally.add(status, &body);
            }
            Ok::<_, libtest_mimic::Failed>(())
        };
        futures::future::try_join_all((0..CLIENTS).map(|_| client())).await?;
        Ok(Arc::into_inner(tally).unwrap_or_default())
    }

    /// What a request gets now: the body of a good answer, the status of another, or why there is none.
    pub(crate) async fn try_one(&self, host: &str, path: &str) -> String {
        let answer = async { Connection::open(self.port).await?.get(host, path, &[]).await };
        match answer.await {
            Ok((200, body)) => body,
            Ok((status, _)) => status.to_string(),
            Err(error) => error.message().unwrap_or("no answer").to_owned(),
        }
    }
}

/// A server that answers with its version; it ends with the run.
async fn backend(version: &'static str) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(move |_| async move {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(
                    version.as_bytes(),
                ))))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    Ok(port)
}
