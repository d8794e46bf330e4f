use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use sluicegate::istio::{
    self, Arrival, Condition, Destination, EgressHosts, EgressListener, Host, Protocol, Reading,
    Resolution, Route, RouteMatch, VirtualService,
};
use sluicegate::policy::fractions;
use sluicegate::world::{Client, Endpoints, HostKind, Kind, World};

use super::request::Request;
use super::{Answer, ClusterView, Entry, Shares, Table};

/// The discovery of a cluster whose connections go where the client wanted.
const ORIGINAL: &str = "ORIGINAL_DST";

/// The Node that all proxies of the tests say they run on.
const NODE: &str = "node-a";

/// What the gate believes about one client: nothing is decided here, everything is asked of the crate.
pub(crate) struct Ours<'a> {
    pub(crate) world: &'a World,
    pub(crate) client: &'a Client,
    /// The port of the listener that requests arrive at.
    pub(crate) port: i64,
}

/// A route with the conditions under which this client's requests reach it.
struct Reached<'a> {
    /// The VirtualService that names the host.
    object: &'a VirtualService,
    /// Of its own, or of a delegate, whose namespace completes the names in it.
    route: Cow<'a, Route>,
    namespace: &'a str,
    /// One for each block of its match that is for this client; `None` for one that no request satisfies.
    conditions: Vec<Option<Condition>>,
    /// Nothing behind it is ever asked.
    is_last: bool,
}

impl<'a> Ours<'a> {
    /// What the world says of a cluster; `None` where no such cluster is thought to exist.
    pub(crate) fn cluster(&self, host: &Host, subset: &str, port: i64) -> Option<ClusterView> {
        let known = self.world.host(host)?;
        let is_there = self.is_told(host, port)
            || (self.world.is_routable(host, self.client) && self.is_destination(host, port));
        if !is_there || !ports(known)?.contains(&port) {
            return None;
        }
        if matches!(known, HostKind::ServiceEntry(entry) if entry.spec.resolution == Resolution::DynamicDns)
            && !subset.is_empty()
        {
            return None; // `subset-ready` says so
        }
        let rule = self.world.destination_rule(host, self.client);
        let mut labels = match subset {
            "" => BTreeMap::new(),
            subset => rule?.subset(subset)?.labels.clone(),
        };
        let policy = rule.map(|rule| rule.policy(subset, Some(port)));
        let is_passthrough =
            policy.and_then(|policy| policy.load_balancer).is_some_and(|own| own.is_passthrough());
        let discovery = match known {
            HostKind::Service(service) if service.is_headless && self.client.gateway.is_none() => {
                ORIGINAL
            }
            HostKind::ServiceEntry(entry) => match entry.spec.resolution {
                Resolution::None if self.client.gateway.is_none() => ORIGINAL,
                Resolution::None | Resolution::Static => "EDS",
                Resolution::DynamicDns if host.as_str().starts_with('*') => {
                    "envoy.clusters.dynamic_forward_proxy"
                }
                Resolution::Dns | Resolution::DynamicDns => "STRICT_DNS",
            },
            _ => "EDS",
        };
        if matches!(known, HostKind::Service(service) if service.is_node_local) {
            labels.insert("kubernetes.io/hostname".to_owned(), NODE.to_owned());
        }
        let selected = self.world.selected(host, &labels, Some(port));
        // An endpoint of a Pod that is not there yet counts as ready for the gate; istiod waits for the Pod.
        let healthy = |selected: &Endpoints| (selected.ready() - selected.unknown_ready) as usize;
        // What asks for another cluster the gate leaves open; there is none here.
        let elsewhere = || self.world.may_be_elsewhere(&labels).then_some(0);
        let selected = selected.as_ref().map(healthy).or_else(elsewhere);
        if discovery == "STRICT_DNS" && !subset.is_empty() && selected == Some(0) {
            return None;
        }
        let rule = rule.and_then(|rule| rule.rules().next());
        let rule = rule.map(|rule| format!("{}/{}", rule.metadata.namespace, rule.metadata.name));
        Some(ClusterView {
            discovery: if is_passthrough { ORIGINAL } else { discovery }.to_owned(),
            rule,
            healthy: selected.unwrap_or(0),
            connect_timeout: 0.0,
        })
    }

