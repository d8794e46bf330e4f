use schemars::JsonSchema;
use serde::Deserialize;

use std::collections::{BTreeMap, BTreeSet};

use crate::istio::{
    Clash, FieldPath, Listening, Protocol, Re2Problem, Route, RouteDestination, StringMatch,
    check_re2, full_gateway, ports_asked_for,
};
use crate::policy::{Action, Case, Gravity, Report, Rule, Stage};

/// An object that is broken for everyone is refused, whoever writes it.
///
/// Reads: hosts, weights, regular expressions and which fields are there. Nothing is looked up.
///
/// Refuses a destination without a host or with a host that can never be one (`*`, an IP address, characters no host
/// has), a negative weight or one above 2147483647, several destinations whose weights add up to 0 or to more than
/// 4294967295, an object without any route, a route that neither routes nor redirects nor answers, a regular expression that
/// is none to RE2, the engine of Envoy (RE2's own grammar decides, not that of another engine, and an expression that only a
/// newer RE2 may know is a warning), and tls or tcp routes that ask for the same name or address range twice in a way that istiod
/// hands on to Envoy.
///
/// Why: the API server stores all of these. A tcp or tls route whose weights are all 0 makes istiod crash, again after every
/// restart; an http route with a total of 0 or above 4294967295, or with such an expression, makes Envoy refuse the route table
/// of that port, so that later changes of other teams are lost too. Routes for connections that ask for the same make Envoy refuse
/// the listener: that of the Service at every client, or that of the whole port at a gateway.
///
/// Its action cannot be changed. What the stored object already had is a warning, so that a rollback of another route passes.
///
/// Refused: `match: [{uri: {regex: "^/(?!admin).*"}}]`, because RE2 has no look-ahead.
///
/// Passes: a route for `uri: {prefix: /admin}` in front of one without `match`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Structure {}

/// The largest total weight that Envoy takes (`route_components.proto` `WeightedCluster.total_weight`, a `uint32`).
const MOST_TOTAL: u64 = u32::MAX as u64;

/// The largest weight that the CRD takes: `format: int32`.
const MOST_WEIGHT: i64 = i32::MAX as i64;

impl Rule for Structure {
    const ID: &'static str = "structure";
    const ACTION: Action = Action::Deny;
    const STAGE: Stage = Stage::Broken;

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let spec = &case.object.spec;
        if Protocol::ALL.iter().all(|&protocol| spec.routes(protocol).is_empty()) {
            let message = "there is no http, tcp or tls route: Istio refuses the object or ignores it\n  \
                           Passes: at least one route, for instance http: [{route: [{destination: {host: NAME}}]}]";
            report.violation(FieldPath::spec(), message.to_owned(), "no-route".to_owned(), 0.0);
        }
        let mut fine = None;
        for protocol in Protocol::ALL {
            for (index, route) in spec.routes(protocol).iter().enumerate() {
                check_route((protocol, index), route, &mut fine, report);
                check_expressions((protocol, index), route, report);
            }
        }
        check_listeners(case, report);
    }
}

/// Routes for connections that Envoy cannot tell apart, for clients that no route singles out.
fn check_listeners(case: &Case<'_>, report: &mut Report<'_>) {
    /// More ports are named only to be many.
    const MOST_PORTS: usize = 64;
    let spec = &case.object.spec;
    if spec.is_delegate() {
        return;
    }
    let namespace = case.review.namespace.as_str();
    let gateways = spec.gateways.iter().map(|gateway| full_gateway(gateway, namespace));
    let mut gateways = gateways.collect::<BTreeSet<_>>();
    if spec.is_for_mesh() {
        gateways.insert("mesh".to_owned());
    }
    let nobody = BTreeMap::new();
    for protocol in [Protocol::Tls, Protocol::Tcp] {
        let lists = [(spec.routes(protocol), namespace)];
        let mut seen = BTreeSet::new();
        for port in ports_asked_for(&lists).into_iter().take(MOST_PORTS) {
            for gateway in &gateways {
                let own = Listening { gateway, port, labels: &nobody, namespace: "" };
                for clash in own.clashes(protocol, &lists) {
                    if seen.insert(clash.at) {
                        tell_clash(protocol, gateway, &clash, report);
                    }
                }
            }
        }
    }
}

