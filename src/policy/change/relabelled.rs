//! What moves although no VirtualService changes: a subset's new labels, as a change of destinations.

use std::collections::{BTreeMap, BTreeSet};

use super::chronicle::Chronicle;
use super::clients::users;
use super::destinations::{Context, Destinations};
use super::steps;
use super::{Base, Change, Flow, Share, Shares, Side, classify, fractions};
use crate::istio::{Destination, Host, Protocol, VirtualService};
use crate::policy::ownership::Parts;
use crate::policy::settings::Roles;
use crate::policy::words::label_map;
use crate::world::{Client, Rules, World};

/// A subset that selects by other labels than before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Relabelled<'a> {
    /// The host that it is a part of.
    pub host: Host,
    /// Its name.
    pub subset: &'a str,
    /// The labels that it selected by.
    pub before: &'a BTreeMap<String, String>,
    /// The labels that it selects by from now on.
    pub after: &'a BTreeMap<String, String>,
}

/// How the traffic of these routes of a VirtualService moves when subsets are relabelled: the text of the routes stays, and the
/// destinations are what the subsets select.
///
/// `rules` are those before the write. The name of such a subset says nothing of its part or its version: it is what the write redefines.
pub(in crate::policy) fn relabelled(
    object: &VirtualService,
    routes: &[(Protocol, usize)],
    subsets: &[Relabelled<'_>],
    client: &Client,
    rules: Rules<'_>,
    (roles, world): (&Roles, &World),
) -> Change {
    let namespace = object.metadata.namespace.as_str();
    let clients = vec![client.clone()];
    let context = Context::new(world, (roles, Parts::default()), &clients, namespace, false)
        .remembering(Chronicle::of_relabelled(object, world));
    let mut destinations = Destinations::default();
    let domain = &world.mesh().domain;
    // What keeps its labels first: those names do count.
    let mut entries = Vec::new();
    for is_first in [true, false] {
        for &(protocol, index) in routes {
            let route = &object.spec.routes(protocol)[index];
            for (at, (fraction, written)) in
                fractions(route).into_iter().zip(&route.route).enumerate()
            {
                let host = Host::resolve(&written.destination.host, namespace, domain);
                let changed = subsets
                    .iter()
                    .find(|own| own.host == host && own.subset == written.destination.subset);
                if changed.is_none() != is_first {
                    continue;
                }
                let Destination { subset, port, .. } = &written.destination;
                let mut selected = |name: &str, labels: Option<&BTreeMap<String, String>>| {
                    let labels = labels.cloned();
                    destinations.add_selected(host.clone(), name, port.number, labels, &context)
                };
                let (before, after) = match changed {
                    Some(Relabelled { before, after, .. }) => (
                        selected(&label_map(before), Some(before)),
                        selected(&label_map(after), Some(after)),
                    ),
                    None => {
                        let all = BTreeMap::new();
                        let own = rules.subset(&host, subset, client).map(|own| &own.labels);
                        let same =
                            selected(subset, if subset.is_empty() { Some(&all) } else { own });
                        (same, same)
                    }
                };
                let share = |destination| Share { destination, entry: at, fraction };
                entries.push(Entry {
                    route: (protocol, index),
                    before: share(before),
                    after: share(after),
                });
            }
        }
    }
    // Wider labels reach subsets that no route names; they are compared, too.
    let hosts = subsets.iter().map(|own| &own.host).collect::<BTreeSet<_>>();
    for host in hosts {
        let known = rules.destination_rule(host, client);
        for own in known.into_iter().flat_map(|rule| rule.subsets()) {
            let is_redefined =
                subsets.iter().any(|new| new.host == *host && new.subset == own.name);
            if !is_redefined && !own.labels.is_empty() {
                let labels = Some(own.labels.clone());
                destinations.add_selected(host.clone(), &own.name, None, labels, &context);
            }
        }
    }
    entries.sort_by_key(|own| (own.route, own.before.entry));
    let users = users(object, namespace, world);
    let of_route = |own: &[Entry]| {
        let (protocol, route) = own[0].route;
        let written = &object.spec.routes(protocol)[route];
        let conditions = users.iter().flat_map(|own| own.conditions(written));
        let conditions = conditions.collect::<Vec<_>>();
        // Of several alternatives one that most people meet.
        let condition = conditions.iter().find(|own| !own.is_targeted()).or(conditions.first());
        let side = |shares| {
            let shares = Shares::new(shares);
            Some(Side { route, shares, is_own: true, written_at: route, is_delegated: false })
        };
        Flow {
            protocol,
            condition: condition.cloned().unwrap_or_default(),
            base: Base::Stored,
            next: Base::Stored,
            before: side(own.iter().map(|own| own.before).collect()),
            after: side(own.iter().map(|own| own.after).collect()),
            gone: None,
            wide: None,
            existed: true,
            falls: false,
            movements: Vec::new(),
            is_answered: false,
        }
    };
    let mut flows = entries.chunk_by(|a, b| a.route == b.route).map(of_route).collect::<Vec<_>>();
    let since = object.metadata.spec_written();
    let mut all = flows.iter_mut().collect::<Vec<_>>();
    let is_partial = classify::movements(&mut all, &mut destinations, &context, since);
    drop(context);
    let served = steps::served(&flows);
    Change { destinations, flows, elsewhere: Vec::new(), clients, is_partial, served }
}

/// An entry of a route.
struct Entry {
    route: (Protocol, usize),
    before: Share,
    after: Share,
}
