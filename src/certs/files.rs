//! A certificate in a directory, as the kubelet mounts a Secret of type `kubernetes.io/tls`.
//!
//! The kubelet replaces such a mount by swapping the symlink `..data`; a watch on a file sees the first swap at best. So the
//! content is read every few seconds and compared, which works on every file system.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{CertificateError, Certificates};

/// How often the files are read unless told otherwise.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// A directory with `tls.crt` and `tls.key`.
#[derive(Debug)]
pub struct TlsDir {
    path: PathBuf,
    /// What was read and could be used.
    served: Option<Pair>,
    /// What is wrong with the files now; repeated in the log only when it changes.
    complaint: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Pair {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl TlsDir {
    /// This directory; nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), served: None, complaint: None }
    }

    /// Reads the files, and replaces the certificate where they changed. Whether it was replaced.
    ///
    /// # Errors
    /// Where the files cannot be read or used; the certificate is what it was.
    pub async fn refresh(&mut self, certificates: &Certificates) -> Result<bool, CertificateError> {
        let pair = match read(&self.path).await {
            // The mount was swapped between the two files.
            Err(_) => read(&self.path).await?,
            Ok(pair) => pair,
        };
        if self.served.as_ref() == Some(&pair) {
            return Ok(false);
        }
        certificates.replace(&pair.chain, &pair.key)?;
        self.served = Some(pair);
        Ok(true)
    }

    /// Keeps the certificate what the files say, until told to stop. What cannot be used is logged once and counted each time.
    pub async fn follow(
        mut self,
        every: Duration,
        certificates: Arc<Certificates>,
        stop: CancellationToken,
    ) {
        loop {
            let refreshed = self.refresh(&certificates).await;
            self.report(refreshed, &certificates);
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn report(&mut self, refreshed: Result<bool, CertificateError>, certificates: &Certificates) {
        let directory = self.path.display();
        match refreshed {
            Ok(is_new) => {
                self.complaint = None;
                if is_new {
                    let not_after = certificates.not_after();
                    tracing::info!(%directory, not_after, "serving certificate loaded");
                    if not_after.is_some_and(|end| end <= jiff::Timestamp::now().as_second()) {
                        tracing::warn!(%directory, "the serving certificate has expired; API servers will refuse it");
                    }
                }
            }
            Err(error) => {
                certificates.failures.inc();
                let complaint = Some(error.to_string());
                if self.complaint != complaint {
                    let is_serving = certificates.not_after().is_some();
                    tracing::warn!(%directory, %error, is_serving, "serving certificate not replaced; the last good pair stays");
                    self.complaint = complaint;
                }
            }
        }
    }
}

async fn read(directory: &Path) -> Result<Pair, CertificateError> {
    // Both files from the same side of a swap: what `..data` points to never changes.
    let data = tokio::fs::canonicalize(directory.join("..data")).await;
    let directory = data.as_deref().unwrap_or(directory);
    let file = async |name: &str| {
        let path = directory.join(name);
        let wrong = |cause: io::Error| CertificateError::Unreadable {
            path: path.display().to_string(),
            cause,
        };
        tokio::fs::read(&path).await.map_err(wrong)
    };
    Ok(Pair { chain: file("tls.crt").await?, key: file("tls.key").await? })
}
