//! The core: what is asked, what is known, what is answered. Pure: no waiting, no clock, no files, no client.
//!
//! [`evaluate`] is the product. The webhook, the command line and the tests differ only in who fills its three arguments.

mod backend;
mod change;
mod connections;
mod delivery;
mod lookup;
mod names;
mod ownership;
mod parameters;
mod redefinition;
mod review;
mod rule;
mod salvage;
mod schema;
mod settings;
mod verdict;
pub mod words;

pub use backend::Backend;
pub use change::{
    Asked, Base, Carried, Change, Class, Clients, Destination, Destinations, Flow, Lack, Movement,
    Relabelled, Share, Shares, Side, Steps, Takers, Why, fractions,
};
pub use connections::Connections;
pub use delivery::{Delivery, Plan};
pub use lookup::{HostAsWritten, Hosts, Target};
pub use names::{Role, thing};
pub use ownership::Ownership;
pub use parameters::{Factor, Percentage};
pub use redefinition::{Redefinition, Selection, Shift, Use};
pub use review::{Operation, Review, Write};
pub use rule::{Case, Definition, Entry, Gravity, Message, Report, Rule, Stage};
pub use schema::schema;
pub use settings::{
    Controllers, DryRun, Mode, Policies, Policy, PolicyError, PolicyMatch, PolicySpec, Roles, Step,
};
pub use verdict::{Action, Basis, Finding, Reference, Verdict};

use hashbrown::{HashMap, HashSet};

use self::rule::{MOST_SAID, Reported, Tells};
use self::settings::ActiveRule;
use crate::istio::{DestinationRule, VirtualService};
use crate::world::{Kind, World};

/// The kinds that tell what a destination is and who is stable, whichever rules are in force.
const EVIDENCE: [Kind; 15] = [
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::ServiceEntry,
    Kind::WorkloadEntry,
    Kind::Sidecar,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Pod,
    Kind::Waypoint,
    Kind::Deployment,
    Kind::ReplicaSet,
    Kind::StatefulSet,
    Kind::DaemonSet,
    Kind::Canary,
    Kind::Rollout,
];

/// Judges one write; the first step that applies decides.
///
/// Rollbacks come before everything that could be missing or broken: a lowering passes with an empty world, a stale one, or
/// none at all.
pub fn evaluate(policy: &Policy, review: &Review, world: &World) -> Verdict {
    let mut verdict = decide(policy, review, world);
    let downgrade = match policy.spec().mode {
        Mode::Enforce => return verdict,
        Mode::Warn => Action::Warn,
        Mode::Audit => Action::Audit,
    };
    verdict.would_deny = verdict.findings.iter().any(|finding| finding.action == Action::Deny);
    for finding in &mut verdict.findings {
        finding.action = finding.action.max(downgrade);
    }
    verdict
}

fn decide(policy: &Policy, review: &Review, world: &World) -> Verdict {
    if review.is_housekeeping() {
        return Verdict::allow(Basis::NotJudged);
    }
    let is_read = world.is_discovered(&review.namespace) != Some(false);
    let across = review.across_revisions(&world.mesh().revision).filter(|_| is_read);
    let controllers = &policy.spec().controllers;
    let ownership = Ownership::of(review, controllers, world);
    let drivers = match ownership {
        None => Ownership::rests_on(review, controllers),
        Some(_) => Vec::new(),
    };
    let judged =
        |review| confirming(decide_write(policy, review, ownership, world), &drivers, world);
    let Some((seen, why)) = across else { return judged(review) };
    let mut verdict = judged(&seen);
    for finding in &mut verdict.findings {
        // What would pass stays the last line.
        let end_of_first = finding.message.find('\n').unwrap_or(finding.message.len());
        finding.message.insert_str(end_of_first, &format!("\n  {why}"));
    }
    verdict
}

/// Where labels decide what istiod reads, they are read again, too, before anybody is refused; and `drivers`, before a controller
/// is refused what may be its own.
fn confirming(mut verdict: Verdict, drivers: &[Reference], world: &World) -> Verdict {
    if verdict.basis == Basis::Broken || world.is_blank() {
        return verdict;
    }
    let has_selectors = !world.mesh().discovery_selectors.is_empty();
    let namespaces = has_selectors.then_some(Reference::Namespaces);
    for finding in &mut verdict.findings {
        finding.rests_on.extend(drivers.iter().cloned().chain(namespaces.clone()));
    }
    verdict
}

