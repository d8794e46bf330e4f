use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{Host, Protocol, ServiceEntry};
use crate::policy::words::{list, near_miss, number, numbers};
use crate::policy::{
    Action, Asked, Carried, Case, Destination, Gravity, Reference, Report, Rule, Stage, Takers, Why,
};
use crate::world::{ANY_NAMESPACE, Client, HostKind, Kind, Service};

/// Why nobody sees what says nothing about it.
const MESH_DEFAULT: &str = "meshConfig.defaultServiceExportTo says so";

/// A destination that gets traffic exists.
///
/// Reads: the host and the port of each destination. Looks up Services, ServiceEntries, Gateways and Sidecars.
///
/// Refuses a destination with a share above 0 whose host is neither a Service nor a ServiceEntry, that its clients do not see
/// (`exportTo` of a ServiceEntry, or the annotation `networking.istio.io/exportTo` of a Service), or on a port that it does not
/// have: that share is answered with 503.
///
/// Istio completes only names without a dot, and in the VirtualService's own namespace. `reviews.shop` is not completed and
/// never found, although Service reviews stands in namespace shop; upper case, a dot at the end and a wildcard are not found
/// either. Such a name is wrong, not absent, and is refused on a first install and in a dry run, too. A host that is merely
/// absent is a warning there, and where other clusters belong to the mesh.
///
/// Without a port Istio takes the Service's only one, else the one that the client called: a sidecar always does where the
/// destination does not listen on it, a gateway or a waypoint where the Service has several ports.
///
/// Behind a waypoint a VirtualService for a wildcard leads only to what the waypoint serves itself.
///
/// Warned about: a Service of type ExternalName whose external host no Service or ServiceEntry is called.
///
/// Why: Envoy takes a route to a host that nobody has and answers its share with 503.
///
/// Refused: `destination: {host: reviews.shop}` for Service reviews of namespace shop.
///
/// Passes: `destination: {host: reviews}` within namespace shop, `host: reviews.shop.svc.cluster.local` from elsewhere.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct DestinationExists {}

