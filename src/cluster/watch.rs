//! One watch for each kind, for as long as the process lives.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::client::said;
use super::feed::{Feed, Next};
use super::index::Index;
use super::resources::resource;
use super::watched::{Served, Watched};
use crate::world::Kind;

/// How patient the watches are.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long until a kind is asked for again whose CRD is not installed.
    pub absent: Duration,
    /// How long a streaming list may say nothing before it is taken for one that never ends.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { absent: Duration::from_secs(10), silence: Duration::from_secs(30) }
    }
}

/// A watch has ended by itself; the index would grow stale without a word.
#[derive(Debug, thiserror::Error)]
#[error("a watch has ended: {cause}; start the process anew")]
pub struct WatchEnded {
    /// Why.
    pub cause: String,
}

/// How often the index is looked at while nothing is said about the cluster.
const LOOK: Duration = Duration::from_secs(1);

/// Refused streaming lists after which pages are asked for instead.
const MOST_REFUSALS: u32 = 3;

/// Feeds the index with these kinds until it is cancelled. Requests that fail are tried again, for ever.
///
/// # Errors
/// When a watch ends although nobody cancelled it, which is a defect here: the process is better started anew.
pub async fn follow(
    client: Client,
    index: Arc<Index>,
    kinds: Vec<Kind>,
    cancel: CancellationToken,
) -> Result<(), WatchEnded> {
    follow_with(Patience::default(), client, index, kinds, cancel).await
}

/// Does what [`follow`] does with another patience.
///
/// # Errors
/// As [`follow`].
pub async fn follow_with(
    patience: Patience,
    client: Client,
    index: Arc<Index>,
    kinds: Vec<Kind>,
    cancel: CancellationToken,
) -> Result<(), WatchEnded> {
    let mut watches = JoinSet::new();
    for kind in kinds {
        let watch = Watch {
            client: client.clone(),
            index: Arc::clone(&index),
            kind,
            patience,
            version: 0,
            is_streaming: true,
        };
        watches.spawn(cancel.clone().run_until_cancelled_owned(watch.run()));
    }
    watches.spawn(cancel.run_until_cancelled_owned(look_after(index)));
    while let Some(ended) = watches.join_next().await {
        match ended {
            // Nothing but a panic ends one.
            Err(error) => return Err(WatchEnded { cause: error.to_string() }),
            Ok(Some(never)) => match never {},
            Ok(None) => {}
        }
    }
    Ok(())
}

/// Panics once somebody has panicked with the index in hand, as the next watch event would: a live read may break the lock,
/// and in a quiet cluster no event comes to notice it, while every review fails.
async fn look_after(index: Arc<Index>) -> Infallible {
    loop {
        tokio::time::sleep(LOOK).await;
        index.read(|_| ());
    }
}

struct Watch {
    client: Client,
    index: Arc<Index>,
    kind: Kind,
    patience: Patience,
    version: usize,
    is_streaming: bool,
}

/// Why one way of watching is given up.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// The whole list is needed again.
    ListAgain,
    /// The API server does not know streaming lists.
    NoStreaming,
    /// The API server does not know this version of the kind.
    NotServed,
}

impl Watch {
    async fn run(mut self) -> Infallible {
        let mut is_absent = false;
        loop {
            match self.once(&mut is_absent).await {
                Ended::ListAgain => debug!(kind = self.kind.name(), "listing again"),
                Ended::NoStreaming => {
                    info!(kind = self.kind.name(), "no streaming lists here; listing in pages");
                    self.is_streaming = false;
                }
                Ended::NotServed if self.version + 1 < resource(self.kind).versions.len() => {
                    self.version += 1;
                }
                Ended::NotServed => {
                    self.version = 0;
                    self.index.set_absent(self.kind);
                    if !is_absent {
                        let group = resource(self.kind).group;
                        warn!(
                            kind = self.kind.name(),
                            "{group} is not installed, so there is none; will be watched as soon as it is"
                        );
                    }
                    is_absent = true;
                    tokio::time::sleep(self.patience.absent).await;
                }
            }
        }
    }

