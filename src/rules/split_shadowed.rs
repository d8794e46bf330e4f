use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{Arrival, Condition, Protocol, Reading, Route, RouteMatch, StringMatch};
use crate::policy::words::list;
use crate::policy::{Action, Case, Gravity, Report, Rule, Stage, fractions};

/// The weights of a split are those of all requests.
///
/// Reads: the `match`, the order and the weights of the http routes. Nothing is looked up.
///
/// Why: routes are tried from the top, and what a route in front takes, no weight behind it divides. Where that route asks for a
/// header that many clients send, 10 % of the split is far less than 10 % of the requests, or far more of them reach the canary
/// than the weight says; whoever watches the canary draws the wrong conclusion.
///
/// Not warned about: a route in front that asks for the exact value of a header of its own, for a cookie or for a query
/// parameter, because that is an opt-in of few; paths; routes to other hosts; routes that can never take requests of the split;
/// and what the stored object had already.
///
/// Warned about: `match: [{headers: {user-agent: {regex: ".*Mobile.*"}}}]` to v1 in front of v1 90, v2 10.
///
/// Passes: the same with the weights 90 and 10 in the route in front, too; or without that route.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct SplitShadowed {}

impl Rule for SplitShadowed {
    const ID: &'static str = "split-shadowed";
    const ACTION: Action = Action::Warn;
    const STAGE: Stage = Stage::Text;

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let spec = &case.object.spec;
        let arrival = Arrival::anywhere(spec, &case.review.namespace);
        // Only routes that take requests by a header are compared with the splits behind them: there are few.
        let mut fronts: Vec<Front<'_>> = Vec::new();
        for (index, route) in spec.http.iter().enumerate() {
            if route.route.len() > 1 && !fronts.is_empty() && fronts.len() <= MOST_FRONTS {
                let shares = shares(case, route);
                let conditions = Condition::alternatives(route, &arrival, Reading::Usual);
                check_split(case, (index, route, &conditions), &shares, &fronts, report);
            }
            let mut broad = route.r#match.iter().filter_map(|alternative| {
                let condition = Condition::of(alternative, &arrival, Reading::Usual)?;
                let header = broad_header(alternative, &condition)?;
                Some((condition, header))
            });
            if let Some((condition, header)) = broad.next() {
                fronts.push(Front { index, route, condition, header });
            }
        }
    }
}

/// With more routes in front than this nobody takes the weights for those of all requests.
const MOST_FRONTS: usize = 32;

/// A route in front of a split.
struct Front<'a> {
    index: usize,
    route: &'a Route,
    condition: Condition,
    header: String,
}

fn check_split(
    case: &Case<'_>,
    (index, split, conditions): (usize, &Route, &[Condition]),
    own: &BTreeSet<Sent>,
    fronts: &[Front<'_>],
    report: &mut Report<'_>,
) {
    if own.len() < 2 {
        return;
    }
    let takes = |front: &&Front<'_>| {
        let theirs = shares(case, front.route);
        let is_same_service = theirs.iter().any(|sent| own.iter().any(|own| own.host == sent.host));
        is_same_service
            && theirs != *own
            && conditions.iter().any(|condition| !condition.excludes(&front.condition))
    };
    let Some(front) = fronts.iter().find(takes) else { return };
    let to = front.route.route.iter().zip(fractions(front.route)).filter(|(_, share)| *share > 0.0);
    let to = to.map(|(written, _)| written.destination.name().to_owned()).collect::<Vec<_>>();
    let front_path = Protocol::Http.path(front.index);
    let message = format!(
        "the weights divide only what {front_path} leaves: requests with header {} go to {} before they are looked at\n  Passes: the same weights in {front_path}, or an exact value that only few clients send.",
        front.header,
        list(&to)
    );
    let key = format!("{:?} behind {:?} {}", split.targets(), front.route.targets(), front.header);
    let path = Protocol::Http.path(index).field("route");
    report.advice(Gravity::Full, path, message, key, 0.0);
}

/// A header by which an alternative takes requests of clients that did not opt in one by one.
fn broad_header(alternative: &RouteMatch, condition: &Condition) -> Option<String> {
    let is_opt_in = |(name, value): (&String, &Option<StringMatch>)| {
        name.eq_ignore_ascii_case("cookie") || matches!(value, Some(StringMatch::Exact(_)))
    };
    if condition.is_catch_all() {
        return None;
    }
    if condition.is_targeted() {
        let is_narrow = !alternative.query_params.is_empty()
            || !alternative.source_labels.is_empty()
            || alternative.headers.iter().any(is_opt_in);
        return if is_narrow { None } else { alternative.headers.keys().next().cloned() };
    }
    let without = alternative.without_headers.keys().map(|name| format!("other than {name}"));
    alternative.headers.keys().cloned().chain(without).next()
}

/// A share of a route.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sent {
    host: crate::istio::Host,
    subset: String,
    /// In millionths.
    part: u64,
}

fn shares(case: &Case<'_>, route: &Route) -> BTreeSet<Sent> {
    let shares = route.route.iter().zip(fractions(route)).filter(|(_, share)| *share > 0.0);
    let sent = |(written, share): (&crate::istio::RouteDestination, f64)| Sent {
        host: case.resolve(&written.destination.host),
        subset: written.destination.subset.clone(),
        part: (share * 1e6).round() as u64,
    };
    shares.map(sent).collect()
}
