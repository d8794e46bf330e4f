use std::collections::BTreeSet;

use hashbrown::{HashMap, HashSet};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{
    Arrival, Condition, ConsistentHash, Destination, PolicyInForce, Protocol, Route,
};
use crate::policy::words::list;
use crate::policy::{Action, Case, Gravity, Hosts, Report, Rule, Stage, fractions};
use crate::world::{EffectiveRule, Kind};

/// A split keeps nobody on one version, whatever the DestinationRule hashes.
///
/// Reads: the weights of each http route, and `loadBalancer.consistentHash` of the DestinationRules in force for its
/// destinations: of the port, of the subset, of the host.
///
/// Why: Envoy first picks a destination by chance and by weight, for each request anew, and only then a pod of that destination by
/// the hash. So a user with a cookie changes between the versions from request to request, and what the application keeps per
/// user on a pod is lost each time. Only a route in front that matches a cookie or a header keeps a user on a version.
///
/// Only http routes are asked: with tcp and tls routes the weights pick once for each connection, which stays where it is as long as
/// it lasts.
///
/// Not warned about: a route to a single destination; a split with such a route in front; and a split between destinations that
/// the stored object split already.
///
/// Warned about: `consistentHash: {httpCookie: {name: user, ttl: 0s}}` in the DestinationRule and the weights 90 and 10.
///
/// Passes: the same behind `match: [{headers: {cookie: {regex: "^(.*;\\s*)?canary=yes(;.*)?$"}}}]` to v2, for users who were given
/// that cookie.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct SessionAffinity {}

/// What the rule looks up.
const READS: [Kind; 2] = [Kind::DestinationRule, Kind::Service];

impl Rule for SessionAffinity {
    const ID: &'static str = "session-affinity";
    const ACTION: Action = Action::Warn;
    const STAGE: Stage = Stage::Text;
    const READS: &'static [Kind] = &READS;

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        if !case.may_look(&READS) {
            return;
        }
        let routes = &case.object.spec.http;
        let arrival = Arrival::anywhere(&case.object.spec, &case.review.namespace);
        // The destinations that routes in front send opted-in clients to.
        let mut kept: HashSet<(&str, &str)> = HashSet::new();
        let mut hosts = Hosts::of(case);
        // The hosts for which a DestinationRule says how traffic is treated.
        let mut treated = HashMap::new();
        for (index, route) in routes.iter().enumerate() {
            let carrying = carrying(route);
            let is_split = carrying.iter().any(|to| name(to) != name(carrying[0]));
            let is_kept = !kept.is_empty() && carrying.iter().any(|to| kept.contains(&name(to)));
            if Condition::has_targeted(route, &arrival) {
                kept.extend(carrying.iter().map(|to| name(to)));
            }
            if !is_split || is_kept {
                continue;
            }
            let found = carrying.iter().find_map(|to| {
                let own = hosts.get(&to.host);
                let rule = own.rule?;
                let is_treated =
                    treated.entry(to.host.as_str()).or_insert_with(|| rule.has_policy());
                is_treated.then(|| hashed(rule, rule.policy(&to.subset, case.port(to)))).flatten()
            });
            let Some((by, rule)) = found else { continue };
            let versions = carrying.iter().map(|to| to.name().to_owned()).collect::<BTreeSet<_>>();
            let versions = list(&versions.into_iter().collect::<Vec<_>>());
            let message = format!(
                "users do not stay on one version: the weights pick one of {versions} anew for each request,\n  and {by}, by which DestinationRule {rule} hashes, only picks the pod there.\n  Passes: a route in front for users who were given a cookie or a header, such as\n  match: [{{headers: {{cookie: {{regex: \"^(.*;\\\\s*)?canary=yes(;.*)?$\"}}}}}}]."
            );
            report.advice(
                Gravity::Full,
                Protocol::Http.path(index).field("route"),
                message,
                carrying.iter().map(|to| name(to)).collect::<BTreeSet<_>>(),
                0.0,
            );
        }
    }
}

/// The destinations that get requests.
fn carrying(route: &Route) -> Vec<&Destination> {
    let shares = route.route.iter().zip(fractions(route)).filter(|(_, share)| *share > 0.0);
    shares.map(|(written, _)| &written.destination).collect()
}

/// What tells versions apart.
fn name(to: &Destination) -> (&str, &str) {
    (&to.host, &to.subset)
}

/// What requests to a destination are hashed by, and the DestinationRule that says so.
fn hashed(rule: EffectiveRule<'_>, policy: PolicyInForce<'_>) -> Option<(String, String)> {
    let by = match policy.load_balancer?.consistent_hash.as_ref()? {
        ConsistentHash { http_cookie: Some(cookie), .. } => format!("the cookie {}", cookie.name),
        ConsistentHash { http_header_name: name, .. } if !name.is_empty() => {
            format!("the header {name}")
        }
        ConsistentHash { http_query_parameter_name: name, .. } if !name.is_empty() => {
            format!("the query parameter {name}")
        }
        ConsistentHash { use_source_ip: true, .. } => "the client's address".to_owned(),
        ConsistentHash { .. } => "something".to_owned(),
    };
    let named =
        rule.rules().next().map(|own| format!("{}/{}", own.metadata.namespace, own.metadata.name));
    Some((by, named.unwrap_or_default()))
}
