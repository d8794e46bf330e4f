//! The `caBundle` of a ValidatingWebhookConfiguration: what API servers trust, seen by a watch and put right where it is not what
//! it should be.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::Stream;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watch_object};
use kube::{Api, Client};
use serde_json::json;
use tracing::{info, warn};

use super::watched::version;
use crate::certs::authority::Authority;
use crate::certs::plan::Trust;

/// The field manager of `caBundle`, and of nothing else.
///
/// A patch owns only what it changes. A server-side apply would own the name of each webhook, too, and with it the webhook: when
/// whoever has applied the configuration server-side leaves one out later, as an upgrade by Helm 4 may, the API server would keep
/// a name and a `caBundle` of it, find that invalid, and refuse the whole upgrade.
const MANAGER: &str = "sluicegate-certs";

/// How long after a write the next one may follow, where somebody else writes something different again and again: at first and
/// at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// After this long without a write nobody is fighting.
const PEACE: Duration = Duration::from_secs(60);

/// What is known of one configuration.
#[derive(Debug)]
pub(super) struct CaBundle {
    api: Api<ValidatingWebhookConfiguration>,
    name: String,
    seen: Seen,
    /// The resourceVersion of what was seen; a watch may bring an older one later.
    version: u64,
    /// The CAs that every webhook of it trusts, and since when this replica has seen that.
    trusted: Vec<(Authority, Instant)>,
    /// Which bundle was in place on which object, and in which of its webhooks.
    in_place: Option<(String, String, BTreeSet<String>)>,
    /// When it was written last, and how long the next write waits after that.
    written: Option<(Instant, Duration)>,
    was_missed: bool,
}

#[derive(Debug)]
enum Seen {
    Nothing,
    /// Nobody asks, since then: there is no such object, or no webhook in it.
    Nobody(Instant),
    /// Each with its name and its bundle.
    Webhooks {
        uid: String,
        bundles: Vec<(String, Vec<u8>)>,
    },
}

impl CaBundle {
    pub(super) fn new(client: Client, name: &str) -> Self {
        Self {
            api: Api::all(client),
            name: name.to_owned(),
            seen: Seen::Nothing,
            version: 0,
            trusted: Vec::new(),
            in_place: None,
            written: None,
            was_missed: false,
        }
    }

    /// The object, each time it changes; `None` while there is none.
    pub(super) fn events(
        &self,
    ) -> impl Stream<Item = watcher::Result<Option<ValidatingWebhookConfiguration>>> + Send + use<>
    {
        watch_object(self.api.clone(), &self.name).default_backoff()
    }

    /// Takes in what the object is now.
    pub(super) fn saw(&mut self, object: Option<&ValidatingWebhookConfiguration>) {
        let of = |own: &ValidatingWebhookConfiguration| {
            version(own.metadata.resource_version.as_deref())
        };
        let known = std::mem::replace(&mut self.version, object.map_or(0, of));
        if object.is_some() && self.version < known {
            self.version = known;
            return;
        }
        if object.is_none() && !self.was_missed {
            info!(
                webhook_configuration = self.name,
                "there is no such ValidatingWebhookConfiguration; its caBundle is set as soon as there is"
            );
        }
        self.was_missed = object.is_none();
        let webhooks = object.and_then(|own| own.webhooks.as_deref()).unwrap_or_default();
        if webhooks.is_empty() {
            if !matches!(self.seen, Seen::Nobody(_)) {
                self.seen = Seen::Nobody(Instant::now());
            }
            self.trusted.clear();
            return;
        }
        let bundles = webhooks.iter().map(|own| {
            let bundle = own.client_config.ca_bundle.as_ref();
            (own.name.clone(), bundle.map(|own| own.0.clone()).unwrap_or_default())
        });
        let bundles = bundles.collect::<Vec<_>>();
        let mut all = bundles.iter().map(|(_, own)| Authority::all_in(own));
        let mut common = all.next().unwrap_or_default();
        for other in all {
            common.retain(|own| other.contains(own));
        }
        self.trusted.retain(|(own, _)| common.contains(own));
        common.retain(|own| !self.trusted.iter().any(|(other, _)| other == own));
        self.trusted.extend(common.into_iter().map(|own| (own, Instant::now())));
        let uid = object.and_then(|own| own.metadata.uid.clone()).unwrap_or_default();
        self.seen = Seen::Webhooks { uid, bundles };
    }

