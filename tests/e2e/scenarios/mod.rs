//! What a person sees who uses the gate. One function is one scenario, in a namespace of its own.

mod argo;
mod bookinfo;
mod certificates;
mod definitions;
mod deliveries;
mod failure;
mod flagger;
mod history;
mod installation;
mod lifecycle;
mod references;
mod registered;
mod rollback;
mod rotation;
mod shift;

use crate::harness::{Result, Stage};

pub(crate) type Scenario = (&'static str, fn(&Stage) -> Result);

pub(crate) fn all() -> impl Iterator<Item = Scenario> {
    [
        shift::ALL,
        rollback::ALL,
        references::ALL,
        registered::ALL,
        definitions::ALL,
        bookinfo::ALL,
        failure::ALL,
        flagger::ALL,
        history::ALL,
        installation::ALL,
        argo::ALL,
        deliveries::ALL,
        certificates::ALL,
        rotation::ALL,
        lifecycle::ALL,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// The scenarios of a file with their names; one that is not listed is dead code, and the compiler says so.
macro_rules! scenarios {
    ($($scenario:ident),+ $(,)?) => {
        pub(super) const ALL: &[super::Scenario] = &[$((stringify!($scenario), $scenario)),+];
    };
}
use scenarios;
