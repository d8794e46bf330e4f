//! Which requests a `match` takes, in a form in which two of them can be compared.

mod connection;
mod index;
mod test;

pub use connection::Specificity;
pub use index::ConditionIndex;

use std::borrow::Cow;

use self::test::{Test, sni_covers, subnets_cover};
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
/// dropped, so that an empty condition takes everything.
///
/// Nothing here runs a regular expression: two of them are compared as text, so that no difference between RE2 and another
/// engine can change a verdict.
///
/// Source: `pilot/pkg/networking/core/route/route.go` `TranslateRouteMatch`, `IsCatchAllRoute`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Condition {
    /// Sorted; all of them must hold. An attribute stands there twice where two conditions meet that cannot be written as one.
    parts: Vec<(Attribute, Test)>,
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
}

impl<'a> Arrival<'a> {
    /// Wherever an object of `namespace` is bound to.
    pub fn anywhere(spec: &VirtualServiceSpec, namespace: &'a str) -> Self {
        Self::of(&spec.gateways, namespace)
    }

    /// At one gateway, given with its full name; the routes are those of an object of `namespace`.
    pub fn at(gateway: &'a str, namespace: &'a str) -> Self {
        Self { gateways: vec![Cow::Borrowed(gateway)], namespace, protocol: Protocol::Http }
    }

    fn of(gateways: &[String], namespace: &'a str) -> Self {
        let full = gateways.iter().map(|own| Cow::Owned(full_gateway(own, namespace)));
        let gateways =
            if gateways.is_empty() { vec![Cow::Borrowed("mesh")] } else { full.collect() };
        Self { gateways, namespace, protocol: Protocol::Http }
    }

