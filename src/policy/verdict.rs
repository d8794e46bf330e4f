//! What is answered: findings, what they rest on, and the step that decided.

use std::collections::BTreeSet;
use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use crate::istio::FieldPath;
use crate::world::Kind;

/// What a finding does to the write.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
pub enum Action {
    /// The write is refused.
    Deny,
    /// The write passes and the person is told.
    Warn,
    /// The write passes without a word; only logs and metrics tell.
    Audit,
    /// The rule is not asked. In quotes: Helm and kubectl take the bare word for `false`.
    Off,
}

impl Action {
    /// As labels and JSON spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Warn => "warn",
            Self::Audit => "audit",
            Self::Off => "off",
        }
    }
}

/// Something in the cluster that a finding rests on, to be read again before anybody is refused because of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// One Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The EndpointSlices of a Service, and the Pods they name.
    Endpoints {
        /// The Service's namespace.
        namespace: String,
        /// The Service's name.
        service: String,
    },
    /// All DestinationRules of a namespace.
    DestinationRules {
        /// The namespace.
        namespace: String,
    },
    /// All VirtualServices of a namespace.
    VirtualServices {
        /// The namespace.
        namespace: String,
    },
    /// All Sidecars of a namespace.
    Sidecars {
        /// The namespace.
        namespace: String,
    },
    /// All Gateways of a namespace.
    Gateways {
        /// The namespace.
        namespace: String,
    },
    /// All Canaries of a namespace.
    Canaries {
        /// The namespace.
        namespace: String,
    },
    /// All Rollouts of a namespace.
    Rollouts {
        /// The namespace.
        namespace: String,
    },
    /// All Deployments of a namespace.
    Deployments {
        /// The namespace.
        namespace: String,
    },
    /// All ServiceEntries.
    ServiceEntries,
    /// The labels of all Namespaces: what is in those that istiod leaves out does not exist for it.
    Namespaces,
}

/// One thing that a rule found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The rule's id.
    pub rule: &'static str,
    /// What it does to the write.
    pub action: Action,
    /// Where in the object.
    pub path: FieldPath,
    /// What is wrong, with the numbers, and what would pass; at most five lines.
    pub message: String,
    /// What it rests on, where that can have changed since the world was fed.
    pub rests_on: Vec<Reference>,
}

impl Finding {
    /// Says how many more there are of its kind.
    pub(super) fn counts(&mut self, more: usize) {
        if more > 0 {
            self.message.push_str(&format!(" The same is wrong in {more} more places."));
        }
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.rule, self.path, self.message)
    }
}

/// Which step of the decision order decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// No object of ours, a deletion, or an object on its way out.
    NotJudged,
    /// The spec is what it was.
    Unchanged,
    /// The object is broken for everyone.
    Broken,
    /// No canary share rises: a lowering or a rollback.
    Lowering,
    /// The side that serves is dead, the receiving side is alive.
    Evacuation,
    /// Written by the delivery controller that drives the object: what would be refused is a warning.
    Driver,
    /// No share moves: only the text was judged.
    Text,
    /// istiod does not read the namespace: nothing moves.
    Unread,
    /// The rules decided.
    Rules,
    /// What is known does not suffice.
    Blind,
}

impl Basis {
    /// As logs and audit annotations spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotJudged => "not-judged",
            Self::Unchanged => "unchanged",
            Self::Broken => "broken",
            Self::Lowering => "lowering",
            Self::Evacuation => "evacuation",
            Self::Driver => "driver",
            Self::Text => "text",
            Self::Unread => "unread",
            Self::Rules => "rules",
            Self::Blind => "blind",
        }
    }
}

/// The answer: every finding, and whether the write passes.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Every finding, refusals first, then by path, then by rule.
    pub findings: Vec<Finding>,
    /// Which step decided.
    pub basis: Basis,
    /// The kinds that the verdict needs and that are not listed yet; not empty only where nothing could be decided.
    pub missing: Vec<Kind>,
    /// Whether only the policy's mode lets the write pass.
    pub would_deny: bool,
}

impl Verdict {
    /// A write that passes without a word.
    pub fn allow(basis: Basis) -> Self {
        Self { findings: Vec::new(), basis, missing: Vec::new(), would_deny: false }
    }

    /// These findings, sorted.
    pub fn of(basis: Basis, mut findings: Vec<Finding>) -> Self {
        findings
            .sort_by_cached_key(|finding| (finding.action, natural(&finding.path), finding.rule));
        findings.dedup_by(|b, a| a == b);
        Self { findings, basis, missing: Vec::new(), would_deny: false }
    }

    /// Nobody can say yet: these kinds have not been listed.
    pub fn undecided(missing: Vec<Kind>) -> Self {
        Self { findings: Vec::new(), basis: Basis::Blind, missing, would_deny: false }
    }

    /// Whether the write passes. An undecided one does not.
    pub fn allowed(&self) -> bool {
        self.is_decided() && self.of_action(Action::Deny).next().is_none()
    }

    /// Whether there is an answer at all.
    pub fn is_decided(&self) -> bool {
        self.missing.is_empty()
    }

    /// The findings with this action.
    pub fn of_action(&self, action: Action) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.action == action)
    }

    /// What must be read again before anybody is told no, one refusal after the other: what it rests on, without what is
    /// `confirmed` already. To read for one of them is enough, because one refusal is a refusal. Nothing where one stands
    /// already: it rests on the written text, or on what was read again. What only the labels of a Namespace leave undecided,
    /// they decide.
    pub fn to_confirm(&self, confirmed: &BTreeSet<Reference>) -> Vec<Vec<Reference>> {
        if self.missing == [Kind::Namespace] && !confirmed.contains(&Reference::Namespaces) {
            return vec![vec![Reference::Namespaces]];
        }
        let open = |finding: &Finding| {
            let open = finding.rests_on.iter().filter(|reference| !confirmed.contains(reference));
            open.cloned().collect::<Vec<_>>()
        };
        let mut unconfirmed = Vec::new();
        for finding in self.of_action(Action::Deny) {
            let open = open(finding);
            if open.is_empty() {
                return Vec::new();
            }
            unconfirmed.push(open);
        }
        unconfirmed
    }
}

/// A path with its numbers as numbers, so that `http[10]` comes after `http[9]`.
fn natural(path: &FieldPath) -> Vec<(String, u64)> {
    let part = |part: &str| {
        let digits =
            part.trim_end_matches(']').rsplit('[').next().and_then(|digits| digits.parse().ok());
        (part.split('[').next().unwrap_or(part).to_owned(), digits.unwrap_or(0))
    };
    path.as_str().split('.').map(part).collect()
}