    /// Since when every API server trusts a CA, as far as this object says.
    pub(super) fn trust(&self, authority: &Authority) -> Trust {
        match &self.seen {
            Seen::Nothing => Trust::Unknown,
            Seen::Nobody(since) => Trust::For(since.elapsed()),
            Seen::Webhooks { .. } => {
                let own = self.trusted.iter().find(|(own, _)| own == authority);
                own.map_or(Trust::No, |(_, since)| Trust::For(since.elapsed()))
            }
        }
    }

    /// The CAs that some webhook trusts and that the gate has made: replicas may still serve what they have signed.
    pub(super) fn own_authorities(&self) -> Vec<Authority> {
        let Seen::Webhooks { bundles, .. } = &self.seen else { return Vec::new() };
        let all = bundles.iter().flat_map(|(_, own)| Authority::all_in(own));
        all.filter(Authority::is_own).collect()
    }

    /// Whether some webhook has another bundle, and it is time to do something about that. Notes what is in place.
    pub(super) fn wants(&mut self, bundle: &str) -> bool {
        let Seen::Webhooks { uid, bundles } = &self.seen else { return false };
        if bundles.iter().all(|(_, own)| own == bundle.as_bytes()) {
            let names = bundles.iter().map(|(name, _)| name.clone()).collect();
            self.in_place = Some((uid.clone(), bundle.to_owned(), names));
            return false;
        }
        self.written.is_none_or(|(at, pause)| at.elapsed() >= pause)
    }

    /// Whether putting this bundle in place puts back what had been there; `None` where it is in place.
    fn would_repair(&self, bundle: &str) -> Option<bool> {
        let Seen::Webhooks { uid, bundles } = &self.seen else { return None };
        let others = bundles.iter().filter(|(_, own)| own != bundle.as_bytes());
        let others = others.map(|(name, _)| name).collect::<Vec<_>>();
        // A webhook that is new is none that somebody has changed.
        let had_it = self.in_place.as_ref().is_some_and(|(on, own, names)| {
            on == uid && own == bundle && others.iter().any(|&name| names.contains(name))
        });
        (!others.is_empty()).then_some(had_it)
    }

    /// Puts this bundle into every webhook, and touches nothing else; whether that put back what had been there before.
    ///
    /// # Errors
    /// When the API server does not answer, does not allow it, or somebody else was faster.
    pub(super) async fn put(&mut self, bundle: &str) -> Result<bool, kube::Error> {
        let pause = match self.written {
            Some((at, pause)) if at.elapsed() < PEACE => (pause * 3 / 2).min(PAUSE.1),
            _ => PAUSE.0,
        };
        self.written = Some((Instant::now(), pause));
        // Read again: the patch is for the object, and the webhooks, that are there now.
        let stored = self.api.get_opt(&self.name).await?;
        self.saw(stored.as_ref());
        let (Some(stored), Some(is_repair)) = (stored, self.would_repair(bundle)) else {
            return Ok(false);
        };
        let value = k8s_openapi::ByteString(bundle.as_bytes().to_vec());
        let webhooks = stored.webhooks.iter().flatten();
        let webhooks = webhooks
            .map(|own| json!({"name": own.name, "clientConfig": {"caBundle": value}}))
            .collect::<Vec<_>>();
        let patch = json!({
            "metadata": {"uid": stored.metadata.uid, "resourceVersion": stored.metadata.resource_version},
            "webhooks": webhooks,
        });
        let params =
            PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let written = self.api.patch(&self.name, &params, &Patch::Strategic(&patch)).await?;
        self.saw(Some(&written));
        let webhooks = webhooks.len();
        if is_repair {
            warn!(
                webhook_configuration = self.name,
                webhooks, "somebody had changed caBundle; it is put back"
            );
        } else {
            info!(webhook_configuration = self.name, webhooks, "caBundle set");
        }
        Ok(is_repair)
    }
}
