use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashSet;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{DestinationRule, Host, Location, Route, host_covers};
use crate::policy::words::{label_map, list, near_miss};
use crate::policy::{
    Action, Asked, Carried, Case, Clients, Destination, Gravity, Report, Rule, Stage, Takers, Why,
};
use crate::world::{ANY_NAMESPACE, Client, EffectiveRule, HostKind, Kind};

/// After this many clients with rules of their own no more are looked for in a review; they only earn a warning.
const MOST_LOOKUPS: usize = 20_000;

/// A subset that gets traffic is defined.
///
/// Reads: the host and the subset of each destination. Looks up the DestinationRules in force for the clients.
///
/// Refuses a destination with a share above 0 whose subset no DestinationRule in force defines for the clients concerned: that
/// share of the requests is answered with 503 (`cluster_not_found`), and nothing falls back to another subset.
///
/// A DestinationRule is looked up as Istio does, by the client and not by the VirtualService: in the client's namespace, the
/// service's, then the root namespace; an exact host hides a wildcard; rules of one namespace act as one only where their
/// `exportTo` is the same set; one with a `workloadSelector` takes the place of the others for the pods that it selects; one
/// with the label `istio.io/rev` of another revision does not exist. The clients concerned are those anywhere in the mesh, those
/// in the service's namespace, those that `exportTo`, `sourceNamespace` and `sourceLabels` name, the pods that serve the Gateways
/// named, wherever these run, and for clients in ambient mode the host's waypoint, in whose namespace it looks first. Clients from
/// whom a Sidecar hides the VirtualService are not asked: with one in the root namespace for `./*` these are all but those in its
/// own namespace.
///
/// Admitted with a warning: where only clients lose whose own namespace has a DestinationRule that hides the subset, or a Sidecar
/// that shows what others do not see; where all hosts have a waypoint that finds it, and no pod with a sidecar is there to miss it;
/// on a first install, where no endpoint of the host is ready yet; in a dry run, whose other objects the server does not have; where
/// the subset was missing before and gets no more than it had; and for a lowering. Before anybody is refused the
/// DestinationRules and Sidecars are read again from the API server.
///
/// Why: Istio makes no cluster for a subset that nobody defined, and takes the route all the same.
///
/// Refused: `v1: 90, v3: 10` where the DestinationRule defines v1 and v2.
///
/// Passes: first `subsets: [{name: v3, labels: {version: v3}}]` in the DestinationRule, then the same weights.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct SubsetDefined {}

impl Rule for SubsetDefined {
    const ID: &'static str = "subset-defined";
    const ACTION: Action = Action::Deny;
    const STAGE: Stage = Stage::Traffic;
    const READS: &'static [Kind] = &[
        Kind::DestinationRule,
        Kind::Service,
        Kind::ServiceEntry,
        Kind::Gateway,
        Kind::Sidecar,
        Kind::Waypoint,
        Kind::Namespace,
        Kind::Pod,
        Kind::VirtualService,
    ];

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let Some(change) = case.change else { return };
        let mut takers = Takers::of(case);
        let mut lookups = 0;
        let leads_out = is_external(case);
        // What was looked up and is as it should be: the entries of many routes name the same.
        let mut fine = HashSet::new();
        let whole = Route::default();
        for carried in case.carried() {
            let destination = change.destinations.get(carried.destination);
            let subset = carried.subset();
            if subset.is_empty() || !destination.is_known {
                continue;
            }
            let (_, protocol, index) = carried.route();
            let route = case.object.spec.routes(protocol).get(index).unwrap_or(&whole);
            let is_own = carried.rises && !carried.is_elsewhere();
            takers.asked(&carried);
            let key = (destination.host_number, subset, takers.group(), is_own);
            let may_be_known = !is_own || takers.is_for_all(route);
            if may_be_known && fine.contains(&key) {
                continue;
            }
            let said = report.count();
            let mut lost = takers.without_subset(&carried, &destination.host);
            let is_grave = lost.iter().any(|asked| asked.gravity == Gravity::Full);
            lost.retain(|asked| !is_grave || asked.gravity == Gravity::Full);
            let is_counted = lost.iter().any(|asked| asked.why.counts());
            lost.retain(|asked| asked.why.counts() == is_counted);
            if let Some(first) = lost.first().and_then(|asked| asked.clients.first()) {
                let is_way_out =
                    leads_out && is_way_out(case, &mut takers, &lost, &destination.host, subset);
                let gravity = match is_grave && !is_way_out {
                    true => carried.gravity,
                    false => Gravity::WarnOnly,
                };
                let gravity = case.if_absent(gravity);
                if !report.has_room(gravity) {
                    continue;
                }
                let mut who = match is_way_out {
                    true => in_place(first, &format!("outside {}", case.review.namespace)),
                    false => list(&losers(case, &target(case, &destination.host), &lost)),
                };
                if !is_grave && is_counted {
                    who.push_str(" with a sidecar, of which none runs now,");
                }
                let mut rests_on = case.rests_on_rules(&destination.host, first);
                rests_on.extend(case.sidecars_of(first));
                rests_on.extend(carried.rests_on());
                report.lookup(
                    gravity,
                    carried.path(),
                    message(case, &carried, destination, &lost, &who),
                    rests_on,
                );
                continue;
            }
            if is_own {
                let hidden =
                    hidden(case, takers.users(), route, (&destination.host, subset), &mut lookups);
                if !hidden.is_empty() && report.has_room(Gravity::WarnOnly) {
                    let message = hidden_message(case, &carried, destination, &hidden);
                    report.lookup(Gravity::WarnOnly, carried.path(), message, Vec::new());
                }
                if !hidden.is_empty() {
                    continue;
                }
            }
            if may_be_known && report.count() == said {
                fine.insert(key);
            }
        }
    }
}

