use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashSet;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::Resolution;
use crate::policy::words::{alike, are, carry, counted, label_map, list, near_miss};
use crate::policy::{
    Action, Backend, Carried, Case, Change, Destination, Gravity, Reference, Report, Rule, Stage,
};
use crate::world::{Kind, LabelledCount, ServicePort};

/// A destination that gets more traffic selects ready endpoints.
///
/// Reads: the share of each destination. Looks up its DestinationRule, EndpointSlices, Pods and Nodes, and for a ServiceEntry
/// what it lists or selects.
///
/// Refuses a rising share for a destination that selects fewer ready endpoints than `minReady`. These are the ready members of
/// the Service's EndpointSlices for the destination's port, and WorkloadEntries, that carry all labels of the subset; for a
/// ServiceEntry the endpoints that it lists or selects. Labels are the endpoint's own and those that Istio adds from the Node.
///
/// Why: Envoy picks a destination by weight without looking whether anybody answers there, so the share of a subset that selects
/// nobody is answered with 503.
///
/// Warns where a share does not mean what it says: sidecars take headless Services, `loadBalancer.simple: PASSTHROUGH` and
/// `resolution: NONE` to the address that the client chose; with `internalTrafficPolicy: Local` each node needs a pod of its own.
///
/// Admitted with a warning: where nothing that serves these requests now is ready either, for a lowering, where other clusters
/// may have endpoints or a subset asks for another cluster or network by name, and where machines outside of Kubernetes may be selected. Not judged: hosts whose endpoints are found by
/// DNS. Before anybody is refused the EndpointSlices, Pods and DestinationRules are read again from the API server.
///
/// Refused: `v1: 90, v2: 10` where no ready pod carries the labels of v2.
///
/// Passes: the same after `kubectl rollout status deployment reviews-v2`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct SubsetReady {
    /// The fewest ready endpoints that a destination with a rising share selects.
    min_ready: u32,
}

impl Default for SubsetReady {
    fn default() -> Self {
        Self { min_ready: 1 }
    }
}

impl Rule for SubsetReady {
    const ID: &'static str = "subset-ready";
    const ACTION: Action = Action::Deny;
    const STAGE: Stage = Stage::Traffic;
    const READS: &'static [Kind] = &[
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Pod,
        Kind::Node,
        Kind::ServiceEntry,
        Kind::WorkloadEntry,
        Kind::DestinationRule,
    ];

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let Some(change) = case.change else { return };
        // What was looked up and is as it should be: the entries of many routes name the same.
        let mut fine = HashSet::new();
        for carried in case.carried().filter(|carried| carried.rises) {
            let destination = change.destinations.get(carried.destination);
            let key = (carried.destination, carried.subset(), carried.port(), is_whole(&carried));
            if fine.contains(&key) {
                continue;
            }
            let said = report.count();
            let Some(wanted) = &destination.labels else { continue };
            let Some(asked) = Asked::of(case, change, &carried, destination, wanted) else {
                continue;
            };
            if let Some(message) = asked.means_nothing() {
                report.lookup(Gravity::WarnOnly, carried.path(), message, Vec::new());
                continue;
            }
            if let Some(message) = asked.has_no_cluster() {
                report.lookup(carried.gravity, carried.path(), message, asked.rests_on());
                continue;
            }
            self.count(&asked, report);
            if report.count() == said {
                fine.insert(key);
            }
        }
    }
}

/// Whether the entry has all of its route's requests.
fn is_whole(carried: &Carried<'_>) -> bool {
    carried.share >= 1.0 - 1e-9
}

/// A destination whose share rises.
struct Asked<'a> {
    case: &'a Case<'a>,
    change: &'a Change,
    carried: &'a Carried<'a>,
    destination: &'a Destination,
    wanted: &'a BTreeMap<String, String>,
    backend: Backend<'a>,
    port: Option<i64>,
}

impl<'a> Asked<'a> {
    fn of(
        case: &'a Case<'a>,
        change: &'a Change,
        carried: &'a Carried<'a>,
        destination: &'a Destination,
        wanted: &'a BTreeMap<String, String>,
    ) -> Option<Self> {
        let port = carried.port();
        let backend = Backend::of(&destination.host, case.world)?;
        let is_known = |port| match backend {
            Backend::Service(service) => service.ports.iter().any(|own| own.number == port),
            Backend::Entry(_) => true,
        };
        // A port that nobody has is another rule's finding.
        port.is_none_or(is_known).then_some(Self {
            case,
            change,
            carried,
            destination,
            wanted,
            backend,
            port,
        })
    }

    /// Whether weights or labels are to choose among the endpoints of the host.
    fn chooses(&self) -> bool {
        !self.wanted.is_empty() || !is_whole(self.carried)
    }

