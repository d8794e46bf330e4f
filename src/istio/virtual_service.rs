//! VirtualServices: routes, matches and destinations, as written.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::quality::FixedState;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::http_policy::{CorsPolicy, Fault, Mirror, Percent, Retries, Rewrite, duration};
use super::metadata::Metadata;
use super::path::FieldPath;
use super::shape::{Object, null_as_default, object, objects, optional_object, whole_number};

/// The parts of a VirtualService that a verdict reads; `v1`, `v1beta1` and `v1alpha3` have the same shape.
///
/// Source: `istio.io/api/networking/v1/virtual_service.proto`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct VirtualService {
    /// Name, namespace, labels, times.
    #[serde(deserialize_with = "object")]
    pub metadata: Metadata,
    /// What it says.
    #[serde(deserialize_with = "object")]
    pub spec: VirtualServiceSpec,
}

/// `VirtualService.spec`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualServiceSpec {
    /// The hosts whose traffic it routes; empty makes it a delegate.
    #[serde(deserialize_with = "null_as_default")]
    pub hosts: Vec<String>,
    /// Where it applies; empty means `mesh`, and `mesh` is not implied beside others.
    #[serde(deserialize_with = "null_as_default")]
    pub gateways: Vec<String>,
    /// The namespaces whose clients it routes; empty means the mesh default, which is everywhere.
    #[serde(deserialize_with = "null_as_default")]
    pub export_to: Vec<String>,
    /// HTTP routes, first match wins.
    #[serde(deserialize_with = "objects")]
    pub http: Vec<Route>,
    /// TLS routes by SNI.
    #[serde(deserialize_with = "objects")]
    pub tls: Vec<Route>,
    /// TCP routes.
    #[serde(deserialize_with = "objects")]
    pub tcp: Vec<Route>,
}

/// An element of `spec.http`, `spec.tls` or `spec.tcp`: the three have the same shape as far as routing goes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Route {
    /// The route's name, for people and controllers; HTTP only.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// Alternatives: the route takes what any of them matches; none at all takes everything.
    #[serde(deserialize_with = "objects")]
    pub r#match: Vec<RouteMatch>,
    /// Where the traffic goes.
    #[serde(deserialize_with = "objects")]
    pub route: Vec<RouteDestination>,
    /// Answers with a redirect instead of routing; HTTP only.
    pub redirect: Option<Present>,
    /// Answers by itself instead of routing; HTTP only.
    pub direct_response: Option<Present>,
    /// Another VirtualService holds the routes; HTTP only.
    #[serde(deserialize_with = "optional_object")]
    pub delegate: Option<Delegate>,
    /// Where copies of the requests go; HTTP only. See [`Route::mirrored`].
    #[serde(deserialize_with = "optional_object")]
    pub mirror: Option<Destination>,
    /// How many of them are copied.
    #[serde(deserialize_with = "optional_object")]
    pub mirror_percentage: Option<Percent>,
    /// The deprecated spelling.
    #[serde(deserialize_with = "whole_number")]
    pub mirror_percent: Option<i64>,
    /// The CRD takes this one, too.
    #[serde(rename = "mirror_percent", deserialize_with = "whole_number")]
    pub mirror_percent_snake: Option<i64>,
    /// Further places for copies; HTTP only.
    #[serde(deserialize_with = "objects")]
    pub mirrors: Vec<Mirror>,
    /// How long a request may take, its retries included; absent means as long as it takes. HTTP only.
    #[serde(deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    /// Whether failed tries are repeated; HTTP only.
    #[serde(deserialize_with = "optional_object")]
    pub retries: Option<Retries>,
    /// Errors and delays on purpose; HTTP only.
    #[serde(deserialize_with = "optional_object")]
    pub fault: Option<Fault>,
    /// What is changed of the request; HTTP only.
    #[serde(deserialize_with = "optional_object")]
    pub rewrite: Option<Rewrite>,
    /// Which other sites may ask; HTTP only.
    #[serde(deserialize_with = "optional_object")]
    pub cors_policy: Option<CorsPolicy>,
}

