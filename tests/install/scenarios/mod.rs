//! One function is one scenario, on a node of its own.

mod life;
mod load;
mod manual;

use crate::harness::Result;

pub(crate) type Scenario = (&'static str, fn() -> Result);

pub(crate) fn all() -> impl Iterator<Item = Scenario> {
    [manual::ALL, life::ALL, load::ALL].into_iter().flatten().copied()
}

/// The scenarios of a file with their names; one that is not listed is dead code, and the compiler says so.
macro_rules! scenarios {
    ($($scenario:ident),+ $(,)?) => {
        pub(super) const ALL: &[super::Scenario] = &[$((stringify!($scenario), $scenario)),+];
    };
}
use scenarios;
