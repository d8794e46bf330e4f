use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{
    Arrival, Condition, FieldPath, Host, Protocol, Reading, VirtualService, VirtualServiceSpec,
    delegate::merge, full_gateway,
};
use crate::policy::words::{are, counted, list};
use crate::policy::{Action, Case, Clients, Gravity, Report, Rule, Stage, fractions};
use crate::world::{Client, HostKind, Kind, NoDelegate};

/// What is written is in force.
///
/// Reads: hosts, gateways, `exportTo`, delegates and routes. Looks up the other VirtualServices of the same hosts, the roots and
/// the delegates.
///
/// Why: Istio says nothing about what it leaves out. In the mesh one VirtualService is in force for a host: private ones first,
/// then the oldest; another one's routes are never tried. On a gateway the routes of all are tried, and the first catch-all ends
/// it. A delegate's route whose match is no part of the root's is dropped. And a VirtualService that is only for a gateway does
/// nothing for clients in the mesh: they reach all pods of the Service, those of a canary included, whatever the weights. Nor
/// does one that a Sidecar hides from every client.
///
/// Not warned about: hosts that no other VirtualService has; a VirtualService in front that has no route for the same clients; a
/// split for a gateway only whose Service no client in the mesh could reach in two versions; and what the stored object had
/// already. It is a warning at the most.
///
/// Warned about: a second VirtualService for the host reviews, with weights 90 and 10, beside one that is older.
///
/// Passes: the same weights in the older one.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct HostConflict {}

/// What the rule looks up.
const READS: [Kind; 5] = [
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Sidecar,
];

impl Rule for HostConflict {
    const ID: &'static str = "host-conflict";
    const ACTION: Action = Action::Warn;
    const STAGE: Stage = Stage::Text;
    const READS: &'static [Kind] = &READS;

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        if !case.may_look(&READS) {
            return;
        }
        if case.object.spec.is_delegate() {
            check_roots(case, report);
        } else {
            check_delegates(case, report);
            check_hosts(case, report);
            check_sidecars(case, report);
            check_mesh_callers(case, report);
        }
    }
}

/// Another VirtualService that comes first for a host.
fn check_hosts(case: &Case<'_>, report: &mut Report<'_>) {
    let spec = &case.object.spec;
    let namespace = case.review.namespace.as_str();
    if spec.http.is_empty() {
        return; // tcp and tls routes of all VirtualServices are tried
    }
    let changed = case.world.with_virtual_service(Some(case.object), namespace, &case.review.name);
    let routing = changed.routing();
    let gateways = spec.gateways.iter().map(|gateway| full_gateway(gateway, namespace));
    let gateways = gateways.filter(|gateway| gateway != "mesh").collect::<BTreeSet<_>>();
    let named = spec.export_to.iter().filter(|to| !matches!(to.as_str(), "*" | "." | "~"));
    let mut mesh = vec![Client::in_namespace(namespace), Client::anywhere()];
    mesh.extend(named.map(|name| Client::in_namespace(name)));
    for (at, written) in spec.hosts.iter().enumerate() {
        let host = case.resolve(written);
        let path = || FieldPath::spec().field("hosts").index(at);
        let before = mesh.iter().filter(|_| spec.is_for_mesh()).find_map(|client| {
            let tried = routing.virtual_services(&host, client);
            let first = *routing.in_force(&host, client, Protocol::Http, None).first()?;
            let is_hidden = tried.iter().any(|own| std::ptr::eq(*own, case.object))
                && !std::ptr::eq(first, case.object)
                && leaves_a_route(spec, client, namespace);
            is_hidden.then_some((first, client))
        });
        if let Some((other, client)) = before {
            let whose = match spec.export_to.contains(&client.namespace) {
                true => format!("for clients in {}", client.namespace),
                false => "in the mesh".to_owned(),
            };
            let name = format!("{}/{}", other.metadata.namespace, other.metadata.name);
            let message = format!(
                "VirtualService {name} is in force for {written} {whose}, because it is {}: these routes are never tried there\n  Passes: these routes in {name}, or {name} without the host {written}.",
                why_first(other, case)
            );
            report.advice(Gravity::WarnOnly, path(), message, format!("behind {name} {host}"), 0.0);
        }
        let Some(index) = spec.http.iter().position(|route| takes_all(route, spec)) else {
            continue;
        };
        for gateway in &gateways {
            let client =
                Client { gateway: Some(gateway.clone()), ..Client::in_namespace(namespace) };
            let tried = routing.in_force(&host, &client, Protocol::Http, None);
            let in_front = tried.iter().take_while(|other| !std::ptr::eq(**other, case.object));
            let mut ending = in_front
                .filter(|other| other.spec.http.iter().any(|route| takes_all(route, &other.spec)));
            let Some(other) = ending.next() else { continue };
            let name = format!("{}/{}", other.metadata.namespace, other.metadata.name);
            let message = format!(
                "at gateway {gateway} VirtualService {name} comes first for {written}, because it is {}, and it has a route for the rest: spec.http[{index}] is never tried there\n  Passes: a match for spec.http[{index}], or {name} without its route for the rest.",
                why_first(other, case)
            );
            let key = format!("behind {name} {host} {gateway}");
            report.advice(Gravity::WarnOnly, path(), message, key, 0.0);
        }
    }
}

