use std::collections::BTreeSet;

use super::virtual_service::{Route, RouteMatch, StringMatch};

/// Headers that every HTTP client or Envoy itself sends: to match on one is no opt-in.
const UNIVERSAL_HEADERS: [&str; 12] = [
    ":authority",
    ":method",
    ":path",
    ":scheme",
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
/// Source: `pilot/pkg/networking/core/route/route.go` `translateRouteMatch`, `IsCatchAllRoute`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Condition {
    /// Sorted, at most one per attribute.
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

/// What it is tested for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Test {
    Present,
    Exact(String),
    Prefix(String),
    Regex(String),
    AnyOf(BTreeSet<String>),
}

impl Test {
    fn of(value: Option<&StringMatch>, fold_case: bool) -> Self {
        let text = |text: &String| if fold_case { text.to_lowercase() } else { text.clone() };
        match value {
            Some(StringMatch::Exact(exact)) => Self::Exact(text(exact)),
            Some(StringMatch::Prefix(prefix)) => Self::Prefix(text(prefix)),
            // A bare `*` asks for presence (Istio's own special case, route.go `createHeaderMatcher`).
            Some(StringMatch::Regex(regex)) if regex == "*" => Self::Present,
            Some(StringMatch::Regex(regex)) => Self::Regex(regex.clone()),
            Some(StringMatch::Present) | None => Self::Present,
        }
    }

    /// True of every value there can be.
    fn takes_any_value(&self) -> bool {
        match self {
            Self::Present => true,
            Self::Prefix(prefix) => prefix.is_empty(),
            Self::Regex(regex) => matches!(regex.as_str(), ".*" | "^.*$" | "(.*)" | ".+" | "^.+$"),
            Self::Exact(_) | Self::AnyOf(_) => false,
        }
    }

    /// True of every path: a path always starts with a slash.
    fn takes_any_path(&self) -> bool {
        match self {
            Self::Prefix(prefix) => prefix == "/" || prefix.is_empty(),
            Self::Regex(regex) => {
                matches!(regex.as_str(), "/.*" | "^/.*$" | "^/.*" | "/(.*)")
                    || self.takes_any_value()
            }
            other => other.takes_any_value(),
        }
    }

    /// Whether every value that satisfies `inner` satisfies this; `false` also where that cannot be told.
    fn covers(&self, inner: &Self) -> bool {
        match (self, inner) {
            (Self::Present, _) => true,
            (Self::Prefix(prefix), Self::Exact(value) | Self::Prefix(value)) => {
                value.starts_with(prefix.as_str())
            }
            (Self::AnyOf(outer), Self::AnyOf(inner)) => inner.is_subset(outer),
            (outer, inner) => {
                outer == inner || (outer.takes_any_value() && !matches!(inner, Self::AnyOf(_)))
            }
        }
    }

    /// Whether no value can satisfy both; `false` also where that cannot be told.
    fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a != b,
            (Self::Prefix(prefix), Self::Exact(value))
            | (Self::Exact(value), Self::Prefix(prefix)) => !value.starts_with(prefix.as_str()),
            (Self::Prefix(a), Self::Prefix(b)) => {
                !a.starts_with(b.as_str()) && !b.starts_with(a.as_str())
            }
            (Self::AnyOf(a), Self::AnyOf(b)) => a.is_disjoint(b),
            _ => false,
        }
    }
}

