use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{Arrival, FieldPath, Protocol, Reach, VirtualService};
use crate::policy::words::{list, number, percent};
use crate::policy::{
    Action, Base, Case, Change, Class, Flow, Movement, Reference, Report, Rule, Share, Side, Stage,
    Step,
};
use crate::world::{HostKind, Memory};

/// A canary gets more traffic in small steps.
///
/// Reads: the shares of every route, old and new. Looks up the DestinationRules, the ready endpoints, and the age of
/// the workloads and their ReplicaSets.
///
/// Compares who served each kind of requests before the write and who serves them after it. A canary, and all canaries of a
/// route together, may rise by `step.max` points in one write (50 unless the policy says otherwise), may start with
/// `step.initial` at the most, and go from rung to rung where the policy has a `step.ladder`.
///
/// Weights that look swapped (`v1: 1, v2: 99` for `v1: 99, v2: 1`) are named as such.
///
/// Never refused: the stable side taking traffic back, whatever the size of the step; traffic that leaves a side without a
/// ready endpoint for one that has some; routes that only clients with a certain header, cookie, query parameter or label
/// take; a new route to something that is no version of what served the requests; a rise of which nobody can say whether it
/// is a rollback.
///
/// Which side is stable: the policy's `roles`; the Rollout or the Canary that drives the VirtualService, or whose hashes the
/// subsets select; names that say so (primary, stable, canary, preview); then who carried most of these requests before, with the
/// images of then: the way back to them is no step, and what runs other images since is a new version; then how long the workloads and their ReplicaSets have been there, the order of versions
/// (v1 before v2), the age of two Services of which one lost its workload, and who carried more.
///
/// Why: a canary shows its faults to those who meet it; in small steps these are few, and there is time to look.
///
/// Refused: `v1: 100` to `v1: 1, v2: 99`, the classic slip.
///
/// Passes: `v1: 90, v2: 10`; then `v1: 50, v2: 50`; then `v2: 100`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct CanaryStep {}

/// Floating point leaves this much over, in points.
const TOLERANCE: f64 = 1e-6;

/// So many findings of a kind are said in words; nobody reads more of them.
const MOST_SAID: usize = 64;

const PARTIAL: &str = "there is more here than is compared in one write: where routes or destinations overlap, or the smallest of the shares, was left out\n  Fewer routes or destinations in one VirtualService are compared as a whole.";

impl Rule for CanaryStep {
    const ID: &'static str = "canary-step";
    const ACTION: Action = Action::Deny;
    const STAGE: Stage = Stage::Traffic;

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let Some(change) = case.change else { return };
        let steps = change.steps(&case.policy.spec().step);
        if change.is_partial {
            report.warning(FieldPath::spec(), PARTIAL.to_owned());
        }
        for (flow, moved) in steps.too_far.into_iter().take(MOST_SAID) {
            let message = refusal(case, change, flow, moved);
            report.shift(flow.path(moved.destination), message, rests_on(case, change, flow));
        }
        for flow in steps.together.into_iter().take(MOST_SAID) {
            let Some(after) = &flow.after else { continue };
            let path = match after.is_own {
                true => flow.protocol.path(after.route).field("route"),
                false => flow.path(usize::MAX),
            };
            let message = together_refusal(case, change, flow);
            report.shift(path, message, rests_on(case, change, flow));
        }
        for (flow, moved) in steps.notes.into_iter().take(MOST_SAID) {
            report.warning(flow.path(moved.destination), note(change, flow, moved));
        }
    }
}