    fn events(&self) -> impl Stream<Item = watcher::Result<Event<Watched>>> + Send + use<> {
        let served = Served { resource: resource(self.kind), version: self.version };
        let config = watcher::Config::default();
        let config = if self.is_streaming { config.streaming_lists() } else { config };
        watcher(Api::<Watched>::all_with(self.client.clone(), &served), config)
    }

    async fn once(&self, is_absent: &mut bool) -> Ended {
        let name = self.kind.name();
        let mut feed = Feed::new(Arc::clone(&self.index), self.kind);
        let mut events = pin!(self.events());
        let mut backoff = DefaultBackoff::default();
        let mut refusals = 0;
        // Until `InitDone`; a list, unlike a watch, is never silent for long.
        let (mut is_listing, mut has_begun) = (true, false);
        loop {
            let next = if is_listing {
                match tokio::time::timeout(self.patience.silence, events.next()).await {
                    Ok(next) => next,
                    Err(_) if self.is_streaming => return Ended::NoStreaming,
                    Err(_) => {
                        self.index.count_failure(self.kind);
                        warn!(kind = name, "the API server does not answer, asking again");
                        return Ended::ListAgain;
                    }
                }
            } else {
                events.next().await
            };
            let failure = match next {
                // kube's stream has no end; if it ever has one, a new one begins.
                None => return Ended::ListAgain,
                // A list that begins again before it was complete has broken off.
                Some(Ok(Event::Init)) if std::mem::replace(&mut has_begun, true) => {
                    is_listing = true;
                    feed.take(Event::Init);
                    "the list broke off".to_owned()
                }
                Some(Ok(event)) => {
                    is_listing |= matches!(event, Event::Init);
                    // Half a list is no success.
                    if refusals > 0 && !matches!(event, Event::Init | Event::InitApply(_)) {
                        (backoff, refusals) = (DefaultBackoff::default(), 0);
                    }
                    if matches!(event, Event::InitDone) {
                        (is_listing, has_begun) = (false, false);
                        self.index.set_version(self.kind, self.version);
                        debug!(kind = name, "listed");
                        if std::mem::take(is_absent) {
                            info!(kind = name, "is installed now");
                        }
                    }
                    match feed.take(event) {
                        Next::Follow => continue,
                        Next::ListAgain => return Ended::ListAgain,
                    }
                }
                Some(Err(error)) => {
                    // The next `Init` follows from this error, and this one is enough to wait for.
                    has_begun = false;
                    if let Some(ended) = self.verdict_on(&error) {
                        return ended;
                    }
                    words(&error, self.kind)
                }
            };
            refusals += 1;
            self.index.count_failure(self.kind);
            if self.is_streaming
                && refusals >= MOST_REFUSALS
                && !self.index.progress(self.kind).is_listed
            {
                return Ended::NoStreaming;
            }
            if refusals == 1 {
                warn!(kind = name, "watch interrupted, trying again: {failure}");
            } else {
                debug!(kind = name, refusals, "watch interrupted, trying again: {failure}");
            }
            tokio::time::sleep(backoff.next().unwrap_or(self.patience.absent)).await;
        }
    }

    /// What an error says about the way of watching; `None` where trying again in the same way is right.
    fn verdict_on(&self, error: &watcher::Error) -> Option<Ended> {
        let (watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::InitialListFailed(kube::Error::Api(status))) = error
        else {
            return None;
        };
        match status.code {
            404 if resource(self.kind).is_custom => Some(Ended::NotServed),
            // 422 without the feature gate, 400 from servers that do not know the parameters; the others from what may stand
            // in between.
            400 | 404 | 405 | 406 | 422 if self.is_streaming => Some(Ended::NoStreaming),
            _ => None,
        }
    }
}

/// An error in words that say what to do.
fn words(error: &watcher::Error, kind: Kind) -> String {
    let api = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    };
    match api {
        Some(status) if status.code == 403 => {
            let own = resource(kind);
            format!(
                "forbidden; grant this service account list and watch on {} in API group {:?}",
                own.plural, own.group
            )
        }
        Some(status) if status.code == 410 => "the history is gone, listing again".to_owned(),
        _ => said(error),
    }
}
