//! A CA of our own and what it signs: made, kept as text, read again, and looked at as a client would.
//!
//! Nothing here looks at a clock: whoever calls says what time it is.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CertificateError, Loaded};

/// How far back a certificate begins, for clocks that are behind.
pub const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// How the names of the CAs that the gate makes for itself begin: what else a bundle holds is not the gate's.
const COMMON_NAME: &str = "sluicegate CA";

/// A CA's certificate: what a client must trust.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    der: CertificateDer<'static>,
    common_name: String,
    /// As X.509 writes it, with the algorithm.
    public_key: Vec<u8>,
    validity: Validity,
}

/// From when until when something is good for use, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// When it was made: [`CLOCK_SKEW`] after its beginning.
    pub issued: i64,
    /// Its last second.
    pub not_after: i64,
}

impl Validity {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        let issued = validity.not_before.timestamp().saturating_add(seconds(CLOCK_SKEW));
        Self { issued, not_after: validity.not_after.timestamp() }
    }

    /// Whether a client whose clock says `now` takes it. One whose clock is behind by no more than [`CLOCK_SKEW`] does, too.
    pub fn contains(self, now: i64) -> bool {
        let begins = self.issued.saturating_sub(seconds(CLOCK_SKEW));
        (begins..=self.not_after).contains(&now)
    }

    /// When two thirds of its time are over.
    pub fn two_thirds(self) -> i64 {
        self.not_after.saturating_sub(self.not_after.saturating_sub(self.issued) / 3)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { common_name, validity, .. } = self;
        f.debug_struct("Authority").field("name", common_name).field("validity", validity).finish()
    }
}

impl Authority {
    fn read(der: CertificateDer<'static>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        if !parsed.is_ca() {
            return None;
        }
        let common_name = parsed.subject().iter_common_name().next();
        let common_name =
            common_name.and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned();
        let public_key = parsed.public_key().raw.to_vec();
        let validity = Validity::of(&parsed);
        Some(Self { common_name, public_key, validity, der })
    }

    /// The CAs in a bundle; what is none, or cannot be read, is left out.
    pub fn all_in(pem: &[u8]) -> Vec<Self> {
        let mut all = Vec::new();
        for own in CertificateDer::pem_slice_iter(pem).filter_map(Result::ok) {
            all.extend(Self::read(own).filter(|own| !all.contains(own)));
        }
        all
    }

    /// A bundle of these.
    pub fn bundle<'a>(all: impl IntoIterator<Item = &'a Self>) -> String {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let blocks = all.into_iter().map(|own| pem::Pem::new("CERTIFICATE", own.der.to_vec()));
        pem::encode_many_config(&blocks.collect::<Vec<_>>(), config)
    }

    /// From when until when it may vouch for anybody.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether the gate made it for itself, by its name.
    pub fn is_own(&self) -> bool {
        self.common_name.starts_with(COMMON_NAME)
    }
}

/// A CA with its key. Its text shows no key.
#[derive(Clone, PartialEq, Eq)]
pub struct Signer {
    authority: Authority,
    key_pem: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signer").field(&self.authority).finish()
    }
}

impl Signer {
    /// Makes an ECDSA P-256 CA, whose name is its own: a client that trusts two of them need not try both.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub fn generate(now: i64, valid_for: Duration) -> Result<Self, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(Vec::new())?;
        let number = params.key_identifier(&key);
        let number = number.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>();
        let end = now.saturating_add(seconds(valid_for));
        set(&mut params, &format!("{COMMON_NAME} {number}"), now, end);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let der = params.self_signed(&key)?.der().clone();
        let authority = Authority::read(der).ok_or(CertificateError::NoAuthority)?;
        Ok(Self { authority, key_pem: key.serialize_pem() })
    }

    /// The CA among these that this key belongs to.
    pub fn find(key_pem: &str, among: &[Authority]) -> Option<Self> {
        let key = KeyPair::from_pem(key_pem).ok()?;
        let public = rcgen::PublicKeyData::subject_public_key_info(&key);
        let authority = among.iter().find(|own| own.public_key == public)?.clone();
        Some(Self { authority, key_pem: key_pem.to_owned() })
    }

    /// Its certificate.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Its key; never to be logged.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Makes a serving certificate (ECDSA P-256: a handshake costs less than half of what one with RSA costs) for these DNS names
    /// and IP addresses. It does not outlive the CA.
    ///
    /// # Errors
    /// Where a name is neither, or the system has no randomness.
    pub fn sign(
        &self,
        names: &[String],
        now: i64,
        valid_for: Duration,
    ) -> Result<Leaf, CertificateError> {
        let mut params = CertificateParams::new(names)?;
        let end = now.saturating_add(seconds(valid_for)).min(self.authority.validity.not_after);
        set(&mut params, "sluicegate", now, end);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let own = KeyPair::from_pem(&self.key_pem)?;
        let issuer = Issuer::from_ca_cert_der(&self.authority.der, own)?;
        let chain_pem = params.signed_by(&key, &issuer)?.pem();
        Leaf::read(&chain_pem, &key.serialize_pem())
    }
}

