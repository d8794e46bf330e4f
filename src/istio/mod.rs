//! Istio's words in our types: hosts, field paths, routes and their matches. Knows nobody else.

mod condition;
mod destination_rule;
mod host;
mod metadata;
mod path;
mod read;
mod service_entry;
mod shape;
mod virtual_service;
mod workload_entry;

pub use condition::Condition;
pub use destination_rule::{DestinationRule, DestinationRuleSpec, Subset};
pub use host::{Host, host_covers};
pub use metadata::{Metadata, Timestamp};
pub use path::FieldPath;
pub use read::{ShapeError, Written};
pub use service_entry::{Resolution, ServiceEntry, ServiceEntryPort, ServiceEntrySpec};
pub use virtual_service::{
    Destination, PortSelector, Present, Protocol, Route, RouteDestination, RouteMatch, StringMatch,
    VirtualService, VirtualServiceSpec,
};
pub use workload_entry::{WorkloadEntry, WorkloadEntrySpec, WorkloadSelector};
