//! The serving certificate: where it comes from, that it can be used, and how it is replaced while connections are open.
//!
//! It comes from [`files`], is made on the spot ([`self_signed`]), or is looked after by the gate itself: [`authority`] makes and
//! reads certificates, [`kept`] is what a Secret holds of them, [`plan`] says when which is replaced. Talking to the API server is
//! the cluster's part.
//!
//! A connection asks for the configuration once, when it begins; a rotation changes what the next one gets and disturbs none.

pub mod authority;
pub mod files;
pub mod kept;
pub mod plan;
pub mod self_signed;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use prometheus::core::Collector;
use prometheus::{IntCounter, IntGauge};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read.
    #[error(
        "{path}: {cause}; the directory must hold tls.crt and tls.key, as a Secret of type kubernetes.io/tls does"
    )]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The text is no PEM.
    #[error("{what} is no PEM: {cause}")]
    Pem {
        /// `the certificate` or `the key`.
        what: &'static str,
        /// What the parser said.
        cause: rustls::pki_types::pem::Error,
    },
    /// There is PEM, but no certificate in it.
    #[error(
        "there is no CERTIFICATE block in tls.crt; it must hold the leaf first, then its intermediates"
    )]
    NoCertificate,
    /// The first certificate is not X.509.
    #[error("the first certificate in tls.crt is not X.509: {0}")]
    Leaf(String),
    /// The key is of a kind that cannot sign, or it is another certificate's.
    #[error("tls.crt and tls.key cannot be used together: {0}; replace both at once")]
    Pair(rustls::Error),
    /// No new pair could be made.
    #[error("no certificate could be made: {0}")]
    Issue(#[from] rcgen::Error),
    /// There is nothing to sign with.
    #[error("no certificate could be made: no CA is there to sign it")]
    NoAuthority,
}

/// A certificate that is ready to be served.
#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    not_after: i64,
}

/// The certificate that new connections get, and the metrics about it.
#[derive(Debug)]
pub struct Certificates {
    loaded: ArcSwapOption<Loaded>,
    expiry: IntGauge,
    failures: IntCounter,
    /// What happens to certificates that the gate looks after itself.
    pub self_managed: SelfManagedMetrics,
}

/// The metrics about certificates that the gate makes for itself; all 0 where others make them.
#[derive(Debug)]
pub struct SelfManagedMetrics {
    /// When the CA of the serving certificate ends, in seconds since 1970.
    pub ca_expiry: IntGauge,
    /// How often this replica replaced the leaf of all replicas.
    pub rotations: IntCounter,
    /// How often this replica could not do what was due.
    pub issue_failures: IntCounter,
    /// How often this replica put back a `caBundle` that somebody had changed.
    pub bundle_repairs: IntCounter,
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("a constant name that Prometheus takes")
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("a constant name that Prometheus takes")
}

impl Default for Certificates {
    fn default() -> Self {
        let expiry = gauge(
            "sluicegate_certificate_expiry_timestamp_seconds",
            "When the serving certificate ends, in seconds since 1970; 0 while there is none.",
        );
        let failures = counter(
            "sluicegate_certificate_reload_failures_total",
            "How often a replacement of the certificate could not be used; the last good pair stays in use.",
        );
        let self_managed = SelfManagedMetrics {
            ca_expiry: gauge(
                "sluicegate_ca_expiry_timestamp_seconds",
                "When the CA of a self-managed serving certificate ends, in seconds since 1970; else 0.",
            ),
            rotations: counter(
                "sluicegate_certificate_rotations_total",
                "How often this replica replaced the self-managed certificate of all replicas.",
            ),
            issue_failures: counter(
                "sluicegate_certificate_issue_failures_total",
                "How often this replica could not make or keep a certificate, or make it trusted.",
            ),
            bundle_repairs: counter(
                "sluicegate_ca_bundle_repairs_total",
                "How often this replica put back a caBundle that somebody had changed.",
            ),
        };
        Self { loaded: ArcSwapOption::empty(), expiry, failures, self_managed }
    }
}

