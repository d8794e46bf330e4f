//! One replica at a time does what only one may do.

use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease as Stored, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

/// How long a holder that says nothing any more keeps it.
const DURATION: Duration = Duration::from_secs(15);

/// A `coordination.k8s.io` Lease, held by one replica at a time. Clocks of other machines do not count: whoever wants it watches
/// for as long as it is good for whether its holder renews it.
///
/// Source: `client-go/tools/leaderelection/leaderelection.go`.
#[derive(Debug)]
pub(super) struct Lease {
    api: Api<Stored>,
    name: String,
    identity: String,
    /// With what it is removed, where it is made here.
    owner: Option<OwnerReference>,
    /// What was stored when it last changed, and when that was seen.
    observed: Option<(Option<String>, Option<MicroTime>, Instant)>,
    /// When the last request began that took it or renewed it.
    held: Option<Instant>,
}

impl Lease {
    pub(super) fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity(),
            owner: None,
            observed: None,
            held: None,
        }
    }

    /// Has it removed with its owner.
    pub(super) fn owned_by(&mut self, owner: Option<OwnerReference>) {
        self.owner = owner;
    }

    /// Takes it or renews it; whether it is held from now on.
    ///
    /// # Errors
    /// When the API server does not answer, or does not allow it; then it is not held.
    pub(super) async fn hold(&mut self) -> Result<bool, kube::Error> {
        let began = Instant::now();
        self.held = None;
        let held = self.try_to_hold().await;
        self.held = held.as_ref().is_ok_and(|is_held| *is_held).then_some(began);
        held
    }

    /// Whether it is held: it was the last time, and nobody else can have found it silent since.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some_and(|began| began.elapsed() < DURATION)
    }

    async fn try_to_hold(&mut self) -> Result<bool, kube::Error> {
        let Some(stored) = self.api.get_opt(&self.name).await? else {
            let own = self.own(None);
            return taken(self.api.create(&PostParams::default(), &own).await);
        };
        let spec = stored.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let is_same = self
            .observed
            .as_ref()
            .is_some_and(|(by, at, _)| (by, at) == (&holder, &spec.renew_time));
        if !is_same {
            self.observed = Some((holder.clone(), spec.renew_time.clone(), Instant::now()));
        }
        let is_ours = holder.as_deref() == Some(&self.identity);
        let is_silent =
            self.observed.as_ref().is_some_and(|(_, _, seen)| seen.elapsed() >= DURATION);
        if !is_ours && holder.is_some() && !is_silent {
            return Ok(false);
        }
        let own = self.own(Some(stored));
        taken(self.api.replace(&self.name, &PostParams::default(), &own).await)
    }

    /// Lets it go, so that the next one need not wait.
    pub(super) async fn release(&mut self) {
        if self.held.take().is_none() {
            return;
        }
        if let Ok(Some(mut stored)) = self.api.get_opt(&self.name).await
            && let Some(spec) = &mut stored.spec
            && spec.holder_identity.as_deref() == Some(&self.identity)
        {
            spec.holder_identity = None;
            // Whoever comes next need not be told why it could not be let go.
            let _ = self.api.replace(&self.name, &PostParams::default(), &stored).await;
        }
    }

    /// What is to be stored: the version that was read makes sure that nobody else took it meanwhile.
    fn own(&self, stored: Option<Stored>) -> Stored {
        let now = MicroTime(Timestamp::now());
        let (metadata, spec) = match stored {
            Some(stored) => (stored.metadata, stored.spec.unwrap_or_default()),
            None => {
                let name = Some(self.name.clone());
                let owner_references = self.owner.clone().map(|owner| vec![owner]);
                let metadata = ObjectMeta { name, owner_references, ..ObjectMeta::default() };
                (metadata, LeaseSpec::default())
            }
        };
        let is_new = spec.holder_identity.as_deref() != Some(&self.identity);
        let transitions = spec.lease_transitions.unwrap_or_default() + i32::from(is_new);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if is_new { Some(now.clone()) } else { spec.acquire_time },
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..spec
        };
        Stored { metadata, spec: Some(spec) }
    }
}

/// Somebody else was faster: that is no error.
fn taken(written: Result<Stored, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// The Pod's name, and a number for this process: a container that starts anew in its Pod is another holder.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "sluicegate".to_owned());
    let number = std::hash::RandomState::new().build_hasher().finish();
    format!("{host}_{number:016x}")
}