impl Condition {
    /// The alternatives of `route`, for a VirtualService bound to `gateways` (`spec.gateways`): one empty condition where it
    /// has no `match`.
    pub fn of_route(route: &Route, gateways: &[String]) -> Vec<Self> {
        if route.r#match.is_empty() {
            return vec![Self::default()];
        }
        route.r#match.iter().map(|alternative| Self::of(alternative, gateways)).collect()
    }

    /// The normal form of one alternative.
    pub fn of(alternative: &RouteMatch, gateways: &[String]) -> Self {
        let mut parts = Vec::new();
        if let Some(uri) = &alternative.uri {
            let test = Test::of(Some(uri), alternative.ignore_uri_case);
            if !test.takes_any_path() {
                parts.push((Attribute::Uri, test));
            }
        }
        let texts = [
            (Attribute::Scheme, &alternative.scheme),
            (Attribute::Method, &alternative.method),
            (Attribute::Authority, &alternative.authority),
        ];
        for (attribute, value) in texts {
            let Some(value) = value else { continue };
            let test = Test::of(Some(value), false);
            if !test.takes_any_value() {
                parts.push((attribute, test));
            }
        }
        for (name, value) in &alternative.headers {
            let (name, test) = (name.to_lowercase(), Test::of(value.as_ref(), false));
            if !(test.takes_any_value() && UNIVERSAL_HEADERS.contains(&name.as_str())) {
                parts.push((Attribute::Header(name), test));
            }
        }
        for (name, value) in &alternative.without_headers {
            parts.push((
                Attribute::WithoutHeader(name.to_lowercase()),
                Test::of(value.as_ref(), false),
            ));
        }
        for (name, value) in &alternative.query_params {
            parts.push((Attribute::QueryParam(name.clone()), Test::of(value.as_ref(), false)));
        }
        if let Some(port) = alternative.port {
            parts.push((Attribute::Port, Test::Exact(port.to_string())));
        }
        if alternative.gateways.is_empty() {
            for (name, value) in &alternative.source_labels {
                parts.push((Attribute::SourceLabel(name.clone()), Test::Exact(value.clone())));
            }
            if !alternative.source_namespace.is_empty() {
                parts.push((
                    Attribute::SourceNamespace,
                    Test::Exact(alternative.source_namespace.clone()),
                ));
            }
        } else if !bound(gateways)
            .is_subset(&alternative.gateways.iter().map(String::as_str).collect())
        {
            // With `gateways` set Istio ignores the client's labels and namespace (route.go `sourceMatchHTTP`).
            parts.push((
                Attribute::Gateways,
                Test::AnyOf(alternative.gateways.iter().cloned().collect()),
            ));
        }
        for (attribute, values) in [
            (Attribute::SniHosts, &alternative.sni_hosts),
            (Attribute::DestinationSubnets, &alternative.destination_subnets),
        ] {
            if !values.is_empty() {
                parts.push((attribute, Test::AnyOf(values.iter().cloned().collect())));
            }
        }
        parts.sort();
        Self { parts }
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
                    && (*test == Test::Present && name != "cookie" || !test.takes_any_value())
            }
            Attribute::QueryParam(_) => *test == Test::Present || !test.takes_any_value(),
            Attribute::SourceLabel(_) => true,
            _ => false,
        })
    }

    /// Whether every request that satisfies `inner` satisfies this; `false` also where that cannot be told.
    pub fn covers(&self, inner: &Self) -> bool {
        self.parts.iter().all(|(attribute, outer)| {
            inner.part(attribute).is_some_and(|inner| match attribute {
                // The wider exclusion is the narrower condition.
                Attribute::WithoutHeader(_) => inner.covers(outer),
                Attribute::SniHosts => sni_covered(outer, inner),
                _ => outer.covers(inner),
            })
        })
    }

    /// The requests that satisfy both; `None` where there are none or they cannot be written down.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let mut parts = self.parts.clone();
        for (attribute, theirs) in &other.parts {
            match parts.iter_mut().find(|(own, _)| own == attribute) {
                None => parts.push((attribute.clone(), theirs.clone())),
                Some((_, ours)) if ours == theirs => {}
                Some(_) if matches!(attribute, Attribute::WithoutHeader(_)) => return None,
                Some((_, ours)) if theirs.covers(ours) => {}
                Some((_, ours)) if ours.covers(theirs) => *ours = theirs.clone(),
                Some(_) => return None,
            }
        }
        parts.sort();
        Some(Self { parts })
    }

    /// Whether no request satisfies both; `false` also where that cannot be told.
    pub fn excludes(&self, other: &Self) -> bool {
        self.parts.iter().any(|(attribute, ours)| match attribute {
            Attribute::WithoutHeader(_) => false,
            _ => other.part(attribute).is_some_and(|theirs| ours.excludes(theirs)),
        })
    }

    fn part(&self, attribute: &Attribute) -> Option<&Test> {
        let at = self.parts.binary_search_by(|(own, _)| own.cmp(attribute)).ok()?;
        Some(&self.parts[at].1)
    }
}

/// The gateways a VirtualService is bound to.
fn bound(gateways: &[String]) -> BTreeSet<&str> {
    if gateways.is_empty() {
        BTreeSet::from(["mesh"])
    } else {
        gateways.iter().map(String::as_str).collect()
    }
}

/// SNI lists compare by wildcard, each inner name by some outer one.
fn sni_covered(outer: &Test, inner: &Test) -> bool {
    match (outer, inner) {
        (Test::AnyOf(outer), Test::AnyOf(inner)) => {
            inner.iter().all(|inner| outer.iter().any(|outer| super::host_covers(outer, inner)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(yaml: &str) -> Condition {
        Condition::of(&serde_saphyr::from_str(yaml).expect("a match"), &[])
    }

    #[test]
    fn what_every_request_satisfies_is_a_catch_all() {
        for (text, want) in [
            ("{}", true),
            ("{uri: {prefix: /}}", true),
            ("{uri: {regex: .*}}", true),
            ("{uri: {regex: /.*}}", true),
            ("{gateways: [mesh]}", true),
            ("{headers: {user-agent: {regex: .*}}}", true),
            ("{headers: {x-beta: {regex: .*}}}", false),
            ("{uri: {prefix: /pay}}", false),
            ("{port: 80}", false),
            ("{gateways: [edge]}", false),
        ] {
            assert_eq!(condition(text).is_catch_all(), want, "{text}");
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
        assert!(condition("{uri: {prefix: /a}}").excludes(&condition("{uri: {prefix: /b}}")));
        assert!(!condition("{uri: {prefix: /a}}").excludes(&condition("{uri: {prefix: /a/b}}")));
    }
}
