use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::Host;
use crate::policy::words::{counted, list, percent};
use crate::policy::{
    Action, Base, Case, Change, Class, Flow, Gravity, Lack, Movement, Reference, Report, Rule,
    Stage, Takers,
};
use crate::world::{HostKind, Kind};

/// A VirtualService that comes or goes says which one is in force instead.
///
/// Reads: hosts, gateways and `exportTo`, and who served the requests before. Looks up the other VirtualServices of the hosts,
/// and what their destinations are.
///
/// Why: no single object says which VirtualService is in force, and a deletion moves traffic without naming a weight.
///
/// Warns about a VirtualService that is deleted while it routes requests: the next one for its hosts comes into force, or a
/// Service's own routing, which spreads requests over all ready pods, canaries included, or nobody answers. And about a new one
/// that takes requests from another: one for its own namespace comes before one for everybody, whichever is older, and a host
/// comes before a wildcard. Also about a delegate that is deleted while others still name it: Istio skips such routes and says nothing.
///
/// Says who routes the requests from now on, which share changes most, and of a deletion also what of it nobody would answer: a
/// host that does not exist, a subset that no DestinationRule in force defines, or one without a ready endpoint. How far a canary may rise that way is for
/// `canary-step` to say where a VirtualService is created; a deletion is refused only where the policy sets this rule to Deny, and
/// then not where nothing but the stable side gains.
///
/// Warned about: `kubectl delete virtualservice reviews` while it keeps v2 at 10 % and v2 has half of the pods.
///
/// Passes: the same while only one in ten of the ready pods is one of v2; or with v2 scaled to 0.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct VsInUse {}

impl Rule for VsInUse {
    const ID: &'static str = "vs-in-use";
    const ACTION: Action = Action::Warn;
    const STAGE: Stage = Stage::Presence;
    const READS: &'static [Kind] = &[
        Kind::VirtualService,
        Kind::DestinationRule,
        Kind::Service,
        Kind::ServiceEntry,
        Kind::EndpointSlice,
        Kind::Pod,
    ];

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let Some(change) = case.change else { return };
        if case.review.object().is_some() {
            takes_over(case, change, report);
        } else {
            leaves(case, change, report);
            leaves_roots(case, report);
        }
    }
}

/// The requests for which something else decides from now on, and those of them that move most.
#[derive(Default)]
struct Heirs<'a>(BTreeMap<String, (&'a Base, &'a Flow)>);

impl<'a> Heirs<'a> {
    fn keep(&mut self, whose: &'a Base, flow: &'a Flow) {
        let known = self.0.entry(format!("{whose:?}")).or_insert((whose, flow));
        if size(flow) > size(known.1) {
            *known = (whose, flow);
        }
    }
}

/// How much of the requests ends up somewhere else.
fn size(flow: &Flow) -> f64 {
    let lost = if flow.after.is_none() { 1.0 } else { 0.0 };
    flow.movements.iter().map(Movement::rise).fold(lost, f64::max)
}

/// Whether somebody may answer these requests now.
fn is_answered(change: &Change, flow: &Flow) -> bool {
    let before = flow.before.iter().flat_map(|before| before.shares.carrying());
    before.map(|share| change.destinations.get(share.destination)).any(|own| !own.is_dead())
}

/// Another VirtualService loses requests to the new one. A new path beside what is there takes nothing from anybody.
fn takes_over(case: &Case<'_>, change: &Change, report: &mut Report<'_>) {
    let mut heirs = Heirs::default();
    for flow in &change.flows {
        let mut rises = flow.movements.iter().filter(|moved| moved.rises());
        let is_addition = flow.after.is_some()
            && flow.movements.iter().any(Movement::rises)
            && rises.all(|moved| moved.class == Class::Addition);
        let is_taken = matches!(flow.base, Base::InForce(_)) && flow.next == Base::Stored;
        if is_taken && flow.moves() && !is_addition && is_answered(change, flow) {
            heirs.keep(&flow.base, flow);
        }
    }
    for (base, flow) in heirs.0.into_values() {
        let Base::InForce(other) = base else { continue };
        let why = why_first(case, other);
        let message = format!(
            "VirtualService {other} routes these requests now and would not any more: {why}{}\n  To change them in one place, change {other}.",
            moves(change, flow)
        );
        report.lookup(Gravity::Full, flow.path(usize::MAX), message, rests_on(case, base));
    }
}

