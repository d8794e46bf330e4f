use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{DestinationRule, FieldPath, Host, VirtualService};
use crate::policy::words::{clients, counted, label_map, list, number, percent};
use crate::policy::{
    Action, Class, Definition, Destination, Flow, Gravity, Movement, Redefinition, Reference,
    Relabelled, Report, Rule, Selection, Shift, Stage, Steps, Use,
};
use crate::world::{ANY_NAMESPACE, Client, HostKind, Kind, Memory};

/// A subset that carries traffic keeps its definition and its endpoints.
///
/// Reads: the DestinationRule before and after. Looks up every VirtualService that sends requests to its host, and the
/// endpoints.
///
/// Judges DestinationRules that are created, changed or deleted, by comparing what the clients of every VirtualService find
/// before and after. Refuses a write after which a share above 0 names a subset that its clients find no more, or that selects
/// no ready endpoint any more: that share would be answered with 503, and nothing falls back to another subset.
///
/// A new DestinationRule can take subsets away, too: one in the clients' own namespace, for the exact host instead of a
/// wildcard, or with another `exportTo`, takes the place of the one that defined them.
///
/// A subset that keeps its name and selects other pods moves its share although no VirtualService changes: what a canary gets
/// that way is measured by the steps of `canary-step`, and the way back to the older pods is always open.
///
/// A mirror whose subset goes is a warning: only copies are lost.
///
/// Never refused: a subset that no route gives a share; what was missing or dead before; a host without a ready endpoint; new
/// subsets; the deletion of a rule while another one defines the same subsets. A mere warning: a dry run, whose other objects
/// the server does not have; clients that are not there. Before anybody is refused, the VirtualServices and the DestinationRules
/// (where pods are lost, the pods) are read again from the API server.
///
/// Why: a VirtualService names a subset, and another object says what that is: whoever edits the one does not see the
/// other.
///
/// Refused: the deletion of subset v1 from the DestinationRule while a VirtualService gives v1 a share.
///
/// Passes: the same after no VirtualService gives v1 a share any more.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct SubsetInUse {}

impl Rule for SubsetInUse {
    const ID: &'static str = "subset-in-use";
    const ACTION: Action = Action::Deny;
    const STAGE: Stage = Stage::Definition;
    const READS: &'static [Kind] = &[
        Kind::VirtualService,
        Kind::DestinationRule,
        Kind::Service,
        Kind::ServiceEntry,
        Kind::EndpointSlice,
        Kind::Sidecar,
        Kind::Waypoint,
        Kind::Namespace,
        Kind::Pod,
    ];

    fn check_definition(&self, case: &Definition<'_>, report: &mut Report<'_>) {
        let mut lost: Vec<Vec<&Use<'_>>> = Vec::new();
        let is_lost = |own: &&Use<'_>| own.after.as_ref().is_none_or(Selection::is_dead);
        for own in case.redefinition.uses.iter().filter(is_lost) {
            // What one VirtualService loses for one reason is one finding.
            let same = |known: &&mut Vec<&Use<'_>>| {
                let known = known[0];
                std::ptr::eq(known.object, own.object)
                    && known.host == own.host
                    && known.client == own.client
                    && known.before.is_some() == own.before.is_some()
                    && known.after.is_some() == own.after.is_some()
                    && known.is_mirror == own.is_mirror
                    && gravity(known) == gravity(own)
            };
            match lost.iter_mut().find(same) {
                Some(known) => known.push(own),
                None => lost.push(vec![own]),
            }
        }
        for own in lost {
            let first = own[0];
            let rests_on = match first.after {
                None => rests_on_rules(case, first),
                Some(_) => rests_on_pods(case, first.object, &first.host),
            };
            report.lookup(gravity(first), path(case, first), message(case, &own), rests_on);
        }
        check_shifts(case, report);
    }
}

/// Too large a rise that no VirtualService shows.
struct Rise<'a> {
    shift: &'a Shift<'a>,
    flow: &'a Flow,
    /// Whose rise it is; several where only all canaries together go too far.
    moved: Vec<&'a Movement>,
    /// How many VirtualServices it is so for.
    objects: u32,
}

