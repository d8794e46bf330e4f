//! What a policy says, how it is read, and which one is in force.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use super::review::Review;
use super::rule::{Check, Entry, Stage};
use super::verdict::Action;
use super::words::{list, number};
use crate::istio::{Host, host_covers};
use crate::world::{Kind, LabelSelector, World};

/// What a policy says: the `spec` of a CanaryPolicy (`sluicegate.dev/v1alpha1`).
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PolicySpec {
    /// Which objects it is for; empty means all.
    pub r#match: PolicyMatch,
    /// Of several policies that match, the one with the highest precedence is in force; ties go by name.
    pub precedence: i64,
    /// What a refusal does.
    pub mode: Mode,
    /// How far a canary may rise in one write.
    pub step: Step,
    /// Which destinations are stable and which are canaries, where their names do not say it.
    pub roles: Roles,
    /// The accounts of delivery controllers.
    pub controllers: Controllers,
    /// Per rule id: `action` and the rule's own parameters.
    pub rules: BTreeMap<String, serde_json::Value>,
    /// How dry runs are judged.
    pub dry_run: DryRun,
}

/// Which VirtualServices, DestinationRules, Canaries and Rollouts a policy is for; what is absent matches everything.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PolicyMatch {
    /// By the labels of the namespace.
    pub namespace_selector: Option<LabelSelector>,
    /// By the labels of the object.
    pub object_selector: Option<LabelSelector>,
    /// By the hosts, as written or completed, `*` allowed in front; any one suffices. A Rollout has those of its Services.
    pub hosts: Vec<String>,
}

/// What a refusal does to the write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It passes with a warning.
    Warn,
    /// It passes without a word; only logs and metrics tell.
    Audit,
}

/// How far a canary may rise in one write, in percentage points of a route's traffic.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Step {
    /// The most points that a canary, and all canaries of a route together, may rise; 50 unless a ladder is given.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub max: Option<f64>,
    /// The largest share that a canary without traffic may start with; as `max` unless given.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub initial: Option<f64>,
    /// The only shares that a canary may have, in percent; each write goes to the next one at the most.
    #[schemars(inner(range(min = 0.0, max = 100.0)))]
    pub ladder: Vec<f64>,
}

impl Step {
    /// The most points that a rise may have.
    pub fn max(&self) -> f64 {
        self.max.unwrap_or(if self.ladder.is_empty() { 50.0 } else { 100.0 })
    }

    /// The largest share in percent that a canary at `from` percent may be given in one write.
    pub fn limit(&self, from: f64) -> f64 {
        let is_start = from <= 1e-9;
        let step =
            if is_start { self.initial.unwrap_or(self.max()).min(self.max()) } else { self.max() };
        let rung = self
            .ladder
            .iter()
            .copied()
            .filter(|&rung| rung > from + 1e-6)
            .fold(f64::INFINITY, f64::min);
        (from + step).min(rung).min(100.0)
    }

    /// Whether `share` percent is a rung of the ladder, or there is none.
    pub fn is_rung(&self, share: f64) -> bool {
        // Weights are whole numbers: a third of a percent is as near to a rung as three destinations can come.
        self.ladder.is_empty() || self.ladder.iter().any(|rung| (rung - share).abs() < 0.5)
    }
}

/// Names of subsets or hosts by role; a `*` at either end stands for anything.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Roles {
    /// What serves when nothing is being rolled out.
    pub stable: Vec<String>,
    /// What is being rolled out.
    pub canary: Vec<String>,
}

/// The accounts by which delivery controllers write; a `*` at either end stands for anything. An account alone earns nothing: a
/// Canary or a Rollout must name what is written, too.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Controllers {
    /// Flagger's; that of its manifests and of its chart in the usual namespaces, unless given.
    pub flagger: Vec<String>,
    /// Those of Argo Rollouts; that of its manifests, unless given.
    pub argo_rollouts: Vec<String>,
}

impl Default for Controllers {
    fn default() -> Self {
        let account = |name: &str| format!("system:serviceaccount:{name}");
        Self {
            flagger: vec![account("istio-system:flagger"), account("flagger-system:flagger")],
            argo_rollouts: vec![account("argo-rollouts:argo-rollouts")],
        }
    }
}

