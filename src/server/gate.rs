//! The gate: judge, read live what a refusal rests on, judge again.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;

use super::metrics::{LiveRead, Metrics};
use crate::cluster::{Index, LiveReadError, MOST_REQUESTS};
use crate::policy::{Mode, Policies, Reference, Review, Verdict, evaluate};
use crate::world::{Kind, World};

/// How long all live reads of one review may take together: a busy API server gets most of the three seconds that it waits
/// for the gate itself, as `docs/webhook.md` registers it for people.
pub const CONFIRM_LIMIT: Duration = Duration::from_secs(2);

/// Where the world comes from, and how a refusal that rests on something missing is confirmed.
pub trait WorldSource: Send + Sync + 'static {
    /// Judges with the world as it is now: short, synchronous, under a read lock.
    fn judge(&self, judge: &dyn Fn(&World) -> Verdict) -> Verdict;

    /// How many requests it takes to read these references live.
    fn cost(&self, references: &[Reference]) -> usize;

    /// Reads these references live and puts what it finds into the world.
    fn confirm<'a>(
        &'a self,
        references: &'a [Reference],
    ) -> BoxFuture<'a, Result<(), ConfirmError>>;

    /// The kinds that are needed and not listed yet.
    fn missing(&self) -> Vec<Kind>;

    /// The kinds that the API server does not serve, because their CRDs are not installed; they count as listed and empty.
    fn absent(&self) -> Vec<Kind> {
        Vec::new()
    }
}

/// Why a refusal could not be confirmed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfirmError {
    /// The API server did not give it.
    #[error(transparent)]
    Unreadable(Box<dyn std::error::Error + Send + Sync>),
    /// The API server did not answer in time.
    #[error("the API server did not answer a live read within {0:?}")]
    Slow(Duration),
    /// What was read has shown that more must be read than one review may cost.
    #[error(
        "{needed} live reads more would be needed, and {MOST_REQUESTS} in all are the most for one write; what was read is known now"
    )]
    TooMany {
        /// How many.
        needed: usize,
    },
}

/// A world that does not change: from files, in a demo, in a test.
#[derive(Debug)]
pub struct StaticWorld(pub World);

impl WorldSource for StaticWorld {
    fn judge(&self, judge: &dyn Fn(&World) -> Verdict) -> Verdict {
        judge(&self.0)
    }

    fn cost(&self, _: &[Reference]) -> usize {
        0
    }

    fn confirm<'a>(&'a self, _: &'a [Reference]) -> BoxFuture<'a, Result<(), ConfirmError>> {
        // What was read is all there is.
        Box::pin(std::future::ready(Ok(())))
    }

    fn missing(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|&kind| !self.0.knows(kind)).collect()
    }
}

impl WorldSource for Index {
    fn judge(&self, judge: &dyn Fn(&World) -> Verdict) -> Verdict {
        Index::judge(self, judge)
    }

    fn cost(&self, references: &[Reference]) -> usize {
        Index::cost(self, references)
    }

    fn confirm<'a>(
        &'a self,
        references: &'a [Reference],
    ) -> BoxFuture<'a, Result<(), ConfirmError>> {
        Box::pin(async move {
            Index::confirm(self, references).await.map_err(|error| match error {
                LiveReadError::Slow(limit) => ConfirmError::Slow(limit),
                error => ConfirmError::Unreadable(error.into()),
            })
        })
    }

    fn missing(&self) -> Vec<Kind> {
        Index::missing(self)
    }

    fn absent(&self) -> Vec<Kind> {
        Index::absent(self)
    }
}

/// Judges reviews: the policies, the world, and the live read before a refusal.
pub struct Gate {
    policies: ArcSwap<Policies>,
    world: Arc<dyn WorldSource>,
    confirm_limit: Duration,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("policies", &self.policies).finish_non_exhaustive()
    }
}

/// A verdict, and which policy was in force for it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    pub(super) policy: String,
    pub(super) mode: Mode,
}

impl Gate {
    /// Judges with these policies in this world.
    pub fn new(policies: Policies, world: Arc<dyn WorldSource>) -> Self {
        Self { policies: ArcSwap::from_pointee(policies), world, confirm_limit: CONFIRM_LIMIT }
    }

    /// Lets the live reads of one review take this long together.
    #[must_use]
    pub fn with_confirm_limit(self, confirm_limit: Duration) -> Self {
        Self { confirm_limit, ..self }
    }

    /// Judges with these policies from the next review on.
    pub fn set_policies(&self, policies: Policies) {
        self.policies.store(Arc::new(policies));
    }

    /// The kinds that are needed and not listed yet.
    pub fn missing(&self) -> Vec<Kind> {
        self.world.missing()
    }

    /// The kinds that the API server does not serve.
    pub fn absent(&self) -> Vec<Kind> {
        self.world.absent()
    }

    /// Judges one write. Nobody is refused because of something that may only be missing in a stale copy: what a refusal rests
    /// on is read live first, and judged again.
    pub(super) async fn review(
        &self,
        review: &Review,
        metrics: &Metrics,
    ) -> Result<Judged, ConfirmError> {
        let mut judged = self.judge(review);
        let mut confirmed = BTreeSet::new();
        let deadline = Instant::now() + self.confirm_limit;
        let mut left = MOST_REQUESTS;
        // What is found may show the next thing that is missing; each reference is read once, so this ends.
        loop {
            if judged.verdict.allowed() {
                return Ok(judged);
            }
            // The one that costs least leaves most for the next round.
            let open = judged.verdict.to_confirm(&confirmed).into_iter();
            let open = open.map(|references| (self.world.cost(&references), references));
            let Some((needed, references)) = open.min_by_key(|(needed, _)| *needed) else {
                return Ok(judged);
            };
            left = left.checked_sub(needed).ok_or(ConfirmError::TooMany { needed })?;
            let read = tokio::time::timeout_at(deadline.into(), self.world.confirm(&references));
            let result = read.await.unwrap_or(Err(ConfirmError::Slow(self.confirm_limit)));
            metrics.live_read(match result {
                Ok(()) => LiveRead::Ok,
                Err(ConfirmError::Slow(_)) => LiveRead::Slow,
                Err(_) => LiveRead::Error,
            });
            result?;
            confirmed.extend(references);
            judged = self.judge(review);
        }
    }

    fn judge(&self, review: &Review) -> Judged {
        let policies = self.policies.load();
        let in_force = RefCell::new((String::new(), Mode::default()));
        let verdict = self.world.judge(&|world| {
            let policy = policies.in_force(review, world);
            in_force.replace((policy.name().to_owned(), policy.spec().mode));
            evaluate(policy, review, world)
        });
        let (policy, mode) = in_force.into_inner();
        Judged { verdict, policy, mode }
    }
}