fn tell_clash(protocol: Protocol, gateway: &str, clash: &Clash, report: &mut Report<'_>) {
    let (_, index, place) = clash.at;
    let field = match protocol {
        Protocol::Tls => "sniHosts",
        _ => "destinationSubnets",
    };
    let alternative =
        |(_, index, place): (usize, usize, usize)| protocol.path(index).field("match").index(place);
    let what = &clash.what;
    let (why, next) = match clash.before {
        None => (
            format!("{what} is no name to Envoy, for which a wildcard is *. and a name"),
            "full names, and wildcards that begin with *.".to_owned(),
        ),
        Some(before) if before == clash.at => {
            (format!("{what} stands there twice"), format!("{what} once."))
        }
        Some(before) => (
            format!("{} asks for {what}, too", alternative(before)),
            format!("{what} in one match only."),
        ),
    };
    let whose = match gateway {
        "mesh" => "its hosts at every client".to_owned(),
        gateway => format!("the whole port at gateway {gateway}"),
    };
    let message = format!(
        "{why}: Envoy refuses the listener of {whose}, and no later change of anybody gets there\n  Passes: {next}"
    );
    let path = protocol.path(index).field("match").index(place).field(field);
    report.violation(path, message, format!("chains {} {what}", protocol.field()), 0.0);
}

/// Where a route stands: a path is only made where there is something to say.
type At = (Protocol, usize);

/// `fine` is the last host that was looked at and that there can be.
fn check_route<'a>(
    (protocol, at): At,
    route: &'a Route,
    fine: &mut Option<&'a str>,
    report: &mut Report<'_>,
) {
    let answers =
        route.redirect.is_some() || route.direct_response.is_some() || route.delegate.is_some();
    if route.route.is_empty() && !(protocol == Protocol::Http && answers) {
        let message = match protocol {
            Protocol::Http => {
                "the route has no route, redirect, directResponse or delegate: it says nothing"
            }
            _ => "the route has no destination: it says nothing",
        };
        let message = format!("{message}\n  Passes: route: [{{destination: {{host: NAME}}}}]");
        report.violation(protocol.path(at), message, format!("empty {}", protocol.field()), 0.0);
    }
    for (index, written) in route.route.iter().enumerate() {
        let path = || protocol.path(at).field("route").index(index);
        let host = written.destination.host.as_str();
        if *fine != Some(host) && !is_impossible(path, host, report) {
            *fine = Some(host);
        }
        check_weight(path, written, report);
    }
    if route.route.len() < 2 {
        return;
    }
    let total = route.total_weight();
    let (what, next) = match (total, protocol) {
        (0, Protocol::Http) => (
            "the weights of several destinations add up to 0: Envoy refuses the route table of this port, for all hosts",
            "an omitted weight is 0; give each destination its weight",
        ),
        (0, _) => (
            "the weights of several destinations add up to 0: istiod crashes on it, again after every restart",
            "an omitted weight is 0; give each destination its weight",
        ),
        (total, _) if total > MOST_TOTAL => (
            "the weights add up to more than 4294967295: Envoy refuses the route table of this port, for all hosts",
            "weights that add up to 100",
        ),
        _ => return,
    };
    let key = format!("total {} {:?}", protocol.field(), route.targets());
    let path = protocol.path(at).field("route");
    report.violation(path, format!("{what}\n  Passes: {next}."), key, 0.0);
}

/// The longest expression that Istio's own webhook takes, in bytes (`validation.go` `validateStringRegexp`).
const LONGEST: usize = 1024;

/// Every regular expression of a route.
fn check_expressions((protocol, index): At, route: &Route, report: &mut Report<'_>) {
    for (at, alternative) in route.r#match.iter().enumerate() {
        let path = || protocol.path(index).field("match").index(at);
        if let Some(StringMatch::Regex(regex)) = &alternative.uri {
            check_expression(|| path().field("uri"), regex, report);
        }
        // Everywhere but in paths Istio takes a bare `*` for "present" (`route.go` `canBeConvertedToPresentMatch`).
        let mut text = |value: &Option<StringMatch>, path: &dyn Fn() -> FieldPath| match value {
            Some(StringMatch::Regex(regex)) if regex != "*" => {
                check_expression(path, regex, report)
            }
            _ => {}
        };
        text(&alternative.scheme, &|| path().field("scheme"));
        text(&alternative.method, &|| path().field("method"));
        text(&alternative.authority, &|| path().field("authority"));
        let maps = [
            ("headers", &alternative.headers),
            ("withoutHeaders", &alternative.without_headers),
            ("queryParams", &alternative.query_params),
        ];
        for (field, map) in maps {
            for (name, value) in map {
                text(value, &|| path().field(field).field(name));
            }
        }
    }
    let rewrite = route.rewrite.as_ref().and_then(|rewrite| rewrite.uri_regex_rewrite.as_ref());
    if let Some(rewrite) = rewrite {
        let path = || protocol.path(index).field("rewrite").field("uriRegexRewrite").field("match");
        check_expression(path, &rewrite.r#match, report);
    }
    let origins = route.cors_policy.iter().flat_map(|cors| &cors.allow_origins).enumerate();
    for (at, origin) in origins {
        if let StringMatch::Regex(regex) = origin {
            let path = || protocol.path(index).field("corsPolicy").field("allowOrigins").index(at);
            check_expression(path, regex, report);
        }
    }
}