/// The kinds that have to be seen before anything can be said about traffic. Labels of namespaces count only where there is a
/// waypoint, and where istiod does not read all namespaces; then those of this one must have been seen.
fn missing(review: &Review, world: &World) -> Vec<Kind> {
    let mut missing = EVIDENCE.into_iter().filter(|&kind| !world.knows(kind)).collect::<Vec<_>>();
    let is_known = world.knows(Kind::Namespace) && world.is_discovered(&review.namespace).is_some();
    let counts = !world.mesh().discovery_selectors.is_empty() || world.has_waypoints();
    if counts && !world.is_blank() && !is_known {
        missing.push(Kind::Namespace);
    }
    missing
}

fn decide_write(
    policy: &Policy,
    review: &Review,
    ownership: Option<Ownership<'_>>,
    world: &World,
) -> Verdict {
    let judge = Judge { policy, review, world, users: &[], ownership };
    match &review.operation {
        Operation::VirtualService(write) if write.is_unchanged() => {
            Verdict::allow(Basis::Unchanged)
        }
        Operation::DestinationRule(write) if write.is_unchanged() => {
            Verdict::allow(Basis::Unchanged)
        }
        Operation::VirtualService(_) | Operation::DestinationRule(_)
            if world.is_discovered(&review.namespace) == Some(false) =>
        {
            decide_unread(&judge)
        }
        Operation::VirtualService(write) => match write.written() {
            Some(new) => decide_routes(&judge, new),
            None => decide_removal(&judge),
        },
        Operation::DestinationRule(write) => decide_definition(&judge, write),
        Operation::Canary(_) | Operation::Rollout(_) => delivery::decide(policy, review, world),
        Operation::Unreadable { kind: Kind::VirtualService, path, reason } => {
            unreadable(policy, path, reason)
        }
        // Only a server without Istio's CRDs stores such a DestinationRule, and nobody reads it there.
        Operation::Unreadable { .. } | Operation::NotOurs => Verdict::allow(Basis::NotJudged),
    }
}

/// A write that istiod does not read: it moves nothing, whatever it says. Only what would end istiod on the day on which the
/// namespace gets other labels is refused.
fn decide_unread(judge: &Judge<'_>) -> Verdict {
    let Judge { policy, review, world, .. } = *judge;
    if review.verb() == "DELETE" {
        return Verdict::allow(Basis::Unread);
    }
    if let Some(new) = review.object() {
        let findings = judge.text(new, None, Stage::Broken);
        if findings.iter().any(|finding| finding.action == Action::Deny) {
            return Verdict::of(Basis::Broken, findings);
        }
    }
    let mut found = Vec::new();
    for rule in policy.asked(Stage::Unread) {
        let mut report = Report::new(rule.entry.id, rule.action, Tells::First, &mut found);
        rule.check.check_unread(review, world, &mut report);
    }
    Verdict::of(Basis::Unread, found.into_iter().map(|reported| reported.finding).collect())
}

/// A VirtualService that is to be stored.
fn decide_routes(judge: &Judge<'_>, new: &VirtualService) -> Verdict {
    let Judge { policy, review, world, ownership, .. } = *judge;
    let driver = ownership.map(|ownership| ownership.driver);
    let users = change::users(new, &review.namespace, world);
    let judge = Judge { users: &users, ..*judge };
    let mut findings = judge.text(new, None, Stage::Broken);
    if findings.iter().any(|finding| finding.action == Action::Deny) {
        findings.extend(judge.text(new, None, Stage::Text));
        return Verdict::of(Basis::Broken, findings);
    }
    let missing = missing(review, world);
    let is_blind = !missing.is_empty();
    let Some(change) = Change::of(review, &users, driver, policy.spec(), world, is_blind) else {
        return Verdict::allow(Basis::NotJudged);
    };
    findings.extend(judge.text(new, Some(&change), Stage::Text));
    if !is_blind {
        findings.extend(judge.traffic(new, &change, Stage::Load));
    }
    if !change.moves() {
        if judge.is_drivers() {
            soften(&mut findings);
        }
        return Verdict::of(Basis::Text, findings);
    }
    let harmless = change.is_harmless();
    // What it belongs to is written in the stored object; that it is there is not known yet.
    let is_unlisted = ownership.is_none() && !world.knows(Kind::Canary);
    let is_drivers = judge.is_drivers()
        || (is_unlisted && Ownership::is_flaggers(review, &policy.spec().controllers));
    if is_blind && !harmless && !is_drivers {
        return Verdict::undecided(missing);
    }
    if !is_blind {
        findings.extend(judge.traffic(new, &change, Stage::Traffic));
        if review.old_object().is_none() {
            findings.extend(judge.traffic(new, &change, Stage::Presence));
        }
    }
    if harmless || is_drivers {
        soften(&mut findings);
        let basis = match harmless {
            false => Basis::Driver,
            true if change.is_evacuation() => Basis::Evacuation,
            true => Basis::Lowering,
        };
        return Verdict::of(basis, findings);
    }
    Verdict::of(Basis::Rules, findings)
}

