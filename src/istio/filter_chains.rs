//! What Envoy makes of the routes for connections: filter chains of one listener, of which no two may ask for the same.
//!
//! istiod leaves out some that are equal, and sends others. Envoy then refuses the whole listener: that of the Service at a
//! sidecar, that of the port at a gateway.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::condition::masked_range;
use super::full_gateway;
use super::virtual_service::{Protocol, Route, RouteMatch};

/// Whose listener it is, as far as istiod asks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listening<'a> {
    /// `mesh` for a sidecar, else the full name of a gateway.
    pub gateway: &'a str,
    /// The port; `None` for one that no route names.
    pub port: Option<i64>,
    /// The labels of the client's Pod.
    pub labels: &'a BTreeMap<String, String>,
    /// The client's namespace; empty for one that no route names.
    pub namespace: &'a str,
}

/// A place in one of several lists of routes: the list, the route, its alternative.
pub type At = (usize, usize, usize);

/// Why Envoy refuses the listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// The alternative that it refuses.
    pub at: At,
    /// The one that asks for the same before; itself where one list says something twice, `None` where it is refused by itself.
    pub before: Option<At>,
    /// The name or range that both ask for, or that is none.
    pub what: String,
}

/// What a chain asks for: names and ranges, each perhaps for all.
struct Chain {
    at: At,
    names: Vec<String>,
    ranges: Vec<String>,
}

