//! Certificates that the replicas look after themselves: one Secret, written by one of them, read by all.
//!
//! Every replica follows the Secret and serves the leaf in it. The one that holds the Lease of the same name does the steps of
//! [`crate::certs::plan`], one write each, and keeps `caBundle` what the Secret says. Writes name the version that was read, so two
//! that both believe to hold the Lease cannot overwrite each other.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use http_body_util::BodyExt as _;
use hyper::header::DATE;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{GetParams, PostParams};
use kube::client::Body;
use kube::core::{Request, Status};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watch_object};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::ca_bundle::CaBundle;
use super::client::said;
use super::clock::Clock;
use super::lease::Lease;
use super::watched::version;
use crate::certs::authority::Authority;
use crate::certs::kept::Kept;
use crate::certs::plan::{self, Durations, Step};
use crate::certs::{CertificateError, Certificates};

/// How often it is looked whether something is due.
const LOOK: Duration = Duration::from_millis(500);
/// How often the Lease is renewed, or asked for.
const RENEW: Duration = Duration::from_secs(5);
/// How long after a failure until the next attempt.
const AGAIN: Duration = Duration::from_secs(5);
/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Which certificates, for whom, and where.
#[derive(Debug, Clone)]
pub struct SelfManaged {
    /// The namespace of the Secret and of the Lease.
    pub namespace: String,
    /// The name of both.
    pub secret: String,
    /// The ValidatingWebhookConfiguration whose `caBundle` is kept.
    pub webhook_configuration: String,
    /// The DNS names and addresses of the leaf.
    pub names: Vec<String>,
    /// How long things last.
    pub durations: Durations,
}

/// Looks after the certificates of all replicas, and serves them in this one. Its text shows no key.
pub struct CertificateKeeper {
    settings: SelfManaged,
    api: Api<Secret>,
    lease: Lease,
    /// With what the Secret is removed, where it is made here.
    owner: Option<OwnerReference>,
    bundle: CaBundle,
    certificates: Arc<Certificates>,
    /// The Secret as it was last seen; `None` before the first time.
    stored: Option<Option<Secret>>,
    /// What it holds.
    kept: Kept,
    /// What could be used last: a Secret that somebody breaks takes it away from nobody.
    known: Option<Kept>,
    /// What is served, and the CA that has signed it.
    served: Option<(Kept, Authority)>,
    /// Since when something else is kept than is served.
    offered: Option<Instant>,
    clock: Clock,
    /// No attempt before this time.
    rest: Option<Instant>,
    complaints: BTreeMap<&'static str, String>,
}

impl std::fmt::Debug for CertificateKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateKeeper")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Why a step could not be done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("the API server does not answer")]
    Slow,
}

impl CertificateKeeper {
    /// Has what is made here removed with its owner.
    #[must_use]
    pub fn owned_by(mut self, owner: Option<OwnerReference>) -> Self {
        self.lease.owned_by(owner.clone());
        Self { owner, ..self }
    }

    /// With these settings, for these connections.
    pub fn new(client: Client, settings: SelfManaged, certificates: Arc<Certificates>) -> Self {
        Self {
            api: Api::namespaced(client.clone(), &settings.namespace),
            lease: Lease::new(client.clone(), &settings.namespace, &settings.secret),
            owner: None,
            bundle: CaBundle::new(client, &settings.webhook_configuration),
            settings,
            certificates,
            stored: None,
            kept: Kept::default(),
            known: None,
            served: None,
            offered: None,
            clock: Clock::default(),
            rest: None,
            complaints: BTreeMap::new(),
        }
    }