impl Rise<'_> {
    fn size(&self) -> f64 {
        self.moved.iter().map(|moved| moved.rise()).sum()
    }

    /// Whether it may cost the writer anything.
    fn is_refused(&self) -> bool {
        self.moved.iter().all(|moved| moved.class == Class::Canary)
            && self.shift.gravity == Gravity::Full
    }

    fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let destinations = &self.shift.change.destinations;
        self.moved.iter().map(|moved| destinations.get(moved.destination))
    }
}

/// Measures what moves by the steps of `canary-step`; of those to the same pods the largest is said.
fn check_shifts(case: &Definition<'_>, report: &mut Report<'_>) {
    let mut worst: BTreeMap<(bool, Vec<Cow<'_, str>>), Rise<'_>> = BTreeMap::new();
    for shift in &case.redefinition.shifts {
        let Steps { too_far, together, notes } = shift.change.steps(&case.policy.spec().step);
        let alone = too_far.into_iter().chain(notes).map(|(flow, moved)| (flow, vec![moved]));
        let is_canary = |moved: &&Movement| moved.rises() && moved.class == Class::Canary;
        let together = together
            .into_iter()
            .map(|flow| (flow, flow.movements.iter().filter(is_canary).collect()));
        let mut counted = BTreeSet::new();
        for (flow, moved) in alone.chain(together) {
            let mut rise = Rise { shift, flow, moved, objects: 0 };
            let destinations = &shift.change.destinations;
            let labels = rise.moved.iter();
            let labels = labels.map(|own| destinations.get(own.destination).label()).collect();
            let key = (rise.is_refused(), labels);
            let is_first = counted.insert(key.clone());
            let known = worst.get(&key);
            rise.objects = known.map_or(0, |known| known.objects) + u32::from(is_first);
            match worst.get_mut(&key) {
                Some(known) if known.size() >= rise.size() => known.objects = rise.objects,
                _ => drop(worst.insert(key, rise)),
            }
        }
    }
    for rise in worst.into_values() {
        let shift = rise.shift;
        let Some(to) = rise.destinations().next() else { continue };
        let subset = shift.subsets.iter().find(|own| Some(own.after) == to.labels.as_ref());
        // Pods of another subset gain where this one selects them, too.
        let subset = subset.or_else(|| shift.subsets.iter().find(|own| own.host == to.host));
        let gravity = if rise.is_refused() { Gravity::Full } else { Gravity::WarnOnly };
        report.lookup(
            gravity,
            labels_path(case, subset.map(|own| own.subset)),
            rise_message(case, &rise, subset),
            rests_on_pods(case, shift.object, &to.host),
        );
    }
}

fn rise_message(case: &Definition<'_>, rise: &Rise<'_>, subset: Option<&Relabelled<'_>>) -> String {
    let Rise { shift, flow, moved, objects } = rise;
    let object = full_name(shift.object);
    let domain = &case.world.mesh().domain;
    let pods = rise.destinations().map(|to| {
        let host = to.host.short(&shift.object.metadata.namespace, domain);
        let labels = to.labels.as_ref().map_or_else(|| to.subset.to_string(), label_map);
        (host, labels)
    });
    let (hosts, labels): (Vec<_>, Vec<_>) = pods.unzip();
    let (host, labels) = (hosts.first().copied().unwrap_or_default(), list(&labels));
    let place = flow.after.as_ref().map(|after| flow.protocol.path(after.route));
    let place = place.map_or(String::new(), |route| format!(" in {route}"));
    let more = match objects - 1 {
        0 => String::new(),
        more => format!(" (and {} like it)", counted(more, "other")),
    };
    let is_alone = moved.len() == 1;
    let (from, to) = if is_alone { (moved[0].from, moved[0].to) } else { flow.canaries() };
    let together = if is_alone { "" } else { " together" };
    let relabelled = subset.map_or(String::new(), |own| {
        format!(
            "\n  {} would select {}; it selected {}. No VirtualService shows this shift.",
            own.subset,
            label_map(own.after),
            label_map(own.before)
        )
    });
    let head = format!(
        "pods of {host} with {labels} would{together} go from {} to {} of what VirtualService {object}{more} routes{place}",
        percent(from),
        percent(to)
    );
    let why = match moved[0].class {
        Class::Canary => {
            let step = &case.policy.spec().step;
            let limit = case.policy.limit_in_words(from * 100.0);
            let most = match is_alone {
                true => step.limit(from * 100.0),
                false => (from * 100.0 + step.max()).min(100.0),
            };
            let most = number(most.floor());
            let (subset, most) = match (is_alone, step.ladder.is_empty()) {
                (true, true) => ("a subset of its own", format!("it up to {most} %")),
                (true, false) => ("a subset of its own", format!("it {most} %, the next rung")),
                (false, _) => ("subsets of their own", format!("them up to {most} % together")),
            };
            return format!(
                "{head} in one write; {limit}{relabelled}\n  Passes: {subset} for {labels}; VirtualService {object} may then give {most}."
            );
        }
        Class::Rollback => match &moved[0].memory {
            Some(Memory::WasStable(Some(until))) => {
                &format!(": taken as a rollback, because it went to them until {until}")
            }
            _ => ": taken as a rollback, because they were there before the others",
        },
        _ => "; nobody can say which side is the stable one",
    };
    format!("{head}{why}{relabelled}")
}

fn gravity(own: &Use<'_>) -> Gravity {
    if own.is_live { own.gravity } else { Gravity::WarnOnly }
}

fn message(case: &Definition<'_>, lost: &[&Use<'_>]) -> String {
    let own = lost[0];
    let mut who = clients(&own.client);
    if own.gravity == Gravity::WarnOnly && !case.review.dry_run && !own.is_mirror {
        let Client { namespace, labels, .. } = &own.client;
        let world = case.world;
        let has_pods = namespace == ANY_NAMESPACE || world.has_pods(namespace, labels);
        let is_ambient = world.has_waypoints() && !world.has_injected_pods(namespace);
        who.push_str(match has_pods {
            true if is_ambient => " with a sidecar, of which none runs now,",
            true => ", whom only a Sidecar of their own shows it,",
            false => ", of which no pod runs now,",
        });
    }
    let more = match others(lost) {
        0 => String::new(),
        1 => " (another one uses the same)".to_owned(),
        more => format!(" ({more} others use the same)"),
    };
    let sends = if own.is_mirror { "mirrors" } else { "sends" };
    let whose =
        format!("VirtualService {} {sends} {}{more}", full_name(own.object), shares(case, lost));
    let loss = match (own.is_mirror, own.is_live) {
        (true, _) => ": the copies would be lost",
        (false, true) => " and get 503",
        (false, false) => ", and nobody answers there now",
    };
    let what = match (&own.before, &own.after) {
        (None, None) => {
            let now = if own.is_mirror { "," } else { ": 503" };
            format!("{whose}; {who} find no such subset{now} before this write and after it")
        }
        (Some(_), None) => format!("{whose}; {who} would find no such subset any more{loss}"),
        (Some(_), Some(_)) if own.is_live => {
            let loss = if own.is_mirror { loss } else { ": 503 for that share" };
            format!("{whose}, which would select no ready pod any more{loss}")
        }
        _ => format!("{whose}, which selects no ready pod, before this write and after it"),
    };
    format!("{what}\n  {}\n  {}", found_instead(case, lost), next(case, lost))
}