fn set(params: &mut CertificateParams, common_name: &str, now: i64, end: i64) {
    let at = |seconds: i64| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    };
    params.not_before = at(now.saturating_sub(seconds(CLOCK_SKEW))).into();
    params.not_after = at(end).into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
}

pub(super) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// A serving certificate with its key. Its text shows no key.
#[derive(Clone, PartialEq, Eq)]
pub struct Leaf {
    chain_pem: String,
    key_pem: String,
    der: CertificateDer<'static>,
    names: BTreeSet<String>,
    validity: Validity,
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { names, validity, .. } = self;
        f.debug_struct("Leaf").field("names", names).field("validity", validity).finish()
    }
}

impl Leaf {
    /// Reads a pair as it is kept.
    ///
    /// # Errors
    /// Where either text is no PEM, or the key does not belong to the first certificate.
    pub fn read(chain_pem: &str, key_pem: &str) -> Result<Self, CertificateError> {
        Loaded::read(chain_pem.as_bytes(), key_pem.as_bytes())?;
        let der = CertificateDer::from_pem_slice(chain_pem.as_bytes())
            .map_err(|cause| CertificateError::Pem { what: "tls.crt", cause })?;
        let (_, parsed) = X509Certificate::from_der(&der)
            .map_err(|error| CertificateError::Leaf(error.to_string()))?;
        let validity = Validity::of(&parsed);
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.map(|own| own.value.general_names.as_slice()).unwrap_or_default();
        let names = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        });
        let names = names.collect();
        let (chain_pem, key_pem) = (chain_pem.to_owned(), key_pem.to_owned());
        Ok(Self { chain_pem, key_pem, names, validity, der })
    }

    /// The certificate.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// Its key; never to be logged.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// From when until when a client takes it.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether it is good for all these DNS names and addresses.
    pub fn is_for(&self, names: &[String]) -> bool {
        let spelled = |name: &String| match name.parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => name.clone(),
        };
        names.iter().map(spelled).all(|name| self.names.contains(&name))
    }

    /// Whether this CA has signed it, as a client finds that out; the time of either does not matter.
    pub fn is_signed_by(&self, authority: &Authority) -> bool {
        // Any of its names does: the client that counts asks for its own.
        let Some(name) = self.names.first() else { return false };
        self.is_trusted(std::slice::from_ref(authority), name, self.validity.issued)
    }

    /// Whether a client that trusts these, looks for this name, and whose clock says `now` would go on.
    pub fn is_accepted(&self, trusted: &[Authority], name: &str, now: i64) -> bool {
        let trusted = trusted.iter().filter(|own| own.validity.contains(now)).cloned();
        self.is_trusted(&trusted.collect::<Vec<_>>(), name, now)
    }

    fn is_trusted(&self, trusted: &[Authority], name: &str, now: i64) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().map(|own| own.der.clone()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let (Ok(verifier), Ok(name)) = (verifier.build(), ServerName::try_from(name)) else {
            return false;
        };
        let now = Duration::from_secs(u64::try_from(now).unwrap_or_default());
        let now = UnixTime::since_unix_epoch(now);
        verifier.verify_server_cert(&self.der, &[], &name, &[], now).is_ok()
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let address = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = address.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    address.ok().map(|address| address.to_string())
}