/// A step is refused only while somebody answers on the side that loses: were that side dead, the write would be the way out.
/// And the VirtualService that a new one is compared with must be there still, and a new version must be one.
fn rests_on(case: &Case<'_>, change: &Change, flow: &Flow) -> Vec<Reference> {
    /// Further ones carry too little to keep a dead route alive.
    const MOST: usize = 2;
    let Some(before) = &flow.before else { return Vec::new() };
    let mut carrying = before.shares.carrying().collect::<Vec<_>>();
    carrying.sort_by(|a, b| b.fraction.total_cmp(&a.fraction));
    let mut found = Vec::new();
    if let Base::InForce(name) = &flow.base
        && let Some((namespace, _)) = name.split_once('/')
    {
        found.push(Reference::VirtualServices { namespace: namespace.to_owned() });
    }
    let is_another = |moved: &&Movement| matches!(moved.memory, Some(Memory::WasAnother { .. }));
    if let Some(moved) = flow.movements.iter().find(is_another)
        && let Some((_, namespace)) =
            change.destinations.get(moved.destination).host.service(&case.world.mesh().domain)
    {
        found.push(Reference::Deployments { namespace: namespace.to_owned() });
    }
    let most = found.len() + MOST;
    for share in carrying {
        let host = &change.destinations.get(share.destination).host;
        let Some(HostKind::Service(service)) = case.world.host(host) else { continue };
        let (namespace, service) = (service.namespace.clone(), service.name.clone());
        // Those of one namespace are read together; another one would cost more reads than a review has.
        let is_elsewhere = |own: &Reference| matches!(own, Reference::Endpoints { namespace: at, .. } if *at != namespace);
        if found.iter().any(is_elsewhere) {
            continue;
        }
        let reference = Reference::Endpoints { namespace, service };
        if !found.contains(&reference) && found.len() < most {
            found.push(reference);
        }
    }
    found
}

fn refusal(case: &Case<'_>, change: &Change, flow: &Flow, moved: &Movement) -> String {
    let destination = change.destinations.get(moved.destination);
    let step = &case.policy.spec().step;
    let (from, to) = (percent(moved.from), percent(moved.to));
    let mut message = format!(
        "{} would go from {from} to {to} in one write; {}",
        destination.label(),
        case.policy.limit_in_words(moved.from * 100.0)
    );
    if let Some(origin) = origin(flow) {
        message.push_str(&format!("\n  {origin}"));
    }
    if let Some(Memory::WasAnother { until, then, now }) = &moved.memory {
        let until = until.map_or_else(|| "before".to_owned(), |until| format!("until {until}"));
        message.push_str(&format!(
            "\n  It carried most of these requests {until} as {then}; now it is {now}: a new version, and no way back."
        ));
    }
    let Some(after) = &flow.after else { return message };
    if !after.is_own {
        message.push_str(&format!("\n  {}", heir(case, change, flow, moved)));
        return message;
    }
    if let Some(swapped) = swapped(change, case, flow, moved) {
        message.push_str(&format!("\n  {swapped}"));
    }
    let route = &case.object.spec.routes(flow.protocol)[after.route];
    // Of another sum only the policy knows whether it is meant.
    let total = if route.route.len() < 2 { 100 } else { route.total_weight() };
    let reached = reached_through_others(after, moved);
    let alone = (step.limit(moved.from * 100.0) / 100.0 - reached) / (1.0 - reached);
    let most = alone.min(room_beside_others(step, flow, moved)).clamp(0.0, 1.0);
    let weight = match total == 100 {
        true => number((most * 100.0 + TOLERANCE).floor()),
        false => format!("{} % of the weights", number((most * 1000.0 + TOLERANCE).floor() / 10.0)),
    };
    let nothing = most * 100.0 < if total == 100 { 1.0 - TOLERANCE } else { 0.1 };
    let name = destination.short_name();
    // What is missing is another rule's finding; nobody shall read here that half of the requests may go there today.
    let once = if destination.is_missing { ", once it is there" } else { "" };
    let without = without_hidden(case, flow.protocol);
    if reached > TOLERANCE {
        message.push_str(&format!(
            "\n  {} of what goes to the other destinations reaches {name}, too: they select its endpoints as well.",
            percent(reached)
        ));
    }
    let is_driven = case.ownership.is_some_and(|ownership| !ownership.is_own);
    message.push_str(&match step.ladder.is_empty() {
        // Any rise by hand would be another rule's finding.
        _ if is_driven && flow.base == Base::Stored => format!(
            "\n  Passes now: {name} at {from} or less; to raise it is for the controller that drives it."
        ),
        _ if nothing => format!("\n  Passes now: a subset without the pods of {name} for the rest; then {name} may start."),
        true if flow.falls => {
            format!("\n  Passes now: a route of their own for these requests, with {name} up to {weight}{once}{without}.")
        }
        true => format!("\n  Passes now: {name} up to {weight}{once}{without}."),
        false => format!("\n  Passes now: {} for {name}, the next rung{without}.", percent(most)),
    });
    message
}