/// How many VirtualServices beside the one that is named send requests to the same subset.
fn others(lost: &[&Use<'_>]) -> usize {
    lost.iter().map(|own| own.objects - 1).max().unwrap_or_default()
}

/// `90 % to reviews/v1 and 10 % to reviews/v2 in spec.http[0]`.
fn shares(case: &Definition<'_>, lost: &[&Use<'_>]) -> String {
    let one = |own: &&Use<'_>| format!("{} to {}", percent(own.share), subset_name(case, own));
    let all = |of: &[&Use<'_>]| list(&of.iter().map(one).collect::<Vec<_>>());
    let places = lost.chunk_by(|a, b| a.place() == b.place());
    let said = places.map(|own| format!("{} in {}", all(own), own[0].place()));
    list(&said.collect::<Vec<_>>())
}

/// What these clients find after the write, and why.
fn found_instead(case: &Definition<'_>, lost: &[&Use<'_>]) -> String {
    let own = lost[0];
    if let Some(after) = &own.after {
        let before = own
            .before
            .as_ref()
            .map_or(String::new(), |before| format!("; it selected {}", label_map(before.labels)));
        return format!("{} would select {}{before}.", own.subset, label_map(after.labels));
    }
    let was = case.redefinition.before.destination_rule(&own.host, &own.client);
    let Some(rule) = case.redefinition.after.destination_rule(&own.host, &own.client) else {
        let kept = case.redefinition.new.filter(|new| has_subset(new, own.subset));
        return match kept {
            Some(_) if is_for_same_host(case) => {
                let selects = kept.is_some_and(|new| new.spec.workload_selector.is_some());
                let field = if selects { "workloadSelector" } else { "exportTo" };
                format!("Its {field} keeps it from them, and no other DestinationRule is left.")
            }
            _ => match was.filter(|_| is_merged_away(case)).and_then(|was| was.rules().next()) {
                Some(was) => format!(
                    "Istio merges {}, which is private, into this rule, and only pods that it selects find that.",
                    full(was)
                ),
                None => format!("No DestinationRule for {} would be left for them.", own.host),
            },
        };
    };
    let names =
        |rules: &[&DestinationRule]| list(&rules.iter().map(|rule| full(rule)).collect::<Vec<_>>());
    let now = rule.rules().collect::<Vec<_>>();
    let gone = was.into_iter().flat_map(|was| was.rules());
    let gone = gone.filter(|old| !now.iter().any(|new| full(new) == full(old)));
    let gone = gone.collect::<Vec<_>>();
    let defined = rule.subsets().map(|subset| subset.name.clone()).collect::<Vec<_>>();
    let what = if defined.is_empty() { "no subset".to_owned() } else { list(&defined) };
    let verb = if now.len() == 1 { "defines" } else { "define" };
    let instead = if gone.is_empty() || own.before.is_none() {
        String::new()
    } else {
        format!(", instead of {}", names(&gone))
    };
    let split = now.iter().any(|new| {
        gone.iter().any(|old| {
            old.metadata.namespace == new.metadata.namespace
                && old.spec.host == new.spec.host
                && new.spec.workload_selector.is_none()
                && old.spec.export_to != new.spec.export_to
        })
    });
    let why = if split && own.before.is_some() {
        " Istio merges only rules with the same exportTo; an omitted one is not the same as [\"*\"]."
    } else {
        ""
    };
    format!("They would use {}, which {verb} {what}{instead}.{why}", names(&now))
}

