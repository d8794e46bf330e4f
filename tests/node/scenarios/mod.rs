//! What a cluster sees that has the gate in it. One function is one scenario, in a namespace of its own.

mod accounts;
mod argo;
mod argo_outage;
mod argo_people;
mod argo_ramps;
mod argo_routes;
mod flagger;
mod history;
mod outage;
mod readiness;
mod restless;
mod several;
mod typo;

use crate::Stage;
use crate::harness::Result;

pub(crate) type Scenario = (&'static str, fn(&Stage) -> Result);

pub(crate) fn all() -> impl Iterator<Item = Scenario> {
    [
        typo::ALL,
        readiness::ALL,
        accounts::ALL,
        flagger::ALL,
        argo_outage::ALL,
        argo_routes::ALL,
        argo_ramps::ALL,
        argo_people::ALL,
        outage::ALL,
        history::ALL,
        several::ALL,
        restless::ALL,
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