    fn has_sidecars(&self) -> bool {
        let gateways = &self.case.object.spec.gateways;
        gateways.is_empty() || gateways.iter().any(|gateway| gateway == "mesh")
    }

    /// Why weights and subsets do not mean here what they say.
    fn means_nothing(&self) -> Option<String> {
        if !self.chooses() {
            return None;
        }
        let what = match self.backend {
            Backend::Service(service) if service.is_headless && self.has_sidecars() => {
                format!("Service {} is headless (clusterIP: None)", service.name)
            }
            Backend::Entry(entry) if entry.spec.resolution == Resolution::None => {
                format!("{} has resolution NONE", self.backend.name())
            }
            _ => self.passthrough()?,
        };
        let next = match self.backend {
            Backend::Service(service) if service.is_headless => {
                "Use a Service with a clusterIP for it, or split at a gateway."
            }
            Backend::Entry(entry) if entry.spec.resolution == Resolution::None => {
                "Use resolution STATIC or DNS with labelled endpoints for it."
            }
            _ => "Take PASSTHROUGH out of the DestinationRule for it.",
        };
        Some(format!(
            "{} is meant for {}, but {what}: connections go to the address that the client chose, and neither weights nor subsets count\n  {next}",
            self.carried.said(),
            self.destination.label(),
        ))
    }

    fn passthrough(&self) -> Option<String> {
        let Self { case, destination, carried, .. } = self;
        let subset = carried.subset();
        let rules = self.change.clients.iter().filter_map(|client| {
            let rule = case.world.destination_rule(&destination.host, client)?;
            let policy = rule.policy(subset, self.port);
            policy.load_balancer.is_some_and(|own| own.is_passthrough()).then_some(rule)
        });
        let rule = rules.into_iter().next()?.rules().next()?;
        Some(format!(
            "DestinationRule {}/{} sets loadBalancer.simple: PASSTHROUGH",
            rule.metadata.namespace, rule.metadata.name
        ))
    }

    /// Why Istio makes no cluster for a subset that a DestinationRule defines.
    fn has_no_cluster(&self) -> Option<String> {
        let Backend::Entry(entry) = self.backend else { return None };
        let is_wild = entry.spec.resolution == Resolution::DynamicDns;
        let has_subset = !self.carried.subset().is_empty();
        let is_bare = entry.spec.resolution == Resolution::Dns
            && entry.spec.endpoints.is_empty()
            && entry.spec.workload_selector.is_none();
        let (why, next) = match () {
            () if is_wild && has_subset => (
                "has resolution DYNAMIC_DNS, of which Istio makes no subsets".to_owned(),
                format!("Passes: {} without a subset.", entry_host(self)),
            ),
            () if is_bare && !self.wanted.is_empty() => (
                format!(
                    "finds its endpoints by DNS; they carry no labels, and the subset wants {}",
                    label_map(self.wanted)
                ),
                format!(
                    "Passes: endpoints with these labels listed in {}, or {} without a subset.",
                    self.backend.name(),
                    entry_host(self)
                ),
            ),
            () => return None,
        };
        Some(format!(
            "{} would get 503: {} {why}\n  {next}",
            self.carried.said(),
            self.backend.name()
        ))
    }

    /// What is read again before anybody is refused: what there is to select, and by which labels.
    fn rests_on(&self) -> Vec<Reference> {
        let mut all = match self.backend {
            Backend::Service(service) => vec![Reference::Endpoints {
                namespace: service.namespace.clone(),
                service: service.name.clone(),
            }],
            Backend::Entry(_) => vec![Reference::ServiceEntries],
        };
        if let Some(other) = self.carried.rests_on() {
            // With the rules as well it would be more than a review may read.
            all.push(other);
        } else if !self.wanted.is_empty() {
            let root = &self.case.world.mesh().root_namespace;
            let clients = self.change.clients.iter().map(|client| client.namespace.clone());
            let namespaces = clients.chain([self.backend.namespace(), root.clone()]);
            let namespaces = namespaces.filter(|own| !own.is_empty()).collect::<BTreeSet<_>>();
            let rules = |namespace| Reference::DestinationRules { namespace };
            all.extend(namespaces.into_iter().map(rules));
        }
        all
    }

    /// Whether there may be endpoints of which the reads before a refusal would not tell.
    fn may_be_elsewhere(&self) -> bool {
        self.case.world.mesh().is_multi_cluster
            || match self.backend {
                Backend::Service(service) => {
                    self.case.world.has_workload_entries(&service.namespace)
                }
                Backend::Entry(entry) => entry.spec.workload_selector.is_some(),
            }
    }