impl Listening<'_> {
    fn takes(&self, own: &RouteMatch, namespace: &str) -> bool {
        let is_port = match own.port {
            None | Some(0) => true,
            port => port == self.port,
        };
        let mut gateways = own.gateways.iter().map(|own| full_gateway(own, namespace));
        let is_gateway = own.gateways.is_empty() || gateways.any(|own| own == self.gateway);
        let is_client = self.gateway != "mesh"
            || (own.source_labels.iter().all(|(key, value)| self.labels.get(key) == Some(value))
                && (own.source_namespace.is_empty() || own.source_namespace == self.namespace));
        is_port && is_gateway && is_client
    }

    /// What Envoy refuses of these lists, which are tried in this order; each comes with the namespace of its object.
    ///
    /// Source: `pilot/pkg/networking/core/tls.go`, `gateway.go`, `listener.go` `toFilterChainMatch`; Envoy's
    /// `filter_chain_manager_impl.cc`.
    pub fn clashes(&self, protocol: Protocol, lists: &[(&[Route], &str)]) -> Vec<Clash> {
        let chains = match protocol {
            Protocol::Http => return Vec::new(),
            Protocol::Tls => self.tls(lists),
            // At a gateway one rule counts, and asks for nothing.
            Protocol::Tcp if self.gateway != "mesh" => return Vec::new(),
            Protocol::Tcp => self.tcp(lists),
        };
        let mut found = Vec::new();
        let mut taken: HashMap<(String, String), At> = HashMap::new();
        for Chain { at, names, ranges } in chains {
            let odd = names.iter().find(|name| name.contains('*') && !name.starts_with("*."));
            if let Some(odd) = odd {
                found.push(Clash { at, before: None, what: odd.clone() });
                continue;
            }
            let any = || vec![String::new()];
            let names = if names.is_empty() { any() } else { names };
            let ranges = if ranges.is_empty() { any() } else { ranges };
            let leaves =
                names.iter().flat_map(|name| ranges.iter().map(move |range| (name, range)));
            for (name, range) in leaves {
                let key = (name.to_ascii_lowercase(), range.clone());
                let Some(before) = taken.insert(key, at) else { continue };
                let what = match (name.is_empty(), range.is_empty()) {
                    (false, _) => name.clone(),
                    (true, false) => range.clone(),
                    (true, true) => "0.0.0.0/0".to_owned(),
                };
                found.push(Clash { at, before: Some(before), what });
                break;
            }
        }
        found
    }

    /// What istiod leaves out of `tls` lists without a word: in the mesh an alternative that asks for exactly what an earlier one
    /// does, at a gateway one that shares a name with an earlier one, with all of its names.
    pub fn left_out(&self, lists: &[(&[Route], &str)]) -> Vec<Clash> {
        let mut handled: HashMap<(String, String), At> = HashMap::new();
        let mut taken: HashMap<&str, At> = HashMap::new();
        let mut found = Vec::new();
        for (at, own) in self.alternatives(lists) {
            let names = own.sni_hosts.iter().map(String::as_str);
            if self.gateway == "mesh" {
                let key = (own.sni_hosts.join(","), own.destination_subnets.join(","));
                match handled.get(&key) {
                    None => drop(handled.insert(key, at)),
                    Some(&before) => {
                        let what = own.sni_hosts.first().cloned().unwrap_or_default();
                        found.push(Clash { at, before: Some(before), what });
                    }
                }
                continue;
            }
            match names.clone().find_map(|name| Some((name, *taken.get(name)?))) {
                None => taken.extend(names.map(|name| (name, at))),
                Some((name, before)) => {
                    found.push(Clash { at, before: Some(before), what: name.to_owned() });
                }
            }
        }
        found
    }

    fn tls(&self, lists: &[(&[Route], &str)]) -> Vec<Chain> {
        let mut handled = HashSet::new();
        let mut taken: HashSet<&str> = HashSet::new();
        let mut ranges: &[String] = &[];
        let mut chains = Vec::new();
        for (at, own) in self.alternatives(lists) {
            if self.gateway == "mesh" {
                // istiod keeps the ranges of one alternative for those behind it that have none.
                if !own.destination_subnets.is_empty() {
                    ranges = &own.destination_subnets;
                }
                if !handled.insert((own.sni_hosts.join(","), own.destination_subnets.join(","))) {
                    continue;
                }
            } else {
                if own.sni_hosts.iter().any(|name| taken.contains(name.as_str())) {
                    continue;
                }
                taken.extend(own.sni_hosts.iter().map(String::as_str));
            }
            let is_any = own.sni_hosts.is_empty() || own.sni_hosts.iter().any(|name| name == "*");
            if is_any && ranges.is_empty() {
                continue; // takes what no other one does
            }
            let names = if is_any { Vec::new() } else { own.sni_hosts.clone() };
            chains.push(Chain { at, names, ranges: masked(ranges) });
        }
        chains
    }

    fn tcp(&self, lists: &[(&[Route], &str)]) -> Vec<Chain> {
        let mut chains: Vec<Chain> = Vec::new();
        for (list, (routes, namespace)) in lists.iter().enumerate() {
            for (index, route) in routes.iter().enumerate() {
                if route.r#match.is_empty() {
                    return chains;
                }
                let own = route.r#match.iter().enumerate();
                let own = own.filter(|(_, own)| self.takes(own, namespace)).collect::<Vec<_>>();
                // The first one without ranges is the last one of all.
                if own.iter().any(|(_, own)| own.destination_subnets.is_empty()) {
                    return chains;
                }
                let Some((first, _)) = own.first() else { continue };
                let ranges = own.iter().flat_map(|(_, own)| &own.destination_subnets);
                let ranges = masked(&ranges.cloned().collect::<Vec<_>>());
                chains.push(Chain { at: (list, index, *first), names: Vec::new(), ranges });
            }
        }
        chains
    }

    fn alternatives<'a>(
        &self,
        lists: &'a [(&'a [Route], &'a str)],
    ) -> impl Iterator<Item = (At, &'a RouteMatch)> {
        lists.iter().enumerate().flat_map(move |(list, (routes, namespace))| {
            routes.iter().enumerate().flat_map(move |(index, route)| {
                let own = route.r#match.iter().enumerate();
                own.filter(move |(_, own)| self.takes(own, namespace))
                    .map(move |(place, own)| ((list, index, place), own))
            })
        })
    }
}

/// As Envoy compares them; what is for every address is left out, as istiod does.
fn masked(ranges: &[String]) -> Vec<String> {
    ranges.iter().filter_map(|range| masked_range(range)).collect()
}