/// Whether the object's own namespace finds the subset, of an object whose hosts are all outside of the mesh: a way out through an
/// egress gateway as Istio's manual writes it, with everything in one namespace. Who else calls such a host is not known.
fn is_way_out(
    case: &Case<'_>,
    takers: &mut Takers<'_>,
    lost: &[Arc<Asked>],
    host: &Host,
    subset: &str,
) -> bool {
    lost.iter().all(|asked| matches!(asked.why, Why::Anywhere | Why::Service | Why::Own))
        && !takers.lacks(&Client::in_namespace(&case.review.namespace), host, subset)
}

/// Whether every host of the object is outside of the mesh.
fn is_external(case: &Case<'_>) -> bool {
    let is_external = |host: &String| {
        let host = case.world.plain_host(&case.resolve(host));
        matches!(host.as_ref().and_then(|host| case.world.host(host)),
            Some(HostKind::ServiceEntry(entry)) if entry.spec.location == Location::External)
    };
    let hosts = &case.object.spec.hosts;
    !hosts.is_empty() && hosts.iter().all(is_external)
}

/// Those who take the route and find no such subset because of rules in their own namespace.
fn hidden(
    case: &Case<'_>,
    users: &[Clients<'_>],
    route: &Route,
    (host, subset): (&Host, &str),
    lookups: &mut usize,
) -> Vec<Client> {
    let mut hidden = BTreeSet::new();
    for own in users {
        if *lookups > MOST_LOOKUPS {
            break;
        }
        let clients = own.with_own_rules(route, host);
        *lookups += clients.len();
        let lacks = |client: &Client| case.world.subset(host, subset, client).is_none();
        hidden.extend(clients.into_iter().filter(lacks));
    }
    hidden.into_iter().collect()
}

fn message(
    case: &Case<'_>,
    carried: &Carried<'_>,
    destination: &Destination,
    lost: &[Arc<Asked>],
    who: &str,
) -> String {
    let subset = carried.subset();
    let host = &target(case, &destination.host);
    let mut message = format!(
        "{} would get 503: no DestinationRule that {who} use defines subset {subset} of {host}",
        carried.said(),
    );
    let Some(client) = lost.first().and_then(|asked| asked.clients.first()) else { return message };
    if client.waypoint.is_some() && !case.world.is_visible(host, client) {
        let at = &client.namespace;
        return format!(
            "{message}\n  The exportTo of {host} keeps it from namespace {at}, and of what a waypoint does not see it knows no subset.\n  Passes: {at} in that exportTo first, then this."
        );
    }
    if *host != destination.host {
        let alias = &destination.host;
        let domain = &case.world.mesh().domain;
        let alias = alias.short(&case.review.namespace, domain);
        message.push_str(&format!(", for which {alias} stands"));
    }
    let used = case.world.destination_rule(host, client);
    if let Some(used) = used {
        message.push_str(&format!("\n  {}.", defines(used)));
    }
    let elsewhere = defined_elsewhere(case, host, subset, client);
    if let Some((rule, why)) = &elsewhere {
        message.push_str(&format!("\n  {} does define {subset}, but {why}.", full(rule)));
    }
    let is_kept = |rule: &&DestinationRule| {
        !is_exported(case, rule, client)
            && rule.spec.workload_selector.is_none()
            && case.world.is_discovered(&rule.metadata.namespace) == Some(true)
    };
    if lost.iter().all(|asked| !asked.why.counts()) {
        message.push_str(&format!("\n  {}", shown_by(case, client)));
    }
    let kept = elsewhere.map(|(rule, _)| rule).filter(is_kept);
    let defined = used.into_iter().flat_map(EffectiveRule::subsets);
    let defined = defined.map(|subset| subset.name.as_str());
    let next = match (near_miss(subset, defined), used.and_then(|used| used.rules().next_back())) {
        (Some(meant), _) => format!("Did you mean {meant}?"),
        (None, Some(rule)) => {
            format!("Passes: add subset {subset} to {} first, then send it traffic.", full(rule))
        }
        (None, None) if kept.is_some() => {
            let none = kept.is_some_and(|rule| {
                !rule.spec.export_to.is_empty()
                    && case.world.mesh().default_destination_rule_export_to.is_empty()
            });
            format!(
                "Passes: first an exportTo of {} that names these clients{}, then this.",
                kept.map(full).unwrap_or_default(),
                if none { ", or none at all" } else { "" }
            )
        }
        (None, None) => format!(
            "Passes: first a DestinationRule for {host} in namespace {} that defines {subset}, then this.",
            case.world.host_namespace(host).unwrap_or(&case.review.namespace)
        ),
    };
    message.push_str(&format!("\n  {next}"));
    message
}

/// Those who lose, as messages say it.
fn losers(case: &Case<'_>, host: &Host, lost: &[Arc<Asked>]) -> Vec<String> {
    let own = case.world.host_namespace(host).unwrap_or_default();
    let is_general = lost.iter().any(|asked| asked.why == Why::Anywhere);
    let is_of_own = |asked: &Arc<Asked>| asked.clients.iter().any(|client| client.namespace == own);
    let is_own_lost = lost.iter().any(|asked| asked.why == Why::Service && is_of_own(asked));
    let name = |asked: &Arc<Asked>| {
        let client = asked.clients.first()?;
        Some(match asked.why {
            Why::Service if is_general => return None,
            Why::Anywhere if !is_own_lost => in_place(client, &format!("outside {own}")),
            _ => who(client),
        })
    };
    lost.iter().filter_map(name).collect()
}

/// A DestinationRule that defines the subset, and why it does not help this client.
fn defined_elsewhere<'a>(
    case: &Case<'a>,
    host: &Host,
    subset: &str,
    client: &Client,
) -> Option<(&'a DestinationRule, String)> {
    let Some(rule) = case.world.rules_defining(host, subset).into_iter().next() else {
        return undiscovered(case, host, subset, client);
    };
    let mesh = case.world.mesh();
    let namespace = rule.metadata.namespace.as_str();
    let used = case.world.destination_rule(host, client);
    let is_asked = namespace == client.namespace
        || namespace == mesh.root_namespace
        || case.world.host_namespace(host) == Some(namespace);
    let why = if !rule.metadata.is_in_revision(&mesh.revision) {
        let revision = rule.metadata.labels.get("istio.io/rev").cloned().unwrap_or_default();
        format!("its label istio.io/rev={revision} hides it from revision {}", mesh.revision)
    } else if let Some(selector) = &rule.spec.workload_selector {
        format!("only for pods in {namespace} with {}", label_map(&selector.match_labels))
    } else if let Some(instead) = used.and_then(|used| used.rules().next_back()) {
        let resolved = |of: &DestinationRule| {
            Host::resolve(&of.spec.host, &of.metadata.namespace, &mesh.domain)
        };
        let are_apart = instead.metadata.namespace == namespace
            && resolved(instead) == resolved(rule)
            && instead.spec.workload_selector.is_none();
        let why = if are_apart { ": Istio merges only rules with the same exportTo" } else { "" };
        format!("{} takes its place for these clients{why}", full(instead))
    } else if !rule.is_exported_to(&client.namespace) {
        "its exportTo keeps it from these clients".to_owned()
    } else if !is_exported(case, rule, client) {
        "by the mesh's default it is private to its namespace".to_owned()
    } else if is_asked {
        "Istio merges it into a rule that these clients do not see".to_owned()
    } else {
        format!("Istio does not look in namespace {namespace} for these clients")
    };
    Some((rule, why))
}

