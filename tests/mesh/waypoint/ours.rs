use std::borrow::Cow;
use std::collections::BTreeMap;

use sluicegate::istio::{
    Arrival, Condition, Destination, Host, Protocol, Reading, Route, RouteMatch, VirtualService,
    delegate,
};
use sluicegate::policy::fractions;
use sluicegate::world::{Client, HostKind, World};

/// What the gate believes of one waypoint: nothing is decided here, everything is asked of the crate.
pub(super) struct Ours<'a> {
    pub(super) world: &'a World,
    pub(super) client: &'a Client,
}

/// The routes that requests meet, as text.
pub(super) struct Table {
    pub(super) entries: Vec<String>,
    /// Whether no request gets behind the last one.
    pub(super) is_complete: bool,
}

impl<'a> Ours<'a> {
    /// `None` where the host is not reached through this waypoint.
    pub(super) fn routes(&self, host: &Host, port: i64) -> Option<Table> {
        if !self.owns(host) || !self.ports(host).contains(&port) {
            return None;
        }
        let objects = self.in_force(host, Protocol::Http, port);
        let mut entries = Vec::new();
        for object in objects {
            let name = format!("{}/{}", object.metadata.namespace, object.metadata.name);
            for (route, namespace) in self.written(object) {
                let (conditions, ends) = self.conditions(&route, namespace, host, port);
                let to = said(self.shares(&route, namespace, "http", port));
                let copies = route.mirrored().map(|own| {
                    format!(" and copies to {}", self.cluster(own.to, namespace, "http", port))
                });
                let copies = copies.collect::<String>();
                for _ in 0..conditions {
                    entries.push(format!("{name} {}: {to}{copies}", route.name));
                }
                if ends {
                    return Some(Table { entries, is_complete: true });
                }
            }
        }
        if entries.is_empty() {
            let to = said([(format!("inbound-vip|{port}|http|{host}"), 1.0)].into());
            entries.push(format!("plain default: {to}"));
        }
        Some(Table { entries, is_complete: false })
    }

    /// Where connections to a host go.
    pub(super) fn connections(&self, host: &Host, port: i64) -> Option<String> {
        if !self.owns(host) || !self.ports(host).contains(&port) {
            return None;
        }
        for protocol in [Protocol::Tls, Protocol::Tcp] {
            for object in self.in_force(host, protocol, port) {
                let namespace = object.metadata.namespace.as_str();
                let arrival = self.arrival(namespace, host).of_protocol(protocol);
                let taken = object.spec.routes(protocol).iter().find(|route| {
                    let is_for = |block: &RouteMatch| {
                        block.port.is_none_or(|own| own == port)
                            && Condition::of(block, &arrival, Reading::Strict).is_some()
                    };
                    route.r#match.is_empty() || route.r#match.iter().any(is_for)
                });
                if let Some(route) = taken {
                    return Some(said(self.shares(route, namespace, "tcp", port)));
                }
            }
        }
        Some(said([(format!("inbound-vip|{port}|tcp|{host}"), 1.0)].into()))
    }

    /// The names that the cluster of a subset may have at a waypoint.
    pub(super) fn names(&self, host: &Host, subset: &str, port: i64) -> [String; 2] {
        let inner = if subset.is_empty() { "http".to_owned() } else { format!("http/{subset}") };
        [format!("inbound-vip|{port}|{inner}|{host}"), format!("outbound|{port}|{subset}|{host}")]
    }

    /// Whether there is a cluster of this name: inbound for what is reached through this waypoint, outbound for what its routes
    /// send elsewhere.
    pub(super) fn has_cluster(&self, host: &Host, subset: &str, port: i64, name: &str) -> bool {
        let is_there = self.ports(host).contains(&port)
            && (subset.is_empty() || self.world.subset(host, subset, self.client).is_some());
        let nobody = (&VirtualService::default(), "");
        match name.starts_with("inbound") {
            true => is_there && self.owns(host),
            false => is_there && !self.owns(host) && self.world.is_led(self.client, host, nobody),
        }
    }