/// A Sidecar that hides it from everybody.
fn check_sidecars(case: &Case<'_>, report: &mut Report<'_>) {
    let Some(own) = case.clients().iter().find_map(Clients::hidden_by) else { return };
    let name = format!("{}/{}", own.metadata.namespace, own.metadata.name);
    let namespace = &case.review.namespace;
    let message = format!(
        "no client in the mesh is routed by this: Sidecar {name} shows nobody both VirtualServices of namespace {namespace} and these hosts\n  Passes: first egress hosts in {name} that show both to those who call, then this."
    );
    let path = FieldPath::spec().field("hosts");
    report.advice(Gravity::WarnOnly, path, message, "sidecar".to_owned(), 0.0);
}

/// Whether any http route is one for this client.
fn leaves_a_route(spec: &VirtualServiceSpec, client: &Client, namespace: &str) -> bool {
    spec.http.iter().any(|route| {
        route.r#match.is_empty()
            || route.r#match.iter().any(|own| client.meets(Protocol::Http, own, namespace))
    })
}

/// Private ones come first, then those exported by name, then public ones.
///
/// Source: `pilot/pkg/model/virtualservice.go`, `push_context.go` `initVirtualServices`.
fn class(object: &VirtualService, namespace: &str) -> u8 {
    let to = &object.spec.export_to;
    if to.is_empty() || to.iter().any(|to| to == "*") {
        2
    } else {
        u8::from(!to.iter().any(|to| to == "." || to == namespace))
    }
}

fn why_first(other: &VirtualService, case: &Case<'_>) -> &'static str {
    let (theirs, own) =
        (class(other, &other.metadata.namespace), class(case.object, &case.review.namespace));
    let created = other.metadata.creation_timestamp;
    if theirs == own && created.is_some() && created == case.object.metadata.creation_timestamp {
        "as old and first by name"
    } else if theirs == own {
        "older"
    } else if theirs == 0 {
        "private to its namespace"
    } else {
        "exported by name"
    }
}

/// Whether it has a route for clients in the mesh that nothing else tells apart.
fn serves_mesh(spec: &VirtualServiceSpec) -> bool {
    Protocol::ALL.iter().flat_map(|&protocol| spec.routes(protocol)).any(|route| {
        route.r#match.is_empty()
            || route.r#match.iter().any(|own| {
                let is_mesh = own.gateways.iter().any(|gateway| gateway == "mesh");
                let is_anybody = own.source_labels.is_empty() && own.source_namespace.is_empty();
                own.port.is_none() && (is_mesh || (own.gateways.is_empty() && is_anybody))
            })
    })
}

fn takes_all(route: &crate::istio::Route, spec: &VirtualServiceSpec) -> bool {
    let arrival = Arrival::anywhere(spec, "");
    Condition::alternatives(route, &arrival, Reading::Strict).iter().any(Condition::is_catch_all)
}

