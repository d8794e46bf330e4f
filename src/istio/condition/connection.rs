//! What is different about TCP and TLS: what counts of a match where, and that the most specific route takes a connection.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::attribute::{Test, range_length};
use super::{Arrival, Attribute, Condition, Reading};
use crate::istio::full_gateway;
use crate::istio::virtual_service::{Protocol, Route, RouteMatch};

/// How specific a condition is for a connection: the bits of its address range, then the length of its SNI name, where a full
/// name is more than any wildcard. Of the routes that fit, Envoy takes the most specific one; the order counts among equals.
///
/// Source: Envoy's `FilterChainMatch`, which istiod makes of `sniHosts` and `destinationSubnets`
/// (`pilot/pkg/networking/core/listener.go` `toFilterChainMatch`).
pub type Specificity = (u32, usize);

type Parts = Vec<(Attribute, Test)>;

/// What a match says of the client's proxy, beside the port; `None` where it is for none that requests arrive at.
pub(super) fn add_source(
    parts: &mut Parts,
    alternative: &RouteMatch,
    arrival: &Arrival<'_>,
) -> Option<()> {
    // With `gateways` set Istio ignores the client's labels and namespace in HTTP (route.go `sourceMatchHTTP`), not in TCP and
    // TLS (tls.go `matchTCP`); a gateway asks neither for those (gateway.go `l4SingleMatch`).
    let counts = match arrival.protocol {
        Protocol::Http => alternative.gateways.is_empty(),
        Protocol::Tls | Protocol::Tcp => !arrival.is_gateway(),
    };
    if let Some((namespace, _)) = arrival.waypoint {
        // The client's labels are not known there: what asks for them is left out. In HTTP the waypoint's own namespace is the
        // client's, in TCP and TLS none is (listener_waypoint.go `waypointInboundRoute`, `getTCPRouteMatch`).
        let source = alternative.source_namespace.as_str();
        let is_own = arrival.protocol == Protocol::Http && source == namespace;
        if !alternative.source_labels.is_empty() || (counts && !source.is_empty() && !is_own) {
            return None;
        }
    } else if counts {
        for (name, value) in &alternative.source_labels {
            parts.push((Attribute::SourceLabel(name.clone()), Test::Exact(value.clone())));
        }
        let namespace = &alternative.source_namespace;
        if !namespace.is_empty() {
            parts.push((Attribute::SourceNamespace, Test::Exact(namespace.clone())));
        }
    }
    if alternative.gateways.is_empty() {
        return Some(());
    }
    let own = alternative.gateways.iter().map(|own| full_gateway(own, arrival.namespace));
    let mut own = own.collect::<Vec<_>>();
    let named = |gateway: &Cow<'_, str>| own.iter().any(|own| own == gateway.as_ref());
    if !arrival.gateways.iter().all(named) {
        own.retain(|own| arrival.gateways.iter().any(|gateway| gateway.as_ref() == own));
        if own.is_empty() {
            return None;
        }
        parts.push((Attribute::Gateways, Test::any_of(&own)));
    }
    Some(())
}

/// What a match says of the connection; `None` where it is for none. A gateway does not ask where it was meant to go. Nor does a
/// waypoint, and of TLS routes it takes those that name the host that is called and nothing else, for every connection.
///
/// Source: `pilot/pkg/networking/core/listener_waypoint.go` `getTLSRouteMatch`.
pub(super) fn add_connection(
    parts: &mut Parts,
    alternative: &RouteMatch,
    arrival: &Arrival<'_>,
) -> Option<()> {
    if let Some((_, host)) = arrival.waypoint {
        let is_for_host = alternative.sni_hosts.as_slice() == [host];
        return (arrival.protocol != Protocol::Tls || is_for_host).then_some(());
    }
    let of_subnets: &[String] = match arrival.protocol != Protocol::Http && arrival.is_gateway() {
        true => &[],
        false => &alternative.destination_subnets,
    };
    for (attribute, values) in [
        (Attribute::SniHosts, &alternative.sni_hosts[..]),
        (Attribute::DestinationSubnets, of_subnets),
    ] {
        if !values.is_empty() {
            parts.push((attribute, Test::any_of(values)));
        }
    }
    Some(())
}

impl Condition {
    /// The alternatives of a TLS route at a gateway, which takes each name once: an alternative with a name that an earlier one
    /// has is left out with all of its names. `taken` are the names so far, of all routes of the same port.
    ///
    /// Source: `pilot/pkg/networking/core/gateway.go` `buildGatewayNetworkFiltersFromTLSRoutes`, `pilot/pkg/model/gateway.go`
    /// `CheckDuplicates`.
    pub fn alternatives_once(
        route: &Route,
        arrival: &Arrival<'_>,
        taken: &mut HashSet<String>,
    ) -> Vec<Self> {
        let mut found = Vec::new();
        for alternative in &route.r#match {
            let Some(own) = Self::of(alternative, arrival, Reading::Usual) else { continue };
            if own.tests(&Attribute::Port).next().is_none() {
                if alternative.sni_hosts.iter().any(|name| taken.contains(name)) {
                    continue;
                }
                taken.extend(alternative.sni_hosts.iter().cloned());
            }
            found.push(own);
        }
        found
    }

    /// The condition in parts of one specificity each: an entry of `sniHosts` or `destinationSubnets` counts by itself.
    pub fn by_specificity(self) -> Vec<(Specificity, Self)> {
        let ranges = self.classes(&Attribute::DestinationSubnets, range_length);
        let names = self.classes(&Attribute::SniHosts, |name| match name.strip_prefix('*') {
            None => usize::MAX,
            Some(end) => end.len(),
        });
        if ranges.len() <= 1 && names.len() <= 1 {
            let first = |rank: Option<&(u32, _)>| rank.map_or(0, |(rank, _): &(u32, _)| *rank);
            let rank = (first(ranges.first()), names.first().map_or(0, |(rank, _)| *rank));
            return vec![(rank, self)];
        }
        let nothing = || vec![None];
        let some = |range: (u32, Test)| Some(range);
        let ranges =
            if ranges.is_empty() { nothing() } else { ranges.into_iter().map(some).collect() };
        let names =
            if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
        let mut found = Vec::new();
        for range in &ranges {
            for name in &names {
                let part = |(attribute, test): &(Attribute, Test)| {
                    let class = match attribute {
                        Attribute::DestinationSubnets => range.as_ref().map(|(_, test)| test),
                        Attribute::SniHosts => name.as_ref().map(|(_, test)| test),
                        _ => None,
                    };
                    (attribute.clone(), class.unwrap_or(test).clone())
                };
                let own = Self { parts: self.parts.iter().map(part).collect() };
                let bits = range.as_ref().map_or(0, |(bits, _)| *bits);
                found.push(((bits, name.as_ref().map_or(0, |(length, _)| *length)), own));
            }
        }
        found
    }

    /// The values of one attribute by how specific they are; none where it is not asked for once.
    fn classes<R: Ord>(&self, attribute: &Attribute, rank: impl Fn(&str) -> R) -> Vec<(R, Test)> {
        let mut tests = self.tests(attribute);
        let (Some(Test::AnyOf(values)), None) = (tests.next(), tests.next()) else {
            return Vec::new();
        };
        let mut classes: BTreeMap<R, BTreeSet<String>> = BTreeMap::new();
        for value in values {
            classes.entry(rank(value)).or_default().insert(value.clone());
        }
        classes.into_iter().rev().map(|(rank, values)| (rank, Test::AnyOf(values))).collect()
    }
}
