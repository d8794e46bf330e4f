//! What is kept of the certificates, in the data of one Secret.
//!
//! | key | what |
//! |---|---|
//! | `tls.crt`, `tls.key` | the leaf that every replica serves |
//! | `ca.crt` | every CA that clients are to trust: the one that signs first |
//! | `ca.key` | the key of the CA that signs |
//! | `next-ca.key` | during a rotation: the key of the CA that will sign next |
//! | `retire-after` | when a CA that signs no more leaves `ca.crt`, as RFC 3339 |
//!
//! A key finds its CA in the bundle by itself, so a part that somebody breaks costs only itself.

use std::collections::BTreeMap;

use super::CertificateError;
use super::authority::{Authority, Leaf, Signer, seconds};
use super::plan::{Durations, Step};

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const BUNDLE: &str = "ca.crt";
const SIGNER: &str = "ca.key";
const NEXT: &str = "next-ca.key";
const RETIRE_AFTER: &str = "retire-after";

/// The certificates of all replicas, and what makes the next ones. Its text shows no key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// What is served.
    pub leaf: Option<Leaf>,
    /// What clients are to trust.
    pub bundle: Vec<Authority>,
    /// What signs.
    pub signer: Option<Signer>,
    /// What will sign as soon as clients trust it.
    pub next: Option<Signer>,
    /// When the CAs that sign no more are no longer trusted, in seconds since 1970.
    pub retire_after: Option<i64>,
    /// The CA in the bundle that has signed the leaf: found once, because that takes cryptography.
    voucher: Option<Authority>,
}

impl Kept {
    /// Reads the data of a Secret; what cannot be used counts as absent.
    pub fn read(data: &BTreeMap<String, Vec<u8>>) -> Self {
        let text = |key: &str| data.get(key).and_then(|own| std::str::from_utf8(own).ok());
        let bundle = Authority::all_in(data.get(BUNDLE).map(Vec::as_slice).unwrap_or_default());
        let leaf = text(CERTIFICATE).zip(text(KEY));
        let leaf = leaf.and_then(|(chain, key)| Leaf::read(chain, key).ok());
        let signer = |key: &str| Signer::find(text(key)?, &bundle);
        let (own, next) = (signer(SIGNER), signer(NEXT));
        let retire_after = text(RETIRE_AFTER).and_then(|own| own.trim().parse().ok());
        let retire_after = retire_after.map(jiff::Timestamp::as_second);
        let mut kept = Self { leaf, signer: own, next, bundle, retire_after, voucher: None };
        kept.find_voucher();
        kept
    }

    /// The data of the Secret.
    pub fn data(&self) -> BTreeMap<String, Vec<u8>> {
        let retire_after = self.retire_after.and_then(|at| jiff::Timestamp::from_second(at).ok());
        let texts = [
            (CERTIFICATE, self.leaf.as_ref().map(|own| own.chain_pem().to_owned())),
            (KEY, self.leaf.as_ref().map(|own| own.key_pem().to_owned())),
            (BUNDLE, Some(Authority::bundle(&self.bundle))),
            (SIGNER, self.signer.as_ref().map(|own| own.key_pem().to_owned())),
            (NEXT, self.next.as_ref().map(|own| own.key_pem().to_owned())),
            (RETIRE_AFTER, retire_after.map(|at| at.to_string())),
        ];
        let texts = texts.into_iter().filter_map(|(key, text)| Some((key, text?)));
        texts.map(|(key, text)| (key.to_owned(), text.into_bytes())).collect()
    }

    /// The CA in the bundle that has signed what is served.
    pub fn voucher(&self) -> Option<&Authority> {
        self.voucher.as_ref()
    }

    fn find_voucher(&mut self) {
        let leaf = self.leaf.as_ref();
        let voucher = leaf.and_then(|leaf| self.bundle.iter().find(|own| leaf.is_signed_by(own)));
        self.voucher = voucher.cloned();
    }