impl Rule for DestinationExists {
    const ID: &'static str = "destination-exists";
    const ACTION: Action = Action::Deny;
    const STAGE: Stage = Stage::Traffic;
    const READS: &'static [Kind] = &[
        Kind::Service,
        Kind::ServiceEntry,
        Kind::Gateway,
        Kind::Sidecar,
        Kind::Waypoint,
        Kind::Namespace,
        Kind::Pod,
    ];

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let Some(change) = case.change else { return };
        let mut missing: Vec<Carried<'_>> = Vec::new();
        let mut known: HashMap<_, usize> = HashMap::new();
        let mut takers = Takers::of(case);
        let own = Client::in_namespace(&case.review.namespace);
        let is_own_asked = takers.users().iter().any(|users| users.is_shown_to(&own));
        // What was looked up and is as it should be: the entries of many routes name the same.
        let mut fine = HashSet::new();
        for carried in case.carried() {
            let destination = change.destinations.get(carried.destination);
            takers.asked(&carried);
            let asks = (carried.port(), carried.flow.protocol, carried.flow.gone, takers.group());
            let key = (destination.host_number, carried.is_elsewhere(), asks);
            if fine.contains(&key) {
                continue;
            }
            if let Some(kind) = case.world.host(&destination.host) {
                let said = report.count();
                let asked = takers.asked(&carried);
                let own =
                    Present { case, carried: &carried, destination, kind, asked, is_own_asked };
                if !own.is_hidden(report) && !own.lacks_alias(report) && !own.lacks_cluster(report)
                {
                    own.lacks_port(report);
                }
                if report.count() == said {
                    fine.insert(key);
                }
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
    let Some(written) = carried.written.map(|own| own.destination.host.as_str()) else { return };
    let is_wild = written.starts_with('*');
    let wrong = case.meant(written, carried.namespace()).filter(|_| !is_wild);
    let may_be_elsewhere = case.world.mesh().is_multi_cluster && !is_wild;
    let gravity = match &wrong {
        // Wrong is not absent: neither a first install nor a dry run makes this name resolve.
        Some(_) if carried.rises && !is_harmless(carried) => Gravity::Full,
        Some(_) => carried.gravity,
        None if may_be_elsewhere => Gravity::WarnOnly,
        None => case.if_absent(carried.gravity),
    };
    if !report.has_room(gravity) {
        return;
    }
    let path = carried.destination_path("host");
    let share = carried.said();
    if let Some((short, full)) = wrong {
        let why = if written.chars().any(|character| character.is_ascii_uppercase()) {
            "Istio compares host names with their case"
        } else if written.ends_with('.') {
            "a dot at the end is part of the name for Istio"
        } else {
            "Istio completes only names without a dot, and only in the VirtualService's own namespace"
        };
        let message = format!(
            "{share} would get 503: {written:?} never resolves; {why}\n  Passes: {full}{short}{}",
            carried.there()
        );
        report.lookup(gravity, path, message, carried.rests_on().into_iter().collect());
        return;
    }
    let service = destination.host.service(&case.world.mesh().domain).filter(|_| !is_wild);
    let (what, next) = match service {
        None if is_wild => (
            format!(
                "no ServiceEntry is called {written}, and a wildcard is no pattern here, but the name of one host"
            ),
            "Passes: the name of one Service or ServiceEntry.".to_owned(),
        ),
        Some((name, namespace)) => absent_service(case, name, namespace, &carried.there()),
        None => {
            let close = near_miss(written, case.world.service_entry_hosts()).map(str::to_owned);
            let close = close.or_else(|| case.of_another_domain(written));
            let close = close.map_or(String::new(), |close| format!(" Did you mean {close}?"));
            let next = format!("Passes: a ServiceEntry for {written} first, then this.{close}");
            (format!("no Service and no ServiceEntry is called {written}"), next)
        }
    };
    let elsewhere = if may_be_elsewhere { " here; another cluster may have it" } else { "" };
    let message = format!("{share} would get 503: {what}{elsewhere}\n  {next}");
    let mut rests_on = case.rests_on_host(&destination.host);
    rests_on.extend(carried.rests_on());
    report.lookup(gravity, path, message, rests_on);
}

fn is_harmless(carried: &Carried<'_>) -> bool {
    let own = carried.flow.movement(carried.destination);
    own.is_some_and(|moved| moved.rises() && moved.class.is_harmless())
}

fn absent_service(case: &Case<'_>, name: &str, namespace: &str, there: &str) -> (String, String) {
    if case.world.undiscovered_service(namespace, name).is_some() {
        let what = format!(
            "istiod does not read namespace {namespace}, where Service {name} stands: its labels are none that meshConfig.discoverySelectors ask for"
        );
        let wanted = case.world.mesh().wanted_labels();
        let next = format!("Passes: label namespace {namespace} first ({wanted}), then this.");
        return (what, next);
    }
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
            "Service {name} stands in namespace {}. Passes: host: {}{there}",
            list(&elsewhere),
            list(&hosts)
        )
    } else {
        format!("Passes: Service {name} in namespace {namespace} first, then this.")
    };
    (what, next)
}

/// A destination whose host is there.
struct Present<'a> {
    case: &'a Case<'a>,
    carried: &'a Carried<'a>,
    destination: &'a Destination,
    kind: HostKind<'a>,
    /// Those who can take the route.
    asked: &'a [Arc<Asked>],
    /// Whether no Sidecar hides the object from its own namespace.
    is_own_asked: bool,
}

