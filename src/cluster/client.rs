//! The client: how the API server is reached and how long it is waited for.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::header::{HeaderValue, USER_AGENT};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Long enough for a busy API server, short enough that a dead one is noticed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A watch may be silent for as long as the API server lets it run, which kube asks to be 290 s; lists and live reads have
/// shorter limits of their own.
const READ_TIMEOUT: Duration = Duration::from_secs(310);

/// Why there is no client for the API server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The named kubeconfig cannot be used.
    #[error("kubeconfig {} cannot be used: {cause}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: Box<kube::config::KubeconfigError>,
    },
    /// There is neither a kubeconfig nor a service account.
    #[error(
        "no way to the API server: {0}; give --kubeconfig, or run in a Pod with a service account"
    )]
    Nowhere(Box<kube::config::InferConfigError>),
    /// The configuration names something that cannot be used, such as an unreadable certificate.
    #[error("the client for the API server cannot be made: {0}")]
    Unusable(Box<kube::Error>),
}

/// A client for the cluster that `kubeconfig` names; without it, for the one that `$KUBECONFIG`, `~/.kube/config` or the
/// service account of this Pod names.
///
/// # Errors
/// Where none of these can be used.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let failed =
                |cause| ClientError::Kubeconfig { path: path.to_owned(), cause: Box::new(cause) };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(failed)?
        }
        None => Config::infer().await.map_err(|cause| ClientError::Nowhere(Box::new(cause)))?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    let agent = concat!("sluicegate/", env!("CARGO_PKG_VERSION"));
    let value = HeaderValue::from_static(agent);
    config.headers.push((USER_AGENT, value));
    Client::try_from(config).map_err(|cause| ClientError::Unusable(Box::new(cause)))
}

/// What went wrong, without the names of the layers that it came through: the API server's own words, or the last cause.
pub(super) fn said(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    loop {
        if let Some(kube::Error::Api(status)) = last.downcast_ref()
            && !status.message.is_empty()
        {
            return status.message.clone();
        }
        match last.source() {
            Some(cause) => last = cause,
            None => return last.to_string(),
        }
    }
}