fn why_first(case: &Case<'_>, other: &str) -> &'static str {
    let other = other.split_once('/').and_then(|(at, name)| case.world.virtual_service(at, name));
    let shared = |host: &String| other.is_some_and(|other| other.spec.hosts.contains(host));
    if !case.object.spec.is_for_mesh() {
        "at a gateway its routes are tried before the other one's route for everything"
    } else if !case.object.spec.hosts.iter().any(shared)
        && other.is_some_and(|other| other.spec.hosts.iter().any(|host| host.starts_with('*')))
    {
        "this one names the host, the other one only a wildcard"
    } else {
        "one for fewer namespaces (exportTo) comes before one for everybody"
    }
}

/// The deleted VirtualService leaves its requests to somebody else, or to nobody.
fn leaves(case: &Case<'_>, change: &Change, report: &mut Report<'_>) {
    let mut heirs = Heirs::default();
    for flow in change.all().filter(|flow| flow.base == Base::Stored && flow.moves()) {
        if is_answered(change, flow) {
            heirs.keep(if flow.after.is_some() { &flow.next } else { &Base::Nothing }, flow);
        }
    }
    let mut unanswered = unanswered(case, change);
    for (next, flow) in heirs.0.into_values() {
        let lacking = unanswered.remove(&format!("{next:?}")).unwrap_or_default();
        let lack = lacking.first().map_or(String::new(), |(said, _)| format!("\n  {said}"));
        let more = match lacking.len() {
            0 | 1 => ".".to_owned(),
            all => format!("; {} like it.", counted(all as u32 - 1, "other share")),
        };
        let lack = if lack.is_empty() { lack } else { lack + &more };
        let mut rests_on = rests_on(case, next);
        rests_on.extend(lacking.into_iter().next().into_iter().flat_map(|(_, own)| own));
        let message = match next {
            Base::InForce(name) => format!(
                "without it VirtualService {name} is in force for these requests{}{lack}\n  Passes without a warning: this once {name} says the same.",
                moves(change, flow)
            ),
            Base::Plain(host) => format!(
                "without it no VirtualService routes {host}: its requests go to all ready pods alike{}{lack}\n  Passes without a warning: this once only pods that are to serve are ready, or once another VirtualService routes the host.",
                moves(change, flow)
            ),
            Base::Nothing | Base::Stored if case.object.spec.is_for_mesh() => {
                "without it nobody routes these requests: they are answered with 404, or not at all\n  Passes without a warning: this once another VirtualService routes them."
                    .to_owned()
            }
            Base::Nothing | Base::Stored => format!(
                "without it nobody routes these requests at {}: they get 404\n  Passes without a warning: this once another VirtualService routes them.",
                list(&case.object.spec.gateways)
            ),
        };
        report.lookup(Gravity::Full, flow.path(usize::MAX), message, rests_on);
    }
}

/// By heir: which of its shares nobody would answer, the greatest first, and what that rests on.
fn unanswered(case: &Case<'_>, change: &Change) -> BTreeMap<String, Vec<(String, Vec<Reference>)>> {
    let mut found: BTreeMap<String, Vec<(f64, String, Vec<Reference>)>> = BTreeMap::new();
    let mut takers = Takers::of(case);
    let is_multi_cluster = case.world.mesh().is_multi_cluster;
    for carried in case.carried() {
        if carried.flow.base != Base::Stored || !is_answered(change, carried.flow) {
            continue;
        }
        let to = change.destinations.get(carried.destination);
        let (why, rests_on) = match takers.lack(&carried, to) {
            Some(Lack::Subset(client)) => (
                format!("no DestinationRule in force defines subset {} of {}", to.subset, to.host),
                case.rests_on_rules(&to.host, &client),
            ),
            // What is not here another cluster may have.
            Some(Lack::Host) if !is_multi_cluster => {
                (format!("nobody has the host {}", to.host), case.rests_on_host(&to.host))
            }
            Some(Lack::Ready) if !is_multi_cluster => (
                format!("{} selects no ready endpoint", to.label()),
                endpoints(case, &to.host).into_iter().collect(),
            ),
            _ => continue,
        };
        let said = format!("{} would get 503: {why}", carried.said());
        let own = found.entry(format!("{:?}", carried.flow.next)).or_default();
        own.push((carried.share, said, rests_on));
    }
    let sorted = |mut all: Vec<(f64, String, Vec<Reference>)>| {
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        all.into_iter().map(|(_, said, rests_on)| (said, rests_on)).collect()
    };
    found.into_iter().map(|(heir, all)| (heir, sorted(all))).collect()
}

/// A deleted delegate is missed by those who name it.
fn leaves_roots(case: &Case<'_>, report: &mut Report<'_>) {
    if !case.object.spec.is_delegate() {
        return;
    }
    let roots = case.world.roots_of(&case.review.namespace, &case.review.name);
    let roots = roots.map(|root| format!("{}/{}", root.metadata.namespace, root.metadata.name));
    let roots = roots.collect::<Vec<_>>();
    if roots.is_empty() {
        return;
    }
    let verb = if roots.len() == 1 { "names" } else { "name" };
    let message = format!(
        "VirtualService {} still {verb} it as a delegate; Istio skips such a route and says nothing\n  Passes without a warning: this once no route there names it.",
        list(&roots)
    );
    report.warning(crate::istio::FieldPath::spec(), message);
}

/// `: reviews/v2 goes from 10 % to 50 %`, of the share that grows most.
fn moves(change: &Change, flow: &Flow) -> String {
    let rises = flow.movements.iter().filter(|moved| moved.rises());
    let most = rises.max_by(|a, b| a.rise().total_cmp(&b.rise()));
    most.map_or(String::new(), |moved| {
        let whose = if flow.condition.is_catch_all() { "" } else { " of those of one route" };
        format!(
            "; {} goes from {} to {}{whose}",
            change.destinations.get(moved.destination).label(),
            percent(moved.from),
            percent(moved.to)
        )
    })
}

fn rests_on(case: &Case<'_>, whose: &Base) -> Vec<Reference> {
    match whose {
        Base::InForce(name) => {
            let namespace = name.split('/').next().unwrap_or_default().to_owned();
            vec![Reference::VirtualServices { namespace }]
        }
        Base::Plain(host) => {
            let own = Reference::VirtualServices { namespace: case.review.namespace.clone() };
            std::iter::once(own).chain(endpoints(case, host)).collect()
        }
        Base::Nothing | Base::Stored => {
            vec![Reference::VirtualServices { namespace: case.review.namespace.clone() }]
        }
    }
}

/// The endpoints of a host that Kubernetes knows.
fn endpoints(case: &Case<'_>, host: &Host) -> Option<Reference> {
    let Some(HostKind::Service(service)) = case.world.host(host) else { return None };
    let (namespace, service) = (service.namespace.clone(), service.name.clone());
    Some(Reference::Endpoints { namespace, service })
}
