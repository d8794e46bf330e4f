//! Which requests a `match` takes, in a form in which two of them can be compared.

mod attribute;
mod connection;
mod index;
#[cfg(test)]
mod tests;

pub use connection::Specificity;
pub use index::ConditionIndex;

pub(super) use attribute::masked_range;

use std::borrow::Cow;
use std::sync::Arc;

use self::attribute::{Test, sni_covers, subnets_cover};
use super::virtual_service::{Protocol, Route, RouteMatch, StringMatch};
use super::{VirtualServiceSpec, full_gateway};

/// Headers that every HTTP client or Envoy itself sends: to match on one is no opt-in.
const UNIVERSAL_HEADERS: [&str; 9] = [
    ":path",
    "accept",
    "accept-encoding",
    "authority",
    "host",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
];

/// One alternative of a route's `match`, in a normal form that can be compared: parts that are true of every request are
/// dropped, so that an empty condition takes everything. Cheap to clone.
///
/// Nothing here runs a regular expression: two of them are compared as text, so that no difference between RE2 and another
/// engine can change a verdict.
///
/// Source: `pilot/pkg/networking/core/route/route.go` `TranslateRouteMatch`, `IsCatchAllRoute`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Condition {
    /// Sorted; all of them must hold. An attribute stands there twice where two conditions meet that cannot be written as one.
    parts: Arc<[(Attribute, Test)]>,
}

/// What of a request or connection is tested.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Attribute {
    Uri,
    Scheme,
    Method,
    Authority,
    Header(String),
    WithoutHeader(String),
    QueryParam(String),
    Port,
    SourceLabel(String),
    SourceNamespace,
    Gateways,
    SniHosts,
    DestinationSubnets,
}

impl Attribute {
    /// Whether istiod evaluates it for each proxy and port, so that no request shows it.
    fn is_of_proxy(&self) -> bool {
        matches!(self, Self::Port | Self::SourceLabel(_) | Self::SourceNamespace | Self::Gateways)
    }

    /// Envoy compares header names in lower case; a pseudo-header is the attribute of its own.
    fn header(name: &str) -> Self {
        match name.to_lowercase().as_str() {
            ":authority" => Self::Authority,
            ":method" => Self::Method,
            ":scheme" => Self::Scheme,
            // The claims of a token keep their case.
            lower if lower.starts_with("@request.auth.") => Self::Header(name.to_owned()),
            lower => Self::Header(lower.to_owned()),
        }
    }
}

/// How much is read into a `match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// As clients are: each sends a `user-agent`, and `/.*` is any path. Right for asking whose requests are moved.
    Usual,
    /// As Istio is: only what ends the list of routes takes everything. Right for saying that something is never reached.
    Strict,
}

/// Where requests arrive: the gateways (`mesh` for clients in the mesh) for which a list of routes is evaluated.
#[derive(Debug, Clone)]
pub struct Arrival<'a> {
    /// With full names.
    gateways: Vec<Cow<'a, str>>,
    /// In which short names in the routes are completed.
    namespace: &'a str,
    /// The list that the routes stand in.
    protocol: Protocol,
    /// The namespace of the waypoint where they arrive, and the host that is called.
    waypoint: Option<(&'a str, &'a str)>,
    /// Where it is known: then a match asks for nothing that is not settled, or is none.
    port: Option<i64>,
}

impl<'a> Arrival<'a> {
    /// Wherever an object of `namespace` is bound to.
    pub fn anywhere(spec: &VirtualServiceSpec, namespace: &'a str) -> Self {
        Self::of(&spec.gateways, namespace)
    }

    /// At one gateway, given with its full name; the routes are those of an object of `namespace`.
    pub fn at(gateway: &'a str, namespace: &'a str) -> Self {
        Self {
            gateways: vec![Cow::Borrowed(gateway)],
            namespace,
            protocol: Protocol::Http,
            waypoint: None,
            port: None,
        }
    }

