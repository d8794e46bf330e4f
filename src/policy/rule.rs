//! What a rule implements, what it is given, and how it reports.

use std::hash::{BuildHasher, Hash};

use foldhash::quality::FixedState;
use hashbrown::HashSet;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::change::{Carried, Change, Clients};
use super::delivery::Delivery;
use super::ownership::Ownership;
use super::redefinition::Redefinition;
use super::review::Review;
use super::schema::self_contained;
use super::settings::Policy;
use super::verdict::{Action, Finding, Reference};
use crate::istio::{FieldPath, VirtualService};
use crate::world::{Kind, World};

/// One check. Its fields are its parameters, its `Default` is how it ships, its doc comment is its manual.
///
/// A rule only looks: it cannot fail, wait, log, read a clock, or panic on hostile numbers.
pub trait Rule: Default + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// Kebab-case, the same on every surface; never used again after the rule is gone.
    const ID: &'static str;
    /// What it does unless the policy says otherwise.
    const ACTION: Action;
    /// When it is asked.
    const STAGE: Stage;
    /// The kinds that it looks up.
    const READS: &'static [Kind] = &[];

    /// Reports what is wrong with `case.object`, a VirtualService.
    fn check(&self, _case: &Case<'_>, _report: &mut Report<'_>) {}

    /// Reports what is wrong with a write of a DestinationRule; asked of [`Stage::Definition`] only.
    fn check_definition(&self, _case: &Definition<'_>, _report: &mut Report<'_>) {}

    /// Says what a write means that istiod does not read; asked of [`Stage::Unread`] only.
    fn check_unread(&self, _review: &Review, _world: &World, _report: &mut Report<'_>) {}

    /// Reports what is wrong with a write of a Canary or a Rollout; asked of [`Stage::Delivery`] only.
    fn check_delivery(&self, _case: &Delivery<'_>, _report: &mut Report<'_>) {}
}

/// When a rule is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// First, for everybody, and no policy turns it off: what it finds is broken for everyone.
    Broken,
    /// It reads only what is written.
    Text,
    /// It compares traffic before and after, and looks things up.
    Traffic,
    /// It compares load before and after, that of mirrors included: asked also where no share moves, for a copy of the requests
    /// is load and no share.
    Load,
    /// It says which VirtualService is in force from now on, where one comes or goes.
    Presence,
    /// It judges DestinationRules by those who send requests to their subsets.
    Definition,
    /// It speaks of a VirtualService or DestinationRule that istiod does not read, and then it alone is asked.
    Unread,
    /// It judges Canaries and Rollouts: how a release would go.
    Delivery,
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The write.
    pub review: &'a Review,
    /// The object to judge: the new one; the stored one when the ratchet asks what was wrong before, and where it goes away.
    pub object: &'a VirtualService,
    /// How the write moves traffic; `None` for the stored object, and where what is written is broken for everyone.
    pub change: Option<&'a Change>,
    /// Those who use the object: where it is a delegate, one group for each of its roots.
    pub clients: &'a [Clients<'a>],
    /// The delivery controller that writes the object; `None` where nobody is known to.
    pub ownership: Option<Ownership<'a>>,
    /// See [`Self::carried`].
    pub(super) carried: &'a [Carried<'a>],
    /// What the cluster holds.
    pub world: &'a World,
    /// The policy in force.
    pub policy: &'a Policy,
}

/// What a rule for DestinationRules looks at.
#[derive(Debug, Clone, Copy)]
pub struct Definition<'a> {
    /// The write.
    pub review: &'a Review,
    /// What it does to those who use the subsets.
    pub redefinition: &'a Redefinition<'a>,
    /// What the cluster holds.
    pub world: &'a World,
    /// The policy in force.
    pub policy: &'a Policy,
}

/// Where a rule says what it found.
#[derive(Debug)]
pub struct Report<'a> {
    rule: &'static str,
    action: Action,
    found: &'a mut Vec<Reported>,
    /// Where in `found` the rule's own findings begin.
    first: usize,
    tells: Tells<'a>,
    /// Refusals and other findings so far, and how many more of each there was no room for.
    counts: [Count; 2],
}

/// How many findings one rule tells of each kind: an object of a hundred thousand destinations with the same mistake is told
/// what is wrong, not a hundred thousand times.
pub(super) const MOST_SAID: usize = 64;

/// Which findings in the text are told. Their messages cost more than to find them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tells<'a> {
    /// The first ones of each rule.
    First,
    /// None, and only these rules are asked: what the ratchet compares.
    Nothing(&'a HashSet<&'static str>),
    /// These: a rule, and a number in the order in which it reports.
    These(&'a HashSet<(&'static str, usize)>),
}