/// A DestinationRule that defines the subset where Istio would look, did it read the namespace.
fn undiscovered<'a>(
    case: &Case<'a>,
    host: &Host,
    subset: &str,
    client: &Client,
) -> Option<(&'a DestinationRule, String)> {
    let world = case.world;
    let own = [Some(client.namespace.as_str()), world.host_namespace(host)];
    let asked = own.into_iter().flatten().chain([world.mesh().root_namespace.as_str()]);
    let mut rules = asked.flat_map(|namespace| world.undiscovered_rules(namespace));
    let rule = rules.find(|rule| {
        let of = Host::resolve(&rule.spec.host, &rule.metadata.namespace, &world.mesh().domain);
        host_covers(of.as_str(), host.as_str())
            && rule.spec.subsets.iter().any(|own| own.name == subset)
    })?;
    let namespace = &rule.metadata.namespace;
    let wanted = world.mesh().wanted_labels();
    let why = format!(
        "istiod does not read namespace {namespace}: meshConfig.discoverySelectors ask for {wanted}"
    );
    Some((rule, why))
}

fn hidden_message(
    case: &Case<'_>,
    carried: &Carried<'_>,
    destination: &Destination,
    hidden: &[Client],
) -> String {
    let (subset, host) = (carried.subset(), &destination.host);
    let clients = if hidden.iter().all(|client| client.labels.is_empty()) {
        let namespaces = hidden.iter().map(|client| client.namespace.clone());
        format!("clients in {}", list(&namespaces.collect::<Vec<_>>()))
    } else {
        list(&hidden.iter().map(who).collect::<Vec<_>>())
    };
    let used = hidden.first().and_then(|client| case.world.destination_rule(host, client));
    let (instead, next) = match used {
        Some(used) => {
            let name = used.rules().next_back().map(full).unwrap_or_default();
            (
                format!("{}, and hides every other rule from them", defines(used)),
                match hidden.len() {
                    1 => format!(
                        "Everybody else finds it. For these clients add subset {subset} to {name}."
                    ),
                    _ => format!(
                        "Everybody else finds it. For these clients add subset {subset} to their own rules, such as {name}."
                    ),
                },
            )
        }
        None => (
            "A DestinationRule for selected pods of their namespace hides every other rule from them"
                .to_owned(),
            "Everybody else finds it.".to_owned(),
        ),
    };
    format!(
        "{} would get 503 for {clients}: they find no subset {subset} of {host}\n  {instead}.\n  {next}",
        carried.said(),
    )
}

