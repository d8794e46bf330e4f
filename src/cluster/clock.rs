//! What time it is for the API server.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

/// How long it is believed to be known.
const FRESH: Duration = Duration::from_secs(60);

/// The API server's clock: what is signed must be valid for API servers, whatever the clock of this machine says.
#[derive(Debug, Default)]
pub(super) struct Clock(Option<(i64, Instant)>);

impl Clock {
    pub(super) fn set(&mut self, now: Option<i64>) {
        let own = Timestamp::now().as_second();
        self.0 = Some((now.unwrap_or(own), Instant::now()));
    }

    pub(super) fn now(&self) -> i64 {
        match self.0 {
            Some((at, since)) => {
                at.saturating_add(i64::try_from(since.elapsed().as_secs()).unwrap_or_default())
            }
            None => Timestamp::now().as_second(),
        }
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.0.is_some_and(|(_, since)| since.elapsed() < FRESH)
    }
}