    fn of(gateways: &[String], namespace: &'a str) -> Self {
        let full = gateways.iter().map(|own| Cow::Owned(full_gateway(own, namespace)));
        let gateways =
            if gateways.is_empty() { vec![Cow::Borrowed("mesh")] } else { full.collect() };
        Self { gateways, namespace, protocol: Protocol::Http, waypoint: None, port: None }
    }

    /// The same for another list than `http`: TCP and TLS read some of a match otherwise.
    #[must_use]
    pub fn of_protocol(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    /// The same at a waypoint, given with its namespace, for a host that is reached through it.
    #[must_use]
    pub fn at_waypoint(self, waypoint: Option<(&'a str, &'a str)>) -> Self {
        Self { waypoint, ..self }
    }

    /// The same on one port, where it is known which.
    #[must_use]
    pub fn on_port(self, port: Option<i64>) -> Self {
        Self { port, ..self }
    }

    /// Whether nobody arrives from a sidecar.
    fn is_gateway(&self) -> bool {
        !self.gateways.iter().any(|gateway| gateway == "mesh")
    }
}

impl Condition {
    /// The alternatives of `route`, for a VirtualService bound to `gateways` (`spec.gateways`): one empty condition where it
    /// has no `match`. Those that no request can satisfy are left out.
    pub fn of_route(route: &Route, gateways: &[String]) -> Vec<Self> {
        Self::alternatives(route, &Arrival::of(gateways, ""), Reading::Usual)
    }

    /// The alternatives of `route` for requests that arrive there; those that none of them can satisfy are left out.
    pub fn alternatives(route: &Route, arrival: &Arrival<'_>, reading: Reading) -> Vec<Self> {
        if route.r#match.is_empty() {
            // Without a match no name is asked for, and no TLS route is made (`tls.go`).
            return if arrival.protocol == Protocol::Tls { vec![] } else { vec![Self::default()] };
        }
        let read = |alternative| Self::of(alternative, arrival, reading);
        route.r#match.iter().filter_map(read).collect()
    }

