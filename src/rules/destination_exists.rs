use std::collections::HashMap;
use std::collections::hash_map::Entry;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::Host;
use crate::policy::words::{list, near_miss, number, percent};
use crate::policy::{Action, Carried, Case, Destination, Reference, Report, Rule, Stage};
use crate::world::{HostKind, Kind};

/// A destination that gets traffic exists.
///
/// Refuses a destination with a share above 0 whose host is neither a Service nor a ServiceEntry, or whose port that Service
/// does not have: that share is answered with 503.
///
/// Istio completes only names without a dot, and in the VirtualService's own namespace. `reviews.shop` is not completed and
/// never found, although Service reviews stands in namespace shop; upper case and a dot at the end are not found either. Such a
/// name is wrong, not absent, and is refused on a first install and in a dry run, too. A host that is merely absent is a warning
/// there.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct DestinationExists {}

impl Rule for DestinationExists {
    const ID: &'static str = "destination-exists";
    const ACTION: Action = Action::Deny;
    const STAGE: Stage = Stage::Traffic;
    const READS: &'static [Kind] = &[Kind::Service, Kind::ServiceEntry];

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let Some(change) = case.change else { return };
        let mut missing: Vec<Carried<'_>> = Vec::new();
        let mut known: HashMap<_, usize> = HashMap::new();
        for carried in case.carried() {
            let destination = change.destinations.get(carried.destination);
            if let Some(kind) = case.world.host(&destination.host) {
                missing_port(case, &carried, destination, kind, report);
                continue;
            }
            // The subsets of a host that is missing are missing together.
            match known.entry((carried.route(), &destination.host)) {
                Entry::Occupied(at) => missing[*at.get()].join(&carried),
                Entry::Vacant(at) => {
                    at.insert(missing.len());
                    missing.push(carried);
                }
            }
        }
        for carried in missing {
            missing_host(case, &carried, change.destinations.get(carried.destination), report);
        }
    }
}

fn missing_host(
    case: &Case<'_>,
    carried: &Carried<'_>,
    destination: &Destination,
    report: &mut Report<'_>,
) {
    let path = carried.path().field("destination").field("host");
    let written = carried.written.destination.host.as_str();
    let share = percent(carried.share);
    if let Some((short, full)) = meant(case, written) {
        let why = if written.chars().any(|character| character.is_ascii_uppercase()) {
            "Istio compares host names with their case"
        } else if written.ends_with('.') {
            "a dot at the end is part of the name for Istio"
        } else {
            "Istio completes only names without a dot, and only in the VirtualService's own namespace"
        };
        let message = format!(
            "{share} would get 503: {written:?} never resolves; {why}\n  Passes: {full}{short}"
        );
        // Wrong is not absent: neither a first install nor a dry run makes this name resolve.
        let gravity = if carried.rises && !is_harmless(carried) {
            crate::policy::Gravity::Full
        } else {
            carried.gravity
        };
        report.lookup(gravity, path, message, Vec::new());
        return;
    }
    let (what, next, rests_on) = match destination.host.service(&case.world.mesh().domain) {
        Some((name, namespace)) => absent_service(case, name, namespace),
        None => {
            let close = near_miss(written, case.world.service_entry_hosts());
            let close = close.map_or(String::new(), |close| format!(" Did you mean {close}?"));
            let next = format!("Passes: a ServiceEntry for {written} first, then this.{close}");
            (
                format!("no Service and no ServiceEntry is called {written}"),
                next,
                vec![Reference::ServiceEntries],
            )
        }
    };
    let message = format!("{share} would get 503: {what}\n  {next}");
    report.lookup(case.if_absent(carried.gravity), path, message, rests_on);
}

fn is_harmless(carried: &Carried<'_>) -> bool {
    let own = carried.flow.movement(carried.destination);
    own.is_some_and(|moved| moved.rises() && moved.class.is_harmless())
}

fn absent_service(
    case: &Case<'_>,
    name: &str,
    namespace: &str,
) -> (String, String, Vec<Reference>) {
    let what = format!("there is no Service {name} in namespace {namespace}");
    let here = case.world.service_names(namespace).collect::<Vec<_>>();
    let elsewhere = case.world.namespaces_with_service(name);
    let next = if let Some(close) = near_miss(name, here.iter().copied()) {
        format!("Did you mean {close}?")
    } else if !elsewhere.is_empty() {
        let domain = &case.world.mesh().domain;
        let hosts = elsewhere
            .iter()
            .map(|namespace| format!("{name}.{namespace}.svc.{domain}"))
            .collect::<Vec<_>>();
        format!(
            "Service {name} stands in namespace {}. Passes: host: {}",
            list(&elsewhere),
            list(&hosts)
        )
    } else {
        format!("Passes: Service {name} in namespace {namespace} first, then this.")
    };
    let service = Reference::Service { namespace: namespace.to_owned(), name: name.to_owned() };
    (what, next, vec![service, Reference::ServiceEntries])
}

/// A Service that `written` was meant to name and does not: what to write, with the short form where there is one.
fn meant(case: &Case<'_>, written: &str) -> Option<(String, String)> {
    let domain = &case.world.mesh().domain;
    let plain = written.trim_end_matches('.').to_lowercase();
    let known = |name: &str, namespace: &str| {
        case.world.service(namespace, name).map(|service| {
            let full = format!("{name}.{namespace}.svc.{domain}");
            let short = if namespace == case.review.namespace {
                format!(", or {}", service.name)
            } else {
                String::new()
            };
            (short, full)
        })
    };
    let found = match plain.split('.').collect::<Vec<_>>().as_slice() {
        [name] => known(name, &case.review.namespace),
        [name, namespace] | [name, namespace, "svc"] => known(name, namespace),
        _ => {
            let host = Host::resolve(&plain, &case.review.namespace, domain);
            let (name, namespace) = host.service(domain)?;
            known(name, namespace)
        }
    };
    found.filter(|(_, full)| full != written)
}

fn missing_port(
    case: &Case<'_>,
    carried: &Carried<'_>,
    destination: &Destination,
    kind: HostKind<'_>,
    report: &mut Report<'_>,
) {
    let Some(wanted) = carried.written.destination.port.number else { return };
    let (ports, rests_on) = match kind {
        HostKind::Service(service) => {
            let ports = service.ports.iter().map(|port| port.number).collect::<Vec<_>>();
            let own = Reference::Service {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
            };
            (ports, vec![own])
        }
        HostKind::ServiceEntry(entry) => (
            entry.spec.ports.iter().map(|port| i64::from(port.number)).collect(),
            vec![Reference::ServiceEntries],
        ),
        HostKind::Alias(_) => return,
    };
    if ports.is_empty() || ports.contains(&wanted) {
        return;
    }
    let known = list(&ports.iter().map(|&port| number(port as f64)).collect::<Vec<_>>());
    let message = format!(
        "{} would get 503: {} has no port {wanted}; it has {known}\n  Passes: port: {{number: {}}}",
        percent(carried.share),
        destination.host,
        ports[0]
    );
    let path = carried.path().field("destination").field("port").field("number");
    report.lookup(case.if_absent(carried.gravity), path, message, rests_on);
}
