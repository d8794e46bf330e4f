//! Whoever asks the webhook in the place of an API server.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where a webhook is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// What to connect to.
    pub(super) address: SocketAddr,
    /// The name or address that the certificate must be for.
    pub(super) name: String,
    /// What HTTP calls the server: the name, and the port where it is not the usual one.
    pub(super) host: String,
    /// The path, with what follows a question mark.
    pub(super) path: String,
}

/// Talks to the webhook as an API server does: TLS 1.2 or 1.3 with a CA of its own, HTTP/1.1, one connection kept open.
pub(super) struct Caller {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
    path: String,
    /// The version of TLS that both sides agreed on.
    pub(super) protocol: String,
}

impl Caller {
    /// Trusts only what `ca_pem` vouches for.
    pub(super) async fn connect(place: &Place, ca_pem: &[u8]) -> anyhow::Result<Self> {
        let mut trusted = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem) {
            trusted.add(certificate.context("the CA is no PEM")?).context("the CA is no X.509")?;
        }
        ensure!(!trusted.is_empty(), "the CA has no CERTIFICATE block");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(place.name.clone())?;
        let connecting = TcpStream::connect(place.address).await;
        let stream = connecting.with_context(|| format!("no connection to {}", place.address))?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let stream = stream.context("no TLS")?;
        let version = stream.get_ref().1.protocol_version();
        let protocol = version.map_or(String::new(), |version| format!("{version:?}"));
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let Place { host, path, .. } = place.clone();
        Ok(Self { sender, host, path, protocol })
    }

    /// Sends an AdmissionReview; the one that is answered.
    pub(super) async fn review(&mut self, review: &Value) -> anyhow::Result<Value> {
        let request = Request::post(&self.path)
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(review.to_string())))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(
            status == StatusCode::OK,
            "the webhook answered {status}: {}",
            String::from_utf8_lossy(&body)
        );
        serde_json::from_slice(&body).context("an answer that is no AdmissionReview")
    }
}
