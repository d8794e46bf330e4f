//! What is asked: one write, with the stored and the new object.

use std::collections::BTreeMap;

use crate::delivery::{CanaryPlan, RolloutPlan};
use crate::istio::{
    DestinationRule, FieldPath, Judged, Metadata, ShapeError, VirtualService, Written,
};
use crate::world::Kind;

/// Who takes away what belongs to something that is gone already: nobody is there to be told anything.
///
/// With one account for all controllers (`--use-service-account-credentials=false`) it is the third.
const HOUSEKEEPERS: [&str; 3] = [
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
    "system:kube-controller-manager",
];

/// What is asked: one write of one object.
#[derive(Debug, Clone)]
pub struct Review {
    /// The write.
    pub operation: Operation,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// Who writes, as the API server authenticated them.
    pub user: String,
    /// Nothing will be stored.
    pub dry_run: bool,
}

/// A write with exactly the objects that it has.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Of a VirtualService.
    VirtualService(Write<VirtualService>),
    /// Of a DestinationRule.
    DestinationRule(Write<DestinationRule>),
    /// Of Flagger's Canary.
    Canary(Write<CanaryPlan>),
    /// Of Argo's Rollout.
    Rollout(Write<RolloutPlan>),
    /// Of an object that the CRD's schema would refuse: nothing of it can be judged.
    Unreadable {
        /// Its kind.
        kind: Kind,
        /// Where its shape is wrong.
        path: FieldPath,
        /// What is wrong with it.
        reason: String,
    },
    /// Of an object of a kind that no rule judges, or of a Canary or Rollout that nobody can read: these are their controllers'.
    NotOurs,
}

/// What happens to an object.
#[derive(Debug, Clone)]
pub enum Write<T> {
    /// It was not there.
    Create(Box<T>),
    /// It takes the place of another.
    Update {
        /// What is stored now.
        old: Box<T>,
        /// What is to be stored.
        new: Box<T>,
        /// Whether the two `spec`s are the same JSON value, fields that no rule reads included.
        is_unchanged: bool,
    },
    /// It goes away; `None` where nobody can read what goes.
    Delete(Option<Box<T>>),
}

impl<T> Write<T> {
    /// The object as it is to be stored.
    pub fn written(&self) -> Option<&T> {
        match self {
            Self::Create(new) | Self::Update { new, .. } => Some(new),
            Self::Delete(_) => None,
        }
    }

    /// The object as it is stored.
    pub fn stored(&self) -> Option<&T> {
        match self {
            Self::Update { old, .. } => Some(old),
            Self::Delete(old) => old.as_deref(),
            Self::Create(_) => None,
        }
    }

    /// The new object, or the one that goes away.
    pub fn object(&self) -> Option<&T> {
        self.written().or(self.stored())
    }

    /// Whether `spec` stays as it is.
    pub fn is_unchanged(&self) -> bool {
        matches!(self, Self::Update { is_unchanged: true, .. })
    }

    /// What an istiod sees of an update that moves the object out of its revision or into it; `None` for any other write.
    fn across_revisions(&self, revision: &str) -> Option<Self>
    where
        T: Judged + Clone,
    {
        let Self::Update { old, new, .. } = self else { return None };
        let is_seen = |object: &T| object.metadata().is_in_revision(revision);
        match (is_seen(old), is_seen(new)) {
            (true, false) => Some(Self::Delete(Some(old.clone()))),
            (false, true) => Some(Self::Create(new.clone())),
            _ => None,
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Create(_) => "CREATE",
            Self::Update { .. } => "UPDATE",
            Self::Delete(_) => "DELETE",
        }
    }
}

impl<T: Judged> Write<T> {
    /// An old object that cannot be read counts as none.
    fn parse(old: Option<&str>, new: Option<&str>) -> Result<Self, ShapeError> {
        let old = old.and_then(|old| Written::<T>::read(old).ok());
        let Some(new) = new else {
            return Ok(Self::Delete(old.map(|old| Box::new(old.object))));
        };
        let new = Written::<T>::read(new)?;
        Ok(match old {
            None => Self::Create(Box::new(new.object)),
            Some(old) => {
                let is_unchanged = new.says_the_same(&old);
                Self::Update { old: Box::new(old.object), new: Box::new(new.object), is_unchanged }
            }
        })
    }
}

impl Operation {
    /// The write that puts `new` in the place of `old`, both as JSON and of `kind`; without a new object it is a deletion.
    pub fn parse(kind: Kind, old: Option<&str>, new: Option<&str>) -> Self {
        let read = match kind {
            Kind::VirtualService => Write::parse(old, new).map(Self::VirtualService),
            Kind::DestinationRule => Write::parse(old, new).map(Self::DestinationRule),
            Kind::Canary => return Write::parse(old, new).map_or(Self::NotOurs, Self::Canary),
            Kind::Rollout => return Write::parse(old, new).map_or(Self::NotOurs, Self::Rollout),
            _ => return Self::NotOurs,
        };
        read.unwrap_or_else(|ShapeError { path, reason }| Self::Unreadable { kind, path, reason })
    }
}

