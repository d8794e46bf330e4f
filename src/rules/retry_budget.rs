use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{Protocol, Route};
use crate::policy::words::{counted, list};
use crate::policy::{Action, Case, Gravity, Report, Rule, Stage, fractions};

/// Retries fit into the timeout and do not multiply a canary's load.
///
/// Reads: `retries.attempts`, `retries.perTryTimeout` and `timeout` of each http route, and its weights. Nothing is looked up.
///
/// Why: `attempts` counts the retries, so there is one try more, and the timeout holds for all of them together: a try that does
/// not fit any more never happens. And Envoy repeats a request on the destination that was picked first: while a canary fails,
/// each of its requests becomes `attempts` + 1 requests to the canary, and none goes to the stable side.
///
/// Not warned about: `attempts: 0`, which turns retries off; a route without timeout, which has none; Istio's default of 2 and
/// the 3 of its documentation; and what the stored object had already.
///
/// Warned about: `timeout: 10s, retries: {attempts: 5, perTryTimeout: 10s}`, where only the first try fits.
///
/// Passes: `timeout: 10s, retries: {attempts: 3, perTryTimeout: 2s}`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct RetryBudget {
    /// The most retries of a route that splits its requests.
    max_attempts: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { max_attempts: 3 }
    }
}

impl Rule for RetryBudget {
    const ID: &'static str = "retry-budget";
    const ACTION: Action = Action::Warn;
    const STAGE: Stage = Stage::Text;

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        for (index, route) in case.object.spec.http.iter().enumerate() {
            let Some(retries) = &route.retries else { continue };
            let attempts = retries.attempts.and_then(|attempts| u32::try_from(attempts).ok());
            let Some(attempts) = attempts.filter(|&attempts| attempts > 0) else { continue };
            let path = Protocol::Http.path(index).field("retries");
            let budget = route.timeout.zip(retries.per_try_timeout);
            if let Some((timeout, each)) = budget
                && let Some(message) = beyond(attempts, each, timeout)
            {
                let key = format!("budget {:?}", route.targets());
                report.advice(
                    Gravity::Full,
                    path.clone(),
                    message,
                    key,
                    shortfall(attempts, each, timeout),
                );
            }
            let split = split(route);
            if split.len() > 1 && attempts > self.max_attempts {
                let message = format!(
                    "a failed try is repeated where it failed, not on the other side: a request to {} may become {}\n  Passes: attempts: {} while the requests are split.",
                    list(&split).replace(" and ", " or "),
                    counted(attempts.saturating_add(1), "request"),
                    self.max_attempts
                );
                let key = format!("split {:?}", route.targets());
                report.advice(
                    Gravity::Full,
                    path.field("attempts"),
                    message,
                    key,
                    f64::from(attempts),
                );
            }
        }
    }
}

/// How much longer all tries take than they may, in seconds.
fn shortfall(attempts: u32, each: Duration, timeout: Duration) -> f64 {
    (f64::from(attempts) + 1.0) * each.as_secs_f64() - timeout.as_secs_f64()
}

fn beyond(attempts: u32, each: Duration, timeout: Duration) -> Option<String> {
    if shortfall(attempts, each, timeout) <= 1e-6 {
        return None;
    }
    let tries = attempts.saturating_add(1);
    let fitting = (timeout.as_secs_f64() / each.as_secs_f64() + 1e-9).floor();
    let next = if fitting >= 1.0 {
        // As a person would write it: whole tenths of a second where there are any.
        let room = (timeout / tries).as_millis();
        let room = if room >= 1000 { room - room % 100 } else { room };
        let shorter = Duration::from_millis(u64::try_from(room).unwrap_or(u64::MAX));
        let fewer = fitting - 1.0;
        format!(
            "attempts: {fewer}, or perTryTimeout: {shorter:?}, or no timeout shorter than {:?}.",
            each.saturating_mul(tries)
        )
    } else {
        format!("a perTryTimeout that is shorter than the timeout of {timeout:?}.")
    };
    let fit = match fitting {
        0.0 => "not even one fits".to_owned(),
        1.0 => "only the first fits".to_owned(),
        fitting => format!("only {fitting} fit"),
    };
    Some(format!(
        "{} of {each:?} each do not fit into the route's timeout of {timeout:?}: {fit}\n  Passes: {next}",
        if tries == 1 { "1 try".to_owned() } else { format!("{tries} tries") }
    ))
}

/// The destinations among which requests are split, by the names that stand beside the weights.
fn split(route: &Route) -> Vec<String> {
    let carrying = route.route.iter().zip(fractions(route)).filter(|(_, share)| *share > 0.0);
    let mut names =
        carrying.map(|(written, _)| written.destination.name().to_owned()).collect::<Vec<_>>();
    names.sort();
    names.dedup();
    names
}
