//! A CA and a serving certificate made on the spot: for a gate without a mounted Secret, for demos and for tests.

use std::time::Duration;

use super::CertificateError;
use super::authority::{Authority, Signer};

/// A serving pair and the CA that vouches for it.
pub struct SelfSigned {
    /// What a client must trust: the `caBundle`. Its key is forgotten at once.
    pub ca_pem: String,
    /// The leaf.
    pub chain_pem: String,
    /// The leaf's key; never to be logged.
    pub key_pem: String,
}

impl std::fmt::Debug for SelfSigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SelfSigned").field("ca_pem", &self.ca_pem).finish_non_exhaustive()
    }
}

impl SelfSigned {
    /// Makes a CA and a leaf for these DNS names and IP addresses.
    ///
    /// # Errors
    /// Where a name is neither, or the system has no randomness.
    pub fn generate(names: &[String], valid_for: Duration) -> Result<Self, CertificateError> {
        let now = jiff::Timestamp::now().as_second();
        let signer = Signer::generate(now, valid_for)?;
        let leaf = signer.sign(names, now, valid_for)?;
        Ok(Self {
            ca_pem: Authority::bundle([signer.authority()]),
            chain_pem: leaf.chain_pem().to_owned(),
            key_pem: leaf.key_pem().to_owned(),
        })
    }
}