    fn owns(&self, host: &Host) -> bool {
        self.world.waypoint_of(host).is_some_and(|own| Client::at(own) == *self.client)
    }

    fn ports(&self, host: &Host) -> Vec<i64> {
        match self.world.host(host) {
            Some(HostKind::Service(own)) => own.ports.iter().map(|port| port.number).collect(),
            _ => Vec::new(),
        }
    }

    fn in_force(&self, host: &Host, protocol: Protocol, port: i64) -> Vec<&'a VirtualService> {
        self.world.routing().in_force(host, self.client, protocol, Some(port))
    }

    fn arrival<'b>(&'b self, namespace: &'b str, host: &'b Host) -> Arrival<'b> {
        let own = (self.client.namespace.as_str(), host.as_str());
        Arrival::at("mesh", namespace).at_waypoint(Some(own))
    }

    /// How many alternatives of a route are for this waypoint and port, and whether nothing behind it is asked.
    fn conditions(&self, route: &Route, namespace: &str, host: &Host, port: i64) -> (usize, bool) {
        if route.r#match.is_empty() {
            return (1, true);
        }
        let mut count = 0;
        for block in &route.r#match {
            let is_for_port = block.port.is_none_or(|own| own == port);
            let blind = RouteMatch { port: None, ..block.clone() };
            let own = Condition::of(&blind, &self.arrival(namespace, host), Reading::Strict);
            let Some(own) = own.filter(|_| is_for_port) else { continue };
            count += 1;
            if own.is_catch_all() {
                return (count, true);
            }
        }
        (count, false)
    }

    /// The routes of an object with those of its delegates in their places.
    fn written(&self, object: &'a VirtualService) -> Vec<(Cow<'a, Route>, &'a str)> {
        let namespace = object.metadata.namespace.as_str();
        let mut routes = Vec::new();
        for route in object.spec.routes(Protocol::Http) {
            let Some(to) = &route.delegate else {
                routes.push((Cow::Borrowed(route), namespace));
                continue;
            };
            let Ok(delegate) = self.world.delegate(to, namespace) else { continue };
            let at = delegate.metadata.namespace.as_str();
            let merged = delegate::merge((route, namespace), (&delegate.spec.http, at));
            let own = merged.routes.into_iter().map(|(_, route)| Cow::Owned(route));
            routes.extend(own.map(|route| (route, at)));
        }
        routes
    }

    fn shares(
        &self,
        route: &Route,
        namespace: &str,
        protocol: &str,
        port: i64,
    ) -> BTreeMap<String, f64> {
        let mut shares = BTreeMap::new();
        for (share, written) in fractions(route).into_iter().zip(&route.route) {
            if share > 0.0 {
                let name = self.cluster(&written.destination, namespace, protocol, port);
                *shares.entry(name).or_default() += share;
            }
        }
        shares
    }

    fn cluster(&self, to: &Destination, namespace: &str, protocol: &str, called: i64) -> String {
        let host = Host::resolve(&to.host, namespace, &self.world.mesh().domain);
        let is_seen = self.world.is_visible(&host, self.client);
        let port = match (to.port.number, self.ports(&host).as_slice()) {
            (Some(number), _) => number,
            (None, [only]) if is_seen => *only,
            (None, _) => called,
        };
        if self.world.host(&host).is_some() && !self.owns(&host) {
            return format!("outbound|{port}|{}|{host}", to.subset);
        }
        let inner = if to.subset.is_empty() {
            protocol.to_owned()
        } else {
            format!("{protocol}/{}", to.subset)
        };
        format!("inbound-vip|{port}|{inner}|{host}")
    }
}

/// `10 % a + 90 % b`, by name.
pub(super) fn said(shares: BTreeMap<String, f64>) -> String {
    let one = |(name, share): (String, f64)| format!("{:.2} % {name}", share * 100.0);
    shares.into_iter().map(one).collect::<Vec<_>>().join(" + ")
}
