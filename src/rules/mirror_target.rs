use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{Destination, FieldPath, Protocol};
use crate::policy::words::{list, near_miss, percent};
use crate::policy::{Action, Case, Gravity, Percentage, Report, Rule, Stage, Target};
use crate::world::Kind;

/// Mirrored requests arrive somewhere, and are not more than was meant.
///
/// Reads: `mirror`, `mirrors`, `mirrorPercentage` and `mirrorPercent` of each http route. Looks up the host, the subset and its
/// ready endpoints.
///
/// Why: a mirror without percentage copies **every** request, writes included, and loads a canary of one pod with the traffic of
/// all. A mirror to a subset that does not exist copies nothing, and no error says so. `max` is 50 because a version that is only
/// tried out gets no more than half of the requests in one write elsewhere, either.
///
/// Not warned about: `mirrorPercentage: {value: 0}`, which turns it off, as `{}` does; and what the stored object had already. A
/// target that is missing is a warning at the most: nobody who is served now is hurt.
///
/// Warned about: `mirror: {host: reviews, subset: v2}`, because no percentage means 100 %.
///
/// Passes: the same with `mirrorPercentage: {value: 10}`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct MirrorTarget {
    /// The largest percentage of a route's requests that may be copied to one place.
    max: Percentage,
}

impl Default for MirrorTarget {
    fn default() -> Self {
        Self { max: Percentage::new(50.0) }
    }
}

impl Rule for MirrorTarget {
    const ID: &'static str = "mirror-target";
    const ACTION: Action = Action::Warn;
    const STAGE: Stage = Stage::Text;
    const READS: &'static [Kind] = &Case::TARGET;

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let may_look = case.may_look(&Case::TARGET);
        for (index, route) in case.object.spec.http.iter().enumerate() {
            for mirrored in route.mirrored() {
                let route_path = Protocol::Http.path(index);
                let (path, field, is_written) = match mirrored.at {
                    None => (
                        route_path.field("mirror"),
                        "mirrorPercentage",
                        route.mirror_percentage.is_some()
                            || route.mirror_percent.is_some()
                            || route.mirror_percent_snake.is_some(),
                    ),
                    Some(at) => {
                        let is_written = route.mirrors[at].percentage.is_some();
                        (route_path.field("mirrors").index(at), "percentage", is_written)
                    }
                };
                if mirrored.part * 100.0 > self.max.get() + 1e-9 {
                    self.too_much(
                        path.clone(),
                        mirrored.to,
                        mirrored.part,
                        (field, is_written),
                        report,
                    );
                }
                if may_look {
                    missing(case, path, mirrored.to, report);
                }
            }
        }
    }
}

impl MirrorTarget {
    fn too_much(
        &self,
        path: FieldPath,
        to: &Destination,
        part: f64,
        (field, is_written): (&str, bool),
        report: &mut Report<'_>,
    ) {
        let why = if is_written { "" } else { " (no percentage means all of them)" };
        let most = percent(self.max.get() / 100.0);
        let message = format!(
            "{} of these requests would be copied to {}{why}; {most} is the most here\n  A copy is a whole request: what it writes is written twice, and its load comes on top.\n  Passes: {field}: {{value: {}}}.",
            percent(part),
            to.name(),
            self.max.get()
        );
        report.advice(
            Gravity::Full,
            path,
            message,
            format!("share {} {}", to.host, to.subset),
            part,
        );
    }
}

/// Copies that arrive nowhere.
fn missing(case: &Case<'_>, path: FieldPath, to: &Destination, report: &mut Report<'_>) {
    let name = to.name();
    let (why, next) = match case.target(to) {
        Target::NoHost => (
            format!("nobody has the host {}", case.resolve(&to.host)),
            "the name of a Service that is there.".to_owned(),
        ),
        Target::NoSubset(defined) => {
            let meant = near_miss(&to.subset, defined.iter().copied());
            let next = match (meant, defined.as_slice()) {
                (Some(meant), _) => format!("did you mean {meant}?"),
                (None, []) => format!("first a DestinationRule that defines {name}, then this."),
                (None, defined) => {
                    let defined = defined.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
                    format!(
                        "one of {}, or first the subset {name} in the DestinationRule.",
                        list(&defined)
                    )
                }
            };
            (format!("no DestinationRule in force defines subset {name} of {}", to.host), next)
        }
        Target::Selects(Some(endpoints)) if endpoints.ready() == 0 => (
            format!("{name} selects no ready pod"),
            format!("the same write as soon as a pod of {name} is ready."),
        ),
        Target::Selects(_) => return,
    };
    let message =
        format!("nothing would be mirrored, and no error would say so: {why}\n  Passes: {next}");
    report.advice(
        Gravity::WarnOnly,
        path,
        message,
        format!("target {} {}", to.host, to.subset),
        0.0,
    );
}