/// Who serves the requests from now on, where it is not the object under review, and what to do first.
fn heir(case: &Case<'_>, change: &Change, flow: &Flow, moved: &Movement) -> String {
    let name = change.destinations.get(moved.destination).short_name();
    let most = (case.policy.spec().step.limit(moved.from * 100.0)).min(100.0);
    let share = percent(most / 100.0);
    match (&flow.next, flow.gone) {
        (Base::InForce(heir), Some(field)) => format!(
            "Without it in {field}, VirtualService {heir} would serve these requests.\n  Passes now: {name} up to {share} in both first, then this."
        ),
        (Base::InForce(heir), None) => format!(
            "The routes of VirtualService {heir} would serve these requests.\n  Passes now: weights there that give {name} up to {share} first, then this."
        ),
        (Base::Plain(host), _) => format!(
            "Nothing here would route them any more: they would go to all ready endpoints of {host} alike.\n  Passes now: {name} up to {share} by weights here first, or fewer of its pods."
        ),
        _ => format!("Passes now: {name} up to {share}."),
    }
}

/// What is left for one canary of what all canaries of the route may have together, the others as written.
fn room_beside_others(step: &Step, flow: &Flow, moved: &Movement) -> f64 {
    let canaries = flow.movements.iter().filter(|own| own.rises() && own.class == Class::Canary);
    let (from, others) = canaries.fold((0.0, 0.0), |(from, others), own| {
        let is_other = own.destination != moved.destination;
        (from + own.from, others + if is_other { own.to } else { 0.0 })
    });
    from + step.max() / 100.0 - others
}

/// The part of the other destinations' requests that reaches the canary by overlapping with it.
fn reached_through_others(after: &Side, moved: &Movement) -> f64 {
    let own = after.share(moved.destination);
    if own >= 1.0 - TOLERANCE {
        0.0
    } else {
        ((moved.to - own) / (1.0 - own)).clamp(0.0, 1.0 - TOLERANCE)
    }
}

fn together_refusal(case: &Case<'_>, change: &Change, flow: &Flow) -> String {
    let (from, to) = flow.canaries();
    let canaries =
        flow.movements.iter().filter(|moved| moved.rises() && moved.class == Class::Canary);
    let canaries =
        canaries.map(|moved| change.destinations.get(moved.destination)).collect::<Vec<_>>();
    let labels =
        list(&canaries.iter().map(|canary| canary.label().into_owned()).collect::<Vec<_>>());
    let names =
        list(&canaries.iter().map(|canary| canary.short_name().to_owned()).collect::<Vec<_>>());
    let most = (from * 100.0 + case.policy.spec().step.max()).min(100.0);
    format!(
        "{labels} together would go from {} to {} in one write; {}\n  Passes now: {names} up to {} together{}.",
        percent(from),
        percent(to),
        case.policy.limit_in_words(from * 100.0),
        number(most.floor()),
        without_hidden(case, flow.protocol)
    )
}

/// What else has to go from a list so that all of it passes: routes that this write adds behind others which take their requests.
fn without_hidden(case: &Case<'_>, protocol: Protocol) -> String {
    let hidden = |object: &VirtualService| {
        let routes = object.spec.routes(protocol);
        let arrival = Arrival::anywhere(&object.spec, &case.review.namespace).of_protocol(protocol);
        let reach = Reach::of(routes, protocol, &arrival);
        let is_refused = |index: &usize| {
            reach.hidden_by(*index).is_some_and(|by| {
                by.is_plain && routes[by.route].targets() != routes[*index].targets()
            })
        };
        let refused = (0..routes.len()).filter(is_refused);
        refused.map(|index| (index, format!("{:?}", routes[index].targets()))).collect::<Vec<_>>()
    };
    let before = case.review.old_object().map(hidden).unwrap_or_default();
    let mut new = hidden(case.object);
    new.retain(|(_, own)| !before.iter().any(|(_, old)| old == own));
    let paths = new.iter().map(|(index, _)| protocol.path(*index).to_string()).collect::<Vec<_>>();
    match paths.is_empty() {
        true => String::new(),
        false => format!(", without {}, which nothing reaches", list(&paths)),
    }
}

