//! A certificate authority for everything that speaks TLS here.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use super::Result;

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its key, both PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Where a server on this machine is.
pub(crate) const LOOPBACK: &[&str] = &["127.0.0.1", "localhost"];

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = named("sluicegate-e2e-ca", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// For a server on loopback.
    pub(crate) fn server(&self, name: &str) -> Result<Pair> {
        self.server_at(name, LOOPBACK)
    }

    /// For a server at these names and addresses.
    pub(crate) fn server_at(&self, name: &str, places: &[&str]) -> Result<Pair> {
        let places = places.iter().map(|&place| place.to_owned());
        let mut params = CertificateParams::new(places.collect::<Vec<_>>())?;
        params.distinguished_name = named(name, None).distinguished_name;
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// For a client whom the API server knows by these names.
    pub(crate) fn client(&self, user: &str, group: Option<&str>) -> Result<Pair> {
        self.sign(named(user, group), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Pair> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    }
}

/// A key pair for service account tokens: the private and the public half.
pub(super) fn token_keys() -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

fn named(common: &str, organization: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params
}