/// A VirtualService that goes away.
fn decide_removal(judge: &Judge<'_>) -> Verdict {
    let Judge { policy, review, world, .. } = *judge;
    let Some(old) = review.old_object().filter(|_| !world.is_blank()) else {
        return Verdict::allow(Basis::NotJudged);
    };
    let missing = missing(review, world);
    let is_blind = !missing.is_empty();
    let users = change::users(old, &review.namespace, world);
    let driver = judge.ownership.map(|ownership| ownership.driver);
    let Some(change) = Change::of(review, &users, driver, policy.spec(), world, is_blind) else {
        return Verdict::allow(Basis::NotJudged);
    };
    if is_blind {
        // Only where a policy wants deletions refused is there anything to wait for.
        let waits = policy
            .rules
            .iter()
            .any(|rule| rule.entry.stage == Stage::Presence && rule.action == Action::Deny);
        return if waits { Verdict::undecided(missing) } else { Verdict::allow(Basis::Blind) };
    }
    let judge = Judge { users: &users, ..*judge };
    let mut findings = judge.traffic(old, &change, Stage::Presence);
    if !change.moves() || change.is_harmless() || judge.is_drivers() {
        soften(&mut findings);
    }
    Verdict::of(Basis::Rules, findings)
}

/// A DestinationRule that comes, changes or goes.
fn decide_definition(judge: &Judge<'_>, write: &Write<DestinationRule>) -> Verdict {
    let Judge { policy, review, world, .. } = *judge;
    if world.is_blank() {
        return Verdict::allow(Basis::Text);
    }
    let is_drivers =
        judge.is_drivers() || Ownership::is_clearing_up(review, &policy.spec().controllers);
    let missing = missing(review, world);
    if !missing.is_empty() {
        let adds = write.stored().zip(write.written()).is_some_and(|(old, new)| new.keeps(old));
        return match (adds, is_drivers) {
            (true, _) => Verdict::allow(Basis::Text),
            (false, true) => Verdict::allow(Basis::Driver),
            (false, false) => Verdict::undecided(missing),
        };
    }
    let (namespace, name) = (review.namespace.as_str(), review.name.as_str());
    // What the API server says is stored now counts, also where the watch has not brought it yet.
    let before = world.with_destination_rule(write.stored(), namespace, name);
    let after = world.with_destination_rule(write.written(), namespace, name);
    let redefinition = Redefinition::of(
        review,
        (write.stored(), write.written()),
        (before.rules(), after.rules()),
        policy,
        world,
    );
    let case = Definition { review, redefinition: &redefinition, world, policy };
    let mut found = Vec::new();
    for rule in policy.asked(Stage::Definition) {
        rule.check.check_definition(
            &case,
            &mut Report::new(rule.entry.id, rule.action, Tells::First, &mut found),
        );
    }
    let findings = found.into_iter().map(|reported| reported.finding);
    let mut findings = findings.collect::<Vec<_>>();
    if is_drivers {
        soften(&mut findings);
        return Verdict::of(Basis::Driver, findings);
    }
    Verdict::of(Basis::Rules, findings)
}

/// Nobody is refused because of these.
fn soften(findings: &mut [Finding]) {
    for finding in findings {
        finding.action = finding.action.max(Action::Warn);
    }
}

/// What the CRD's schema would refuse is broken for everyone.
fn unreadable(policy: &Policy, path: &crate::istio::FieldPath, reason: &str) -> Verdict {
    let rule = policy
        .rules
        .iter()
        .find(|rule| rule.entry.stage == Stage::Broken)
        .map_or("structure", |rule| rule.entry.id);
    let message = format!(
        "{reason}; no API server with Istio's CRDs stores this\n  Passes: the same object with this field in the shape that `kubectl explain virtualservice.{path}` shows.",
        path = path.as_str().split('[').next().unwrap_or_default()
    );
    let finding =
        Finding { rule, action: Action::Deny, path: path.clone(), message, rests_on: Vec::new() };
    Verdict::of(Basis::Broken, vec![finding])
}

/// Asks the rules of one policy about one review.
#[derive(Clone, Copy)]
struct Judge<'a> {
    policy: &'a Policy,
    review: &'a Review,
    world: &'a World,
    /// Those who use the object that is judged.
    users: &'a [Clients<'a>],
    ownership: Option<Ownership<'a>>,
}