fn check_expression(path: impl Fn() -> FieldPath, regex: &str, report: &mut Report<'_>) {
    let all = "Envoy refuses the route table of this port, for all hosts";
    let key = || format!("regex {regex}");
    if regex.is_empty() {
        let message = format!("the expression is empty: {all}\n  Passes: .* for everything.");
        report.violation(path(), message, key(), 0.0);
    } else if let Err(error) = check_re2(regex) {
        let certain = error.problem.is_certain();
        let consequence = if certain {
            all
        } else {
            "unless Envoy's RE2 is newer, it refuses the route table of this port"
        };
        let next = match error.problem {
            Re2Problem::Group => {
                "a route in front of this one for what it is not to take: RE2 has no look-around."
            }
            _ => "an expression in RE2's syntax (https://github.com/google/re2/wiki/Syntax).",
        };
        let message = format!(
            "RE2 does not take the expression {}: {error}; {consequence}\n  Passes: {next}",
            shortened(regex)
        );
        if certain {
            report.violation(path(), message, key(), 0.0);
        } else {
            report.advice(Gravity::WarnOnly, path(), message, key(), 0.0);
        }
    } else if regex.len() > LONGEST {
        let message = format!(
            "the expression has {} bytes; Istio's own webhook takes {LONGEST}\n  Passes: several alternatives in match with shorter ones.",
            regex.len()
        );
        report.advice(Gravity::WarnOnly, path(), message, key(), 0.0);
    }
}

/// An expression as a message quotes it.
fn shortened(regex: &str) -> String {
    const MOST: usize = 60;
    match regex.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &regex[..end]),
        None => regex.to_owned(),
    }
}

/// Whether nobody can ever have this host; says so.
fn is_impossible(path: impl Fn() -> FieldPath, host: &str, report: &mut Report<'_>) -> bool {
    let Some(what) = impossible(host) else { return false };
    let message = format!(
        "{what}\n  Passes: the name of a Service, such as reviews or reviews.shop.svc.cluster.local."
    );
    let path = path().field("destination").field("host");
    report.violation(path, message, format!("host {host:?}"), 0.0);
    true
}

fn check_weight(path: impl Fn() -> FieldPath, written: &RouteDestination, report: &mut Report<'_>) {
    let Some(weight) = written.weight else { return };
    let what = match weight {
        weight if weight < 0 => format!("the weight is {weight}; a weight cannot be negative"),
        weight if weight > MOST_WEIGHT => {
            format!("the weight is {weight}; the largest that Istio takes is 2147483647")
        }
        _ => return,
    };
    let to = &written.destination;
    let key = format!("weight {} {}", to.host, to.subset);
    report.violation(
        path().field("weight"),
        format!("{what}\n  Passes: weights from 0 to 100 that add up to 100."),
        key,
        0.0,
    );
}

/// Why `host` can never be the host of a destination (`validation.go` `validateDestination`).
fn impossible(host: &str) -> Option<String> {
    if host.is_empty() {
        return Some("the destination names no host".to_owned());
    }
    // With a name behind it, a ServiceEntry may be called so.
    let host = host.strip_prefix("*.").filter(|rest| !rest.is_empty()).unwrap_or(host);
    if host.contains('*') {
        return Some(format!("{host:?} is a wildcard; a destination is one host"));
    }
    if host.parse::<std::net::IpAddr>().is_ok() {
        return Some(format!("{host:?} is an IP address; a destination is a host name"));
    }
    let fits =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_');
    if let Some(odd) = host.chars().find(|&character| !fits(character)) {
        return Some(format!("{host:?} holds {odd:?}, which no host name does"));
    }
    let is_label =
        |label: &str| !label.starts_with('-') && !label.ends_with('-') && label.len() <= 63;
    let labels = host.strip_suffix('.').unwrap_or(host).split('.');
    if host.len() > 255 || !labels.into_iter().all(|label| !label.is_empty() && is_label(label)) {
        return Some(format!("{host:?} is no host name"));
    }
    None
}