    /// What one of the endpoints is called.
    fn noun(&self) -> &'static str {
        match self.backend {
            Backend::Service(service)
                if !service.selector.is_empty()
                    && !self.case.world.has_workload_entries(&service.namespace) =>
            {
                "pod"
            }
            _ => "endpoint",
        }
    }
}

fn entry_host(asked: &Asked<'_>) -> String {
    format!("host: {}", asked.destination.host)
}

impl SubsetReady {
    fn count(&self, asked: &Asked<'_>, report: &mut Report<'_>) {
        let Asked { case, carried, destination, wanted, backend, port, .. } = *asked;
        // Not the destination's own: another entry for the same pods may name another port.
        let Some(endpoints) = case.world.selected(&destination.host, wanted, port) else {
            return asked.elsewhere(report);
        };
        let ready = endpoints.ready();
        if ready >= self.min_ready {
            // What nobody has seen yet may be what the subset selects.
            return asked.node_local(report);
        }
        let found = Found::of(asked, ready + endpoints.unready());
        // Pods that were never made are absent, as in a dry run of everything; Pods with the wrong label are not.
        let is_absent = endpoints.unready() == 0 && found.meant.is_none() && found.unselected == 0;
        let gravity = if is_absent { case.if_absent(carried.gravity) } else { carried.gravity };
        let gravity = if asked.may_be_elsewhere() { Gravity::WarnOnly } else { gravity };
        let message = match backend {
            Backend::Service(_) if found.other_ports > 0 => asked.wrong_port(found.other_ports),
            _ => message(asked, &found, (ready, endpoints.unready(), self.min_ready)),
        };
        let rests_on = if gravity == Gravity::Full { asked.rests_on() } else { Vec::new() };
        report.lookup(gravity, carried.path(), message, rests_on);
    }
}

impl Asked<'_> {
    /// A subset may ask for another cluster or network, or for this one by a name that nobody told us.
    fn elsewhere(&self, report: &mut Report<'_>) {
        let world = self.case.world;
        let place = |name: &str| self.wanted.get_key_value(&format!("topology.istio.io/{name}"));
        let (key, value, here) = match (place("cluster"), place("network")) {
            (Some((key, value)), _) if *value != world.mesh().cluster => (
                key,
                value,
                format!(
                    "the endpoints of this cluster carry {key}={} (--cluster-id)",
                    world.mesh().cluster
                ),
            ),
            (_, Some((key, value))) => {
                (key, value, "nobody says that this is the network of this cluster".to_owned())
            }
            _ => return,
        };
        let message = format!(
            "{} would go to {}, and it cannot be seen from here whether anybody is ready there\n  The subset wants {key}={value}; {here}.",
            self.carried.said(),
            self.destination.label(),
        );
        report.lookup(Gravity::WarnOnly, self.carried.path(), message, Vec::new());
    }

    /// With `internalTrafficPolicy: Local` a client has only the endpoints of its own node.
    fn node_local(&self, report: &mut Report<'_>) {
        let Backend::Service(service) = self.backend else { return };
        if !service.is_node_local || !self.chooses() {
            return;
        }
        let nodes = self.case.world.nodes_with(&self.destination.host, self.wanted, self.port);
        let nodes = match nodes.map(|nodes| u32::try_from(nodes).unwrap_or(u32::MAX)) {
            Some(1) => "1 node has one".to_owned(),
            Some(nodes) => format!("{nodes} nodes have one"),
            None => "nobody has said on which nodes they are".to_owned(),
        };
        let message = format!(
            "clients on a node without a ready pod of {1} would get 503 for their {0}: Service {2} has internalTrafficPolicy: Local, and {nodes}\n  Run a pod of it on every node, or set internalTrafficPolicy: Cluster.",
            self.carried.said(),
            self.destination.label(),
            service.name
        );
        report.lookup(Gravity::WarnOnly, self.carried.path(), message, Vec::new());
    }

    /// The pods are there, but no EndpointSlice lists them for this port.
    fn wrong_port(&self, others: u32) -> String {
        let Backend::Service(service) = self.backend else { return String::new() };
        let asked = |own: &&ServicePort| self.port.is_none_or(|port| own.number == port);
        let mut ports = service.ports.iter().filter(asked);
        let (which, target) = match (ports.next(), ports.next()) {
            (Some(one), None) => (format!("port {}", one.number), one.target.as_ref()),
            _ => ("its ports".to_owned(), None),
        };
        let target = target.map_or(String::new(), |name| {
            format!("; its targetPort is {name:?}, so their containers need a port of that name")
        });
        format!(
            "{} would go to {}, which has no ready pod on {which} (503 for that share)\n  {} {} ready, but no EndpointSlice lists {} for {which} of Service {}{target}.\n  Passes: the same write as soon as {} listed there.",
            self.carried.said(),
            self.destination.label(),
            counted(others, "pod"),
            are(others),
            if others == 1 { "it" } else { "them" },
            service.name,
            if others == 1 { "it is" } else { "they are" },
        )
    }
}

