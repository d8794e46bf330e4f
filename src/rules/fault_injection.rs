use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{Arrival, Condition, FaultAbort, Protocol, Reading};
use crate::policy::words::number;
use crate::policy::{Action, Case, Gravity, Percentage, Report, Rule, Stage};

/// Errors and delays on purpose stay small on public traffic.
///
/// Reads: `fault` of each http route, and its `match`. Nothing is looked up.
///
/// Why: a fault hits the whole route before a destination is picked, so that weights do not limit it, and one that was forgotten
/// after a test looks like an outage. More than `max` percent is almost always a test that ran against everybody.
///
/// Not warned about: routes that only clients with a certain header, cookie, query parameter or label take; a fault without
/// percentage, which Istio applies to no request; and what the stored object had already, at the same or a higher percentage.
///
/// Warned about: `fault: {abort: {httpStatus: 503, percentage: {value: 100}}}` on a route without `match`.
///
/// Passes: the same with `percentage: {value: 1}`, or on a route with `match: [{headers: {x-test: {exact: "1"}}}]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct FaultInjection {
    /// The largest percentage of a public route's requests that may be answered with an error or delayed.
    max: Percentage,
}

impl Default for FaultInjection {
    fn default() -> Self {
        Self { max: Percentage::new(10.0) }
    }
}

impl Rule for FaultInjection {
    const ID: &'static str = "fault-injection";
    const ACTION: Action = Action::Warn;
    const STAGE: Stage = Stage::Text;

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let spec = &case.object.spec;
        let arrival = Arrival::anywhere(spec, &case.review.namespace);
        for (index, route) in spec.http.iter().enumerate() {
            let Some(fault) = &route.fault else { continue };
            let is_public = || {
                let conditions = Condition::alternatives(route, &arrival, Reading::Usual);
                conditions.iter().any(|condition| !condition.is_targeted())
            };
            let abort = fault.abort.as_ref().map(|abort| {
                let percent = abort.percentage.map_or(0.0, |percentage| percentage.value);
                ("abort", percent, format!("answered with {}", status(abort)))
            });
            let delay = fault.delay.as_ref().and_then(|delay| {
                let by = delay.fixed_delay?;
                Some(("delay", delay.percent(), format!("delayed by {by:?}")))
            });
            for (field, percent, what) in abort.into_iter().chain(delay) {
                if percent <= self.max.get() || !is_public() {
                    continue;
                }
                let path = Protocol::Http.path(index).field("fault").field(field);
                let message = format!(
                    "{} % of these requests would be {what}, whichever destination the weights pick; {} % is the most here\n  Passes: percentage: {{value: {}}}, or a match on a header that only testers send.",
                    number(percent),
                    number(self.max.get()),
                    number(self.max.get())
                );
                report.advice(
                    Gravity::Full,
                    path,
                    message,
                    format!("{field} {:?}", route.targets()),
                    percent,
                );
            }
        }
    }
}

fn status(abort: &FaultAbort) -> String {
    match abort.http_status {
        Some(status) => status.to_string(),
        None if abort.grpc_status.is_empty() => "an error".to_owned(),
        None => abort.grpc_status.clone(),
    }
}