fn next(case: &Definition<'_>, lost: &[&Use<'_>]) -> String {
    let own = lost[0];
    let subsets = list(&lost.iter().map(|own| own.subset.to_owned()).collect::<Vec<_>>());
    let object = full_name(own.object);
    let all = match others(lost) {
        0 => String::new(),
        1 => " and the other one".to_owned(),
        more => format!(" and the {more} others"),
    };
    let route = match (own.is_mirror, others(lost)) {
        (true, 0) => format!("once VirtualService {object} mirrors nothing to {subsets}"),
        (true, _) => format!("once VirtualService {object}{all} mirror nothing to {subsets}"),
        (false, 0) => format!("once VirtualService {object} gives {subsets} no share"),
        (false, _) => format!("once VirtualService {object}{all} give {subsets} no share"),
    };
    let labelled = lost.iter().filter_map(|own| {
        Some(format!("{} ({})", own.subset, label_map(own.before.as_ref()?.labels)))
    });
    let labelled = list(&labelled.collect::<Vec<_>>());
    let Redefinition { old, new, .. } = case.redefinition;
    match (old, new, &own.after) {
        _ if own.before.is_none() => {
            format!("Passes as it is; the share is answered once a DestinationRule defines {subsets}.")
        }
        (_, None, _) => format!("Passes: this {route}."),
        (_, Some(_), Some(_)) => {
            format!("Passes: this once ready pods carry these labels, or {route}.")
        }
        (_, Some(_), None) if is_merged_away(case) && nothing_is_left(case, own) => {
            "Passes: this once the private rule has no exportTo, or one that says more than [\".\"]."
                .to_owned()
        }
        (Some(old), Some(new), None) if lost.iter().all(|own| has_subset(new, own.subset)) => {
            let field = if !is_for_same_host(case) {
                "host"
            } else if old.spec.export_to != new.spec.export_to {
                "exportTo"
            } else {
                "workloadSelector"
            };
            format!("Passes: this with {field} as it was, or {route}.")
        }
        (Some(_), Some(_), None) => format!("Passes: this {route}, or with {labelled} kept."),
        (None, Some(_), None) => format!("Passes: this with subsets {labelled} in it."),
    }
}

