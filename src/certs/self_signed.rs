//! A CA and a serving certificate made on the spot: for a gate without a mounted Secret, for demos and for tests.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use super::CertificateError;

/// How far back the certificates begin, for clocks that are behind.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

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
    /// Makes an ECDSA P-256 CA and a leaf for these DNS names and IP addresses: a P-256 handshake costs less than half of what
    /// an RSA one costs.
    ///
    /// # Errors
    /// Where a name is neither, or the system has no randomness.
    pub fn generate(names: &[String], valid_for: Duration) -> Result<Self, CertificateError> {
        Self::issue(names, valid_for).map_err(CertificateError::Issue)
    }

    fn issue(names: &[String], valid_for: Duration) -> Result<Self, rcgen::Error> {
        let now = SystemTime::now();
        let validity = |params: &mut CertificateParams, common_name: &str| {
            params.not_before = (now - CLOCK_SKEW).into();
            params.not_after = (now + valid_for).into();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, common_name);
        };

        let mut ca = CertificateParams::new(Vec::new())?;
        validity(&mut ca, "sluicegate self-signed CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let ca_pem = ca.self_signed(&ca_key)?.pem();

        let mut leaf = CertificateParams::new(names)?;
        validity(&mut leaf, "sluicegate");
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let chain_pem = leaf.signed_by(&leaf_key, &Issuer::new(ca, ca_key))?.pem();
        Ok(Self { ca_pem, chain_pem, key_pem: leaf_key.serialize_pem() })
    }
}