    /// Goes on until told to stop. Whatever fails is said and tried again; what is served stays.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let secret = &self.settings.secret;
        let mut secrets = pin!(watch_object(self.api.clone(), secret).default_backoff());
        let mut configurations = pin!(self.bundle.events());
        let mut asked: Option<Instant> = None;
        loop {
            tokio::select! {
                Some(event) = secrets.next() => self.saw_secret(event),
                Some(event) = configurations.next() => self.saw_configuration(event),
                () = tokio::time::sleep(LOOK) => {}
                () = shutdown.cancelled() => break,
            }
            self.serve_what_is_kept();
            if asked.is_none_or(|at| at.elapsed() >= RENEW) {
                asked = Some(Instant::now());
                self.ask_for_the_lease().await;
            }
            if self.lease.is_held() && self.rest.is_none_or(|until| until <= Instant::now()) {
                self.rest = None;
                self.look_after().await;
            }
        }
        let _ = tokio::time::timeout(LIMIT, self.lease.release()).await;
    }

    fn saw_secret(&mut self, event: watcher::Result<Option<Secret>>) {
        match event {
            Ok(secret) => {
                self.complaints.remove("secret");
                if secret.is_none() && self.stored.is_none() {
                    info!(secret = %self.place(), "there is no such Secret yet; the holder of the Lease makes it");
                }
                // What this replica has written or read since is newer than what the watch brings now.
                let is_old = secret.as_ref().is_some_and(|own| {
                    let known = self.stored.as_ref().and_then(Option::as_ref);
                    known.is_some_and(|known| resource_version(own) < resource_version(known))
                });
                if !is_old {
                    self.take(secret);
                }
            }
            Err(error) => self.complain("secret", "get, list and watch on secret", &words(&error)),
        }
    }

    fn saw_configuration(
        &mut self,
        event: watcher::Result<Option<ValidatingWebhookConfiguration>>,
    ) {
        match event {
            Ok(own) => {
                self.complaints.remove("configuration");
                self.bundle.saw(own.as_ref());
            }
            Err(error) => {
                let missing = "get, list, watch and patch on validatingwebhookconfiguration";
                self.complain("configuration", missing, &words(&error));
            }
        }
    }

    /// Notes what the Secret is now.
    fn take(&mut self, secret: Option<Secret>) {
        let data = secret.as_ref().and_then(|own| own.data.clone()).unwrap_or_default();
        let data = data.into_iter().map(|(key, value)| (key, value.0)).collect();
        self.kept = Kept::read(&data);
        self.stored = Some(secret);
        if self.kept.good_leaf(self.clock.now()).is_some() {
            self.known = Some(self.kept.clone());
        }
    }

    /// Serves the leaf of the Secret, as soon as API servers trust it or nothing better is to be had.
    fn serve_what_is_kept(&mut self) {
        let (Some(leaf), Some(voucher)) = (&self.kept.leaf, self.kept.voucher()) else { return };
        if self.served.as_ref().is_some_and(|(own, _)| own.leaf.as_ref() == Some(leaf)) {
            self.offered = None;
            return;
        }
        let waited = self.offered.get_or_insert_with(Instant::now).elapsed();
        let served = self.served.as_ref().and_then(|(own, by)| {
            let has_ended = !own.leaf.as_ref()?.validity().contains(self.clock.now());
            Some((self.bundle.trust(by), has_ended))
        });
        let settle = self.settings.durations.settle;
        if !plan::takes_up(served, self.bundle.trust(voucher), waited, settle) {
            return;
        }
        let replaced =
            self.certificates.replace(leaf.chain_pem().as_bytes(), leaf.key_pem().as_bytes());
        if let Err(error) = replaced {
            // It was read a moment ago, so this is a leaf that rustls takes.
            warn!(%error, "serving certificate not replaced");
            self.certificates.count_failure();
            return;
        }
        let (not_after, ca) = (leaf.validity().not_after, voucher.validity().not_after);
        self.certificates.self_managed.ca_expiry.set(ca);
        info!(secret = %self.place(), not_after, ca_not_after = ca, "serving certificate loaded");
        self.offered = None;
        self.served = Some((self.kept.clone(), voucher.clone()));
    }

    async fn ask_for_the_lease(&mut self) {
        let had = self.lease.is_held();
        let held = tokio::time::timeout(LIMIT, self.lease.hold()).await;
        match held.map_err(|_| Failure::Slow).and_then(|held| Ok(held?)) {
            Ok(true) if !had => {
                info!(lease = %self.place(), "looks after the certificates from now on");
                // What another one did last may not have come by the watch yet.
                self.clock = Clock::default();
            }
            Ok(_) => {
                self.complaints.remove("lease");
            }
            Err(error) => {
                let missing = "create on leases, and get and update on lease";
                self.complain("lease", missing, &error.to_string());
                // Whether anything is due is not known without an answer.
                if matches!(error, Failure::Api(kube::Error::Api(_))) {
                    self.certificates.self_managed.issue_failures.inc();
                }
            }
        }
    }

    /// What the holder does: the next step, and then the bundle.
    async fn look_after(&mut self) {
        if let Err(failure) = self.do_what_is_due().await {
            self.rest = Some(Instant::now() + AGAIN);
            if self.is_conflict(&failure) {
                // Somebody else was faster: what it wrote comes by the watch.
                self.clock = Clock::default();
                self.rest = None;
                return;
            }
            self.certificates.self_managed.issue_failures.inc();
            self.say(&failure);
        }
    }

    async fn do_what_is_due(&mut self) -> Result<(), Failure> {
        if !self.clock.is_fresh() {
            self.read().await?;
        }
        let is_rest = |(_, step): &(Kept, Step)| matches!(step, Step::Rest { .. });
        let mut due = self.due();
        if due.0 != self.kept || !is_rest(&due) {
            // Only the watch has said so: read it again, and what time it is, before anything is replaced.
            self.read().await?;
            due = self.due();
            if due.0 != self.kept || !is_rest(&due) {
                self.step(due.0, due.1).await?;
            }
        }
        let bundle = Authority::bundle(&self.kept.bundle);
        if self.kept.good_leaf(self.clock.now()).is_some() && self.bundle.wants(&bundle) {
            self.read().await?;
            let bundle = Authority::bundle(&self.kept.bundle);
            if self.kept.good_leaf(self.clock.now()).is_some() && self.lease.is_held() {
                let put = tokio::time::timeout(LIMIT, self.bundle.put(&bundle)).await;
                if put.map_err(|_| Failure::Slow)?? {
                    self.certificates.self_managed.bundle_repairs.inc();
                }
            }
        }
        self.complaints.remove("step");
        Ok(())
    }

    /// What is kept, mended where it can be, and what is to be done with it.
    fn due(&self) -> (Kept, Step) {
        let now = self.clock.now();
        let mended = self.kept.clone().mended(self.known.as_ref(), now);
        let SelfManaged { names, durations, .. } = &self.settings;
        let trust = |own: &Authority| self.bundle.trust(own);
        let step = plan::next(&mended, names, now, *durations, trust);
        (mended, step)
    }

    /// Does a step, and writes down what comes of it.
    async fn step(&mut self, mut from: Kept, step: Step) -> Result<(), Failure> {
        if step == Step::StartAnew {
            from.bundle.extend(self.bundle.own_authorities());
        }
        let now = self.clock.now();
        let SelfManaged { names, durations, .. } = &self.settings;
        let had_leaf = self.kept.leaf.is_some() || self.known.is_some();
        let next = from.after(step, names, now, *durations)?;
        let data = next.data().into_iter().map(|(key, value)| (key, ByteString(value))).collect();
        let stored = self.stored.clone().flatten();
        let mut secret = stored.clone().unwrap_or_else(|| Secret {
            metadata: ObjectMeta {
                name: Some(self.settings.secret.clone()),
                owner_references: self.owner.clone().map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            ..Secret::default()
        });
        secret.data = Some(data);
        if !self.lease.is_held() {
            return Ok(());
        }
        let (name, params) = (&self.settings.secret, PostParams::default());
        let written = async {
            match stored {
                Some(_) => self.api.replace(name, &params, &secret).await,
                None => self.api.create(&params, &secret).await,
            }
        };
        let written = tokio::time::timeout(LIMIT, written).await.map_err(|_| Failure::Slow)??;
        let leaf = |own: &Kept| own.leaf.as_ref().map(|leaf| leaf.chain_pem().to_owned());
        let is_new_leaf = leaf(&next) != leaf(&self.kept);
        self.take(Some(written));
        self.report(step, is_new_leaf, had_leaf);
        self.serve_what_is_kept();
        Ok(())
    }

    fn report(&self, step: Step, is_new_leaf: bool, had_leaf: bool) {
        if is_new_leaf && had_leaf && !matches!(step, Step::IntroduceAuthority | Step::Rest { .. })
        {
            self.certificates.self_managed.rotations.inc();
        }
        let said = match step {
            Step::StartAnew => "a CA and a certificate made",
            Step::IntroduceAuthority => "the next CA made; it signs when API servers trust it",
            Step::RenewLeaf => "certificate renewed",
            Step::SwitchAuthority => "certificate of the next CA made, which signs from now on",
            Step::Retire => "CAs that sign no more are no longer trusted",
            Step::Rest { .. } => "the Secret written anew from what is served",
        };
        let not_after = self.kept.leaf.as_ref().map(|leaf| leaf.validity().not_after);
        info!(secret = %self.place(), not_after, trusted = self.kept.bundle.len(), "{said}");
    }

    /// Reads the Secret, and the API server's clock.
    async fn read(&mut self) -> Result<(), Failure> {
        let read = tokio::time::timeout(LIMIT, self.request()).await;
        let (secret, now) = read.map_err(|_| Failure::Slow)??;
        self.clock.set(now);
        self.take(secret);
        Ok(())
    }

    async fn request(&self) -> Result<(Option<Secret>, Option<i64>), kube::Error> {
        let path = format!("/api/v1/namespaces/{}/secrets", self.settings.namespace);
        let request = Request::new(path).get(&self.settings.secret, &GetParams::default());
        let request = request.map_err(kube::Error::BuildRequest)?;
        let answer = self.api.clone().into_client().send(request.map(Body::from)).await?;
        let (status, date) = (answer.status(), answer.headers().get(DATE).cloned());
        let date = date.as_ref().and_then(|own| own.to_str().ok()).and_then(time);
        let body = answer.into_body().collect().await?.to_bytes();
        if status == hyper::StatusCode::NOT_FOUND {
            return Ok((None, date));
        }
        if !status.is_success() {
            let said = serde_json::from_slice::<Status>(&body);
            let said = said.unwrap_or_else(|_| Status::failure("the Secret cannot be read", ""));
            return Err(kube::Error::Api(said.with_code(status.as_u16()).boxed()));
        }
        let secret = serde_json::from_slice(&body).map_err(kube::Error::SerdeError)?;
        Ok((Some(secret), date))
    }

    /// Somebody else has changed, made or removed the object meanwhile.
    fn is_conflict(&self, failure: &Failure) -> bool {
        let Failure::Api(kube::Error::Api(status)) = failure else { return false };
        // Where something was to be made, it is the namespace that is missing.
        let is_gone = status.code == 404 && matches!(self.stored, Some(Some(_)));
        status.code == 409 || is_gone
    }

    /// Says once what is the matter.
    fn say(&mut self, failure: &Failure) {
        let reason = match failure {
            Failure::Api(error) => said(error),
            failure => failure.to_string(),
        };
        let missing = match reason.contains("validatingwebhookconfigurations") {
            true => "get, list, watch and patch on validatingwebhookconfiguration",
            false => "create on secrets, and get, list, watch and update on secret",
        };
        self.complain("step", missing, &reason);
    }

    fn complain(&mut self, about: &'static str, missing: &str, reason: &str) {
        if self.complaints.get(about).is_some_and(|own| own == reason) {
            return;
        }
        let SelfManaged { namespace, secret, webhook_configuration, .. } = &self.settings;
        let is_serving = self.served.is_some();
        if reason.contains("forbidden") {
            let whose = match missing.ends_with("configuration") {
                true => format!("{missing} {webhook_configuration} (ClusterRole)"),
                false => format!("{missing} {secret} (Role in {namespace})"),
            };
            warn!(
                reason,
                is_serving, "certificates are not looked after: grant this service account {whose}"
            );
        } else {
            warn!(
                reason,
                is_serving, "certificates are not looked after for now; what is served stays"
            );
        }
        self.complaints.insert(about, reason.to_owned());
    }

    fn place(&self) -> String {
        format!("{}/{}", self.settings.namespace, self.settings.secret)
    }
}

fn resource_version(secret: &Secret) -> u64 {
    version(secret.metadata.resource_version.as_deref())
}

fn words(error: &watcher::Error) -> String {
    match error {
        watcher::Error::WatchError(status) => status.message.clone(),
        error => said(error),
    }
}

/// The time of a `Date` header.
fn time(text: &str) -> Option<i64> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    parser.parse_timestamp(text).ok().map(jiff::Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_read() {
        assert_eq!(time("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(time("yesterday"), None);
    }
}
