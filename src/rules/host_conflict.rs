use std::collections::BTreeSet;

use hashbrown::HashMap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{
    Arrival, At, Condition, FieldPath, Host, Protocol, Reading, VirtualService, VirtualServiceSpec,
    delegate::merge, full_gateway,
};
use crate::policy::words::{are, counted, list};
use crate::policy::{
    Action, Case, Clients, Gravity, HostAsWritten, Hosts, Report, Rule, Stage, fractions,
};
use crate::world::{Client, HostKind, Kind, MESH, NoDelegate};

/// What is written is in force.
///
/// Reads: hosts, gateways, `exportTo`, delegates and routes. Looks up the other VirtualServices of the same hosts, the roots, the
/// delegates, the waypoints, and the ports of Services, ServiceEntries and Gateways.
///
/// Why: Istio says nothing about what it leaves out. In the mesh one VirtualService is in force for a host: private ones first,
/// then the oldest; another one's routes are never tried. On a gateway the routes of all are tried, and the first catch-all ends
/// it. A delegate's route whose match is no part of the root's is dropped. A VirtualService that is only for a gateway does
/// nothing for clients in the mesh: they reach all pods of the Service, those of a canary included, whatever the weights. And each
/// list counts only on ports of its kind: `tcp` routes do nothing on a port that is HTTP by its name. Connections are routed by all
/// VirtualServices of a host, wildcards too, until one takes everything; at a gateway by one TCP rule for each server. Where two of
/// them ask for the same name or range, istiod leaves one out, or Envoy refuses the listener. One that a Sidecar hides from every
/// client does nothing for clients in the mesh, either.
///
/// In ambient mode a Service's waypoint routes what its clients send, and without one nobody does. It tries the VirtualServices
/// of its own namespace and of the Service's, one after the other, and no others; a match by `sourceLabels` or by another
/// `sourceNamespace` is left out there.
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
const READS: [Kind; 10] = [
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::Service,
    Kind::ServiceEntry,
    Kind::EndpointSlice,
    Kind::Gateway,
    Kind::Sidecar,
    Kind::Waypoint,
    Kind::Namespace,
    Kind::Pod,
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
            check_waypoints(case, report);
            check_lists(case, report);
            check_connections(case, report);
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
        return;
    }
    let changed = case.world.with_virtual_service(Some(case.object), namespace, &case.review.name);
    let routing = changed.routing();
    let gateways = spec.gateways.iter().map(|gateway| full_gateway(gateway, namespace));
    let gateways = gateways.filter(|gateway| gateway != "mesh").collect::<BTreeSet<_>>();
    let named = spec.export_to.iter().filter(|to| !matches!(to.as_str(), "*" | "." | "~"));
    let mut mesh = vec![Client::in_namespace(namespace), Client::anywhere()];
    mesh.extend(named.map(|name| Client::in_namespace(name)));
    // Where only waypoints are asked, what a sidecar would do is nobody's concern.
    let users = case.clients;
    mesh.retain(|own| users.iter().all(|users| users.gravity(own) == Gravity::Full));
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
                false if case.world.waypoint_of(&host).is_some() => {
                    "for clients with a sidecar".to_owned()
                }
                false => "in the mesh".to_owned(),
            };
            let name = format!("{}/{}", other.metadata.namespace, other.metadata.name);
            let message = format!(
                "VirtualService {name} is in force for {written} {whose}, because it is {}: these routes are never tried there\n  Passes: these routes in {name}, or {name} without the host {written}.",
                case.why_first(other)
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
                case.why_first(other)
            );
            let key = format!("behind {name} {host} {gateway}");
            report.advice(Gravity::WarnOnly, path(), message, key, 0.0);
        }
    }
}

