use std::collections::HashMap;
use std::net::Ipv4Addr;

use serde_json::Value;

use super::connection::Connection;
use super::theirs::{list, shares, text};
use super::{Answer, Shares};

/// The listeners of an Envoy that route connections, by address and port.
#[derive(Default)]
pub(crate) struct Listeners(HashMap<(String, i64), Vec<Chain>>);

/// A filter chain that ends in a TCP proxy.
struct Chain {
    /// Whether it takes what no other one does.
    is_default: bool,
    server_names: Vec<String>,
    ranges: Vec<(Ipv4Addr, u32)>,
    shares: Shares,
}

impl Listeners {
    pub(super) fn add(&mut self, listener: &Value) {
        let socket = &listener["address"]["socket_address"];
        let Some(port) = socket["port_value"].as_i64() else { return };
        let chains = list(listener, "filter_chains").filter_map(|chain| Chain::read(chain, false));
        let rest = Chain::read(&listener["default_filter_chain"], true);
        let chains = chains.chain(rest).collect();
        self.0.insert((text(&socket["address"]).to_owned(), port), chains);
    }

    /// Where a connection goes: as Envoy picks, by the longest range and then by the most specific name, whatever the order.
    pub(crate) fn takes(
        &self,
        address: &str,
        port: i64,
        connection: &Connection,
    ) -> Option<Answer> {
        let chains = self.0.get(&(address.to_owned(), port))?;
        let best = best(chains, connection).or_else(|| chains.iter().find(|own| own.is_default))?;
        Some(Answer::Clusters(best.shares.clone()))
    }

    /// For a report.
    pub(crate) fn show(&self, address: &str, port: i64) -> String {
        let chains = self.0.get(&(address.to_owned(), port)).into_iter().flatten();
        let chains = chains.map(|Chain { server_names, ranges, shares, .. }| {
            format!("{server_names:?} {ranges:?}: {shares}")
        });
        chains.collect::<Vec<_>>().join("; ")
    }
}

fn best<'a>(chains: &'a [Chain], connection: &Connection) -> Option<&'a Chain> {
    let own = chains.iter().filter(|chain| !chain.is_default);
    let ranked = own.filter_map(|chain| Some((chain.range(connection)?, chain)));
    let ranked = ranked.collect::<Vec<_>>();
    // Envoy does not go back to a wider range.
    let longest = ranked.iter().map(|(length, _)| *length).max()?;
    let ranked = ranked.into_iter().filter(|(length, _)| *length == longest);
    let named = ranked.filter_map(|(_, chain)| Some((chain.name(connection)?, chain)));
    Some(named.max_by_key(|(rank, _)| *rank)?.1)
}

impl Chain {
    fn read(chain: &Value, is_default: bool) -> Option<Self> {
        let own = &chain["filter_chain_match"];
        // Protocols that Envoy tells by itself are those of HTTP.
        if list(own, "application_protocols").next().is_some() {
            return None;
        }
        let proxy = list(chain, "filters").find_map(|filter| {
            (text(&filter["name"]) == "envoy.filters.network.tcp_proxy")
                .then_some(&filter["typed_config"])
        })?;
        let range = |range: &Value| {
            let length = range["prefix_len"].as_u64().unwrap_or(0) as u32;
            Some((text(&range["address_prefix"]).parse().ok()?, length))
        };
        Some(Self {
            is_default,
            server_names: list(own, "server_names").map(|name| text(name).to_owned()).collect(),
            ranges: list(own, "prefix_ranges").filter_map(range).collect(),
            shares: shares(proxy)?,
        })
    }

    /// The length of its longest range that holds the connection's destination; 0 where it asks for none.
    fn range(&self, connection: &Connection) -> Option<u32> {
        if self.ranges.is_empty() {
            return Some(0);
        }
        let holds = |(address, length): &(Ipv4Addr, u32)| {
            let bits = |address: &Ipv4Addr| u64::from(u32::from(*address)) >> (32 - length);
            connection.to.as_ref().is_some_and(|to| bits(to) == bits(address)).then_some(*length)
        };
        self.ranges.iter().filter_map(holds).max()
    }

    /// How specific its best name for the connection is; 0 where it asks for none.
    fn name(&self, connection: &Connection) -> Option<usize> {
        if self.server_names.is_empty() {
            return Some(0);
        }
        let sni = connection.sni.as_deref()?;
        let rank = |name: &String| match name.strip_prefix('*') {
            None => (name == sni).then_some(usize::MAX),
            Some(end) => (sni.len() > end.len() && sni.ends_with(end)).then_some(end.len()),
        };
        self.server_names.iter().filter_map(rank).max()
    }
}