impl Certificates {
    /// Serves this pair from the next connection on; where it cannot be used, the one before stays.
    ///
    /// # Errors
    /// Where either text is no PEM, or the key does not belong to the first certificate.
    pub fn replace(&self, chain_pem: &[u8], key_pem: &[u8]) -> Result<(), CertificateError> {
        let loaded = Loaded::read(chain_pem, key_pem)?;
        self.expiry.set(loaded.not_after);
        self.loaded.store(Some(Arc::new(loaded)));
        Ok(())
    }

    /// What a connection that begins now is to be served with; `None` while there is no certificate.
    pub fn server_config(&self) -> Option<Arc<ServerConfig>> {
        self.loaded.load().as_ref().map(|loaded| Arc::clone(&loaded.config))
    }

    /// When the certificate ends, in seconds since 1970.
    pub fn not_after(&self) -> Option<i64> {
        self.loaded.load().as_ref().map(|loaded| loaded.not_after)
    }

    /// A replacement could not be used.
    pub fn count_failure(&self) {
        self.failures.inc();
    }

    /// How often a replacement could not be used.
    pub fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// Its metrics, for the one registry.
    pub fn collectors(&self) -> [Box<dyn Collector>; 6] {
        let own = &self.self_managed;
        [
            Box::new(self.expiry.clone()),
            Box::new(self.failures.clone()),
            Box::new(own.ca_expiry.clone()),
            Box::new(own.rotations.clone()),
            Box::new(own.issue_failures.clone()),
            Box::new(own.bundle_repairs.clone()),
        ]
    }
}

impl Loaded {
    fn read(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, CertificateError> {
        let chain = CertificateDer::pem_slice_iter(chain_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|cause| CertificateError::Pem { what: "tls.crt", cause })?;
        let key = PrivateKeyDer::from_pem_slice(key_pem)
            .map_err(|cause| CertificateError::Pem { what: "tls.key", cause })?;
        let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|error| CertificateError::Leaf(error.to_string()))?;
        let not_after = parsed.validity().not_after.timestamp();
        // Named here and not installed for the process: a library that installs another one cannot change what is served.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let pair = CertifiedKey::from_der(chain, key, &provider).map_err(CertificateError::Pair)?;
        Ok(Self { config: Arc::new(config(provider, pair)?), not_after })
    }
}

fn config(
    provider: Arc<CryptoProvider>,
    pair: CertifiedKey,
) -> Result<ServerConfig, CertificateError> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(CertificateError::Pair)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // API servers keep connections open and never resume; sessions would only cost memory.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::self_signed::SelfSigned;
    use super::*;

    fn pair() -> SelfSigned {
        SelfSigned::generate(&["localhost".to_owned()], Duration::from_secs(3600))
            .expect("a pair can be made")
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_and_the_last_good_pair_stays() {
        let (a, b) = (pair(), pair());
        let certificates = Certificates::default();
        assert!(certificates.server_config().is_none());
        certificates.replace(a.chain_pem.as_bytes(), a.key_pem.as_bytes()).expect("a pair");
        let before = certificates.not_after();
        for (chain, key) in [
            (a.chain_pem.as_str(), b.key_pem.as_str()),
            ("", a.key_pem.as_str()),
            (a.chain_pem.as_str(), ""),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", a.key_pem.as_str()),
        ] {
            certificates.replace(chain.as_bytes(), key.as_bytes()).expect_err("no pair");
            assert_eq!(certificates.not_after(), before);
        }
    }

    #[test]
    fn the_end_of_the_leaf_is_read() {
        let pair = pair();
        let certificates = Certificates::default();
        certificates.replace(pair.chain_pem.as_bytes(), pair.key_pem.as_bytes()).expect("a pair");
        let left =
            certificates.not_after().expect("a certificate") - jiff::Timestamp::now().as_second();
        assert!((3500..=3600).contains(&left), "{left}");
    }

    #[test]
    fn a_chain_with_an_intermediate_is_accepted() {
        let pair = pair();
        let chain = format!("{}{}", pair.chain_pem, pair.ca_pem);
        Certificates::default()
            .replace(chain.as_bytes(), pair.key_pem.as_bytes())
            .expect("a chain");
    }
}
