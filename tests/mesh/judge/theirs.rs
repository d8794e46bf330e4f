use std::collections::HashMap;

use serde_json::Value;

use super::listeners::Listeners;
use super::request::Request;
use super::{Answer, ClusterView, Entry, Shares, Table};
use crate::harness::Result;
use crate::platform::Envoy;

/// What istiod told one Envoy, and what the Envoy made of it.
pub(crate) struct Theirs {
    clusters: HashMap<String, ClusterView>,
    /// By the name of the route configuration.
    hosts: HashMap<String, Vec<VirtualHost>>,
    pub(super) listeners: Listeners,
    /// Resources that Envoy refused, with its reason.
    pub(crate) refused: Vec<String>,
}

struct VirtualHost {
    domains: Vec<String>,
    routes: Vec<Value>,
}

impl Theirs {
    pub(crate) async fn ask(envoy: &Envoy) -> Result<Self> {
        let dump = envoy.ask("/config_dump").await?;
        let states = envoy.ask("/clusters?format=json").await?;
        let mut theirs = Self {
            clusters: HashMap::new(),
            hosts: HashMap::new(),
            listeners: Listeners::default(),
            refused: Vec::new(),
        };
        for config in list(&dump, "configs") {
            for cluster in list(config, "dynamic_active_clusters") {
                theirs.add_cluster(&cluster["cluster"]);
            }
            for routes in list(config, "dynamic_route_configs") {
                theirs.add_routes(&routes["route_config"]);
            }
            for listener in list(config, "dynamic_listeners") {
                // Captured traffic needs what nobody serves here: those listeners stay warming, as istiod sent them.
                let states =
                    ["warming_state", "active_state"].map(|state| &listener[state]["listener"]);
                theirs
                    .listeners
                    .add(states.into_iter().find(|own| !own.is_null()).unwrap_or(&Value::Null));
            }
            for field in [
                "dynamic_active_clusters",
                "dynamic_warming_clusters",
                "dynamic_route_configs",
                "dynamic_listeners",
            ] {
                let failed =
                    list(config, field).filter_map(|item| item["error_state"]["details"].as_str());
                theirs.refused.extend(failed.map(str::to_owned));
            }
        }
        for state in list(&states, "cluster_statuses") {
            let Some(cluster) = theirs.clusters.get_mut(text(&state["name"])) else { continue };
            for host in list(state, "host_statuses") {
                if text(&host["health_status"]["eds_health_status"]) == "HEALTHY" {
                    cluster.healthy += 1;
                }
            }
        }
        Ok(theirs)
    }

    pub(crate) fn cluster(&self, name: &str) -> Option<&ClusterView> {
        self.clusters.get(name)
    }

    /// Names of clusters that speak of one copy of a world.
    pub(crate) fn clusters_of<'a>(&'a self, mark: &'a str) -> impl Iterator<Item = &'a str> {
        self.clusters.keys().map(String::as_str).filter(move |name| {
            name.starts_with("outbound|") && name.split(['|', '.', '-']).any(|part| part == mark)
        })
    }

    /// Whether there is such a route configuration.
    pub(crate) fn has(&self, config: &str) -> bool {
        self.hosts.contains_key(config)
    }

    /// What requests for `host` meet behind the listener of `port`.
    pub(crate) fn table(&self, config: &str, host: &str) -> Option<Table> {
        let own = self.virtual_host(config, host)?;
        Some(Table { entries: own.routes.iter().map(entry).collect(), is_complete: false })
    }

    /// Which entry of the table a request takes.
    pub(crate) fn takes(&self, config: &str, host: &str, request: &Request) -> Option<usize> {
        let own = self.virtual_host(config, host)?;
        own.routes.iter().position(|route| request.satisfies(&route["match"]))
    }

    fn virtual_host(&self, config: &str, host: &str) -> Option<&VirtualHost> {
        let hosts = self.hosts.get(config)?;
        // `HOST:PORT`: what is detected to be HTTP at the address of one host is for that one, whatever it asks for.
        if config.contains(':') { hosts.first() } else { best(hosts, host) }
    }