/// `http[].delegate`: the VirtualService without hosts whose routes stand in this place.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(default)]
pub struct Delegate {
    /// Its name.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// Its namespace; empty for the one of the object that names it.
    #[serde(deserialize_with = "null_as_default")]
    pub namespace: String,
}

impl Delegate {
    /// The delegate's namespace, for an object of `namespace` that names it.
    pub fn namespace_from<'a>(&'a self, namespace: &'a str) -> &'a str {
        if self.namespace.is_empty() { namespace } else { &self.namespace }
    }
}

/// A field of which only the presence counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present;

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// A destination and its weight.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RouteDestination {
    /// Where to.
    #[serde(deserialize_with = "object")]
    pub destination: Destination,
    /// The weight as written. Istio reads an omitted weight as 0, and ignores the weight of a single destination.
    #[serde(deserialize_with = "whole_number")]
    pub weight: Option<i64>,
}

/// `route[].destination`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Destination {
    /// The host as written; completed in the VirtualService's namespace.
    #[serde(deserialize_with = "null_as_default")]
    pub host: String,
    /// The subset of the host's endpoints; empty means all of them.
    #[serde(deserialize_with = "null_as_default")]
    pub subset: String,
    /// The port, needed where the host has several.
    #[serde(deserialize_with = "object")]
    pub port: PortSelector,
}

/// `destination.port`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PortSelector {
    /// The port's number.
    #[serde(deserialize_with = "whole_number")]
    pub number: Option<i64>,
}

/// An alternative of a route: all of its fields must hold. HTTP knows all but the L4 ones, TCP and TLS only the last six.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteMatch {
    /// The path.
    pub uri: Option<StringMatch>,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// The HTTP method.
    pub method: Option<StringMatch>,
    /// The `Host` header.
    pub authority: Option<StringMatch>,
    /// Headers, each present and as given.
    #[serde(deserialize_with = "null_as_default")]
    pub headers: BTreeMap<String, Option<StringMatch>>,
    /// Headers that must not be as given.
    #[serde(deserialize_with = "null_as_default")]
    pub without_headers: BTreeMap<String, Option<StringMatch>>,
    /// Query parameters.
    #[serde(deserialize_with = "null_as_default")]
    pub query_params: BTreeMap<String, Option<StringMatch>>,
    /// Compares the path without regard to case.
    #[serde(deserialize_with = "null_as_default")]
    pub ignore_uri_case: bool,
    /// The port the client addressed.
    #[serde(deserialize_with = "whole_number")]
    pub port: Option<i64>,
    /// Labels of the client's pod.
    #[serde(deserialize_with = "null_as_default")]
    pub source_labels: BTreeMap<String, String>,
    /// Namespace of the client's pod.
    #[serde(deserialize_with = "null_as_default")]
    pub source_namespace: String,
    /// Gateways, instead of the VirtualService's own.
    #[serde(deserialize_with = "null_as_default")]
    pub gateways: Vec<String>,
    /// SNI names; TLS only.
    #[serde(deserialize_with = "null_as_default")]
    pub sni_hosts: Vec<String>,
    /// Destination addresses; TCP and TLS only.
    #[serde(deserialize_with = "null_as_default")]
    pub destination_subnets: Vec<String>,
}

/// Istio's `StringMatch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StringMatch {
    /// No field is set: it asks only for presence.
    #[default]
    Present,
    /// The whole value.
    Exact(String),
    /// Its beginning.
    Prefix(String),
    /// An RE2 expression for the whole value.
    Regex(String),
}

impl<'de> Deserialize<'de> for StringMatch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The fields as written; the CRD's `oneOf` lets at most one through.
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Fields {
            exact: Option<String>,
            prefix: Option<String>,
            regex: Option<String>,
        }
        let Object(fields) = Object::<Fields>::deserialize(deserializer)?;
        Ok(match fields {
            Fields { exact: Some(exact), .. } => Self::Exact(exact),
            Fields { prefix: Some(prefix), .. } => Self::Prefix(prefix),
            Fields { regex: Some(regex), .. } => Self::Regex(regex),
            Fields { .. } => Self::Present,
        })
    }
}