/// How dry runs are judged.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DryRun {
    /// Refuses a dry run that names something absent, as a real write would be. Off by default: objects of the same dry run do
    /// not exist for the server.
    pub enforce_references: bool,
}

/// A rule in force.
pub(super) struct ActiveRule {
    pub(super) entry: &'static Entry,
    pub(super) action: Action,
    pub(super) check: Box<dyn Check>,
}

/// A policy, parsed: the spec and the rules in force.
pub struct Policy {
    name: String,
    spec: PolicySpec,
    pub(super) rules: Vec<ActiveRule>,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("name", &self.name)
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The document does not have the shape of a CanaryPolicy.
    #[error("policy {name:?}: {cause}")]
    Shape {
        /// The policy's name.
        name: String,
        /// What the parser said.
        cause: serde_json::Error,
    },
    /// No rule has this id.
    #[error("policy {name:?}: no rule is called {id:?}; the rules are {known}")]
    UnknownRule {
        /// The policy's name.
        name: String,
        /// What was written.
        id: String,
        /// What could have been written.
        known: String,
    },
    /// The rule exists; its parameters do not fit.
    #[error("policy {name:?}: rules.{id}: {cause}")]
    Parameters {
        /// The policy's name.
        name: String,
        /// The rule.
        id: &'static str,
        /// What the parser said.
        cause: serde_json::Error,
    },
    /// A number that can never be met.
    #[error("policy {name:?}: {field} is {value}; it must lie between {least} and {most}")]
    OutOfRange {
        /// The policy's name.
        name: String,
        /// Where.
        field: &'static str,
        /// What was written.
        value: f64,
        /// The smallest value that makes sense.
        least: f64,
        /// The largest value that makes sense.
        most: f64,
    },
    /// This rule cannot be turned off.
    #[error(
        "policy {name:?}: rules.{id}.action: this rule refuses only what is broken for everyone and always denies; remove the line"
    )]
    AlwaysOn {
        /// The policy's name.
        name: String,
        /// The rule.
        id: &'static str,
    },
}

impl Policy {
    /// The policy in force where nobody wrote one.
    pub fn builtin(entries: &'static [Entry]) -> Self {
        Self::parse(entries, "default", serde_json::Value::Object(serde_json::Map::new()))
            .expect("an empty policy has nothing that could be wrong")
    }

