//! Istio's words in our types: hosts, field paths, routes and their matches. Knows nobody else.

mod condition;
pub mod delegate;
mod destination_rule;
mod filter_chains;
mod gateway;
mod host;
mod http_policy;
mod metadata;
mod path;
mod port;
mod re2;
mod reach;
mod read;
mod route_key;
mod service_entry;
mod shape;
mod sidecar;
mod traffic_policy;
mod virtual_service;
mod waypoint;
mod workload_entry;

pub use condition::{Arrival, Condition, ConditionIndex, Reading, Specificity};
pub use destination_rule::{DestinationRule, DestinationRuleSpec, Subset, WorkloadSelector};
pub use filter_chains::{At, Clash, Listening, ports_asked_for};
pub use gateway::{Gateway, GatewaySpec, Server, ServerPort, ServerTls, narrower_host};
pub use host::{Host, full_gateway, host_covers};
pub use http_policy::{
    CorsPolicy, Fault, FaultAbort, FaultDelay, Mirror, Mirrored, Percent, RegexRewrite, Retries,
    Rewrite,
};
pub use metadata::{Metadata, OwnerReference, Timestamp};
pub use path::FieldPath;
pub use port::PortProtocol;
pub use re2::{Re2Error, Re2Problem, check_re2};
pub use reach::{HiddenBy, Reach};
pub use read::{Judged, ShapeError, Written};
pub(crate) use shape::null_as_default;

pub use service_entry::{Location, Resolution, ServiceEntry, ServiceEntryPort, ServiceEntrySpec};
pub use sidecar::{EgressHosts, EgressListener, EgressPort, Sidecar, SidecarSpec};
pub use traffic_policy::{
    ConsistentHash, HttpCookie, LoadBalancer, OutlierDetection, PolicyInForce, PortTrafficPolicy,
    TrafficPolicy,
};
pub use virtual_service::{
    Delegate, Destination, PortSelector, Present, Protocol, Route, RouteDestination, RouteMatch,
    StringMatch, VirtualService, VirtualServiceSpec,
};
pub use waypoint::{UseWaypoint, Waypoint};
pub use workload_entry::{ServiceEntrySelector, WorkloadEntry, WorkloadEntrySpec};
