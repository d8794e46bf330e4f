use std::collections::BTreeSet;

use sluicegate::istio::{Host, PortProtocol};
use sluicegate::world::{Client, World as Cluster};

use super::ours::{Ours, Taken};
use super::request::Request;
use super::{Addresses, Table, Theirs, connection};
use crate::world::{World, fill_text};

/// The ports that the services of the worlds have.
const PORTS: [i64; 2] = [9080, 9081];

/// A client that is asked about.
pub(crate) struct Asked<'a> {
    pub(crate) name: &'a str,
    pub(crate) client: &'a Client,
    /// The mesh's domain, which the worlds are written for.
    pub(crate) domain: &'a str,
    /// The port that its gateway listens on.
    pub(crate) gateway_port: Option<u16>,
    /// Of the Services.
    pub(crate) addresses: &'a Addresses,
}

/// Everything that Istio does otherwise than the gate believes, for one client and one copy of a world.
pub(crate) fn differences(
    world: &World,
    number: usize,
    cluster: &Cluster,
    asked: &Asked<'_>,
    theirs: &Theirs,
) -> Vec<String> {
    let mut found = Vec::new();
    let hosts = hosts(world, number, asked.domain);
    let own = |port| Ours { world: cluster, client: asked.client, port };
    let mut say = |text: String| found.push(format!("{}: {text}", asked.name));

    let mut expected = BTreeSet::new();
    let mut subsets = world.texts("subset");
    subsets.extend(["", "v1", "v2", "v3"].map(str::to_owned));
    for host in &hosts {
        for port in PORTS.into_iter().chain([9091]).chain(connection::PORTS) {
            for subset in &subsets {
                let name = format!("outbound|{port}|{subset}|{host}");
                let ours = own(port).cluster(host, subset, port);
                match (ours, theirs.cluster(&name)) {
                    (None, None) => {}
                    (Some(_), None) => say(format!("{name}: we think it exists, Istio has none")),
                    (None, Some(_)) => say(format!("{name}: we think there is none, Istio has it")),
                    (Some(ours), Some(theirs)) => {
                        if ours.rule != theirs.rule {
                            let (ours, theirs) = (&ours.rule, &theirs.rule);
                            say(format!(
                                "{name}: DestinationRule {ours:?} for us, {theirs:?} for Istio"
                            ));
                        }
                        if ours.discovery != theirs.discovery {
                            let (own, other) = (&ours.discovery, &theirs.discovery);
                            say(format!("{name}: {own} for us, {other} for Istio"));
                        } else if ours.discovery == "EDS" && ours.healthy != theirs.healthy {
                            let (own, other) = (ours.healthy, theirs.healthy);
                            say(format!(
                                "{name}: {own} healthy endpoints for us, {other} for Istio"
                            ));
                        }
                    }
                }
                expected.insert(name);
            }
        }
    }
    let mark = fill_text("@", number);
    for name in theirs.clusters_of(&mark).filter(|name| !expected.contains(*name)) {
        say(format!("{name}: a cluster that nobody asked for"));
    }

    let listeners = match asked.gateway_port {
        Some(port) => vec![(i64::from(port), format!("http.{port}"))],
        None => {
            // For connections, too: what is no HTTP there has no routes, whoever else's port of this number is.
            let all = PORTS.into_iter().chain(connection::PORTS);
            let all = all.map(|port| (port, port.to_string()));
            all.filter(|(port, config)| PORTS.contains(port) || theirs.has(config)).collect()
        }
    };
    for host in hosts.iter().filter(|host| !host.as_str().starts_with('*')) {
        let detected = connection::PORTS.into_iter().filter(|port| {
            let ports = cluster.port_protocols(host);
            let is_own =
                asked.addresses.contains_key(host.as_str()) && asked.gateway_port.is_none();
            is_own && ports.contains(&(*port, PortProtocol::Detected))
        });
        let detected = detected.map(|port| (port, format!("{host}:{port}"))).collect::<Vec<_>>();
        for (port, config) in listeners.iter().chain(&detected) {
            let lower = host.as_str().to_lowercase();
            let ours = own(*port);
            if ours.is_routed_by_accident(host) {
                continue;
            }
            let (table, real) = (ours.table(host), theirs.table(config, &lower));
            match (&table, &real) {
                (None, None) => {}
                (Some(table), Some(real)) => {
                    if !same(table, real) {
                        say(format!(
                            "{host}:{port}: routes\n      us    {table}\n      Istio {real}"
                        ));
                        continue;
                    }
                    for request in Request::all() {
                        let theirs = theirs.takes(config, &lower, &request);
                        let agree = match ours.takes(host, &request) {
                            Taken::Unknown => true,
                            Taken::ByNobody => theirs.is_none(),
                            Taken::By(place) => theirs == Some(place),
                        };
                        if !agree {
                            let place = ours.takes(host, &request);
                            say(format!(
                                "{host}:{port}: {request:?} is taken by entry {place:?} for us, {theirs:?} for Istio\n      {real}"
                            ));
                        }
                    }
                }
                (Some(table), None) => {
                    say(format!("{host}:{port}: Istio has no route, we have\n      {table}"))
                }
                (None, Some(real)) => {
                    say(format!("{host}:{port}: we have no route, Istio has\n      {real}"))
                }
            }
        }
    }
    let of_connections = connection::differences(world, number, &hosts, cluster, asked, theirs);
    found.extend(of_connections.into_iter().map(|text| format!("{}: {text}", asked.name)));
    found
}

/// Equal; behind a route that takes everything Istio may send more.
fn same(ours: &Table, theirs: &Table) -> bool {
    let more = theirs.entries.len().checked_sub(ours.entries.len());
    more.is_some_and(|more| more == 0 || ours.is_complete)
        && ours.entries.iter().zip(&theirs.entries).all(|(own, their)| own == their)
}

/// The hosts that anything in the world is or speaks of.
fn hosts(world: &World, number: usize, domain: &str) -> BTreeSet<Host> {
    let mut hosts = BTreeSet::new();
    for piece in &world.0 {
        let object = &piece.object;
        let text = |pointer| {
            object.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default()
        };
        let namespace = text("/metadata/namespace");
        let mut add = |host: &str| {
            hosts.insert(Host::resolve(&fill_text(host, number), namespace, domain));
        };
        if object["kind"] == "Service" {
            add(text("/metadata/name"));
            if !text("/spec/externalName").is_empty() {
                add(text("/spec/externalName"));
            }
        }
        for host in object
            .pointer("/spec/hosts")
            .and_then(serde_json::Value::as_array)
            .into_iter()
            .flatten()
        {
            // Requests name hosts in lower case, whatever a VirtualService writes.
            add(&host.as_str().unwrap_or_default().to_lowercase());
        }
    }
    hosts
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, entry) in self.entries.iter().enumerate() {
            let source = entry.source.as_deref().unwrap_or("plain");
            let end = if place + 1 < self.entries.len() { "; " } else { "" };
            write!(f, "{source} {}: ", entry.route)?;
            match &entry.answer {
                super::Answer::Itself => write!(f, "itself{end}")?,
                super::Answer::Clusters(shares) => write!(f, "{shares}{end}")?,
            }
            if !entry.mirrors.0.is_empty() {
                write!(f, "copies {}{end}", entry.mirrors)?;
            }
        }
        Ok(())
    }
}