    /// The routes for requests to `host`, in order; `None` where nobody serves them.
    pub(crate) fn table(&self, host: &Host) -> Option<Table> {
        match self.served(host)? {
            Served::Plainly(target) => {
                let cluster = format!("outbound|{}||{target}", self.port);
                let answer = Answer::Clusters(Shares::whole(cluster));
                let (route, mirrors) = ("default".to_owned(), Shares::default());
                let entry = Entry { route, source: None, answer, mirrors };
                Some(Table { entries: vec![entry], is_complete: true })
            }
            Served::By(reached) => {
                let entries = reached.iter().flat_map(|reached| {
                    let metadata = &reached.object.metadata;
                    let entry = Entry {
                        route: reached.route.name.clone(),
                        source: Some(format!("{}/{}", metadata.namespace, metadata.name)),
                        answer: self.answer(reached),
                        mirrors: self.mirrors(reached),
                    };
                    vec![entry; reached.conditions.len()]
                });
                let is_complete = reached.iter().any(|reached| reached.is_last);
                Some(Table { entries: entries.collect(), is_complete })
            }
        }
    }

    /// The place in [`Ours::table`] of the entry that takes a request, where that can be told.
    pub(crate) fn takes(&self, host: &Host, request: &Request) -> Taken {
        let Some(Served::By(reached)) = self.served(host) else { return Taken::By(0) };
        let request = self.as_condition(request);
        let conditions = reached.iter().flat_map(|reached| &reached.conditions).enumerate();
        let conditions = conditions.filter_map(|(place, own)| Some((place, own.as_ref()?)));
        for (place, condition) in conditions {
            if condition.covers(&request) {
                return Taken::By(place);
            }
            if !condition.excludes(&request) {
                return Taken::Unknown;
            }
        }
        Taken::ByNobody
    }