impl Tells<'_> {
    /// Whether a rule is asked at all.
    pub(super) fn asks(self, rule: &'static str) -> bool {
        match self {
            Self::First => true,
            Self::Nothing(rules) => rules.contains(rule),
            Self::These(wanted) => wanted.iter().any(|(own, _)| *own == rule),
        }
    }
}

/// The text of a finding, or what makes it where it is told.
pub trait Message {
    /// The text.
    fn text(self) -> String;
}

impl Message for String {
    fn text(self) -> String {
        self
    }
}

impl<F: FnOnce() -> String> Message for F {
    fn text(self) -> String {
        self()
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    said: usize,
    more: usize,
}

/// How much a finding of a look-up weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gravity {
    /// The rule's own action.
    Full,
    /// A warning at the most: nobody is hurt by this write.
    WarnOnly,
}

/// A finding with what the ratchet compares.
#[derive(Debug)]
pub(super) struct Reported {
    pub(super) finding: Finding,
    /// The same violation in the old and the new object has the same key: the hash of what names it.
    pub(super) key: u64,
    /// The larger, the worse.
    pub(super) severity: f64,
    /// Advice is given once, by the write that brings the occasion.
    pub(super) is_advice: bool,
    /// Its place among the findings of its rule, in the order in which they were reported.
    pub(super) number: usize,
    /// Whether the message was made.
    pub(super) is_told: bool,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        rule: &'static str,
        action: Action,
        tells: Tells<'a>,
        found: &'a mut Vec<Reported>,
    ) -> Self {
        let first = found.len();
        Self { rule, action, found, first, tells, counts: [Count::default(); 2] }
    }

    /// A violation, with the rule's action. `key` names it whichever route it stands in after the write, `severity` grows with
    /// the damage: a violation that the old object had with the same key and at least this severity is only warned about.
    pub fn violation(
        &mut self,
        path: FieldPath,
        message: impl Message,
        key: impl Hash,
        severity: f64,
    ) {
        let number = self.count();
        let is_told = match self.tells {
            Tells::First => number < MOST_SAID,
            Tells::Nothing(_) => false,
            Tells::These(wanted) => wanted.contains(&(self.rule, number)),
        };
        let message = if is_told { message.text() } else { String::new() };
        self.push(self.action, path, message, Vec::new(), key, severity);
        if let Some(last) = self.found.last_mut() {
            last.is_told = is_told;
        }
    }

    /// Something that works as written and may not be what was meant: as a violation, but nothing is said where the old object had
    /// the same with at least this severity. Repeated at every write, advice is noise.
    pub fn advice(
        &mut self,
        gravity: Gravity,
        path: FieldPath,
        message: String,
        key: impl Hash,
        severity: f64,
    ) {
        let action = self.action_of(gravity);
        self.push(action, path, message, Vec::new(), key, severity);
        if let Some(last) = self.found.last_mut() {
            last.is_advice = true;
        }
    }

    /// What the object of a [`Stage::Delivery`] says about the releases to come. As advice it is given by the write that brings it,
    /// or makes it worse; as a violation it has the rule's action, and may rest on what the cluster holds.
    pub fn guardrail(
        &mut self,
        path: FieldPath,
        message: impl Message,
        key: impl Hash,
        severity: f64,
        rests_on: Vec<Reference>,
    ) {
        let is_asked = !matches!(self.tells, Tells::Nothing(_)) && self.count() < MOST_SAID;
        let message = if is_asked { message.text() } else { String::new() };
        self.push(self.action, path, message, rests_on, key, severity);
        if let Some(last) = self.found.last_mut() {
            last.is_advice = true;
        }
    }

    /// A violation that is never more than a warning, for this reason or that.
    pub fn warning(&mut self, path: FieldPath, message: String) {
        self.push(self.action.max(Action::Warn), path, message, Vec::new(), "", f64::INFINITY);
    }

    /// Whether another finding of a look-up may be told, of at most this gravity; asked before its message is made. Where the
    /// answer is no the finding is counted, and the last one that was told says how many there are.
    pub fn has_room(&mut self, gravity: Gravity) -> bool {
        let action = self.action_of(gravity);
        let count = &mut self.counts[usize::from(action != Action::Deny)];
        let has_room = count.said < MOST_SAID;
        count.more += usize::from(!has_room);
        has_room
    }

    /// How many findings the rule has told so far.
    pub fn count(&self) -> usize {
        self.found.len() - self.first
    }

    /// Says how many findings there was no room for.
    pub(super) fn finish(self) {
        for (is_other, Count { more, .. }) in [false, true].into_iter().zip(self.counts) {
            let mut own = self.found[self.first..].iter_mut().rev();
            let last = own.find(|own| (own.finding.action != Action::Deny) == is_other);
            if let Some(last) = last {
                last.finding.counts(more);
            }
        }
    }

    fn action_of(&self, gravity: Gravity) -> Action {
        match gravity {
            Gravity::Full => self.action,
            Gravity::WarnOnly => self.action.max(Action::Warn),
        }
    }

    /// A violation because of what the cluster holds or lacks; it is read again before anybody is refused.
    pub fn lookup(
        &mut self,
        gravity: Gravity,
        path: FieldPath,
        message: String,
        rests_on: Vec<Reference>,
    ) {
        let action = self.action_of(gravity);
        self.push(action, path, message, rests_on, "", f64::INFINITY);
    }

    /// A violation of this write that no ratchet softens: it compares old and new by itself.
    pub fn shift(&mut self, path: FieldPath, message: String, rests_on: Vec<Reference>) {
        self.push(self.action, path, message, rests_on, "", f64::INFINITY);
    }

    fn push(
        &mut self,
        action: Action,
        path: FieldPath,
        message: String,
        rests_on: Vec<Reference>,
        key: impl Hash,
        severity: f64,
    ) {
        self.counts[usize::from(action != Action::Deny)].said += 1;
        let finding = Finding { rule: self.rule, action, path, message, rests_on };
        let number = self.count();
        self.found.push(Reported {
            finding,
            // The same in every review, so that those of the old and the new object can be compared.
            key: FixedState::default().hash_one(key),
            severity,
            is_advice: false,
            number,
            is_told: true,
        });
    }
}