/// The ports that these routes name, and one that they do not.
pub fn ports_asked_for(lists: &[(&[Route], &str)]) -> BTreeSet<Option<i64>> {
    let blocks = lists.iter().flat_map(|(routes, _)| routes.iter()).flat_map(|own| &own.r#match);
    blocks.map(|own| own.port.filter(|port| *port != 0)).chain([None]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::istio::VirtualServiceSpec;

    fn clashes(gateway: &str, spec: &str) -> Vec<String> {
        let spec: VirtualServiceSpec = serde_saphyr::from_str(spec).expect("a spec");
        let none = BTreeMap::new();
        let own = Listening { gateway, port: None, labels: &none, namespace: "" };
        let protocol = if spec.tls.is_empty() { Protocol::Tcp } else { Protocol::Tls };
        let found = own.clashes(protocol, &[(spec.routes(protocol), "shop")]);
        found.into_iter().map(|clash| format!("{} {}", clash.at.1, clash.what)).collect()
    }

    #[test]
    fn equal_chains_are_found_as_envoy_finds_them() {
        // Each was given to Envoy as istiod writes it.
        for (spec, want) in [
            ("tls: [{match: [{sniHosts: [a.x]}]}, {match: [{sniHosts: [a.x]}]}]", vec![]),
            (
                "tls: [{match: [{sniHosts: [a.x, b.x]}]}, {match: [{sniHosts: [b.x, a.x]}]}]",
                vec!["1 b.x"],
            ),
            (
                "tls: [{match: [{sniHosts: [a.x, b.x]}]}, {match: [{sniHosts: [b.x, c.x]}]}]",
                vec!["1 b.x"],
            ),
            ("tls: [{match: [{sniHosts: [a.x, a.x]}]}]", vec!["0 a.x"]),
            ("tls: [{match: [{sniHosts: [A.x]}]}, {match: [{sniHosts: [a.x]}]}]", vec!["1 a.x"]),
            ("tls: [{match: [{sniHosts: ['*.x']}]}, {match: [{sniHosts: [a.x]}]}]", vec![]),
            ("tls: [{match: [{sniHosts: ['*a.x']}]}]", vec!["0 *a.x"]),
            ("tls: [{match: [{sniHosts: ['*']}]}, {match: [{sniHosts: [a.x]}]}]", vec![]),
            // The second one gets the range of the first.
            (
                "tls: [{match: [{sniHosts: [a.x], destinationSubnets: [10.0.0.0/8]}]}, {match: [{sniHosts: [a.x]}]}]",
                vec!["1 a.x"],
            ),
            (
                "tls: [{match: [{sniHosts: [a.x]}]}, {match: [{sniHosts: [a.x], destinationSubnets: [10.0.0.0/8]}]}]",
                vec![],
            ),
            (
                "tls: [{match: [{sniHosts: [a.x], port: 1}]}, {match: [{sniHosts: [a.x, b.x]}]}]",
                vec![],
            ),
            (
                "tcp: [{match: [{destinationSubnets: [10.0.0.0/8]}]}, {match: [{destinationSubnets: [10.1.2.3/8]}]}]",
                vec!["1 10.0.0.0/8"],
            ),
            (
                "tcp: [{match: [{destinationSubnets: [10.0.0.0/8]}, {destinationSubnets: [10.0.0.0/8]}]}]",
                vec!["0 10.0.0.0/8"],
            ),
            (
                "tcp: [{match: [{destinationSubnets: [10.0.0.0/8]}]}, {match: [{destinationSubnets: [10.1.0.0/16]}]}]",
                vec![],
            ),
            (
                "tcp: [{match: [{destinationSubnets: [0.0.0.0/0]}]}, {match: [{destinationSubnets: [0.0.0.0/0]}]}]",
                vec!["1 0.0.0.0/0"],
            ),
            ("tcp: [{match: [{destinationSubnets: [0.0.0.0/0]}]}, {}]", vec![]),
            (
                "tcp: [{}, {match: [{destinationSubnets: [10.0.0.0/8]}]}, {match: [{destinationSubnets: [10.0.0.0/8]}]}]",
                vec![],
            ),
            (
                "tcp: [{match: [{destinationSubnets: [10.1.1.1]}]}, {match: [{destinationSubnets: [10.1.1.1/32]}]}]",
                vec!["1 10.1.1.1/32"],
            ),
        ] {
            assert_eq!(clashes("mesh", spec), want, "{spec}");
        }
    }

    #[test]
    fn at_a_gateway_istiod_leaves_out_what_has_a_name_again() {
        for (spec, want) in [
            ("tls: [{match: [{sniHosts: [a.x, b.x]}]}, {match: [{sniHosts: [b.x, c.x]}]}]", vec![]),
            ("tls: [{match: [{sniHosts: [a.x, a.x]}]}]", vec!["0 a.x"]),
            ("tls: [{match: [{sniHosts: [A.x]}]}, {match: [{sniHosts: [a.x]}]}]", vec!["1 a.x"]),
            (
                "tcp: [{match: [{destinationSubnets: [10.0.0.0/8]}]}, {match: [{destinationSubnets: [10.0.0.0/8]}]}]",
                vec![],
            ),
        ] {
            assert_eq!(clashes("infra/edge", spec), want, "{spec}");
        }
    }
}