impl Present<'_> {
    /// The hosts that its clients call.
    fn called(&self) -> impl Iterator<Item = Host> {
        let Self { case, carried, .. } = self;
        let gone = case.review.old_object().filter(|_| carried.flow.gone.is_some());
        let hosts = &gone.unwrap_or(case.object).spec.hosts;
        hosts.iter().map(|host| case.resolve(host))
    }

    fn rests_on(&self) -> Reference {
        match self.kind {
            HostKind::Service(service) | HostKind::Alias(service) => reference(service),
            HostKind::ServiceEntry(_) => Reference::ServiceEntries,
        }
    }

    /// Says where `exportTo` keeps the destination from clients; `false` where it does not.
    fn is_hidden(&self, report: &mut Report<'_>) -> bool {
        let Self { case, carried, destination, .. } = self;
        let sees = |client: &Client| case.world.is_routable(&destination.host, client);
        let hosts = self.called().collect::<Vec<_>>();
        // Clients that do not see the host of the VirtualService either do not send it anything.
        let calls = |client: &Client| hosts.iter().any(|host| case.world.is_visible(host, client));
        let mut asked = self.asked.to_vec();
        let own = Client::in_namespace(&case.review.namespace);
        let general = asked.iter().find(|asked| asked.why == Why::Anywhere);
        if let Some(general) = general.filter(|_| self.is_own_asked) {
            let gravity = general.gravity;
            asked.insert(0, Asked { clients: vec![own], why: Why::Exported, gravity }.into());
        }
        let lacks = |asked: &Arc<Asked>| {
            !asked.clients.iter().any(sees)
                && (asked.why != Why::Anywhere || asked.clients.iter().any(calls))
        };
        let mut lost = asked.iter().filter(|asked| lacks(asked)).collect::<Vec<_>>();
        let is_grave = lost.iter().any(|asked| asked.gravity == Gravity::Full);
        let is_counted = lost.iter().any(|asked| asked.why.counts());
        lost.retain(|asked| asked.why.counts() == is_counted);
        let clients = lost.iter().filter_map(|asked| asked.clients.first()).collect::<Vec<_>>();
        let mut names = Vec::new();
        for client in &clients {
            let name = match (&client.gateway, client.namespace.as_str()) {
                _ if client.waypoint.is_some() => {
                    format!("behind waypoint {}", client.waypoint.as_deref().unwrap_or_default())
                }
                (Some(gateway), _) => format!("at Gateway {gateway}"),
                (None, ANY_NAMESPACE) => "anywhere else in the mesh".to_owned(),
                (None, namespace) => format!("in {namespace}"),
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() {
            return false;
        }
        let what = match self.kind {
            HostKind::Service(service) | HostKind::Alias(service) => {
                let to = if service.export_to.is_empty() {
                    MESH_DEFAULT.to_owned()
                } else {
                    format!(
                        "its annotation networking.istio.io/exportTo is {:?}",
                        service.export_to.join(",")
                    )
                };
                format!("Service {}/{} is hidden from them: {to}", service.namespace, service.name)
            }
            HostKind::ServiceEntry(entry) => {
                let to = match entry.spec.export_to.as_slice() {
                    [] => MESH_DEFAULT.to_owned(),
                    own => format!("its exportTo is {own:?}"),
                };
                let (namespace, name) = (&entry.metadata.namespace, &entry.metadata.name);
                format!("ServiceEntry {namespace}/{name} is hidden from them: {to}")
            }
        };
        let message = format!(
            "{} would get 503 for clients {}: {what}\n  Passes: export {} to these clients first, then this.",
            carried.said(),
            list(&names),
            destination.host
        );
        let path = carried.destination_path("host");
        let gravity = if is_grave { carried.gravity } else { Gravity::WarnOnly };
        let gravity = case.if_absent(gravity);
        let sidecars = clients.first().map(|client| case.sidecars_of(client));
        let mut rests_on = vec![self.rests_on()];
        rests_on.extend(sidecars.into_iter().flatten().chain(carried.rests_on()));
        report.lookup(gravity, path, message, rests_on);
        true
    }

    /// Says where an ExternalName leads nowhere; `false` where it does not.
    fn lacks_alias(&self, report: &mut Report<'_>) -> bool {
        let Self { case, carried, destination, .. } = self;
        let Some(target) = case.world.alias_target(&destination.host) else { return false };
        let why = match case.world.host(&target) {
            None => "and no Service and no ServiceEntry has that name",
            Some(HostKind::Alias(_)) => {
                "which is of type ExternalName, too; Istio follows one step only"
            }
            Some(_) => return false,
        };
        let message = format!(
            "{} would get 503: {} is of type ExternalName for {target}, {why}\n  Passes: a ServiceEntry for {target} first, then this, or the name of a Service as host.",
            carried.said(),
            destination.host
        );
        let path = carried.destination_path("host");
        // An Istio before 1.21, or with `ENABLE_EXTERNAL_NAME_ALIAS=false`, resolves such a Service by DNS.
        report.lookup(Gravity::WarnOnly, path, message, Vec::new());
        true
    }

    /// Says where a waypoint has no way to the destination; `false` where it has.
    fn lacks_cluster(&self, report: &mut Report<'_>) -> bool {
        let Self { case, carried, destination, asked, .. } = self;
        let written = (case.object, case.review.namespace.as_str());
        let waypoints = asked.iter().filter(|asked| asked.why == Why::Waypoint);
        let mut lost = waypoints.flat_map(|asked| &asked.clients);
        let lost = lost.find(|own| !case.world.is_led(own, &destination.host, written));
        let Some(name) = lost.and_then(|own| own.waypoint.as_ref()) else { return false };
        let host = &destination.host;
        let message = format!(
            "{} would get 503 for clients behind waypoint {name}: it does not serve {host}, and a VirtualService for a wildcard opens it no way there\n  Passes: the same with the full names of the hosts instead of the wildcard.",
            carried.said()
        );
        let gravity = case.if_absent(carried.gravity);
        let rests_on = std::iter::once(self.rests_on()).chain(carried.rests_on());
        report.lookup(gravity, carried.destination_path("host"), message, rests_on.collect());
        true
    }

    fn ports(&self, kind: HostKind<'_>) -> Vec<i64> {
        match kind {
            HostKind::Service(service) | HostKind::Alias(service) => {
                service.ports.iter().map(|port| port.number).collect()
            }
            HostKind::ServiceEntry(entry) => {
                let all = self.case.world.service_entries(&self.destination.host);
                let same = |own: &&&ServiceEntry| {
                    own.metadata.namespace == entry.metadata.namespace
                        && own.metadata.name != entry.metadata.name
                };
                let entries = std::iter::once(entry).chain(all.iter().filter(same).copied());
                entries.flat_map(|own| &own.spec.ports).map(|port| i64::from(port.number)).collect()
            }
        }
    }

    /// Says where the destination does not listen on the port that Istio takes.
    fn lacks_port(&self, report: &mut Report<'_>) {
        let Self { case, carried, destination, .. } = self;
        let own = self.ports(self.kind);
        // An alias has a port of its own, but the cluster is that of the other host.
        let target = case.world.alias_target(&destination.host);
        let target = target.as_ref().and_then(|host| case.world.host(host));
        let (ports, most) = match target {
            Some(kind) => (self.ports(kind), Gravity::WarnOnly),
            None => (own.clone(), Gravity::Full),
        };
        let written = carried.port();
        let taken = written.or(match own.as_slice() {
            [one] if target.is_some() => Some(*one),
            _ => None,
        });
        if ports.is_empty() || taken.is_some_and(|port| ports.contains(&port)) {
            return;
        }
        let (why, mut rests_on, most) = match taken {
            Some(port) => (format!("{} has no port {port}", destination.host), Vec::new(), most),
            None => match self.listeners(&ports) {
                Some((why, rests_on, Gravity::Full)) => (why, rests_on, most),
                Some(found) => found,
                None => return,
            },
        };
        rests_on.push(self.rests_on());
        rests_on.extend(carried.rests_on());
        let known = list(&ports.iter().map(|&port| number(port as f64)).collect::<Vec<_>>());
        let message = format!(
            "{} would get 503: {why}; it has {known}\n  Passes: port: {{number: {}}}{}",
            carried.said(),
            ports[0],
            carried.there()
        );
        let path = carried.destination_path("port");
        let is_number = written.is_some() && !carried.is_elsewhere();
        let path = if is_number { path.field("number") } else { path };
        let gravity = case.if_absent(carried.gravity);
        let gravity = if most == Gravity::WarnOnly { most } else { gravity };
        report.lookup(gravity, path, message, rests_on);
    }

    /// No port is written: why none of the ports that clients call is one of `ports`, what that rests on, and what it may cost.
    ///
    /// Source: `pilot/pkg/networking/core/route/route.go` `GetDestinationCluster`, `networkfilter.go`
    /// `buildOutboundNetworkFilters`, `listener_waypoint.go` `getWaypointDestinationCluster`.
    fn listeners(&self, ports: &[i64]) -> Option<(String, Vec<Reference>, Gravity)> {
        let Self { case, carried, destination, .. } = self;
        let list = carried.flow.protocol;
        // For connections a sidecar, too, knows the only port of a Service.
        if list != Protocol::Http && ports.len() < 2 {
            return None;
        }
        let asked = self.asked;
        let gateways = asked.iter().flat_map(|asked| &asked.clients);
        let gateways = gateways.filter_map(|client| client.gateway.as_deref());
        let gateways = gateways.collect::<BTreeSet<_>>();
        // A gateway knows the only port of a Service, whichever it listens on itself.
        for name in gateways.into_iter().filter(|_| ports.len() > 1) {
            let (namespace, own) = name.split_once('/')?;
            let Some(gateway) = case.world.gateway(namespace, own) else { continue };
            let servers = gateway.spec.servers.iter().filter(|own| own.is_routed_by(list));
            let listens = servers.filter_map(|server| server.port.number);
            let listens = listens.collect::<BTreeSet<_>>();
            if !listens.is_empty() && !ports.iter().any(|port| listens.contains(port)) {
                let why = format!(
                    "without a port Istio takes that of Gateway {name} ({}) for a Service with several, and {} does not have it",
                    numbers(&listens),
                    destination.host
                );
                let gateways = Reference::Gateways { namespace: namespace.to_owned() };
                return Some((why, vec![gateways], Gravity::Full));
            }
        }
        // A waypoint knows the only port of a Service like a gateway, and takes the one that was called like a sidecar.
        let is_asked =
            |own: &Client| own.is_sidecar() || (own.waypoint.is_some() && ports.len() > 1);
        let mut asked = asked.iter().filter(|asked| asked.clients.iter().any(is_asked)).peekable();
        asked.peek()?;
        let is_grave = asked.any(|asked| asked.gravity == Gravity::Full);
        let mut called = BTreeSet::new();
        let mut rests_on = Vec::new();
        for host in self.called() {
            // A host that is nobody's is called on a port that nobody knows.
            let HostKind::Service(service) = case.world.host(&host)? else { return None };
            match list {
                Protocol::Http => called.extend(service.ports.iter().map(|port| port.number)),
                _ => called.extend(case.world.ports_routed_by(&host, list)?),
            }
            rests_on.push(reference(service));
        }
        if called.is_empty() || ports.iter().any(|port| called.contains(port)) {
            return None;
        }
        let (gravity, whose) = match is_grave {
            true => (Gravity::Full, ""),
            false => (Gravity::WarnOnly, ", of which none runs now,"),
        };
        let why = format!(
            "without a port a sidecar{whose} takes the one that was called ({}), and {} does not have it",
            numbers(&called),
            destination.host
        );
        Some((why, rests_on, gravity))
    }
}

fn reference(service: &Service) -> Reference {
    Reference::Service { namespace: service.namespace.clone(), name: service.name.clone() }
}