    fn add_cluster(&mut self, cluster: &Value) {
        let discovery = cluster["type"].as_str().or(cluster["cluster_type"]["name"].as_str());
        let timeout = cluster["connect_timeout"].as_str().and_then(|text| text.strip_suffix('s'));
        let view = ClusterView {
            discovery: discovery.unwrap_or("STATIC").to_owned(),
            rule: config_name(&cluster["metadata"]),
            healthy: 0,
            connect_timeout: timeout.and_then(|text| text.parse().ok()).unwrap_or_default(),
        };
        self.clusters.insert(text(&cluster["name"]).to_owned(), view);
    }

    fn add_routes(&mut self, config: &Value) {
        let host = |host: &Value| VirtualHost {
            domains: list(host, "domains").map(|domain| text(domain).to_owned()).collect(),
            routes: list(host, "routes").cloned().collect(),
        };
        let hosts = list(config, "virtual_hosts").map(host).collect();
        self.hosts.insert(text(&config["name"]).to_owned(), hosts);
    }
}

/// As Envoy picks a virtual host: the exact domain, else the longest that ends so, else the one for the rest.
fn best<'a>(hosts: &'a [VirtualHost], host: &str) -> Option<&'a VirtualHost> {
    let rank = |domain: &str| match domain.strip_prefix('*') {
        _ if domain == host => Some(usize::MAX),
        Some("") => Some(0),
        Some(suffix) if host.len() > suffix.len() && host.ends_with(suffix) => Some(suffix.len()),
        _ => None,
    };
    let ranked = hosts.iter().filter_map(|own| {
        let best = own.domains.iter().filter_map(|domain| rank(domain)).max()?;
        // What matches no host of the mesh is nobody's route table.
        (best > 0).then_some((best, own))
    });
    ranked.max_by_key(|(rank, _)| *rank).map(|(_, own)| own)
}

fn entry(route: &Value) -> Entry {
    let action = &route["route"];
    let answer = shares(action).map_or(Answer::Itself, Answer::Clusters);
    let mut mirrors = Shares::default();
    for policy in list(action, "request_mirror_policies") {
        let part = &policy["runtime_fraction"]["default_value"];
        let whole = match text(&part["denominator"]) {
            "TEN_THOUSAND" => 10_000.0,
            "MILLION" => 1_000_000.0,
            _ => 100.0,
        };
        let part = part["numerator"].as_f64().unwrap_or(0.0) / whole;
        mirrors.add(text(&policy["cluster"]).to_owned(), part);
    }
    let name = text(&route["name"]);
    // Istio puts the name of a match block behind the route's.
    Entry { route: name.to_owned(), source: config_name(&route["metadata"]), answer, mirrors }
}

/// The clusters of a route's action, or of a TCP proxy.
pub(super) fn shares(action: &Value) -> Option<Shares> {
    if let Some(cluster) = action["cluster"].as_str() {
        return Some(Shares::whole(cluster.to_owned()));
    }
    let list = action["weighted_clusters"]["clusters"].as_array()?;
    let weight = |cluster: &Value| cluster["weight"].as_f64().unwrap_or(0.0);
    let total = list.iter().map(weight).sum::<f64>();
    let mut shares = Shares::default();
    for cluster in list {
        shares.add(text(&cluster["name"]).to_owned(), weight(cluster) / total);
    }
    Some(shares)
}

/// `namespace/name` of the object that a cluster or a route was made from.
fn config_name(metadata: &Value) -> Option<String> {
    let path = metadata["filter_metadata"]["istio"]["config"].as_str()?;
    let (_, rest) = path.split_once("/namespaces/")?;
    let mut parts = rest.split('/');
    let (namespace, _, name) = (parts.next()?, parts.next()?, parts.next()?);
    Some(format!("{namespace}/{name}"))
}

pub(super) fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