/// A rule with its type erased: one line of the rule book.
#[derive(Debug)]
pub struct Entry {
    /// See [`Rule::ID`].
    pub id: &'static str,
    /// See [`Rule::ACTION`].
    pub action: Action,
    /// See [`Rule::STAGE`].
    pub stage: Stage,
    /// See [`Rule::READS`].
    pub reads: &'static [Kind],
    schema: fn() -> schemars::Schema,
    parse: fn(serde_json::Value) -> Result<Box<dyn Check>, serde_json::Error>,
}

impl Entry {
    /// The entry of a rule.
    pub const fn of<R: Rule>() -> Self {
        Self {
            id: R::ID,
            action: R::ACTION,
            stage: R::STAGE,
            reads: R::READS,
            schema: self_contained::<R>,
            parse: |value| Ok(Box::new(serde_json::from_value::<R>(value)?)),
        }
    }

    /// The JSON schema of its parameters.
    pub(super) fn schema(&self) -> schemars::Schema {
        (self.schema)()
    }

    /// The rule's manual: its doc comment.
    pub fn manual(&self) -> String {
        let schema = (self.schema)();
        schema.get("description").and_then(|text| text.as_str()).unwrap_or_default().to_owned()
    }

    /// The rule's parameters: name, what it means, default.
    pub fn parameters(&self) -> Vec<(String, String, String)> {
        let schema = (self.schema)();
        let properties = schema.get("properties").and_then(|properties| properties.as_object());
        let text = |value: Option<&serde_json::Value>| match value {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let one = |(name, schema): (&String, &serde_json::Value)| {
            (
                name.clone(),
                text(schema.get("description")).replace('\n', " "),
                text(schema.get("default")),
            )
        };
        properties.into_iter().flatten().map(one).collect()
    }

    /// The rule with these parameters.
    ///
    /// # Errors
    /// Where a parameter is unknown or has the wrong type.
    pub(super) fn parse(
        &self,
        parameters: serde_json::Value,
    ) -> Result<Box<dyn Check>, serde_json::Error> {
        (self.parse)(parameters)
    }
}

/// A rule behind a pointer.
pub(super) trait Check: Send + Sync {
    fn check(&self, case: &Case<'_>, report: &mut Report<'_>);
    fn check_definition(&self, case: &Definition<'_>, report: &mut Report<'_>);
    fn check_unread(&self, review: &Review, world: &World, report: &mut Report<'_>);
    fn check_delivery(&self, case: &Delivery<'_>, report: &mut Report<'_>);
}

impl<R: Rule> Check for R {
    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        Rule::check(self, case, report);
    }

    fn check_definition(&self, case: &Definition<'_>, report: &mut Report<'_>) {
        Rule::check_definition(self, case, report);
    }

    fn check_unread(&self, review: &Review, world: &World, report: &mut Report<'_>) {
        Rule::check_unread(self, review, world, report);
    }

    fn check_delivery(&self, case: &Delivery<'_>, report: &mut Report<'_>) {
        Rule::check_delivery(self, case, report);
    }
}
