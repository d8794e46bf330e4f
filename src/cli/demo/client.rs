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

use super::Answer;

/// Talks to the webhook as an API server does: TLS with a CA of its own, HTTP/1.1, one connection kept open.
pub(super) struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr, ca_pem: &str) -> anyhow::Result<Self> {
        let mut trusted = RootCertStore::empty();
        trusted.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(ServerName::from(address.ip()), stream)
            .await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host: address.to_string() })
    }

    pub(super) async fn review(&mut self, review: &Value) -> anyhow::Result<Answer> {
        let request = Request::post("/validate")
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
        Answer::of(&serde_json::from_slice(&body)?).context("an answer that is no AdmissionReview")
    }
}
