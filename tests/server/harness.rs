use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus::Registry;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serde_json::{Value, json};
use sluicegate::certs::Certificates;
use sluicegate::certs::self_signed::SelfSigned;
use sluicegate::istio::VirtualService;
use sluicegate::policy::Policies;
use sluicegate::rules;
use sluicegate::server::{Config, Gate, Metrics, Server, StaticWorld, Timeouts, WorldSource};
use sluicegate::world::{Mesh, World};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// Long enough for a busy machine, short enough to notice.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A server that serves.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) status: SocketAddr,
    pub(crate) client: Client,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

/// What a test may change.
pub(crate) fn config() -> Config {
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        status_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        shutdown_delay: Duration::from_millis(50),
        ..Config::default()
    }
}

pub(crate) fn timeouts() -> Timeouts {
    Timeouts::default()
}

/// The usual server: a world in which only the text can be judged.
pub(crate) async fn start(config: Config) -> Running {
    start_with(config, blank()).await
}

pub(crate) fn blank() -> Arc<dyn WorldSource> {
    Arc::new(StaticWorld(World::blank(Mesh::default())))
}

pub(crate) async fn start_with(config: Config, world: Arc<dyn WorldSource>) -> Running {
    let gate = Gate::new(Policies::new(Vec::new(), rules::ALL), world)
        .with_confirm_limit(Duration::from_millis(300));
    let pair = pair();
    let certificates = Arc::new(Certificates::default());
    certificates.replace(pair.chain_pem.as_bytes(), pair.key_pem.as_bytes()).expect("a good pair");
    start_all(config, gate, certificates, &[&pair]).await
}

pub(crate) async fn start_all(
    config: Config,
    gate: Gate,
    certificates: Arc<Certificates>,
    trusted: &[&SelfSigned],
) -> Running {
    let metrics = Metrics::new(Registry::new(), rules::ALL, &certificates).expect("a new registry");
    let server = Server::bind(config, Arc::new(gate), Arc::clone(&certificates), Arc::new(metrics))
        .await
        .expect("a free port");
    let (address, status) = (server.local_addr(), server.status_addr());
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(server.run(shutdown.clone()));
    let client = Client::new(address, trusted);
    Running { address, status, client, certificates, shutdown, task }
}

pub(crate) fn pair() -> SelfSigned {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    SelfSigned::generate(&names, Duration::from_secs(3600)).expect("a pair can be made")
}

/// A client that trusts these CAs.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    roots: Arc<RootCertStore>,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub(crate) type Http1 = http1::SendRequest<Full<Bytes>>;
pub(crate) type Http2 = http2::SendRequest<Full<Bytes>>;

impl Client {
    pub(crate) fn new(address: SocketAddr, trusted: &[&SelfSigned]) -> Self {
        let mut roots = RootCertStore::empty();
        for pair in trusted {
            let ca = CertificateDer::from_pem_slice(pair.ca_pem.as_bytes()).expect("PEM");
            roots.add(ca).expect("a CA");
        }
        Self { address, roots: Arc::new(roots) }
    }

    /// A TLS connection that says nothing yet.
    pub(crate) async fn connect(
        &self,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions that the provider has")
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    pub(crate) async fn tls(&self) -> TlsStream<TcpStream> {
        self.connect(&["http/1.1"], rustls::ALL_VERSIONS).await.expect("a TLS connection")
    }

    pub(crate) async fn http1(&self) -> Http1 {
        self.try_http1().await.expect("an HTTP/1.1 connection")
    }

    pub(crate) async fn try_http1(&self) -> std::io::Result<Http1> {
        let stream = self.connect(&["http/1.1"], rustls::ALL_VERSIONS).await?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }

    pub(crate) async fn http2(&self) -> Http2 {
        let stream = self.connect(&["h2"], rustls::ALL_VERSIONS).await.expect("a TLS connection");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("an HTTP/2 connection");
        tokio::spawn(connection);
        sender
    }

    /// One review over a connection of its own.
    pub(crate) async fn review(&self, body: impl Into<Bytes>) -> Answer {
        review_over(&mut self.http1().await, body).await.expect("an answer")
    }

    pub(crate) async fn send(&self, method: &str, path: &str) -> Answer {
        send_over(&mut self.http1().await, method, path, "").await.expect("an answer")
    }
}

pub(crate) async fn review_over(
    connection: &mut Http1,
    body: impl Into<Bytes>,
) -> hyper::Result<Answer> {
    send_over(connection, "POST", "/validate", body).await
}

pub(crate) async fn send_over(
    connection: &mut Http1,
    method: &str,
    path: &str,
    body: impl Into<Bytes>,
) -> hyper::Result<Answer> {
    connection.ready().await?;
    let response = connection.send_request(request(method, path, body)).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer { code: head.status, headers: head.headers, body })
}

pub(crate) fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .expect("a request")
}

/// Asks the plain listener.
pub(crate) async fn probe(address: SocketAddr, path: &str) -> Answer {
    let stream = TcpStream::connect(address).await.expect("the status listener");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    send_over(&mut sender, "GET", path, "").await.expect("an answer")
}

/// A VirtualService with one http route from v1 and v2 with these weights.
pub(crate) fn split(v1: u32, v2: u32) -> Value {
    let to = |subset: &str, weight: u32| json!({"destination": {"host": "reviews", "subset": subset}, "weight": weight});
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"hosts": ["reviews"], "http": [{"route": [to("v1", v1), to("v2", v2)]}]},
    })
}

/// An update as an API server asks about it.
pub(crate) fn update(old: &Value, new: &Value) -> Value {
    let resource =
        json!({"group": "networking.istio.io", "version": "v1", "resource": "virtualservices"});
    let kind = json!({"group": "networking.istio.io", "version": "v1", "kind": "VirtualService"});
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": kind, "resource": resource,
            "requestKind": kind, "requestResource": resource,
            "name": "reviews", "namespace": "shop",
            "operation": "UPDATE",
            "userInfo": {"username": "ada", "groups": ["system:authenticated"]},
            "object": new, "oldObject": old,
            "dryRun": false,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "UpdateOptions"},
        },
    })
}

/// The typo that this is all about: 99/1 becomes 1/99.
pub(crate) fn typo() -> Vec<u8> {
    update(&split(99, 1), &split(1, 99)).to_string().into_bytes()
}

/// A write that passes without a word.
pub(crate) fn harmless() -> Vec<u8> {
    update(&split(99, 1), &split(100, 0)).to_string().into_bytes()
}

/// Whether `object` can be read at all: a test that means a VirtualService must not test a typing error.
pub(crate) fn is_virtual_service(object: &Value) -> bool {
    let spec = object["spec"].clone();
    serde_json::from_value::<sluicegate::istio::VirtualServiceSpec>(spec)
        .map(|spec| VirtualService { metadata: Default::default(), spec })
        .is_ok_and(|object| !object.spec.hosts.is_empty())
}