/// Requests of clients in ambient mode, which a waypoint routes, or nobody.
fn check_waypoints(case: &Case<'_>, report: &mut Report<'_>) {
    let Case { object, review, world, .. } = *case;
    let namespace = review.namespace.as_str();
    if !object.spec.is_for_mesh() {
        return;
    }
    let changed = world.with_virtual_service(Some(object), namespace, &review.name);
    let mut seen = BTreeSet::new();
    for (at, written) in object.spec.hosts.iter().enumerate() {
        let host = case.resolve(written);
        let path = FieldPath::spec().field("hosts").index(at);
        let home = world.host_namespace(&host).unwrap_or_default();
        let Some(waypoint) = world.waypoint_of(&host) else {
            without_waypoint(case, &host, home, path, report);
            continue;
        };
        let client = Client::at(waypoint);
        let name = client.waypoint.as_deref().unwrap_or_default();
        let mut say = |path, what: String, key: String| {
            report.advice(Gravity::WarnOnly, path, what, key, 0.0);
        };
        if ![home, &client.namespace].contains(&namespace) {
            let or = match client.namespace == home {
                true => String::new(),
                false => format!(" or {}", client.namespace),
            };
            let what = format!(
                "clients in ambient mode are not routed by this: waypoint {name}, through which they reach {written}, takes VirtualServices of namespace {home}{or} only\n  Passes: the same in namespace {home}."
            );
            say(path, what, format!("far from {name} {host}"));
            continue;
        }
        if !world.is_exported(object, namespace, &client.namespace) {
            let what = format!(
                "clients in ambient mode are not routed by this: its exportTo keeps it from namespace {}, where waypoint {name} stands\n  Passes: {} in exportTo, too.",
                client.namespace, client.namespace
            );
            say(path, what, format!("hidden from {name} {host}"));
            continue;
        }
        let tried = changed.routing().in_force(&host, &client, Protocol::Http, None);
        let mut in_front = tried.iter().take_while(|other| !std::ptr::eq(**other, object));
        let ends = |other: &&&VirtualService| {
            let at = other.metadata.namespace.as_str();
            let arrival = Arrival::at("mesh", at)
                .at_waypoint(Some((client.namespace.as_str(), host.as_str())));
            let mut routes = other.spec.http.iter();
            routes.any(|route| {
                let all = Condition::alternatives(route, &arrival, Reading::Strict);
                all.iter().any(Condition::is_catch_all)
            })
        };
        if let Some(other) = in_front.find(ends).filter(|_| !object.spec.http.is_empty()) {
            let full = format!("{}/{}", other.metadata.namespace, other.metadata.name);
            let what = format!(
                "at waypoint {name} VirtualService {full} comes first for {written}, because it is {}, and it has a route for the rest: these routes are never tried there\n  Passes: these routes in {full}, or {full} without its route for the rest.",
                case.why_first(other)
            );
            say(path, what, format!("behind {full} {host} {name}"));
        }
        if !seen.insert(name.to_owned()) {
            continue;
        }
        for (index, route) in object.spec.http.iter().enumerate() {
            let lost = route.r#match.iter().position(|own| {
                let is_for_mesh =
                    own.gateways.is_empty() || own.gateways.iter().any(|own| own == MESH);
                is_for_mesh && !client.meets(Protocol::Http, own, namespace)
            });
            let Some(lost) = lost else { continue };
            let field = match route.r#match[lost].source_labels.is_empty() {
                true => "sourceNamespace",
                false => "sourceLabels",
            };
            let what = format!(
                "clients in ambient mode never meet this match: waypoint {name} stands between, and it does not know whose requests they are\n  Passes: a match by something that the requests carry, such as a header."
            );
            let path = Protocol::Http.path(index).field("match").index(lost).field(field);
            say(path, what, format!("{field} {name} {:?}", route.targets()));
        }
    }
}

/// A Service in a namespace in ambient mode that has no waypoint: what its clients send there nobody routes.
fn without_waypoint(
    case: &Case<'_>,
    host: &Host,
    home: &str,
    path: FieldPath,
    report: &mut Report<'_>,
) {
    let Some(HostKind::Service(service)) = case.world.host(host) else { return };
    let own = [home, case.review.namespace.as_str()];
    let Some(ambient) = own.iter().find(|namespace| case.world.is_ambient(namespace)) else {
        return;
    };
    let name = &service.name;
    let message = format!(
        "clients in ambient mode, such as those in {ambient}, are not routed by this: Service {name} has no waypoint that is ready, and they reach all its pods alike\n  Passes: a waypoint in namespace {home}, and the label istio.io/use-waypoint with its name on Service {name}."
    );
    let key = format!("without a waypoint {host}");
    report.advice(Gravity::WarnOnly, path, message, key, 0.0);
}