fn nothing_is_left(case: &Definition<'_>, own: &Use<'_>) -> bool {
    case.redefinition.after.destination_rule(&own.host, &own.client).is_none()
}

/// A private rule beside a selector of the same namespace is lost for everybody whom the selector does not select.
///
/// Source: `pilot/pkg/model/destination_rule.go` `mergeDestinationRule`.
fn is_merged_away(case: &Definition<'_>) -> bool {
    let has_selector = |rule: &DestinationRule| rule.spec.workload_selector.is_some();
    let Redefinition { old, new, .. } = case.redefinition;
    new.is_some_and(has_selector) && old.is_none()
}

fn has_subset(rule: &DestinationRule, name: &str) -> bool {
    rule.spec.subsets.iter().any(|subset| subset.name == name)
}

/// Whether the rule spoke of the same host before.
fn is_for_same_host(case: &Definition<'_>) -> bool {
    let Redefinition { old, new, .. } = case.redefinition;
    let host = |rule: &DestinationRule| {
        Host::resolve(&rule.spec.host, &case.review.namespace, &case.world.mesh().domain)
    };
    old.zip(*new).is_none_or(|(old, new)| host(old) == host(new))
}

fn full_name(object: &VirtualService) -> String {
    format!("{}/{}", object.metadata.namespace, object.metadata.name)
}

fn path(case: &Definition<'_>, own: &Use<'_>) -> FieldPath {
    labels_path(case, own.after.as_ref().map(|_| own.subset))
}

/// The subset in the new rule, where it has one of that name.
fn labels_path(case: &Definition<'_>, name: Option<&str>) -> FieldPath {
    let subsets = FieldPath::spec().field("subsets");
    let at =
        case.redefinition.new.zip(name).and_then(|(rule, name)| {
            rule.spec.subsets.iter().position(|subset| subset.name == name)
        });
    at.map_or(subsets.clone(), |at| subsets.index(at).field("labels"))
}

fn subset_name(case: &Definition<'_>, own: &Use<'_>) -> String {
    let domain = &case.world.mesh().domain;
    format!("{}/{}", own.host.short(&own.object.metadata.namespace, domain), own.subset)
}

fn full(rule: &DestinationRule) -> String {
    format!("{}/{}", rule.metadata.namespace, rule.metadata.name)
}

/// The share, and who defines the subset; the Service may be gone with the whole application. Three reads are all there are, and
/// whether pods answer in this very second is the least of it. A Sidecar that came a moment ago and took the clients away is not
/// looked for either: it is the rarest write of all, and it takes nobody away before istiod has told them.
fn rests_on_rules(case: &Definition<'_>, own: &Use<'_>) -> Vec<Reference> {
    let mut found = vec![routes_of(own.object)];
    let host = target(case, &own.host);
    let mut namespaces = vec![
        case.review.namespace.as_str(),
        own.client.namespace.as_str(),
        case.world.host_namespace(&host).unwrap_or_default(),
        case.world.mesh().root_namespace.as_str(),
    ];
    namespaces.retain(|namespace| *namespace != ANY_NAMESPACE);
    namespaces.sort_unstable();
    namespaces.dedup();
    found.extend(
        namespaces
            .into_iter()
            .map(|namespace| Reference::DestinationRules { namespace: namespace.to_owned() }),
    );
    match case.world.host(&host) {
        Some(HostKind::Service(service)) => found.push(Reference::Service {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
        }),
        Some(HostKind::ServiceEntry(_)) => found.push(Reference::ServiceEntries),
        _ => {}
    }
    found
}

/// The share, and the pods on both sides; what the labels are, the write says itself.
fn rests_on_pods(case: &Definition<'_>, object: &VirtualService, host: &Host) -> Vec<Reference> {
    let pods = match case.world.host(&target(case, host)) {
        Some(HostKind::Service(service)) => Reference::Endpoints {
            namespace: service.namespace.clone(),
            service: service.name.clone(),
        },
        _ => Reference::ServiceEntries,
    };
    vec![routes_of(object), pods]
}

/// The host whose DestinationRules count: what an ExternalName Service stands for, else the host itself.
fn target(case: &Definition<'_>, host: &Host) -> Host {
    case.world.alias_target(host).unwrap_or_else(|| host.clone())
}

fn routes_of(object: &VirtualService) -> Reference {
    Reference::VirtualServices { namespace: object.metadata.namespace.clone() }
}
