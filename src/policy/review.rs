use crate::istio::{FieldPath, ShapeError, VirtualService, Written};

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
    /// An object that was not there.
    Create(Box<VirtualService>),
    /// An object in place of another.
    Update {
        /// What is stored now.
        old: Box<VirtualService>,
        /// What is to be stored.
        new: Box<VirtualService>,
        /// Whether the two `spec`s are the same JSON value, fields that no rule reads included.
        is_unchanged: bool,
    },
    /// The object goes away.
    Delete,
    /// An object that the CRD's schema would refuse: nothing of it can be judged.
    Unreadable {
        /// Where its shape is wrong.
        path: FieldPath,
        /// What is wrong with it.
        reason: String,
    },
    /// An object of a kind that no rule judges.
    NotOurs,
}

impl Operation {
    /// The write of `new` over `old`, both as JSON. An old object that cannot be read counts as none.
    pub fn parse(old: Option<&str>, new: &str) -> Self {
        let old = old.and_then(|old| Written::read(old).ok());
        let new = match Written::read(new) {
            Ok(new) => new,
            Err(ShapeError { path, reason }) => return Self::Unreadable { path, reason },
        };
        match old {
            None => Self::Create(Box::new(new.object)),
            Some(old) => {
                let is_unchanged = new.says_the_same(&old);
                Self::Update { old: Box::new(old.object), new: Box::new(new.object), is_unchanged }
            }
        }
    }
}

impl Review {
    /// The object as it is to be stored, where it can be judged.
    pub fn object(&self) -> Option<&VirtualService> {
        match &self.operation {
            Operation::Create(new) | Operation::Update { new, .. } => Some(new),
            Operation::Delete | Operation::Unreadable { .. } | Operation::NotOurs => None,
        }
    }

    /// The object as it is stored, for an update.
    pub fn old_object(&self) -> Option<&VirtualService> {
        match &self.operation {
            Operation::Update { old, .. } => Some(old),
            _ => None,
        }
    }

    /// `CREATE`, `UPDATE` or `DELETE`, as the API spells it.
    pub fn verb(&self) -> &'static str {
        match self.operation {
            Operation::Update { .. } => "UPDATE",
            Operation::Delete => "DELETE",
            _ => "CREATE",
        }
    }
}