/// What there is instead.
struct Found {
    /// The endpoints of the host, by the labels that matter here.
    all: Vec<String>,
    /// A label that is nearly what the subset wants: key, wanted, carried.
    meant: Option<(String, String)>,
    /// Pods that carry the subset's labels but that the Service does not select.
    unselected: u32,
    /// Ready endpoints that are selected on other ports than the one that is asked for.
    other_ports: u32,
}

impl Found {
    fn of(asked: &Asked<'_>, selected: u32) -> Self {
        let Asked { case, destination, wanted, backend, .. } = *asked;
        let selector = backend.selector();
        let keys = selector.keys().chain(wanted.keys()).map(String::as_str).collect();
        let target = case.world.alias_target(&destination.host);
        let host = target.as_ref().unwrap_or(&destination.host);
        let groups = case.world.endpoints_by(host, &keys);
        let mut meant = None;
        for (key, value) in wanted {
            let values = groups.iter().flat_map(|group| &group.labels);
            let values = values.filter(|(own, _)| own == key).map(|(_, value)| value.as_str());
            // Where a pod runs is no slip of the pen.
            let is_written = !key.contains("topology.") && key != "kubernetes.io/hostname";
            if let Some(close) = near_miss(value, values).filter(|_| is_written) {
                meant.get_or_insert_with(|| (key.clone(), close.to_owned()));
            }
        }
        let noun = asked.noun();
        let of = match backend {
            Backend::Service(service) => format!(" of {}", service.name),
            Backend::Entry(_) => String::new(),
        };
        let say = |group: &LabelledCount| alike(group, noun, &of);
        let unselected = match backend {
            Backend::Service(service) if !wanted.is_empty() => {
                case.world.stray_pods(&service.namespace, wanted)
            }
            _ => 0,
        };
        let other_ports = if selected > 0 { 0 } else { case.world.ready_on_no_port(host, wanted) };
        Self { all: groups.iter().map(say).collect(), meant, unselected, other_ports }
    }
}

fn message(asked: &Asked<'_>, found: &Found, (ready, unready, least): (u32, u32, u32)) -> String {
    let Asked { wanted, backend, .. } = *asked;
    let (share, label, noun) = (asked.carried.said(), asked.destination.label(), asked.noun());
    let name = backend.name();
    let selector = backend.selector();
    let here = if asked.case.world.mesh().is_multi_cluster { " in this cluster" } else { "" };
    let mut message = match ready {
        0 => format!(
            "{share} would go to {label}, which selects no ready {noun}{here} (503 for that share)"
        ),
        ready => format!(
            "{share} would go to {label}, which selects {}{here}; {least} is the least here",
            counted(ready, &format!("ready {noun}"))
        ),
    };
    if wanted.is_empty() {
        let why = if unready > 0 {
            format!("{name} selects {} that {} not ready.", counted(unready, noun), are(unready))
        } else if selector.is_empty() {
            format!("{name} has no selector, and nobody has listed a ready {noun} for it.")
        } else {
            format!("{name} selects {}, which no ready {noun} carries.", label_map(&selector))
        };
        return format!(
            "{message}\n  {why}\n  Passes: the same write as soon as its {noun}s are ready."
        );
    }
    let all =
        if found.all.is_empty() { format!("{name} has no {noun}s") } else { found.all.join("; ") };
    let none = if ready + unready == 0 && !found.all.is_empty() {
        format!("; none carries {}", label_map(wanted))
    } else {
        String::new()
    };
    message.push_str(&format!("\n  The subset wants {}. {all}{none}.", label_map(wanted)));
    if found.unselected > 0 {
        message.push_str(&format!(
            "\n  {} {} {}, but {name} does not select {}: it wants {}.",
            counted(found.unselected, "pod"),
            carry(found.unselected),
            label_map(wanted),
            if found.unselected == 1 { "it" } else { "them" },
            label_map(&selector)
        ));
    }
    let of = match backend {
        Backend::Service(service) => service.name.clone(),
        Backend::Entry(_) => name,
    };
    message.push_str(&match &found.meant {
        Some((key, value)) => format!(
            "\n  Did you mean {key}: {value:?}? Passes: label the {noun}s {}, or correct the subset, then apply again.",
            list(&wanted.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>())
        ),
        None if unready > 0 => {
            format!("\n  Passes: the same write as soon as these {noun}s are ready.")
        }
        None => format!(
            "\n  Passes: {} of {of} that {} {} first, then this.",
            counted(least, &format!("ready {noun}")),
            carry(least),
            label_map(wanted)
        ),
    });
    message
}