/// The delegates of a root.
fn check_delegates(case: &Case<'_>, report: &mut Report<'_>) {
    for (index, route) in case.object.spec.http.iter().enumerate() {
        let Some(to) = &route.delegate else { continue };
        let path = Protocol::Http.path(index).field("delegate");
        let name = format!("{}/{}", to.namespace_from(&case.review.namespace), to.name);
        let delegate = match case.world.delegate(to, &case.review.namespace) {
            Ok(delegate) => delegate,
            Err(why) => {
                let why = match why {
                    NoDelegate::Missing => {
                        format!("there is no VirtualService {name} without hosts")
                    }
                    NoDelegate::NotExported => {
                        format!("{name} is not exported to {}", case.review.namespace)
                    }
                };
                let message = format!(
                    "this route is left out, and nothing says so: {why}\n  Passes: first the delegate {name}, without hosts and exported to {}, then this.",
                    case.review.namespace
                );
                report.advice(Gravity::WarnOnly, path, message, format!("delegate {name}"), 0.0);
                continue;
            }
        };
        let dropped = merge(route, &delegate.spec.http).dropped;
        if let Some(first) = dropped.first() {
            let message = format!(
                "{} of {name} {} left out, and nothing says so: {} of spec.http[{}] there is no part of the match here\n  Passes: a match here that holds those of {name}, or none.",
                counted(dropped.len() as u32, "route"),
                are(dropped.len() as u32),
                first.field,
                first.route
            );
            let key = format!("dropped {name} {}", first.field);
            report.advice(Gravity::WarnOnly, path, message, key, dropped.len() as f64);
        }
    }
}

/// The roots of a delegate.
fn check_roots(case: &Case<'_>, report: &mut Report<'_>) {
    /// Of more roots than these nobody wants to read.
    const MOST: usize = 3;
    let own = (case.review.namespace.as_str(), case.review.name.as_str());
    for root in case.world.roots_of(own.0, own.1).take(MOST) {
        let name = format!("{}/{}", root.metadata.namespace, root.metadata.name);
        let routes = root.spec.http.iter().enumerate().filter(|(_, route)| {
            route.delegate.as_ref().is_some_and(|to| {
                (to.namespace_from(&root.metadata.namespace), to.name.as_str()) == own
            })
        });
        for (index, route) in routes {
            let dropped = merge(route, &case.object.spec.http).dropped;
            for dropped in dropped.iter().take(MOST) {
                let path = Protocol::Http.path(dropped.route);
                let message = format!(
                    "this route is left out, and nothing says so: its {} is no part of the match of {name} spec.http[{index}], which delegates here\n  Passes: a match that lies within that of {name}.",
                    dropped.field
                );
                let targets = case.object.spec.http[dropped.route].targets();
                let key = format!("root {name} {} {targets:?}", dropped.field);
                report.advice(Gravity::WarnOnly, path, message, key, 0.0);
            }
        }
    }
}

/// A split that only a gateway knows of, while clients in the mesh reach all pods.
fn check_mesh_callers(case: &Case<'_>, report: &mut Report<'_>) {
    let spec = &case.object.spec;
    if spec.is_for_mesh() && serves_mesh(spec) {
        return;
    }
    let Some(gateway) = spec.gateways.iter().find(|gateway| *gateway != "mesh") else { return };
    let mesh = Client::in_namespace(&case.review.namespace);
    let mut seen: BTreeSet<Host> = BTreeSet::new();
    for protocol in Protocol::ALL {
        for (index, route) in spec.routes(protocol).iter().enumerate() {
            let shares = route.route.iter().zip(fractions(route)).filter(|(_, share)| *share > 0.0);
            let carrying = shares.map(|(written, _)| &written.destination).collect::<Vec<_>>();
            let Some(first) = carrying.first() else { continue };
            let host = case.resolve(&first.host);
            let subsets = carrying.iter().filter(|to| case.resolve(&to.host) == host);
            let subsets = subsets.map(|to| to.subset.as_str()).collect::<BTreeSet<_>>();
            if subsets.len() < 2
                || !matches!(case.world.host(&host), Some(HostKind::Service(_)))
                || !case.world.routing().virtual_services(&host, &mesh).is_empty()
            {
                continue;
            }
            let ready =
                carrying.iter().filter(|to| case.resolve(&to.host) == host).filter_map(|to| {
                    let ready = case.target(to).ready().filter(|&ready| ready > 0)?;
                    Some(format!("{} of {}", counted(ready, "pod"), to.name()))
                });
            let ready = ready.collect::<Vec<_>>();
            if ready.len() < 2 || !seen.insert(host) {
                continue;
            }
            let message = format!(
                "the weights are only for gateway {gateway}: clients in the mesh reach all pods of {} alike ({})\n  Passes: a VirtualService for the mesh, too: hosts: [{}] and gateways: [mesh] with the same weights.",
                first.host,
                list(&ready),
                first.host
            );
            let key = format!("mesh callers {:?}", route.targets());
            report.advice(
                Gravity::WarnOnly,
                protocol.path(index).field("route"),
                message,
                key,
                0.0,
            );
        }
    }
}