/// A Sidecar that hides it from everybody.
fn check_sidecars(case: &Case<'_>, report: &mut Report<'_>) {
    let Some(own) = case.clients.iter().find_map(Clients::hidden_by) else { return };
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

/// Routes that are for no port which they could meet.
fn check_lists(case: &Case<'_>, report: &mut Report<'_>) {
    for protocol in Protocol::ALL {
        let routes = case.object.spec.routes(protocol);
        let ports = case.world.ports_of_list(case.object, &case.review.namespace, protocol);
        let Some(ports) = ports.filter(|_| !routes.is_empty()) else { continue };
        let said = case.ports_said();
        let why = format!("no port that they could meet is one for {} ({said})", protocol.field());
        let kind = match protocol {
            Protocol::Http => "http",
            Protocol::Tls => "tls",
            Protocol::Tcp => "tcp",
        };
        let next = format!(
            "Passes: a port whose name begins with {kind}-, or the routes in the list of the port's kind."
        );
        let whole = FieldPath::spec().field(protocol.field());
        let mut tell = |path: FieldPath, message: String, what: &str| {
            // Who moves what moves nothing is told so each time.
            let destinations = routes.iter().map(|own| &own.route).collect::<Vec<_>>();
            let key = format!("{what} {kind} {destinations:?}");
            report.advice(Gravity::WarnOnly, path, format!("{message}\n  {next}"), key, 0.0);
        };
        let dead = routes.iter().enumerate().filter(|(_, own)| !own.is_for_any_of(&ports));
        let dead = dead.map(|(index, _)| index).collect::<Vec<_>>();
        if dead.len() == routes.len() {
            tell(whole, format!("these routes do nothing: {why}"), "list");
            continue;
        }
        if let Some(&first) = dead.first() {
            let more = match dead.len() {
                1 => String::new(),
                count => format!("; so are {} more", count - 1),
            };
            let message = format!(
                "this route does nothing: no port that it is for is one for {kind} ({said}){more}"
            );
            tell(protocol.path(first).field("match"), message, "port");
        }
        if protocol == Protocol::Http && case.is_left_to_port_80(&ports) {
            let message = format!("only requests to port 80 meet these routes: {why}");
            tell(whole, message, "port 80");
        }
    }
}

/// Whose routes for connections are tried before these, which of these are left out, and what Envoy refuses.
fn check_connections(case: &Case<'_>, report: &mut Report<'_>) {
    let mut told = BTreeSet::new();
    for shared in case.connections() {
        if let Some(other) = shared.in_front() {
            let (name, list) = (name(other), shared.protocol.field());
            let message = format!(
                "VirtualService {name} takes every connection {}, because it is {}: these routes are never tried there\n  Passes: these routes in {name}.",
                shared.place,
                case.why_first(other)
            );
            let key = format!("behind {name} {list} {}", shared.place);
            if told.insert(key.clone()) {
                let path = FieldPath::spec().field(list);
                report.advice(Gravity::WarnOnly, path, message, key, 0.0);
            }
            continue;
        }
        let refused = "Envoy refuses the listener: no later change of anybody gets there";
        let left_out = "istiod leaves out the later one with all of its names, and says nothing";
        let clashes = shared.clashes().into_iter().map(|clash| (clash, refused));
        for (clash, why) in clashes.chain(shared.left_out().into_iter().map(|own| (own, left_out)))
        {
            let (own, other) = match clash.before {
                Some(before) if clash.at.0 != shared.own => (before, Some(clash.at)),
                before => (clash.at, before),
            };
            let alternative =
                |(_, route, place): At| shared.protocol.path(route).field("match").index(place);
            let whose = match other {
                Some(other) if other.0 != shared.own => {
                    format!(" of VirtualService {}", name(shared.tried[other.0]))
                }
                _ => String::new(),
            };
            let other = other.map_or_else(String::new, |other| alternative(other).to_string());
            let (what, place) = (&clash.what, &shared.place);
            let key = format!("chains {} {what} {why}", shared.protocol.field());
            if told.insert(key.clone()) {
                let message = format!(
                    "{other}{whose} asks for {what} {place}, too: {why}\n  Passes: {what} in one match only."
                );
                report.advice(Gravity::WarnOnly, alternative(own), message, key, 0.0);
            }
        }
    }
}

fn name(object: &VirtualService) -> String {
    format!("{}/{}", object.metadata.namespace, object.metadata.name)
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
        let namespace = case.review.namespace.as_str();
        let theirs = (&delegate.spec.http[..], to.namespace_from(namespace));
        let dropped = merge((route, namespace), theirs).dropped;
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
            let theirs = (route, root.metadata.namespace.as_str());
            let dropped = merge(theirs, (&case.object.spec.http, own.0)).dropped;
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
    if spec.is_for_mesh() && spec.serves_mesh() {
        return;
    }
    let Some(gateway) = spec.gateways.iter().find(|gateway| *gateway != "mesh") else { return };
    let mesh = Client::in_namespace(&case.review.namespace);
    let mut seen: BTreeSet<Host> = BTreeSet::new();
    let mut hosts = Hosts::of(case);
    // The Services that no VirtualService routes for the mesh.
    let mut plain = HashMap::new();
    for protocol in Protocol::ALL {
        for (index, route) in spec.routes(protocol).iter().enumerate() {
            let shares = route.route.iter().zip(fractions(route)).filter(|(_, share)| *share > 0.0);
            let carrying = shares.map(|(written, _)| &written.destination).collect::<Vec<_>>();
            let Some(first) = carrying.first() else { continue };
            let HostAsWritten { host, kind, .. } = hosts.get(&first.host).clone();
            let is_plain = plain.entry(host.clone()).or_insert_with(|| {
                matches!(kind, Some(HostKind::Service(_)))
                    && case.world.routing().virtual_services(&host, &mesh).is_empty()
            });
            if !*is_plain || seen.contains(&host) {
                continue;
            }
            let mut own = carrying.clone();
            own.retain(|to| hosts.get(&to.host).host == host);
            if own.iter().all(|to| to.subset == own[0].subset) {
                continue;
            }
            let ready = own.into_iter().filter_map(|to| {
                let ready = hosts.target(to).ready().filter(|&ready| ready > 0)?;
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
            let path = protocol.path(index).field("route");
            report.advice(Gravity::WarnOnly, path, message, key, 0.0);
        }
    }
}
