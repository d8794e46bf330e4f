//! Where the serving certificate comes from: the flags of `serve` about it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::certs::Certificates;
use crate::certs::files::TlsDir;
use crate::certs::plan::Durations;
use crate::certs::self_signed::SelfSigned;
use crate::cluster::{self, CertificateKeeper, SelfManaged};

/// How long a certificate of --self-signed is good for.
const SELF_SIGNED_FOR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Arguments about the serving certificate.
#[derive(Debug, Args)]
pub(super) struct CertificateArguments {
    #[command(flatten)]
    source: Source,
    /// How often the files of --tls-dir are read again.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    tls_poll: Duration,
    /// DNS names and addresses of the certificate of --self-signed.
    #[arg(long, value_name = "NAME", default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned()], requires = "self_signed")]
    self_signed_name: Vec<String>,
    /// Where to write the CA of --self-signed, for `caBundle`.
    #[arg(long, value_name = "FILE", requires = "self_signed")]
    self_signed_ca: Option<PathBuf>,
    /// The Secret of --certs, and the Lease of the one replica that writes it, in the namespace of --memory-namespace.
    #[arg(long, value_name = "NAME", default_value = "sluicegate-certs", requires = "certs")]
    certs_secret: String,
    /// The Service through which API servers come: the certificate of --certs is for its names.
    #[arg(long, value_name = "NAME", default_value = "sluicegate", requires = "certs")]
    service: String,
    /// The ValidatingWebhookConfiguration whose caBundle is kept by --certs.
    #[arg(long, value_name = "NAME", default_value = "sluicegate", requires = "certs")]
    webhook_configuration: String,
    /// Further DNS names and addresses of the certificate of --certs, for webhooks that are reached by a URL.
    #[arg(long, value_name = "NAME", requires = "certs")]
    certs_name: Vec<String>,
    /// How long a certificate of --certs is good for; it is replaced when two thirds are over.
    #[arg(long, value_name = "DURATION", default_value = "90days", value_parser = humantime::parse_duration, requires = "certs")]
    certs_leaf_for: Duration,
    /// How long a CA of --certs is good for; the next one is made when two thirds are over.
    #[arg(long, value_name = "DURATION", default_value = "730days", value_parser = humantime::parse_duration, requires = "certs")]
    certs_ca_for: Duration,
    /// How long API servers may take to go by another caBundle: so long a new CA is trusted before it is used.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration, requires = "certs")]
    certs_settle: Duration,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// A folder with tls.crt and tls.key, such as a mounted Secret; followed when they change.
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// Make a certificate that nobody vouches for; for trying things out.
    #[arg(long)]
    self_signed: bool,
    /// Keep a CA and a certificate in a Secret, for all replicas, and the caBundle with it.
    #[arg(long, value_name = "MODE", value_enum, conflicts_with = "world")]
    certs: Option<Mode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The replicas make, rotate and announce their certificates by themselves.
    SelfManaged,
}

/// Where the gate is, as far as flags say so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// How to reach the API server.
    pub(super) kubeconfig: Option<&'a Path>,
    /// The gate's namespace.
    pub(super) namespace: Option<&'a str>,
    /// Its Deployment.
    pub(super) deployment: Option<&'a str>,
}

impl CertificateArguments {
    /// Loads the certificate, or sees to it that it will be; what is returned ends after the shutdown.
    pub(super) async fn load(
        &self,
        certificates: &Arc<Certificates>,
        where_from: Place<'_>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<BoxFuture<'static, ()>> {
        if self.source.certs == Some(Mode::SelfManaged) {
            let client = cluster::client(where_from.kubeconfig).await?;
            let namespace = where_from.namespace.unwrap_or(client.default_namespace()).to_owned();
            let owner = match where_from.deployment {
                Some(name) => cluster::owner(&client, &namespace, name).await,
                None => None,
            };
            let settings = self.self_managed(namespace)?;
            let keeper = CertificateKeeper::new(client, settings, Arc::clone(certificates));
            let keeper = keeper.owned_by(owner);
            let (keeping, shutdown) =
                (tokio::spawn(keeper.run(shutdown.clone())), shutdown.clone());
            // Nobody would notice for weeks that nothing is renewed any more.
            let looking = tokio::spawn(async move {
                if let Err(panicked) = keeping.await {
                    tracing::error!(error = %panicked, "certificates are not looked after any more; ending");
                    shutdown.cancel();
                }
            });
            return Ok(Box::pin(async move {
                let _ = looking.await;
            }));
        }
        if let Some(path) = &self.source.tls_dir {
            let mut folder = TlsDir::new(path);
            folder.refresh(certificates).await?;
            tokio::spawn(folder.follow(self.tls_poll, Arc::clone(certificates), shutdown.clone()));
            return Ok(Box::pin(std::future::ready(())));
        }
        let pair = SelfSigned::generate(&self.self_signed_name, SELF_SIGNED_FOR)?;
        if let Some(path) = &self.self_signed_ca {
            std::fs::write(path, &pair.ca_pem)
                .with_context(|| format!("writing {}", path.display()))?;
        }
        certificates.replace(pair.chain_pem.as_bytes(), pair.key_pem.as_bytes())?;
        Ok(Box::pin(std::future::ready(())))
    }

    fn self_managed(&self, namespace: String) -> anyhow::Result<SelfManaged> {
        let durations = Durations {
            leaf_for: self.certs_leaf_for,
            ca_for: self.certs_ca_for,
            settle: self.certs_settle,
        };
        let service = format!("{}.{namespace}", self.service);
        // API servers ask for the first one.
        let names = [format!("{service}.svc"), format!("{service}.svc.cluster.local"), service];
        Ok(SelfManaged {
            names: names.into_iter().chain(self.certs_name.iter().cloned()).collect(),
            secret: self.certs_secret.clone(),
            webhook_configuration: self.webhook_configuration.clone(),
            durations: durations.check()?,
            namespace,
        })
    }
}