    /// The same for another list than `http`: TCP and TLS read some of a match otherwise.
    #[must_use]
    pub fn of_protocol(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
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
            return vec![Self::default()];
        }
        let read = |alternative| Self::of(alternative, arrival, reading);
        route.r#match.iter().filter_map(read).collect()
    }

    /// The normal form of one alternative; `None` where no request that arrives there can satisfy it.
    pub fn of(alternative: &RouteMatch, arrival: &Arrival<'_>, reading: Reading) -> Option<Self> {
        let mut parts = Vec::new();
        if let Some(uri) = &alternative.uri {
            let test = Test::of(Some(uri), alternative.ignore_uri_case);
            let takes_any = match reading {
                Reading::Usual => test.takes_any_path(),
                Reading::Strict => test.ends_the_list(),
            };
            if !takes_any {
                parts.push((Attribute::Uri, test));
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
            parts.push((Attribute::Port, Test::Exact(port.to_string())));
        }
        connection::add_source(&mut parts, alternative, arrival)?;
        connection::add_connection(&mut parts, alternative, arrival);
        Self { parts }.normal()
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
        let parts = self.parts.iter().chain(&other.parts).cloned().collect();
        Self { parts }.normal()
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
    fn normal(mut self) -> Option<Self> {
        self.parts.sort();
        self.parts.dedup();
        let parts = &self.parts;
        let is_single = parts.windows(2).all(|two| two[0].0 != two[1].0);
        if !is_single {
            // Of parts that say the same of an attribute the first one stays; no two of them are equal.
            let is_implied = |at: usize| {
                let (attribute, outer) = &parts[at];
                let others = parts.iter().enumerate().filter(|(other, _)| *other != at);
                let mut others = others.filter(|(_, (own, _))| own == attribute);
                others.any(|(other, (_, inner))| {
                    let alone =
                        |test: &Test| Self { parts: vec![(attribute.clone(), test.clone())] };
                    alone(inner).implies(attribute, outer)
                        && (other < at || !alone(outer).implies(attribute, inner))
                })
            };
            let keep = (0..parts.len()).filter(|&at| !is_implied(at)).collect::<Vec<_>>();
            self.parts = keep.into_iter().map(|at| self.parts[at].clone()).collect();
        }
        let is_possible =
            !self.parts.iter().any(|(attribute, test)| self.contradicts(attribute, test));
        is_possible.then_some(self)
    }

    /// All tests of one attribute.
    fn tests(&self, attribute: &Attribute) -> impl Iterator<Item = &Test> {
        let from = self.parts.partition_point(|(own, _)| own < attribute);
        self.parts[from..].iter().take_while(move |(own, _)| own == attribute).map(|(_, test)| test)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str, reading: Reading) -> Option<Condition> {
        let arrival = Arrival::of(&["mesh".to_owned(), "edge".to_owned()], "shop");
        Condition::of(&serde_saphyr::from_str(yaml).expect("a match"), &arrival, reading)
    }

    fn condition(yaml: &str) -> Condition {
        read(yaml, Reading::Usual).expect("a match that can hold")
    }

    #[test]
    fn what_every_request_satisfies_is_a_catch_all() {
        for (text, want) in [
            ("{}", true),
            ("{uri: {prefix: /}}", true),
            ("{uri: {regex: .*}}", true),
            ("{uri: {regex: /.*}}", true),
            ("{gateways: [mesh, edge]}", true),
            ("{gateways: [mesh, shop/edge, more]}", true),
            ("{gateways: [mesh]}", false),
            ("{headers: {user-agent: {regex: .*}}}", true),
            ("{headers: {x-beta: {regex: .*}}}", false),
            ("{uri: {prefix: /pay}}", false),
            ("{port: 80}", false),
        ] {
            assert_eq!(condition(text).is_catch_all(), want, "{text}");
        }
    }

    #[test]
    fn istio_ends_the_list_only_for_these() {
        for (text, want) in [
            ("{}", true),
            ("{uri: {prefix: /}}", true),
            ("{uri: {prefix: /}, ignoreUriCase: true}", true),
            ("{uri: {regex: .*}}", true),
            ("{uri: {}}", true),
            ("{gateways: [mesh, edge], sourceLabels: {app: a}}", true),
            ("{uri: {regex: /.*}}", false),
            ("{uri: {regex: .+}}", false),
            ("{uri: {regex: '^.*$'}}", false),
            ("{headers: {user-agent: {regex: .*}}}", false),
            ("{authority: {regex: .*}}", false),
            ("{method: {regex: .*}}", false),
            ("{queryParams: {a: {regex: .*}}}", false),
            ("{withoutHeaders: {a: {}}}", false),
            ("{port: 80}", false),
            ("{sourceNamespace: shop}", false),
        ] {
            let condition = read(text, Reading::Strict).expect(text);
            assert_eq!(condition.is_catch_all(), want, "{text}");
        }
    }

    #[test]
    fn some_matches_can_never_hold() {
        for (text, want) in [
            ("{withoutHeaders: {a: {regex: .*}}}", false),
            ("{withoutHeaders: {a: {}}}", true),
            ("{withoutHeaders: {a: {regex: .+}}}", true),
            ("{headers: {a: {}}, withoutHeaders: {a: {}}}", false),
            ("{headers: {a: {exact: b}}, withoutHeaders: {a: {prefix: b}}}", false),
            ("{headers: {a: {exact: c}}, withoutHeaders: {a: {prefix: b}}}", true),
            ("{headers: {a: {exact: b}, A: {exact: c}}}", false),
            ("{gateways: [other]}", false),
        ] {
            assert_eq!(read(text, Reading::Strict).is_some(), want, "{text}");
        }
    }

    #[test]
    fn only_an_opt_in_makes_traffic_targeted() {
        for (text, want) in [
            ("{headers: {x-beta: {exact: '1'}}}", true),
            ("{headers: {x-beta: {}}}", true),
            ("{headers: {x-beta: {regex: .*}}}", false),
            ("{headers: {cookie: {regex: '.*beta=1.*'}}}", true),
            ("{headers: {cookie: {}}}", false),
            ("{headers: {user-agent: {regex: '.*Firefox.*'}}}", false),
            ("{queryParams: {beta: {exact: 'yes'}}}", true),
            ("{sourceLabels: {app: tester}}", true),
            ("{sourceLabels: {app: tester}, gateways: [edge]}", false),
            ("{headers: {'@request.auth.claims.group': {exact: beta}}}", true),
            ("{withoutHeaders: {x-internal: {}}}", false),
            ("{uri: {prefix: /pay}}", false),
            ("{}", false),
        ] {
            assert_eq!(condition(text).is_targeted(), want, "{text}");
        }
    }

    #[test]
    fn the_wider_condition_covers() {
        for (outer, inner, want) in [
            ("{}", "{uri: {prefix: /pay}}", true),
            ("{uri: {prefix: /pay}}", "{}", false),
            ("{uri: {prefix: /p}}", "{uri: {prefix: /pay}}", true),
            ("{uri: {prefix: /p}}", "{uri: {exact: /pay}}", true),
            ("{uri: {exact: /pay}}", "{uri: {prefix: /pay}}", false),
            ("{uri: {prefix: /p}}", "{uri: {prefix: /pay}, headers: {a: {exact: b}}}", true),
            ("{headers: {A: {}}}", "{headers: {a: {exact: b}}}", true),
            ("{withoutHeaders: {a: {exact: b}}}", "{withoutHeaders: {a: {}}}", true),
            ("{withoutHeaders: {a: {}}}", "{withoutHeaders: {a: {exact: b}}}", false),
            ("{sniHosts: ['*.shop']}", "{sniHosts: [a.shop, b.shop]}", true),
            ("{withoutHeaders: {a: {exact: b}}}", "{headers: {a: {exact: c}}}", true),
            ("{withoutHeaders: {a: {exact: b}}}", "{}", false),
            ("{withoutHeaders: {a: {exact: ''}}}", "{withoutHeaders: {a: {}}}", false),
            ("{uri: {prefix: /A}, ignoreUriCase: true}", "{uri: {exact: /ab}}", true),
            ("{uri: {prefix: /A}}", "{uri: {exact: /Ab}, ignoreUriCase: true}", false),
            ("{uri: {exact: /A}, ignoreUriCase: true}", "{uri: {exact: /a}}", true),
            ("{headers: {a: {regex: .*}}}", "{headers: {a: {exact: b}}}", true),
            ("{headers: {a: {regex: b}}}", "{headers: {a: {exact: b}}}", false),
            ("{destinationSubnets: [10.0.0.0/8]}", "{destinationSubnets: [10.1.0.0/16]}", true),
        ] {
            assert_eq!(condition(outer).covers(&condition(inner)), want, "{outer} over {inner}");
        }
    }

    #[test]
    fn two_conditions_meet_where_both_hold() {
        let both =
            condition("{uri: {prefix: /pay}}").intersection(&condition("{method: {exact: GET}}"));
        assert_eq!(both, Some(condition("{uri: {prefix: /pay}, method: {exact: GET}}")));
        assert_eq!(
            condition("{uri: {exact: /a}}").intersection(&condition("{uri: {exact: /b}}")),
            None
        );
        let both = condition("{headers: {a: {regex: b.*}}}")
            .intersection(&condition("{headers: {a: {prefix: b}}}"))
            .expect("both can hold");
        assert!(condition("{headers: {a: {prefix: b}}}").covers(&both));
        assert!(!both.covers(&condition("{headers: {a: {prefix: b}}}")));
        assert!(condition("{uri: {prefix: /a}}").excludes(&condition("{uri: {prefix: /b}}")));
        assert!(!condition("{uri: {prefix: /a}}").excludes(&condition("{uri: {prefix: /a/b}}")));
    }

    #[test]
    fn the_index_finds_what_reading_from_the_top_finds() {
        let texts = [
            "{uri: {prefix: /a}, headers: {x: {exact: '1'}}}",
            "{uri: {prefix: /a/b}}",
            "{uri: {prefix: /A}, ignoreUriCase: true}",
            "{uri: {exact: /c}}",
            "{uri: {regex: '/d[0-9]+'}}",
            "{headers: {x: {}}}",
            "{headers: {x: {regex: 'a|b'}}}",
            "{withoutHeaders: {x: {exact: '2'}}, uri: {prefix: /c}}",
            "{method: {exact: GET}, port: 80}",
            "{sniHosts: ['*.shop', a.com]}",
            "{sniHosts: ['*shop']}",
            "{sourceLabels: {app: a}}",
            "{gateways: [edge]}",
            "{queryParams: {q: {exact: '1'}}}",
            "{destinationSubnets: [10.0.0.0/8]}",
            "{sniHosts: [b.shop]}",
            "{destinationSubnets: [10.0.0.1]}",
            "{uri: {exact: /a/b/c}, headers: {x: {exact: '1'}}, method: {exact: GET}, port: 80}",
            "{headers: {x: {exact: '1'}}, uri: {prefix: /cc}}",
        ];
        let all = texts.map(condition);
        let index = ConditionIndex::new(all.iter().enumerate());
        let meet = all.iter().flat_map(|a| all.iter().filter_map(|b| a.intersection(b)));
        for asked in meet.chain([Condition::default()]) {
            let slow = all.iter().position(|own| own.covers(&asked));
            assert_eq!(index.first_covering(&asked).map(|(at, _)| at), slow, "{asked:?}");
        }
    }
}
