use std::collections::BTreeMap;

use sluicegate::istio::{
    Arrival, Condition, Destination, Host, Protocol, Reading, Route, RouteMatch, VirtualService,
};
use sluicegate::policy::fractions;
use sluicegate::world::{Client, HostKind, World};

use super::request::Request;
use super::{Answer, ClusterView, Entry, Table};

/// What the gate believes about one client: nothing is decided here, everything is asked of the crate.
pub(crate) struct Ours<'a> {
    pub(crate) world: &'a World,
    pub(crate) client: &'a Client,
    /// The port of the listener that requests arrive at.
    pub(crate) port: i64,
}

/// A route with the conditions under which this client's requests reach it.
struct Reached<'a> {
    object: &'a VirtualService,
    route: &'a Route,
    conditions: Vec<Condition>,
}

impl<'a> Ours<'a> {
    /// What the world says of a cluster; `None` where no such cluster is thought to exist.
    pub(crate) fn cluster(&self, host: &Host, subset: &str, port: i64) -> Option<ClusterView> {
        let ports = ports(self.world.host(host)?)?;
        if !ports.contains(&port) {
            return None;
        }
        let rule = self.world.destination_rule(host, self.client);
        let labels = match subset {
            "" => BTreeMap::new(),
            subset => rule?.subset(subset)?.labels.clone(),
        };
        let rule = rule.and_then(|rule| rule.rules().next());
        let rule = rule.map(|rule| format!("{}/{}", rule.metadata.namespace, rule.metadata.name));
        let selected = self.world.selected(host, &labels, Some(port));
        Some(ClusterView {
            discovery: if selected.is_some() { "EDS" } else { "" }.to_owned(),
            rule,
            // An endpoint of a Pod that is not there yet counts as ready for the gate; istiod waits for the Pod.
            healthy: selected
                .as_ref()
                .map_or(0, |selected| (selected.ready() - selected.unknown_ready) as usize),
            unhealthy: selected.as_ref().map_or(0, |selected| selected.unready() as usize),
        })
    }

    /// The routes for requests to `host`, in order.
    pub(crate) fn table(&self, host: &Host) -> Option<Table> {
        let reached = self.reached(host)?;
        let Some(reached) = reached else {
            let cluster = format!("outbound|{}||{host}", self.port);
            let answer = Answer::Clusters(BTreeMap::from([(cluster, 1.0)]));
            return Some(Table {
                entries: vec![Entry { route: "default".to_owned(), source: None, answer }],
            });
        };
        let entries = reached.iter().flat_map(|reached| {
            let metadata = &reached.object.metadata;
            let entry = Entry {
                route: reached.route.name.clone(),
                source: Some(format!("{}/{}", metadata.namespace, metadata.name)),
                answer: self.answer(reached.object, reached.route),
            };
            vec![entry; reached.conditions.len()]
        });
        Some(Table { entries: entries.collect() })
    }

    /// The place in [`Ours::table`] of the entry that takes a request, where that can be told.
    pub(crate) fn takes(&self, host: &Host, request: &Request) -> Taken {
        let Some(Some(reached)) = self.reached(host) else { return Taken::By(0) };
        let request = self.as_condition(request);
        let conditions = reached.iter().flat_map(|reached| &reached.conditions);
        for (place, condition) in conditions.enumerate() {
            if condition.covers(&request) {
                return Taken::By(place);
            }
            if !condition.excludes(&request) {
                return Taken::Unknown;
            }
        }
        Taken::ByNobody
    }