    /// Who serves requests for `host`; `None` for nobody.
    fn served(&self, host: &Host) -> Option<Served<'a>> {
        let routing = self.world.routing();
        let in_force = || routing.in_force(host, self.client, Protocol::Http, Some(self.port));
        let reached = |objects: Vec<&'a VirtualService>| {
            objects.into_iter().flat_map(|object| self.reached_of(object)).collect::<Vec<_>>()
        };
        if self.client.gateway.is_some() {
            // The routes of all are tried there, catch-alls last.
            let (last, first): (Vec<_>, Vec<_>) =
                reached(in_force()).into_iter().partition(|reached| reached.is_last);
            let all = first.into_iter().chain(last).collect::<Vec<_>>();
            return (!all.is_empty()).then_some(Served::By(all));
        }
        if self.is_requested(host) {
            let objects = in_force();
            if !objects.is_empty() {
                return Some(Served::By(reached(objects)));
            }
        }
        match self.world.host(host) {
            // Another name of a service that the client knows, on that one's ports: it is served as that is.
            Some(HostKind::Alias(_)) => {
                let target = self.world.alias_target(host)?;
                let is_alias = matches!(self.world.host(&target), Some(HostKind::Alias(_)));
                (!is_alias && self.is_requested(&target)).then(|| self.served(&target))?
            }
            Some(_) if self.is_requested(host) => Some(Served::Plainly(host.clone())),
            // `reviews.shop` in a request, unlike in an object, is short for the service.
            _ => {
                let domain = &self.world.mesh().domain;
                let full = Host::resolve(&format!("{host}.svc.{domain}"), "", domain);
                // Another name is served on the ports of what it stands for.
                let is_alias = self.world.alias_target(&full).is_some();
                (is_alias || self.is_requested(&full)).then(|| self.served(&full))?
            }
        }
    }

    /// Whether a VirtualService that this sidecar sees sends requests to a port of the host, copies of them included. Where
    /// alternatives of a route name namespaces, one of them must be the client's: an alternative for everybody beside them is
    /// forgotten (`push_context.go` `virtualServiceDestinationsFilteredBySourceNamespace`), which the gate does not follow.
    fn is_destination(&self, host: &Host, port: i64) -> bool {
        let own = self.client.namespace.as_str();
        let all = self.world.names(Kind::VirtualService);
        let mut all = all.iter().filter_map(|(at, name)| self.world.virtual_service(at, name));
        all.any(|object| {
            let namespace = object.metadata.namespace.as_str();
            let is_seen = object.spec.is_for_mesh()
                && !object.spec.is_delegate()
                && self.world.is_exported(object, namespace, own)
                && self.is_told_of(object, port);
            let names = |to: &Destination, namespace: &str| {
                Host::resolve(&to.host, namespace, &self.world.mesh().domain) == *host
                    && to.port.number.is_none_or(|number| number == port)
            };
            // Of connections all routes count.
            let is_below = || {
                let all = [Protocol::Tcp, Protocol::Tls].into_iter();
                let all = all.flat_map(|protocol| object.spec.routes(protocol));
                all.flat_map(|route| &route.route).any(|to| names(&to.destination, namespace))
            };
            let is_above = || {
                self.routes(object).iter().any(|(route, namespace)| {
                    let mut named =
                        route.r#match.iter().filter(|block| !block.source_namespace.is_empty());
                    let is_mine =
                        route.r#match.iter().all(|block| block.source_namespace.is_empty())
                            || named.any(|block| block.source_namespace == own);
                    let copies = route.mirrors.iter().map(|own| &own.destination);
                    let copies = copies.chain(&route.mirror);
                    let mut all = route.route.iter().map(|to| &to.destination).chain(copies);
                    is_mine && all.any(|to| names(to, namespace))
                })
            };
            is_seen && (is_above() || is_below())
        })
    }

    /// Whether sidecars route the host by an accident of Istio's, which the gate does not follow:
    ///
    /// - it is no service of this port but stands in a VirtualService beside other hosts, one of which is (`httproute.go`
    ///   `selectVirtualServices` calls that a bug);
    /// - it is an alias behind a Sidecar, whose egress hosts for the namespace of the other service decide whether that is also
    ///   called so (`sidecar.go` `matchingAliasService`);
    /// - it is an alias, and both it and what it stands for have a VirtualService: whichever is older wins, because each makes
    ///   a virtual host with both names.
    pub(crate) fn is_routed_by_accident(&self, host: &Host) -> bool {
        let routing = self.world.routing();
        let objects = |host: &Host| routing.virtual_services(host, self.client);
        if self.client.gateway.is_some() {
            return false;
        }
        if let Some(target) = self.world.alias_target(host)
            && (self.world.sidecar(self.client).is_some()
                || (!objects(host).is_empty() && !objects(&target).is_empty()))
        {
            return true;
        }
        let names = self.world.names(Kind::VirtualService);
        let mut all = names.iter().filter_map(|(at, name)| self.world.virtual_service(at, name));
        let covers = |own: &VirtualService| {
            let namespace = own.metadata.namespace.as_str();
            let covers = |own: &String| {
                let own = Host::resolve(own, namespace, &self.world.mesh().domain);
                istio::host_covers(&own.as_str().to_lowercase(), host.as_str())
            };
            own.spec.hosts.iter().any(covers)
                && own.spec.is_for_mesh()
                && self.world.is_exported(own, namespace, &self.client.namespace)
                && self.world.is_told(own, namespace, self.client)
        };
        !self.is_known(host) && all.any(|own| own.spec.hosts.len() > 1 && covers(own))
    }

    /// Whether it is a service of the listener's port that this client may see.
    pub(super) fn is_known(&self, host: &Host) -> bool {
        let known = self.world.host(host);
        known.is_some_and(|known| ports_of(known).contains(&self.port))
            && self.world.is_imported(host, self.client, Some(self.port))
    }

    /// Whether a listener of the client's Sidecar where services have this port tells it of a VirtualService.
    fn is_told_of(&self, object: &VirtualService, port: i64) -> bool {
        let Some(sidecar) = self.world.sidecar(self.client) else { return true };
        let namespace = object.metadata.namespace.as_str();
        let domain = &self.world.mesh().domain;
        let hosts = object.spec.hosts.iter().map(|own| Host::resolve(own, namespace, domain));
        let hosts = hosts.collect::<Vec<_>>();
        let mut listeners = sidecar.spec.egress.iter();
        let tells = |own: &EgressListener| {
            own.port_of_services().is_none_or(|own| own == port)
                && EgressHosts::of(&own.hosts).has_virtual_service(
                    hosts.iter().map(Host::as_str),
                    namespace,
                    &self.client.namespace,
                )
        };
        sidecar.spec.egress.is_empty() || listeners.any(tells)
    }

    /// Whether the client is told of a port of the host, by whichever listener of its Sidecar.
    fn is_told(&self, host: &Host, port: i64) -> bool {
        let Some(sidecar) = self.world.sidecar(self.client) else {
            return self.world.is_visible(host, self.client);
        };
        let listeners = sidecar.spec.egress.iter().map(|own| own.port.as_ref()?.number);
        let mut listeners = listeners.chain([None]);
        listeners.any(|listener| match listener {
            Some(number) if number != port => false,
            _ => self.world.is_imported(host, self.client, Some(listener.unwrap_or(0))),
        })
    }

    /// Whether the listener's port is one for requests there, besides.
    fn is_requested(&self, host: &Host) -> bool {
        let is_alias = matches!(self.world.host(host), Some(HostKind::Alias(_)));
        let ports = self.world.port_protocols(host);
        let is_http =
            ports.iter().any(|(port, own)| *port == self.port && own.is_routed_by(Protocol::Http));
        self.is_known(host) && (is_alias || is_http)
    }

    fn reached_of(&self, object: &'a VirtualService) -> Vec<Reached<'a>> {
        let mut found = Vec::new();
        let anything = self.anything();
        let ends = |conditions: &[Option<Condition>]| {
            conditions
                .last()
                .is_some_and(|last| last.as_ref().is_some_and(|last| last.covers(&anything)))
        };
        for (route, namespace) in self.routes(object) {
            let arrival = Arrival::at(self.gateway(), namespace);
            let is_mine = |block: &&RouteMatch| {
                let is_port = block.port.is_none_or(|port| port == 0 || port == self.port);
                is_port && self.client.meets(Protocol::Http, block, namespace)
            };
            let mut conditions = Vec::new();
            if route.r#match.is_empty() {
                conditions.push(Some(Condition::default()));
            }
            for block in route.r#match.iter().filter(is_mine) {
                conditions.push(Condition::of(block, &arrival, Reading::Strict));
                if ends(&conditions) {
                    break;
                }
            }
            let is_last = ends(&conditions);
            if !conditions.is_empty() {
                found.push(Reached { object, route, namespace, conditions, is_last });
            }
            if is_last {
                break;
            }
        }
        found
    }

    /// The routes of an object with those of its delegates in their places.
    fn routes(&self, object: &'a VirtualService) -> Vec<(Cow<'a, Route>, &'a str)> {
        let namespace = object.metadata.namespace.as_str();
        let mut routes = Vec::new();
        for route in object.spec.routes(Protocol::Http) {
            let Some(to) = &route.delegate else {
                routes.push((Cow::Borrowed(route), namespace));
                continue;
            };
            let Ok(delegate) = self.world.delegate(to, namespace) else { continue };
            let at = delegate.metadata.namespace.as_str();
            let merged = istio::delegate::merge((route, namespace), (&delegate.spec.http, at));
            let own = merged.routes.into_iter().map(|(_, route)| Cow::Owned(route));
            routes.extend(own.map(|route| (route, at)));
        }
        routes
    }

    fn answer(&self, reached: &Reached<'_>) -> Answer {
        let route = &reached.route;
        if route.route.is_empty() {
            return Answer::Itself;
        }
        Answer::Clusters(self.shares(Protocol::Http, route, reached.namespace))
    }

    /// The clusters of a route of an object of `namespace`.
    pub(super) fn shares(&self, protocol: Protocol, route: &Route, namespace: &str) -> Shares {
        let mut shares = Shares::default();
        for (share, written) in fractions(route).into_iter().zip(&route.route) {
            if share > 0.0 {
                shares.add(self.cluster_name(protocol, &written.destination, namespace), share);
            }
        }
        shares
    }

    fn mirrors(&self, reached: &Reached<'_>) -> Shares {
        let mut mirrors = Shares::default();
        // What answers by itself sends nothing on, and nothing besides.
        if !reached.route.route.is_empty() {
            for mirrored in reached.route.mirrored() {
                let name = self.cluster_name(Protocol::Http, mirrored.to, reached.namespace);
                mirrors.add(name, mirrored.part);
            }
        }
        mirrors
    }

    fn cluster_name(&self, protocol: Protocol, to: &Destination, namespace: &str) -> String {
        let host = Host::resolve(&to.host, namespace, &self.world.mesh().domain);
        let known = self.world.host(&host);
        let own = known.map(ports_of).unwrap_or_default();
        // A sidecar knows the services of the listener's port for HTTP, a gateway all of them.
        let is_l4 = protocol != Protocol::Http;
        let is_routable = self.world.is_routable(&host, self.client);
        let is_seen = match is_l4 || self.client.gateway.is_some() {
            true => is_routable,
            false if self.world.sidecar(self.client).is_some() => self.is_known(&host),
            false => own.contains(&self.port) && is_routable,
        };
        let port = match (to.port.number, own.as_slice()) {
            (Some(number), _) => number,
            (None, [only]) if is_seen => *only,
            (None, _) => self.port,
        };
        let target = self.world.alias_target(&host).filter(|_| is_seen).unwrap_or(host);
        format!("outbound|{port}|{}|{target}", to.subset)
    }

    fn gateway(&self) -> &str {
        self.client.gateway.as_deref().unwrap_or("mesh")
    }

    /// What is true of all requests of this client at this port.
    fn anything(&self) -> Condition {
        self.condition(Protocol::Http, RouteMatch::default())
    }

    fn as_condition(&self, request: &Request) -> Condition {
        self.condition_of(Protocol::Http, request.as_match())
    }

    pub(super) fn condition_of(&self, protocol: Protocol, request: serde_json::Value) -> Condition {
        let own = serde_json::from_value(request);
        self.condition(
            protocol,
            own.unwrap_or_else(|error| panic!("a request as a match: {error}")),
        )
    }

    /// The alternatives of a route by which this client's connections reach it.
    pub(super) fn alternatives(
        &self,
        protocol: Protocol,
        route: &Route,
        namespace: &str,
        taken: &mut HashSet<String>,
    ) -> impl Iterator<Item = Condition> + use<> {
        let arrival = Arrival::at(self.gateway(), namespace).of_protocol(protocol);
        let arrival = arrival.on_port(Some(self.port));
        let own = match self.client.gateway.is_some() && protocol == Protocol::Tls {
            true => Condition::alternatives_once(route, &arrival, taken),
            false => Condition::alternatives(route, &arrival, Reading::Strict),
        };
        own.into_iter()
    }

    fn condition(&self, protocol: Protocol, own: RouteMatch) -> Condition {
        // Labels that the client does not carry have a value that nobody asks for.
        let mut labels = BTreeMap::from([("app".to_owned(), "none of them".to_owned())]);
        labels.extend(self.client.labels.clone());
        let own = RouteMatch {
            port: Some(self.port),
            source_labels: labels,
            source_namespace: self.client.namespace.clone(),
            ..own
        };
        let arrival = Arrival::at(self.gateway(), "").of_protocol(protocol);
        Condition::of(&own, &arrival, Reading::Strict).unwrap_or_default()
    }
}

/// Who serves requests.
enum Served<'a> {
    /// These routes, one after the other.
    By(Vec<Reached<'a>>),
    /// A Service's own routing.
    Plainly(Host),
}

/// Who takes a request.
#[derive(Debug, PartialEq)]
pub(crate) enum Taken {
    By(usize),
    ByNobody,
    /// Expressions are not compared.
    Unknown,
}

/// The ports of a host that has clusters of its own.
fn ports(host: HostKind<'_>) -> Option<Vec<i64>> {
    (!matches!(host, HostKind::Alias(_))).then(|| ports_of(host))
}

fn ports_of(host: HostKind<'_>) -> Vec<i64> {
    match host {
        HostKind::Service(service) | HostKind::Alias(service) => {
            service.ports.iter().map(|port| port.number).collect()
        }
        HostKind::ServiceEntry(entry) => {
            entry.spec.ports.iter().map(|port| i64::from(port.number)).collect()
        }
    }
}