/// Which of a VirtualService's lists a route stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `spec.http`.
    Http,
    /// `spec.tls`.
    Tls,
    /// `spec.tcp`.
    Tcp,
}

impl Protocol {
    /// All three, in the order of findings.
    pub const ALL: [Self; 3] = [Self::Http, Self::Tls, Self::Tcp];

    /// The list's name below `spec`.
    pub fn field(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }

    /// The place of this list's route `index`.
    pub fn path(self, index: usize) -> FieldPath {
        FieldPath::spec().field(self.field()).index(index)
    }
}

impl VirtualServiceSpec {
    /// Whether it has a route for clients in the mesh that nothing else tells apart.
    pub fn serves_mesh(&self) -> bool {
        Protocol::ALL.iter().flat_map(|&protocol| self.routes(protocol)).any(|route| {
            route.r#match.is_empty()
                || route.r#match.iter().any(|own| {
                    let is_mesh = own.gateways.iter().any(|gateway| gateway == "mesh");
                    let is_anybody =
                        own.source_labels.is_empty() && own.source_namespace.is_empty();
                    own.port.is_none() && (is_mesh || (own.gateways.is_empty() && is_anybody))
                })
        })
    }

    /// The routes of one protocol, first match first.
    pub fn routes(&self, protocol: Protocol) -> &[Route] {
        match protocol {
            Protocol::Http => &self.http,
            Protocol::Tls => &self.tls,
            Protocol::Tcp => &self.tcp,
        }
    }

    /// Whether clients in the mesh use it: `gateways` is empty or names `mesh`.
    pub fn is_for_mesh(&self) -> bool {
        self.gateways.is_empty() || self.gateways.iter().any(|gateway| gateway == "mesh")
    }

    /// Whether another VirtualService must bring the hosts.
    pub fn is_delegate(&self) -> bool {
        self.hosts.is_empty()
    }
}

impl Route {
    /// The places that it sends requests to, sorted: what it is known by while its name, its match and its weights change.
    pub fn targets(&self) -> Vec<(&str, &str)> {
        let own = self.route.iter().map(|written| &written.destination);
        let mut targets = own.map(|to| (to.host.as_str(), to.subset.as_str())).collect::<Vec<_>>();
        targets.sort_unstable();
        targets
    }

    /// A number that is the same where [`Self::targets`] are, in whichever order they are written, and hardly ever elsewhere.
    pub fn target_hash(&self) -> u64 {
        let hash = |to: &Destination| FixedState::default().hash_one((&to.host, &to.subset));
        let own = self.route.iter().map(|written| hash(&written.destination));
        own.fold(0, u64::wrapping_add)
    }

    /// Whether it is a route for any of these ports.
    pub fn is_for_any_of(&self, ports: &BTreeSet<i64>) -> bool {
        let is_for = |block: &RouteMatch| match block.port {
            None | Some(0) => !ports.is_empty(),
            Some(port) => ports.contains(&port),
        };
        if self.r#match.is_empty() { !ports.is_empty() } else { self.r#match.iter().any(is_for) }
    }

    /// The sum of the weights as Envoy adds them up, an omitted one counted as 0; negative weights count as 0.
    pub fn total_weight(&self) -> u64 {
        self.route.iter().map(RouteDestination::effective_weight).fold(0, u64::saturating_add)
    }
}

impl Destination {
    /// What stands beside a weight: the subset, else the host.
    pub fn name(&self) -> &str {
        if self.subset.is_empty() { &self.host } else { &self.subset }
    }
}

impl RouteDestination {
    /// The weight that counts among several destinations: omitted and negative ones are 0.
    pub fn effective_weight(&self) -> u64 {
        self.weight.and_then(|weight| u64::try_from(weight).ok()).unwrap_or(0)
    }
}
