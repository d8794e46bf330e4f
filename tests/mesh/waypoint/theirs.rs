use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What istiod sends to one waypoint.
#[derive(Default)]
pub(super) struct Theirs {
    clusters: BTreeSet<String>,
    /// The filter chains behind the tunnel, by name.
    chains: BTreeMap<String, Value>,
}

impl Theirs {
    /// What one of its Envoys is sent.
    pub(super) fn add(&mut self, dump: &Value) {
        for config in list(dump, "configs") {
            for cluster in list(config, "dynamicActiveClusters") {
                self.clusters.insert(text(&cluster["cluster"]["name"]).to_owned());
            }
            for listener in list(config, "dynamicListeners") {
                let listener = &listener["activeState"]["listener"];
                if listener["name"] == "main_internal" {
                    for chain in list(listener, "filterChains") {
                        self.chains.insert(text(&chain["name"]).to_owned(), chain.clone());
                    }
                }
            }
        }
    }

    pub(super) fn has_cluster(&self, name: &str) -> bool {
        self.clusters.contains(name)
    }

    /// The routes that requests for a host meet, in order; `None` where it is not reached through this waypoint.
    pub(super) fn routes(&self, host: &str, port: i64) -> Option<Vec<String>> {
        let chain = self.chains.get(&format!("inbound-vip|{port}|http|{host}"))?;
        let manager = filter(chain, "envoy.filters.network.http_connection_manager")?;
        let hosts = list(&manager["routeConfig"], "virtualHosts").collect::<Vec<_>>();
        let [only] = hosts.as_slice() else { panic!("one virtual host, not {}", hosts.len()) };
        Some(list(only, "routes").map(entry).collect())
    }

    /// Where connections to a host go.
    pub(super) fn connections(&self, host: &str, port: i64) -> Option<String> {
        let chain = self.chains.get(&format!("inbound-vip|{port}|tcp|{host}"))?;
        Some(shares(filter(chain, "envoy.filters.network.tcp_proxy")?))
    }
}

fn filter<'a>(chain: &'a Value, name: &str) -> Option<&'a Value> {
    let own = list(chain, "filters").find(|own| own["name"] == name);
    own.map(|own| &own["typedConfig"])
}

/// Name and VirtualService of a route, and where it goes.
fn entry(route: &Value) -> String {
    let action = &route["route"];
    let name = text(&route["name"]);
    let source = text(&route["metadata"]["filterMetadata"]["istio"]["config"]);
    let mut parts = source.split('/').skip_while(|part| *part != "namespaces").skip(1);
    let source = match (parts.next(), parts.nth(1)) {
        (Some(namespace), Some(own)) => format!("{namespace}/{own}"),
        _ => "plain".to_owned(),
    };
    let copies = list(action, "requestMirrorPolicies").map(|own| text(&own["cluster"]));
    let copies = copies.map(|name| format!(" and copies to {name}")).collect::<String>();
    format!("{source} {name}: {}{copies}", shares(action))
}

/// `90 % a, 10 % b`, by name.
fn shares(action: &Value) -> String {
    if let Some(name) = action["cluster"].as_str() {
        return super::ours::said([(name.to_owned(), 1.0)].into());
    }
    let all = list(&action["weightedClusters"], "clusters").collect::<Vec<_>>();
    let weight = |own: &Value| own["weight"].as_f64().unwrap_or_default();
    let total = all.iter().map(|own| weight(own)).sum::<f64>();
    let mut shares = BTreeMap::new();
    for own in all {
        *shares.entry(text(&own["name"]).to_owned()).or_default() += weight(own) / total;
    }
    super::ours::said(shares)
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
