use std::collections::BTreeSet;

use hashbrown::HashMap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{Arrival, Condition, Host, Protocol, Reading, Route, RouteMatch};
use crate::policy::words::list;
use crate::policy::{Action, Case, Gravity, Report, Rule, Stage, fractions, thing};

/// What is hidden behind a header at a gateway is not hidden.
///
/// Reads: `gateways`, and the `match` and destinations of each http route. Nothing is looked up.
///
/// Why: a header, a cookie or a query parameter is whatever the client sends. Behind a gateway that faces the internet anybody can
/// reach a version that is meant for testers only, as soon as the name of the header is known.
///
/// Not warned about: routes in the mesh; versions that the public reaches by another route, too; claims of a verified token
/// (`@request.auth.claims...`), which a client cannot make up; Services of which the public reaches no version, such as another
/// application; and what the stored object had already.
///
/// Warned about: with `gateways: [edge]`, `match: [{headers: {x-beta: {exact: "1"}}}]` to v2 while all others get v1.
///
/// Passes: `match: [{sourceLabels: {app: tester}}]` for testers in the mesh; at the gateway
/// `match: [{headers: {"@request.auth.claims.group": {exact: beta}}}]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct SpoofableHeader {}

/// Where Istio puts the claims of a token that it has verified (`pilot/pkg/security/authn` and `route.go` `translateMetadataMatch`).
const CLAIMS: &str = "@request.auth.claims";

impl Rule for SpoofableHeader {
    const ID: &'static str = "spoofable-header";
    const ACTION: Action = Action::Warn;
    const STAGE: Stage = Stage::Text;

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let spec = &case.object.spec;
        let Some(gateway) = spec.gateways.iter().find(|gateway| *gateway != "mesh") else { return };
        let arrival = Arrival::anywhere(spec, &case.review.namespace);
        if !spec.http.iter().any(|route| Condition::has_targeted(route, &arrival)) {
            return;
        }
        let mut hosts = HashMap::new();
        let is_public = |route: &&Route| {
            let conditions = Condition::alternatives(route, &arrival, Reading::Usual);
            conditions.iter().any(|condition| !condition.is_targeted())
        };
        let public =
            spec.http.iter().filter(is_public).flat_map(|route| places(case, route, &mut hosts));
        let public = public.collect::<BTreeSet<_>>();
        // A version may be a subset of the same host or a Service of its own.
        let domain = &case.world.mesh().domain;
        let things = public.iter().map(|(host, _)| thing(host, domain)).collect::<BTreeSet<_>>();
        for (index, route) in spec.http.iter().enumerate() {
            let hidden = places(case, route, &mut hosts).into_iter().filter(|place| {
                !public.contains(place) && things.contains(&thing(&place.0, domain))
            });
            let hidden = hidden.collect::<Vec<_>>();
            if hidden.is_empty() {
                continue;
            }
            for (at, alternative) in route.r#match.iter().enumerate() {
                let Some(by) = opened_by(alternative, &arrival) else { continue };
                let names = hidden.iter().map(|(host, subset)| name(case, host, subset));
                let names = list(&names.collect::<Vec<_>>());
                let message = format!(
                    "any client of gateway {gateway} that sends {by} reaches {names}, which is kept from all others\n  Passes: sourceLabels for testers in the mesh; at the gateway a claim of a verified token, such as\n  headers: {{\"{CLAIMS}.group\": {{exact: beta}}}}."
                );
                let path = Protocol::Http.path(index).field("match").index(at);
                report.advice(Gravity::Full, path, message, format!("{by} {names}"), 0.0);
            }
        }
    }
}

/// What a client has to send to get in at a gateway, where that is all that it takes.
fn opened_by(alternative: &RouteMatch, arrival: &Arrival<'_>) -> Option<String> {
    let is_at_gateway = alternative.gateways.is_empty()
        || alternative.gateways.iter().any(|gateway| gateway != "mesh");
    // A gateway's pods do not carry the labels of a client's: such a route is not theirs.
    let is_for_labels = alternative.gateways.is_empty()
        && !(alternative.source_labels.is_empty() && alternative.source_namespace.is_empty());
    let is_verified = alternative.headers.keys().any(|name| name.starts_with(CLAIMS));
    if !is_at_gateway
        || is_for_labels
        || is_verified
        || !Condition::of(alternative, arrival, Reading::Usual)?.is_targeted()
    {
        return None;
    }
    let headers = alternative.headers.keys().map(|name| format!("header {name}"));
    let parameters = alternative.query_params.keys().map(|name| format!("query parameter {name}"));
    Some(list(&headers.chain(parameters).collect::<Vec<_>>()))
}

/// Where a route sends requests: host and subset.
fn places<'a>(
    case: &Case<'_>,
    route: &'a Route,
    hosts: &mut HashMap<&'a str, Host>,
) -> Vec<(Host, &'a str)> {
    let shares = route.route.iter().zip(fractions(route)).filter(|(_, share)| *share > 0.0);
    let mut place = |to: &'a crate::istio::Destination| {
        let host = hosts.entry(to.host.as_str()).or_insert_with(|| case.resolve(&to.host));
        (host.clone(), to.subset.as_str())
    };
    shares.map(|(written, _)| place(&written.destination)).collect()
}

fn name(case: &Case<'_>, host: &Host, subset: &str) -> String {
    let short = host.short(&case.review.namespace, &case.world.mesh().domain);
    if subset.is_empty() { short.to_owned() } else { format!("{short}/{subset}") }
}