/// Who served the requests, where the old object does not show it at the same place.
fn origin(flow: &Flow) -> Option<String> {
    let (before, after) = (flow.before.as_ref()?, flow.after.as_ref()?);
    match &flow.base {
        Base::Plain(host) => Some(format!(
            "No VirtualService routes {host} now: its requests go to all ready endpoints alike."
        )),
        Base::InForce(name) => Some(format!("VirtualService {name} routes these requests now.")),
        Base::Stored if before.route != after.route || !flow.existed => {
            let was = flow.protocol.path(before.route);
            let what = if flow.condition.is_catch_all() {
                "All requests without a route of their own"
            } else {
                "These requests"
            };
            Some(format!("{what} are served by {was} of the stored object now."))
        }
        _ => None,
    }
}

/// The classic slip: the right weights at the wrong destinations.
fn swapped(change: &Change, case: &Case<'_>, flow: &Flow, moved: &Movement) -> Option<String> {
    let (before, after) = (flow.before.as_ref()?, flow.after.as_ref()?);
    let carrying =
        after.shares.iter().filter(|share| share.fraction > 0.0).collect::<Vec<&Share>>();
    let [first, second] = carrying.as_slice() else { return None };
    let (own, other) =
        if first.destination == moved.destination { (first, second) } else { (second, first) };
    let step = &case.policy.spec().step;
    let meant = other.fraction * 100.0;
    let plausible = own.destination == moved.destination
        && before.share(other.destination) > moved.from
        && own.fraction >= 0.75
        && meant >= moved.from * 100.0 - TOLERANCE
        && meant <= step.limit(moved.from * 100.0).max(moved.from * 100.0) + TOLERANCE
        && step.is_rung(meant);
    if !plausible {
        return None;
    }
    let route = &case.object.spec.routes(flow.protocol)[after.route].route;
    let weight = |share: &Share| route[share.entry].effective_weight();
    let (canary, stable) =
        (change.destinations.get(own.destination), change.destinations.get(other.destination));
    let (canary, stable) = (canary.short_name(), stable.short_name());
    let total = case.object.spec.routes(flow.protocol)[after.route].total_weight();
    let meant = match total == 100 {
        true => format!("{stable}: {}, {canary}: {}", weight(own), weight(other)),
        false => "them the other way round".to_owned(),
    };
    Some(format!(
        "The weights look swapped: {stable} carries {} now and would keep {}. Did you mean {meant}?",
        percent(before.share(other.destination)),
        percent(other.fraction),
    ))
}

fn note(change: &Change, flow: &Flow, moved: &Movement) -> String {
    let destination = change.destinations.get(moved.destination);
    let goes = format!(
        "{} goes from {} to {}",
        destination.label(),
        percent(moved.from),
        percent(moved.to)
    );
    match moved.class {
        Class::Evacuation => {
            /// More are only counted.
            const MOST_NAMED: usize = 5;
            let left = flow.before.iter().flat_map(|before| before.shares.carrying());
            let left = left.filter(|share| share.destination != moved.destination);
            let count = left.clone().count();
            if count > MOST_NAMED {
                return format!(
                    "{goes}: taken as an evacuation, because none of the {count} destinations that served has a ready endpoint"
                );
            }
            let label =
                |share: &Share| change.destinations.get(share.destination).label().into_owned();
            let left = left.map(label).collect::<Vec<_>>();
            format!("{goes}: taken as an evacuation, because {} has no ready endpoint", list(&left))
        }
        Class::Rollback => {
            let why = match &moved.memory {
                Some(Memory::WasStable(Some(until))) => {
                    format!("it carried most of these requests until {until}")
                }
                Some(_) => "it carried most of these requests before".to_owned(),
                None => "it was there before what it takes over from".to_owned(),
            };
            format!("{goes}: taken as a rollback, because {why}")
        }
        _ => format!(
            "{goes}: admitted, because nothing tells whether this is a rollback; `roles` in the policy would"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_follows_max_initial_and_ladder() {
        let step = |max, initial, ladder: &[f64]| Step { max, initial, ladder: ladder.to_vec() };
        for (step, from, want) in [
            (step(None, None, &[]), 0.0, 50.0),
            (step(None, None, &[]), 60.0, 100.0),
            (step(Some(20.0), Some(5.0), &[]), 0.0, 5.0),
            (step(Some(20.0), Some(5.0), &[]), 5.0, 25.0),
            (step(None, None, &[1.0, 10.0, 50.0, 100.0]), 1.0, 10.0),
            (step(None, None, &[1.0, 100.0]), 1.0, 100.0),
        ] {
            assert_eq!(step.limit(from), want, "{step:?} from {from}");
        }
    }
}