    /// The leaf, where it can be served now: signed by a CA of the bundle, and neither has ended.
    pub fn good_leaf(&self, now: i64) -> Option<&Leaf> {
        let voucher = self.voucher()?;
        let leaf = self.leaf.as_ref()?;
        (leaf.validity().contains(now) && voucher.validity().contains(now)).then_some(leaf)
    }

    /// The CAs that sign no more, and have not signed what is served.
    pub fn retired(&self) -> impl Iterator<Item = &Authority> {
        let voucher = self.voucher();
        self.bundle.iter().filter(move |&own| !self.signs(own) && voucher != Some(own))
    }

    fn signs(&self, authority: &Authority) -> bool {
        let signers = [&self.signer, &self.next];
        signers.into_iter().flatten().any(|own| own.authority() == authority)
    }

    /// What is stored, mended with what this replica has seen before: a Secret that was deleted or broken takes nobody's leaf
    /// away. No key of a CA comes back, so that deleting the Secret makes a new one.
    #[must_use]
    pub fn mended(self, known: Option<&Self>, now: i64) -> Self {
        let Some(known) = known.filter(|own| own.good_leaf(now).is_some()) else { return self };
        if self.good_leaf(now).is_some() {
            return self;
        }
        let mut bundle = self.bundle;
        bundle.extend(known.bundle.clone());
        let mut mended = Self { leaf: known.leaf.clone(), bundle, ..self };
        mended.retire_after = mended.retire_after.max(known.retire_after);
        mended.in_order();
        mended
    }

    /// What is kept once a step is done.
    ///
    /// # Errors
    /// Where no certificate can be made: a name that is none, or no randomness.
    pub fn after(
        mut self,
        step: Step,
        names: &[String],
        now: i64,
        durations: Durations,
    ) -> Result<Self, CertificateError> {
        let Durations { leaf_for, ca_for, .. } = durations;
        match step {
            Step::Rest { .. } => {}
            Step::StartAnew => {
                let signer = Signer::generate(now, ca_for)?;
                self.leaf = Some(signer.sign(names, now, leaf_for)?);
                self.bundle.push(signer.authority().clone());
                (self.signer, self.next) = (Some(signer), None);
                // Whoever still serves a leaf of another CA does so no longer than one is good for.
                self.retire_after = Some(now.saturating_add(seconds(leaf_for)));
            }
            Step::IntroduceAuthority => {
                let next = Signer::generate(now, ca_for)?;
                self.bundle.push(next.authority().clone());
                self.next = Some(next);
            }
            Step::RenewLeaf => {
                let signer = self.signer.as_ref().ok_or(CertificateError::NoAuthority)?;
                let leaf = signer.sign(names, now, leaf_for)?;
                self.replace_leaf(leaf);
            }
            Step::SwitchAuthority => {
                let next = self.next.take().ok_or(CertificateError::NoAuthority)?;
                let leaf = next.sign(names, now, leaf_for)?;
                self.signer = Some(next);
                self.replace_leaf(leaf);
            }
            Step::Retire => {
                let retired = self.retired().cloned().collect::<Vec<_>>();
                self.bundle.retain(|own| !retired.contains(own));
                self.retire_after = None;
            }
        }
        self.in_order();
        Ok(self)
    }

    /// Puts another leaf in the place of the one before, which may be in use until it ends: so long its CA stays trusted.
    fn replace_leaf(&mut self, leaf: Leaf) {
        let (before, by) = (self.leaf.replace(leaf), self.voucher.take());
        self.find_voucher();
        if by.is_some() && by != self.voucher {
            let end = before.map(|own| own.validity().not_after);
            self.retire_after = self.retire_after.max(end);
        }
    }

    /// The CA that signs first, each once.
    fn in_order(&mut self) {
        let first = self.signer.iter().chain(&self.next).map(|own| own.authority().clone());
        let mut bundle = first.collect::<Vec<_>>();
        for own in std::mem::take(&mut self.bundle) {
            if !bundle.contains(&own) {
                bundle.push(own);
            }
        }
        self.bundle = bundle;
        self.find_voucher();
        if self.retired().next().is_none() {
            self.retire_after = None;
        }
    }
}