/// Which Sidecar of its own namespace shows such a client the VirtualService.
fn shown_by(case: &Case<'_>, client: &Client) -> String {
    let own = case.world.sidecar(client).map(|own| &own.metadata);
    let own = own.map_or(String::new(), |own| format!(" ({}/{})", own.namespace, own.name));
    format!(
        "Only a Sidecar of their own{own} shows them this VirtualService; nobody here knows whether they use it."
    )
}

/// The host whose DestinationRules count: what an ExternalName Service stands for, else the host itself.
fn target(case: &Case<'_>, host: &Host) -> Host {
    case.world.alias_target(host).unwrap_or_else(|| host.clone())
}

/// Whether `exportTo`, or the mesh's default for it, lets a client use a rule.
fn is_exported(case: &Case<'_>, rule: &DestinationRule, client: &Client) -> bool {
    let default = &case.world.mesh().default_destination_rule_export_to;
    let is_private = rule.spec.export_to.is_empty() && default.iter().any(|to| to == ".");
    rule.is_exported_to(&client.namespace)
        && (!is_private || rule.metadata.namespace == client.namespace)
}

/// `DestinationRule shop/reviews defines v1 and v2`.
fn defines(used: EffectiveRule<'_>) -> String {
    let names = list(&used.rules().map(full).collect::<Vec<_>>());
    let subsets = used.subsets().map(|subset| subset.name.clone()).collect::<Vec<_>>();
    let subsets = if subsets.is_empty() { "no subset".to_owned() } else { list(&subsets) };
    let verb = if used.rules().len() == 1 { "defines" } else { "define" };
    format!("DestinationRule {names} {verb} {subsets}")
}

/// Clients as messages say it.
fn who(client: &Client) -> String {
    let namespace = match client.namespace.as_str() {
        ANY_NAMESPACE => "the mesh",
        namespace => namespace,
    };
    in_place(client, &format!("in {namespace}"))
}

fn in_place(client: &Client, place: &str) -> String {
    if let Some(waypoint) = &client.waypoint {
        return format!("clients behind waypoint {waypoint}");
    }
    match &client.gateway {
        Some(gateway) if client.namespace == ANY_NAMESPACE => {
            format!("the pods of gateway {gateway}")
        }
        Some(gateway) => format!("the pods of gateway {gateway} {place}"),
        None if client.labels.is_empty() => format!("clients {place}"),
        None => format!("clients {place} with {}", label_map(&client.labels)),
    }
}

fn full(rule: &DestinationRule) -> String {
    format!("{}/{}", rule.metadata.namespace, rule.metadata.name)
}