    /// The alternatives of a route as clients are and as Istio is.
    pub fn readings(route: &Route, arrival: &Arrival<'_>) -> (Vec<Self>, Vec<Self>) {
        if route.r#match.is_empty() {
            let all = Self::alternatives(route, arrival, Reading::Strict);
            return (all.clone(), all);
        }
        let read = route.r#match.iter().map(|own| Self::both(own, arrival));
        let (usual, strict): (Vec<_>, Vec<_>) = read.unzip();
        (usual.into_iter().flatten().collect(), strict.into_iter().flatten().collect())
    }

    /// The normal form of one alternative; `None` where no request that arrives there can satisfy it.
    pub fn of(alternative: &RouteMatch, arrival: &Arrival<'_>, reading: Reading) -> Option<Self> {
        Self::normal(Self::parts(alternative, arrival, reading)?.0)
    }

    /// Whether only clients that opted in meet one of the alternatives: see [`Self::is_targeted`].
    pub fn has_targeted(route: &Route, arrival: &Arrival<'_>) -> bool {
        // Only what these say is an opt-in.
        let may_be = |own: &&RouteMatch| {
            !own.headers.is_empty() || !own.query_params.is_empty() || !own.source_labels.is_empty()
        };
        let mut own = route.r#match.iter().filter(may_be);
        own.any(|own| Self::of(own, arrival, Reading::Usual).is_some_and(|own| own.is_targeted()))
    }

    /// The same in either reading, the usual one first.
    pub fn both(alternative: &RouteMatch, arrival: &Arrival<'_>) -> (Option<Self>, Option<Self>) {
        let Some((parts, is_strict)) = Self::parts(alternative, arrival, Reading::Usual) else {
            return (None, None);
        };
        let usual = Self::normal(parts);
        let strict = match is_strict {
            true => usual.clone(),
            false => Self::of(alternative, arrival, Reading::Strict),
        };
        (usual, strict)
    }

    /// The parts of one alternative, and whether they are those of the strict reading; `None` where no reading finds any request.
    fn parts(
        alternative: &RouteMatch,
        arrival: &Arrival<'_>,
        reading: Reading,
    ) -> Option<(Vec<(Attribute, Test)>, bool)> {
        let mut parts = Vec::new();
        let mut is_strict = true;
        if let Some(uri) = &alternative.uri {
            let test = Test::of_path(uri, alternative.ignore_uri_case);
            let takes_any = match reading {
                Reading::Usual => test.takes_any_path(),
                Reading::Strict => test.ends_the_list(),
            };
            if !takes_any {
                parts.push((Attribute::Uri, test));
            } else if !test.ends_the_list() {
                is_strict = false;
            }
        }
        let is_sent_by_all = |attribute: &Attribute| match attribute {
            Attribute::Scheme | Attribute::Method | Attribute::Authority => true,
            Attribute::Header(name) => UNIVERSAL_HEADERS.contains(&name.as_str()),
            _ => false,
        };
        let mut positive = |attribute: Attribute, value: Option<&StringMatch>| {
            let test = Test::of(value, false);
            let is_trivial = test.takes_any_usual_value() && is_sent_by_all(&attribute);
            if reading == Reading::Strict || !is_trivial {
                parts.push((attribute, test));
            } else {
                is_strict = false;
            }
        };
        for (attribute, value) in [
            (Attribute::Scheme, &alternative.scheme),
            (Attribute::Method, &alternative.method),
            (Attribute::Authority, &alternative.authority),
        ] {
            if value.is_some() {
                positive(attribute, value.as_ref());
            }
        }
        for (name, value) in &alternative.headers {
            positive(Attribute::header(name), value.as_ref());
        }
        for (name, value) in &alternative.query_params {
            positive(Attribute::QueryParam(name.clone()), value.as_ref());
        }
        for (name, value) in &alternative.without_headers {
            let test = Test::of(value.as_ref(), false);
            if test != Test::Present && test.takes_any_value() {
                return None; // an absent header reads as empty, and so is what must not be
            }
            parts.push((Attribute::WithoutHeader(name.to_lowercase()), test));
        }
        if let Some(port) = alternative.port.filter(|&port| port != 0) {
            match arrival.port {
                None => parts.push((Attribute::Port, Test::Exact(port.to_string()))),
                Some(own) if own != port => return None,
                Some(_) => {}
            }
        }
        connection::add_source(&mut parts, alternative, arrival)?;
        connection::add_connection(&mut parts, alternative, arrival)?;
        Some((parts, is_strict))
    }

    /// Whether it takes every request.
    pub fn is_catch_all(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether only clients that opted in meet it: it needs a header, cookie, query parameter or client label that is not
    /// trivially true. A path, a port or a header that every client sends is no opt-in.
    pub fn is_targeted(&self) -> bool {
        self.parts.iter().any(|(attribute, test)| match attribute {
            Attribute::Header(name) => {
                !UNIVERSAL_HEADERS.contains(&name.as_str())
                    && (*test == Test::Present && name != "cookie" || !test.takes_any_usual_value())
            }
            Attribute::QueryParam(_) => *test == Test::Present || !test.takes_any_usual_value(),
            Attribute::SourceLabel(_) => true,
            _ => false,
        })
    }

    /// Whether it asks for nothing but what istiod decides for each proxy, so that it takes every request of those it is for.
    pub fn is_of_proxy(&self) -> bool {
        self.parts.iter().all(|(attribute, _)| attribute.is_of_proxy())
    }

    /// What it says of the client's proxy: the port, the gateway, labels and namespace. istiod leaves a route out of the list
    /// for a proxy of which this does not hold.
    #[must_use]
    pub fn of_proxy(&self) -> Self {
        let own = self.parts.iter().filter(|(attribute, _)| attribute.is_of_proxy());
        Self { parts: own.cloned().collect() }
    }

    /// Whether every request that satisfies `inner` satisfies this; `false` also where that cannot be told.
    pub fn covers(&self, inner: &Self) -> bool {
        self.parts.iter().all(|(attribute, test)| inner.implies(attribute, test))
    }

    fn implies(&self, attribute: &Attribute, outer: &Test) -> bool {
        match attribute {
            Attribute::WithoutHeader(name) => {
                let header = Attribute::Header(name.clone());
                self.tests(attribute).any(|inner| outer.absence_covers(inner))
                    || self.tests(&header).any(|inner| outer.excludes(inner))
            }
            Attribute::SniHosts => self.tests(attribute).any(|inner| sni_covers(outer, inner)),
            Attribute::DestinationSubnets => {
                self.tests(attribute).any(|inner| subnets_cover(outer, inner))
            }
            _ => self.tests(attribute).any(|inner| outer.covers(inner)),
        }
    }

    /// The requests that satisfy both; `None` where it is known that there are none.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let parts = self.parts.iter().chain(other.parts.iter()).cloned().collect();
        Self::normal(parts)
    }

    /// Whether no request satisfies both; `false` also where that cannot be told.
    pub fn excludes(&self, other: &Self) -> bool {
        self.parts.iter().any(|(attribute, test)| other.contradicts(attribute, test))
    }

    fn contradicts(&self, attribute: &Attribute, test: &Test) -> bool {
        match attribute {
            Attribute::WithoutHeader(name) => {
                self.tests(&Attribute::Header(name.clone())).any(|there| test.covers(there))
            }
            Attribute::Header(name) => {
                let without = Attribute::WithoutHeader(name.clone());
                self.tests(attribute).any(|other| test.excludes(other))
                    || self.tests(&without).any(|absent| absent.covers(test))
            }
            Attribute::Gateways => self.tests(attribute).any(|other| match (test, other) {
                (Test::AnyOf(a), Test::AnyOf(b)) => a.is_disjoint(b),
                _ => false,
            }),
            _ => self.tests(attribute).any(|other| test.excludes(other)),
        }
    }

    /// Sorted, each part once and only the narrowest ones; `None` where two parts contradict each other.
    fn normal(mut parts: Vec<(Attribute, Test)>) -> Option<Self> {
        parts.sort();
        parts.dedup();
        let is_single = parts.windows(2).all(|two| two[0].0 != two[1].0);
        if !is_single {
            // Of parts that say the same of an attribute the first one stays; no two of them are equal.
            let is_implied = |at: usize| {
                let (attribute, outer) = &parts[at];
                let others = parts.iter().enumerate().filter(|(other, _)| *other != at);
                let mut others = others.filter(|(_, (own, _))| own == attribute);
                others.any(|(other, (_, inner))| {
                    let alone =
                        |test: &Test| Self { parts: [(attribute.clone(), test.clone())].into() };
                    alone(inner).implies(attribute, outer)
                        && (other < at || !alone(outer).implies(attribute, inner))
                })
            };
            let keep = (0..parts.len()).filter(|&at| !is_implied(at)).collect::<Vec<_>>();
            parts = keep.into_iter().map(|at| parts[at].clone()).collect();
        }
        // One test of an attribute contradicts no other one, but for what must not be in a header, and for a list of nothing.
        let is_plain = |(attribute, test): &(Attribute, Test)| {
            !matches!(attribute, Attribute::WithoutHeader(_)) && !matches!(test, Test::AnyOf(_))
        };
        let is_possible = is_single && parts.iter().all(is_plain);
        let own = Self { parts: parts.into() };
        let mut parts = own.parts.iter();
        let is_possible =
            is_possible || !parts.any(|(attribute, test)| own.contradicts(attribute, test));
        is_possible.then_some(own)
    }

    /// All tests of one attribute.
    fn tests(&self, attribute: &Attribute) -> impl Iterator<Item = &Test> {
        let from = self.parts.partition_point(|(own, _)| own < attribute);
        self.parts[from..].iter().take_while(move |(own, _)| own == attribute).map(|(_, test)| test)
    }
}
