//! When which certificate is replaced: what is kept, the time and what clients trust go in, the next step comes out.
//!
//! **What holds at every moment.** What is served is signed by a CA that clients trusted, and had time to take in, before it
//! was served; that CA is trusted until nothing that it signed can be in use any more. Any step may be the last one before
//! another replica goes on: what is kept says all that it needs.

use std::time::Duration;

use super::authority::{Authority, Signer, seconds};
use super::kept::Kept;

/// How long things last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durations {
    /// A leaf; it is replaced when two thirds are over.
    pub leaf_for: Duration,
    /// A CA; the next one is made when two thirds are over, and sooner where it could not vouch for a whole leaf any more.
    pub ca_for: Duration,
    /// How long API servers may take to go by what a ValidatingWebhookConfiguration says.
    pub settle: Duration,
}

impl Default for Durations {
    fn default() -> Self {
        let days = |number: u64| Duration::from_secs(number * 24 * 3600);
        Self { leaf_for: days(90), ca_for: days(730), settle: Duration::from_secs(10) }
    }
}

impl Durations {
    /// Whether a rotation has time enough.
    ///
    /// # Errors
    /// Where it has not; the text says which flag to change.
    pub fn check(self) -> Result<Self, DurationsError> {
        match self {
            Self { leaf_for, ca_for, .. } if ca_for < 2 * leaf_for => {
                Err(DurationsError::Authority)
            }
            Self { leaf_for, settle, .. } if leaf_for < 3 * settle.max(Duration::from_secs(1)) => {
                Err(DurationsError::Leaf)
            }
            own => Ok(own),
        }
    }
}

/// Why certificates cannot last as long as somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationsError {
    /// A CA could not vouch for a leaf to its end.
    #[error(
        "a CA must last at least twice as long as a leaf: raise --certs-ca-for or lower --certs-leaf-for"
    )]
    Authority,
    /// A leaf would end before another one can be served.
    #[error(
        "a leaf must last at least three seconds, and three times --certs-settle: raise --certs-leaf-for"
    )]
    Leaf,
}

/// Since when every client trusts a CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It is not known what they trust.
    Unknown,
    /// Some do not.
    No,
    /// All have done so for this long, as far as this replica has seen; also where there are no clients.
    For(Duration),
}

/// What is to be done next, by the one replica that may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing of what is there can be used: another CA, and a leaf of it.
    StartAnew,
    /// Another CA is made, and clients are told to trust it, too.
    IntroduceAuthority,
    /// Another leaf of the same CA.
    RenewLeaf,
    /// The first leaf of the next CA, which signs from now on.
    SwitchAuthority,
    /// The CAs that sign no more are not trusted any longer.
    Retire,
    /// Nothing, before this time (in seconds since 1970) or before something else changes.
    Rest {
        /// When to look again.
        until: i64,
    },
}

/// The next step.
pub fn next(
    kept: &Kept,
    names: &[String],
    now: i64,
    durations: Durations,
    trust: impl Fn(&Authority) -> Trust,
) -> Step {
    let trusted_for = |own: &Signer| match trust(own.authority()) {
        Trust::For(duration) => Some(duration),
        Trust::Unknown | Trust::No => None,
    };
    let lives = |own: &&Signer| own.authority().validity().contains(now);
    let signer = kept.signer.as_ref().filter(lives);
    let next = kept.next.as_ref().filter(lives);

    let Some(leaf) = kept.good_leaf(now) else {
        // Nothing to lose: the CA that clients have trusted for longer, else the one that signs.
        return match (signer, next) {
            (Some(signer), Some(next)) if trusted_for(next) > trusted_for(signer) => {
                Step::SwitchAuthority
            }
            (Some(_), _) => Step::RenewLeaf,
            (None, Some(_)) => Step::SwitchAuthority,
            (None, None) => Step::StartAnew,
        };
    };

    if next.and_then(trusted_for).is_some_and(|duration| duration >= durations.settle) {
        return Step::SwitchAuthority;
    }
    let due = |own: &Signer| {
        let validity = own.authority().validity();
        validity.two_thirds().min(validity.not_after.saturating_sub(seconds(durations.leaf_for)))
    };
    // One that was never trusted in time is too old to begin with.
    let is_fresh = next.is_some_and(|own| now < due(own));
    let signer_due = signer.map_or(now, due);
    if now >= signer_due && !is_fresh {
        return Step::IntroduceAuthority;
    }

    let leaf_due = leaf.validity().two_thirds();
    let would_last =
        |own: &Signer| own.authority().validity().not_after > leaf.validity().not_after;
    if signer.is_some_and(|own| !leaf.is_for(names) || (now >= leaf_due && would_last(own))) {
        return Step::RenewLeaf;
    }

    let retire_after =
        kept.retired().next().map(|_| kept.retire_after.unwrap_or(leaf.validity().not_after));
    if retire_after.is_some_and(|at| now > at) {
        return Step::Retire;
    }
    let dates = [Some(leaf_due), (!is_fresh).then_some(signer_due), retire_after];
    let until = dates.into_iter().flatten().filter(|&at| at > now).min();
    Step::Rest { until: until.unwrap_or(leaf.validity().not_after) }
}

/// How long a replica that serves nothing yet waits until API servers trust what it would serve.
pub const FIRST_WAIT: Duration = Duration::from_secs(5);

/// Whether a replica serves from now on what is kept, and not what it served before. `served` is how far its present leaf is
/// trusted and whether it has ended; `offered` how far the other one is; `waited` since when this replica knows of that.
///
/// The one that writes has made sure that clients trust a leaf before it is kept; this is for a Secret that somebody else has
/// written, or that was made anew by a replica that knew nothing of what others serve.
pub fn takes_up(
    served: Option<(Trust, bool)>,
    offered: Trust,
    waited: Duration,
    settle: Duration,
) -> bool {
    match served {
        // Not answering at all is what a client makes of a leaf that it does not trust, too; being ready too early is worse.
        None => matches!(offered, Trust::For(_)) || waited >= FIRST_WAIT,
        Some((Trust::For(_), false)) => match offered {
            Trust::For(duration) => duration >= settle,
            Trust::No => false,
            Trust::Unknown => true,
        },
        Some(_) => true,
    }
}