impl Judge<'_> {
    /// Whether the delivery controller writes that drives the object.
    fn is_drivers(&self) -> bool {
        self.ownership.is_some_and(|ownership| ownership.is_own)
    }

    /// The findings of the rules that read only text. What the stored object had already, and this write does not make worse,
    /// is a warning. `change` decides nothing there: it tells which of the writes that would pass also pass elsewhere.
    fn text(&self, new: &VirtualService, change: Option<&Change>, stage: Stage) -> Vec<Finding> {
        let mut found = self.ask(&self.case(new, change), stage, Tells::First);
        if let Some(old) = self.review.old_object().filter(|_| !found.is_empty()) {
            let rules = found.iter().map(|own| own.finding.rule).collect();
            let former = change::users(old, &self.review.namespace, self.world);
            let before = Case { clients: &former, ..self.case(old, None) };
            let before = self.ask(&before, stage, Tells::Nothing(&rules));
            excuse(&mut found, before);
        }
        let more = told(&mut found);
        let untold = found.iter().filter(|own| !own.is_told);
        let untold = untold.map(|own| (own.finding.rule, own.number)).collect::<HashSet<_>>();
        if !untold.is_empty() {
            let told = self.ask(&self.case(new, change), stage, Tells::These(&untold));
            let told = told.into_iter().map(|own| ((own.finding.rule, own.number), own.finding));
            let mut told = told.collect::<HashMap<_, _>>();
            for own in found.iter_mut().filter(|own| !own.is_told) {
                let finding = told.remove(&(own.finding.rule, own.number));
                let said = std::mem::take(&mut own.finding.message);
                own.finding.message = finding.map_or_else(String::new, |own| own.message) + &said;
            }
        }
        for (at, more) in more {
            found[at].finding.counts(more);
        }
        found.into_iter().map(|reported| reported.finding).collect()
    }

    /// The findings of the rules that are asked with the change at hand.
    fn traffic(&self, object: &VirtualService, change: &Change, stage: Stage) -> Vec<Finding> {
        let case = self.case(object, Some(change));
        let carried = if stage == Stage::Load { Vec::new() } else { case.find_carried() };
        let case = Case { carried: &carried, ..case };
        let found = self.ask(&case, stage, Tells::First);
        found.into_iter().map(|reported| reported.finding).collect()
    }

    fn case<'b>(&'b self, object: &'b VirtualService, change: Option<&'b Change>) -> Case<'b> {
        let Self { review, policy, world, users, ownership } = *self;
        Case { review, object, change, clients: users, ownership, carried: &[], world, policy }
    }

    fn ask(&self, case: &Case<'_>, stage: Stage, tells: Tells<'_>) -> Vec<Reported> {
        let mut found = Vec::new();
        // A rule that reads text may have something to say without looking anything up, and asks by itself.
        let can_look = |rule: &ActiveRule| {
            stage <= Stage::Text || rule.entry.reads.is_empty() || !self.world.is_blank()
        };
        let asked = self.policy.asked(stage).filter(|rule| tells.asks(rule.entry.id));
        for rule in asked.filter(|rule| can_look(rule)) {
            let mut report = Report::new(rule.entry.id, rule.action, tells, &mut found);
            rule.check.check(case, &mut report);
            report.finish();
        }
        found
    }
}

/// Takes back what the stored object had already: a violation becomes a warning, advice is not given again.
fn excuse(found: &mut Vec<Reported>, before: Vec<Reported>) {
    let mut excuses: HashMap<(&str, u64), Vec<f64>> = HashMap::new();
    for Reported { finding, key, severity, .. } in before {
        excuses.entry((finding.rule, key)).or_default().push(severity);
    }
    found.retain_mut(|reported| {
        let key = (reported.finding.rule, reported.key);
        let Some(excuses) = excuses.get_mut(&key) else { return true };
        let excused = excuses.iter().position(|&old| old >= reported.severity - 1e-9);
        // Each old violation excuses one of the new object: a second one of its kind is new.
        if let Some(at) = excused {
            excuses.swap_remove(at);
            if reported.is_advice {
                return false;
            }
            reported.finding.action = reported.finding.action.max(Action::Warn);
            reported.finding.message.push_str("\n  It was so before this write.");
        }
        true
    });
}

/// Keeps those that are told of each rule, refusals and others; says of the last one of each how many more there were.
fn told(found: &mut Vec<Reported>) -> Vec<(usize, usize)> {
    let mut counts: HashMap<(&str, bool), (usize, usize)> = HashMap::new();
    let mut kept = 0;
    found.retain(|own| {
        let kind = (own.finding.rule, own.finding.action == Action::Deny);
        let (count, last) = counts.entry(kind).or_default();
        *count += 1;
        let is_kept = *count <= MOST_SAID;
        if is_kept {
            *last = kept;
            kept += 1;
        }
        is_kept
    });
    let more = counts.into_values().map(|(count, last)| (last, count.saturating_sub(MOST_SAID)));
    more.collect()
}
