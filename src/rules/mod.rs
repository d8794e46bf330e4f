//! The rule book: a file here, its `mod` line, its line in [`ALL`]. Nothing else names a rule.

mod canary_step;
mod capacity;
mod default_route;
mod delivery_config;
mod destination_exists;
mod fault_injection;
mod host_conflict;
mod managed_weights;
mod mirror_target;
mod namespace_read;
mod retry_budget;
mod route_reachable;
mod session_affinity;
mod split_shadowed;
mod spoofable_header;
mod structure;
mod subset_defined;
mod subset_in_use;
mod subset_ready;
mod vs_in_use;
mod weight_sum;

use crate::policy::Entry;

/// Every rule, in the order users see them.
pub static ALL: &[Entry] = &[
    Entry::of::<structure::Structure>(),
    Entry::of::<weight_sum::WeightSum>(),
    Entry::of::<canary_step::CanaryStep>(),
    Entry::of::<managed_weights::ManagedWeights>(),
    Entry::of::<delivery_config::DeliveryConfig>(),
    Entry::of::<subset_defined::SubsetDefined>(),
    Entry::of::<subset_ready::SubsetReady>(),
    Entry::of::<subset_in_use::SubsetInUse>(),
    Entry::of::<vs_in_use::VsInUse>(),
    Entry::of::<destination_exists::DestinationExists>(),
    Entry::of::<route_reachable::RouteReachable>(),
    Entry::of::<default_route::DefaultRoute>(),
    Entry::of::<host_conflict::HostConflict>(),
    Entry::of::<namespace_read::NamespaceRead>(),
    Entry::of::<split_shadowed::SplitShadowed>(),
    Entry::of::<capacity::Capacity>(),
    Entry::of::<mirror_target::MirrorTarget>(),
    Entry::of::<session_affinity::SessionAffinity>(),
    Entry::of::<spoofable_header::SpoofableHeader>(),
    Entry::of::<fault_injection::FaultInjection>(),
    Entry::of::<retry_budget::RetryBudget>(),
];
