//! Where in an object a finding points.

use std::fmt::{self, Display, Write as _};

/// Where in an object something stands, as kubectl spells it: `spec.http[0].route[1].weight`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(String);

impl FieldPath {
    /// The object's `spec`.
    pub fn spec() -> Self {
        /// Most paths fit in.
        const USUAL: usize = 64;
        let mut path = String::with_capacity(USUAL);
        path.push_str("spec");
        Self(path)
    }

    /// A path as another library spelled it, for instance the place of a parse error.
    pub fn parsed(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// The field `name` below this place.
    #[must_use]
    pub fn field(mut self, name: &str) -> Self {
        self.0.push('.');
        self.0.push_str(name);
        self
    }

    /// The element `index`, counted from 0, of the list at this place.
    #[must_use]
    pub fn index(mut self, index: usize) -> Self {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "[{index}]");
        self
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