impl Review {
    /// The kind of the object; `None` for one that no rule judges.
    pub fn kind(&self) -> Option<Kind> {
        match &self.operation {
            Operation::VirtualService(_) => Some(Kind::VirtualService),
            Operation::DestinationRule(_) => Some(Kind::DestinationRule),
            Operation::Canary(_) => Some(Kind::Canary),
            Operation::Rollout(_) => Some(Kind::Rollout),
            Operation::Unreadable { kind, .. } => Some(*kind),
            Operation::NotOurs => None,
        }
    }

    /// The VirtualService as it is to be stored, where one can be judged.
    pub fn object(&self) -> Option<&VirtualService> {
        match &self.operation {
            Operation::VirtualService(write) => write.written(),
            _ => None,
        }
    }

    /// The VirtualService as it is stored, for an update and a deletion.
    pub fn old_object(&self) -> Option<&VirtualService> {
        match &self.operation {
            Operation::VirtualService(write) => write.stored(),
            _ => None,
        }
    }

    /// `CREATE`, `UPDATE` or `DELETE`, as the API spells it.
    pub fn verb(&self) -> &'static str {
        match &self.operation {
            Operation::VirtualService(write) => write.verb(),
            Operation::DestinationRule(write) => write.verb(),
            Operation::Canary(write) => write.verb(),
            Operation::Rollout(write) => write.verb(),
            Operation::Unreadable { .. } | Operation::NotOurs => "CREATE",
        }
    }

    /// Whether Kubernetes is clearing up: the object is on its way out already, or what it belonged to is gone.
    pub(super) fn is_housekeeping(&self) -> bool {
        let is_leaving =
            self.metadata().is_some_and(|metadata| metadata.deletion_timestamp.is_some());
        is_leaving || (self.verb() == "DELETE" && HOUSEKEEPERS.contains(&self.user.as_str()))
    }

    /// The write as an istiod of `revision` sees it, and a sentence about that, where it is another one: with a label
    /// `istio.io/rev` that names another revision an object does not exist, so that an update of the label creates or deletes it.
    pub(super) fn across_revisions(&self, revision: &str) -> Option<(Self, String)> {
        let operation = match &self.operation {
            Operation::VirtualService(write) => {
                Operation::VirtualService(write.across_revisions(revision)?)
            }
            Operation::DestinationRule(write) => {
                Operation::DestinationRule(write.across_revisions(revision)?)
            }
            _ => return None,
        };
        let seen = Self { operation, ..self.clone() };
        let label = self.labels().and_then(|labels| labels.get("istio.io/rev"));
        let sentence = match (label, seen.verb()) {
            (Some(label), "DELETE") => {
                format!("Its label istio.io/rev={label} takes it out of revision {revision}.")
            }
            (Some(label), _) => {
                format!("Its label istio.io/rev={label} brings it into revision {revision}.")
            }
            (None, _) => {
                format!("Without the label istio.io/rev it is there for revision {revision}, too.")
            }
        };
        Some((seen, sentence))
    }

    /// The hosts that the object speaks of, as written: of a Canary those of its VirtualService, of a Rollout its Services.
    pub(super) fn hosts(&self) -> Vec<&str> {
        match &self.operation {
            Operation::VirtualService(write) => write.object().map_or_else(Vec::new, |object| {
                object.spec.hosts.iter().map(String::as_str).collect()
            }),
            Operation::DestinationRule(write) => {
                write.object().map(|object| object.spec.host.as_str()).into_iter().collect()
            }
            Operation::Canary(write) => {
                write.object().into_iter().flat_map(CanaryPlan::hosts).collect()
            }
            Operation::Rollout(write) => {
                write.object().into_iter().flat_map(RolloutPlan::services).collect()
            }
            Operation::Unreadable { .. } | Operation::NotOurs => Vec::new(),
        }
    }

    /// The labels of the object; `None` where there is none to read.
    pub(super) fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.metadata().map(|metadata| &metadata.labels)
    }

    fn metadata(&self) -> Option<&Metadata> {
        match &self.operation {
            Operation::VirtualService(write) => write.object().map(|object| &object.metadata),
            Operation::DestinationRule(write) => write.object().map(|object| &object.metadata),
            Operation::Canary(write) => write.object().map(|object| &object.metadata),
            Operation::Rollout(write) => write.object().map(|object| &object.metadata),
            Operation::Unreadable { .. } | Operation::NotOurs => None,
        }
    }
}