    /// Reads the `spec` of a CanaryPolicy; the rules come from `entries`.
    ///
    /// # Errors
    /// Where a field, a rule or a parameter is unknown or out of range: a policy that says something else than it means is
    /// worse than none.
    pub fn parse(
        entries: &'static [Entry],
        name: &str,
        spec: serde_json::Value,
    ) -> Result<Self, PolicyError> {
        let owned = || name.to_owned();
        let mut spec = serde_json::from_value::<PolicySpec>(spec)
            .map_err(|cause| PolicyError::Shape { name: owned(), cause })?;
        let ranges = [("step.max", spec.step.max), ("step.initial", spec.step.initial)].into_iter();
        let rungs = spec.step.ladder.iter().map(|&rung| ("step.ladder", Some(rung)));
        for (field, value) in ranges.chain(rungs) {
            if let Some(value) = value.filter(|value| !(0.0..=100.0).contains(value)) {
                return Err(PolicyError::OutOfRange {
                    name: owned(),
                    field,
                    value,
                    least: 0.0,
                    most: 100.0,
                });
            }
        }
        if let Some(id) =
            spec.rules.keys().find(|id| !entries.iter().any(|entry| entry.id == id.as_str()))
        {
            let known = entries.iter().map(|entry| entry.id).collect::<Vec<_>>().join(", ");
            return Err(PolicyError::UnknownRule { name: owned(), id: id.clone(), known });
        }
        let mut rules = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut parameters =
                spec.rules.remove(entry.id).unwrap_or_else(|| serde_json::json!({}));
            let wrong = |cause| PolicyError::Parameters { name: owned(), id: entry.id, cause };
            let action = parameters.as_object_mut().and_then(|map| map.remove("action"));
            let action = action.map(serde_json::from_value::<Action>).transpose().map_err(wrong)?;
            if entry.stage == Stage::Broken && action.is_some_and(|action| action != Action::Deny) {
                return Err(PolicyError::AlwaysOn { name: owned(), id: entry.id });
            }
            let check = entry.parse(parameters).map_err(wrong)?;
            rules.push(ActiveRule { entry, action: action.unwrap_or(entry.action), check });
        }
        Ok(Self { name: owned(), spec, rules })
    }

    /// The policy's name, as messages say it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says.
    pub fn spec(&self) -> &PolicySpec {
        &self.spec
    }

    /// How far a canary at `from` percent may rise, in words.
    pub fn limit_in_words(&self, from: f64) -> String {
        let step = &self.spec.step;
        let whose = if self.name == "default" {
            "policy default".to_owned()
        } else {
            format!("policy {}", self.name)
        };
        if !step.ladder.is_empty() {
            let rungs = step.ladder.iter().map(|rung| number(*rung)).collect::<Vec<_>>();
            return format!("the steps here are {} ({whose})", list(&rungs));
        }
        match step.initial {
            Some(initial) if from <= 1e-6 && initial < step.max() => {
                format!("a canary starts with {} % at the most here ({whose})", number(initial))
            }
            _ => format!("{} points is the most here ({whose})", number(step.max())),
        }
    }

    /// The kinds that its rules look up, and those that tell who is stable.
    pub fn reads(&self) -> impl Iterator<Item = Kind> {
        let rules = self.rules.iter().filter(|rule| rule.action != Action::Off);
        let mut kinds = rules.flat_map(|rule| rule.entry.reads).copied().collect::<Vec<_>>();
        kinds.sort();
        kinds.dedup();
        kinds.into_iter()
    }

    /// The rules of a stage that it does not turn off.
    pub(super) fn asked(&self, stage: Stage) -> impl Iterator<Item = &ActiveRule> {
        self.rules
            .iter()
            .filter(move |rule| rule.entry.stage == stage && rule.action != Action::Off)
    }

    /// Whether it is for the object of `review`. What cannot be told counts as "yes": a gate that nobody can read stays shut.
    fn matches(&self, review: &Review, world: &World) -> bool {
        let PolicyMatch { namespace_selector, object_selector, hosts } = &self.spec.r#match;
        let namespace = review.namespace.as_str();
        let by_namespace = namespace_selector.as_ref().is_none_or(|selector| {
            world.namespace_labels(namespace).is_none_or(|labels| selector.matches(labels))
        });
        let by_object = object_selector
            .as_ref()
            .is_none_or(|selector| review.labels().is_none_or(|own| selector.matches(own)));
        let complete = |host: &str| Host::resolve(host, namespace, &world.mesh().domain);
        let covers = |pattern: &str, host: &str| {
            host_covers(pattern, host)
                || host_covers(complete(pattern).as_str(), complete(host).as_str())
        };
        let named = |host: &str| hosts.iter().any(|pattern| covers(pattern, host));
        by_namespace && by_object && (hosts.is_empty() || review.hosts().into_iter().any(named))
    }
}

/// All policies; one of them is in force for each object.
#[derive(Debug)]
pub struct Policies {
    /// Highest precedence first, then by name.
    ordered: Vec<Policy>,
    builtin: Policy,
}

impl Policies {
    /// These policies above the built-in one.
    pub fn new(mut policies: Vec<Policy>, entries: &'static [Entry]) -> Self {
        policies.sort_by(|a, b| {
            b.spec.precedence.cmp(&a.spec.precedence).then_with(|| a.name.cmp(&b.name))
        });
        Self { ordered: policies, builtin: Policy::builtin(entries) }
    }

    /// The one policy in force for the object of `review`: the highest precedence that matches, ties by name, else the built-in
    /// one.
    pub fn in_force(&self, review: &Review, world: &World) -> &Policy {
        if review.labels().is_none() {
            return &self.builtin;
        }
        self.ordered.iter().find(|policy| policy.matches(review, world)).unwrap_or(&self.builtin)
    }

    /// Those that somebody wrote, the highest precedence first.
    pub fn written(&self) -> impl Iterator<Item = &Policy> {
        self.ordered.iter()
    }

    /// Every policy, the built-in one last.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.ordered.iter().chain([&self.builtin])
    }
}