    /// The routes that this client's requests can reach; `Some(None)` for a Service's own routing.
    fn reached(&self, host: &Host) -> Option<Option<Vec<Reached<'a>>>> {
        let is_gateway = self.client.gateway.is_some();
        if !is_gateway && !ports(self.world.host(host)?)?.contains(&self.port) {
            // Only port 80 routes hosts that the mesh does not know.
            return None;
        }
        let mut all = Vec::new();
        for object in self.virtual_services(host) {
            let own = self.reached_of(object);
            if !own.is_empty() && !is_gateway {
                return Some(Some(own));
            }
            all.extend(own);
        }
        if is_gateway {
            // On a gateway the routes of all are tried, catch-alls last.
            let (last, first): (Vec<_>, Vec<_>) = all.into_iter().partition(|reached| {
                reached.conditions.iter().any(|condition| condition.covers(&self.anything()))
            });
            let all = first.into_iter().chain(last).collect::<Vec<_>>();
            return (!all.is_empty()).then_some(Some(all));
        }
        Some(None)
    }

    fn reached_of(&self, object: &'a VirtualService) -> Vec<Reached<'a>> {
        let mut found = Vec::new();
        let anything = self.anything();
        for route in object.spec.routes(Protocol::Http) {
            let mut conditions = Vec::new();
            let mut ends = false;
            let arrival = Arrival::at(self.gateway(), &object.metadata.namespace);
            for condition in Condition::alternatives(route, &arrival, Reading::Strict) {
                if condition.excludes(&anything) {
                    continue;
                }
                ends = condition.covers(&anything);
                conditions.push(condition);
                if ends {
                    break;
                }
            }
            if !conditions.is_empty() {
                found.push(Reached { object, route, conditions });
            }
            if ends {
                break;
            }
        }
        found
    }

    fn virtual_services(&self, host: &Host) -> Vec<&'a VirtualService> {
        self.world
            .in_force(host, self.gateway(), (&self.client.namespace, ""))
            .into_iter()
            .collect()
    }

    fn answer(&self, object: &VirtualService, route: &Route) -> Answer {
        if route.route.is_empty() {
            return Answer::Itself;
        }
        let mut shares = BTreeMap::new();
        for (share, written) in fractions(route).into_iter().zip(&route.route) {
            if share > 0.0 {
                let name = self.cluster_name(&written.destination, &object.metadata.namespace);
                *shares.entry(name).or_insert(0.0) += share;
            }
        }
        Answer::Clusters(shares)
    }

    fn cluster_name(&self, to: &Destination, namespace: &str) -> String {
        let host = Host::resolve(&to.host, namespace, &self.world.mesh().domain);
        let known = self.world.host(&host);
        let own = known.map(ports_of).unwrap_or_default();
        let is_seen = self.client.gateway.is_some() || own.contains(&self.port);
        let port = match (to.port.number, own.as_slice()) {
            (Some(number), _) => number,
            (None, [only]) if is_seen => *only,
            (None, _) => self.port,
        };
        let target = match known {
            Some(HostKind::Alias(service)) if is_seen => {
                service.external_name.clone().unwrap_or_default()
            }
            _ => host.to_string(),
        };
        format!("outbound|{port}|{}|{target}", to.subset)
    }

    fn gateway(&self) -> &str {
        self.client.gateway.as_deref().unwrap_or("mesh")
    }

    /// What is true of all requests of this client at this port.
    fn anything(&self) -> Condition {
        self.condition(RouteMatch::default())
    }

    fn as_condition(&self, request: &Request) -> Condition {
        let own = serde_json::from_value(request.as_match());
        self.condition(own.unwrap_or_else(|error| panic!("a request as a match: {error}")))
    }

    fn condition(&self, own: RouteMatch) -> Condition {
        // Labels that the client does not carry have a value that nobody asks for.
        let mut labels = BTreeMap::from([("app".to_owned(), "none of them".to_owned())]);
        labels.extend(self.client.labels.clone());
        let own = RouteMatch {
            port: Some(self.port),
            source_labels: labels,
            source_namespace: self.client.namespace.clone(),
            ..own
        };
        Condition::of(&own, &Arrival::at(self.gateway(), ""), Reading::Strict).unwrap_or_default()
    }
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
