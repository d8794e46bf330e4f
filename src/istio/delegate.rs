//! How the routes of a root and of its delegates become one list.

use std::borrow::Cow;

use super::full_gateway;
use super::virtual_service::{Route, RouteMatch, StringMatch};

/// What becomes of a root's route that names a delegate: the delegate's routes in its place.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merged {
    /// The delegate's routes that remain, each with its place in the delegate's `http` and with the match that results.
    pub routes: Vec<(usize, Route)>,
    /// The delegate's routes that Istio leaves out, with no more than a line in istiod's log.
    pub dropped: Vec<Dropped>,
}

/// A delegate's route that Istio leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Its place in the delegate's `http`.
    pub route: usize,
    /// The first field of its match that asks for something the root's match does not hold, such as `uri`.
    pub field: &'static str,
}

/// Puts the routes of a delegate in the place of the root's route that names it.
///
/// A delegate's match must be a part of the root's, block by block and field by field; each block is merged with every block of
/// the root that it fits. A route with a block that fits none is dropped as a whole. Beside each stands the namespace of its
/// object: the names of gateways are completed there, and compared then.
///
/// Source: `pilot/pkg/model/virtualservice.go` `MergeHTTPRoutes`, `ResolveVirtualServiceShortnames`.
pub fn merge((root, at_root): (&Route, &str), (delegate, at): (&[Route], &str)) -> Merged {
    let mut merged = Merged::default();
    let roots = completed(&root.r#match, at_root);
    for (place, own) in delegate.iter().enumerate() {
        match merge_matches(&roots, &completed(&own.r#match, at)) {
            Ok(matches) => merged.routes.push((place, merge_route(root, own, matches))),
            Err(field) => merged.dropped.push(Dropped { route: place, field }),
        }
    }
    merged
}

/// The match of one route of a delegate as [`merge`] leaves it; `None` where that drops the route.
pub fn merged_match(
    (root, at_root): (&Route, &str),
    (own, at): (&Route, &str),
) -> Option<Vec<RouteMatch>> {
    merge_matches(&completed(&root.r#match, at_root), &completed(&own.r#match, at)).ok()
}

/// A match of an object of `namespace` with full names of gateways.
pub fn completed<'a>(written: &'a [RouteMatch], namespace: &str) -> Cow<'a, [RouteMatch]> {
    if written.iter().all(|block| block.gateways.is_empty()) {
        return Cow::Borrowed(written);
    }
    let mut full = written.to_vec();
    for gateway in full.iter_mut().flat_map(|block| &mut block.gateways) {
        *gateway = full_gateway(gateway, namespace);
    }
    Cow::Owned(full)
}

fn merge_route(root: &Route, own: &Route, matches: Vec<RouteMatch>) -> Route {
    let mut route = Route { r#match: matches, delegate: None, ..own.clone() };
    route.name = match (root.name.as_str(), own.name.as_str()) {
        (root, "") => root.to_owned(),
        ("", own) => own.to_owned(),
        (root, own) => format!("{root}-{own}"),
    };
    route.direct_response = own.direct_response.or(root.direct_response);
    // What the delegate does not say, its root does.
    route.rewrite = route.rewrite.or_else(|| root.rewrite.clone());
    route.timeout = route.timeout.or(root.timeout);
    route.retries = route.retries.or_else(|| root.retries.clone());
    route.fault = route.fault.or_else(|| root.fault.clone());
    route.mirror = route.mirror.or_else(|| root.mirror.clone());
    route.mirror_percentage = route.mirror_percentage.or(root.mirror_percentage);
    route.mirror_percent = route.mirror_percent.or(root.mirror_percent);
    route.mirror_percent_snake = route.mirror_percent_snake.or(root.mirror_percent_snake);
    if route.mirrors.is_empty() {
        route.mirrors.clone_from(&root.mirrors);
    }
    route.cors_policy = route.cors_policy.or_else(|| root.cors_policy.clone());
    route
}

fn merge_matches(root: &[RouteMatch], own: &[RouteMatch]) -> Result<Vec<RouteMatch>, &'static str> {
    if root.is_empty() {
        return Ok(own.to_vec());
    }
    if own.is_empty() {
        return Ok(root.to_vec());
    }
    let mut merged = Vec::new();
    for own in own {
        let mut first = None;
        let before = merged.len();
        for root in root {
            match conflict(root, own) {
                None => merged.push(merge_match(root, own)),
                Some(field) => first = first.or(Some(field)),
            }
        }
        if let Some(field) = first.filter(|_| merged.len() == before) {
            return Err(field);
        }
    }
    Ok(merged)
}

fn merge_match(root: &RouteMatch, own: &RouteMatch) -> RouteMatch {
    /// The root's entries, then the delegate's over them.
    fn both<V: Clone>(
        root: &std::collections::BTreeMap<String, V>,
        own: &std::collections::BTreeMap<String, V>,
    ) -> std::collections::BTreeMap<String, V> {
        root.iter().chain(own).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
    let first = |own: &Option<StringMatch>, root: &Option<StringMatch>| {
        own.as_ref().or(root.as_ref()).cloned()
    };
    RouteMatch {
        uri: first(&own.uri, &root.uri),
        scheme: first(&own.scheme, &root.scheme),
        method: first(&own.method, &root.method),
        authority: first(&own.authority, &root.authority),
        headers: both(&root.headers, &own.headers),
        without_headers: both(&root.without_headers, &own.without_headers),
        query_params: both(&root.query_params, &own.query_params),
        port: own.port.filter(|&port| port != 0).or(root.port),
        source_labels: both(&root.source_labels, &own.source_labels),
        source_namespace: if own.source_namespace.is_empty() {
            root.source_namespace.clone()
        } else {
            own.source_namespace.clone()
        },
        gateways: if own.gateways.is_empty() {
            root.gateways.clone()
        } else {
            own.gateways.clone()
        },
        ..own.clone()
    }
}

/// The first field in which a block of the delegate is no part of a block of the root (`hasConflict`).
fn conflict(root: &RouteMatch, own: &RouteMatch) -> Option<&'static str> {
    let texts = [
        ("uri", &root.uri, &own.uri),
        ("scheme", &root.scheme, &own.scheme),
        ("method", &root.method, &own.method),
        ("authority", &root.authority, &own.authority),
    ];
    let clash = |root: Option<&StringMatch>, own: Option<&StringMatch>| {
        root.zip(own).is_some_and(|(root, own)| texts_conflict(root, own))
    };
    if let Some((field, ..)) =
        texts.iter().find(|(_, root, own)| clash(root.as_ref(), own.as_ref()))
    {
        return Some(field);
    }
    let maps = [
        ("headers", &root.headers, &own.headers),
        ("withoutHeaders", &root.without_headers, &own.without_headers),
        ("queryParams", &root.query_params, &own.query_params),
    ];
    for (field, root, own) in maps {
        let theirs = |name: &String| root.get(name).and_then(Option::as_ref);
        if own.iter().any(|(name, value)| clash(theirs(name), value.as_ref())) {
            return Some(field);
        }
    }
    if root.ignore_uri_case != own.ignore_uri_case {
        return Some("ignoreUriCase");
    }
    let port = |port: Option<i64>| port.filter(|&port| port > 0);
    if port(root.port).zip(port(own.port)).is_some_and(|(root, own)| root != own) {
        return Some("port");
    }
    if !root.source_namespace.is_empty() && own.source_namespace != root.source_namespace {
        return Some("sourceNamespace");
    }
    let other_label = |(name, value): (&String, &String)| {
        root.source_labels.get(name).is_some_and(|root| root != value)
    };
    if own.source_labels.iter().any(other_label) {
        return Some("sourceLabels");
    }
    let is_part = own.gateways.len() <= root.gateways.len()
        && own.gateways.iter().all(|gateway| root.gateways.contains(gateway));
    (!root.gateways.is_empty() && !own.gateways.is_empty() && !is_part).then_some("gateways")
}

/// Whether the delegate's text asks for something outside of the root's. Regular expressions fit nothing but an absent match,
/// and a match without a type (`{}`) fits nothing at all (`stringMatchConflict`).
fn texts_conflict(root: &StringMatch, own: &StringMatch) -> bool {
    use StringMatch::{Exact, Prefix};
    match (root, own) {
        (Exact(root), Exact(own)) => root.is_empty() || root != own,
        (Prefix(root), Exact(own) | Prefix(own)) => {
            root.is_empty() || own.is_empty() || !own.starts_with(root.as_str())
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(yaml: &str) -> Route {
        serde_saphyr::from_str(yaml).expect("a route")
    }

    fn merged(root: &str, own: &str) -> Result<Vec<RouteMatch>, &'static str> {
        let merged = merge((&route(root), "a"), (&[route(own)], "a"));
        match (merged.routes.first(), merged.dropped.first()) {
            (Some((0, route)), None) => Ok(route.r#match.clone()),
            (None, Some(dropped)) => Err(dropped.field),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_match_of_the_delegate_must_be_a_part_of_the_roots() {
        for (root, own, want) in [
            ("{}", "{}", Ok("{}")),
            ("{}", "{match: [{uri: {prefix: /a}}]}", Ok("{match: [{uri: {prefix: /a}}]}")),
            ("{match: [{uri: {prefix: /a}}]}", "{}", Ok("{match: [{uri: {prefix: /a}}]}")),
            (
                "{match: [{uri: {prefix: /a}}]}",
                "{match: [{uri: {exact: /a/b}}]}",
                Ok("{match: [{uri: {exact: /a/b}}]}"),
            ),
            ("{match: [{uri: {prefix: /a}}]}", "{match: [{uri: {prefix: /b}}]}", Err("uri")),
            ("{match: [{uri: {exact: /a}}]}", "{match: [{uri: {prefix: /a}}]}", Err("uri")),
            ("{match: [{uri: {regex: /a.*}}]}", "{match: [{uri: {exact: /ab}}]}", Err("uri")),
            ("{match: [{uri: {regex: /a}}]}", "{match: [{uri: {regex: /a}}]}", Err("uri")),
            ("{match: [{uri: {prefix: /a}}]}", "{match: [{uri: {}}]}", Err("uri")),
            (
                "{match: [{uri: {prefix: /a}}]}",
                "{match: [{headers: {x: {exact: '1'}}}]}",
                Ok("{match: [{uri: {prefix: /a}, headers: {x: {exact: '1'}}}]}"),
            ),
            (
                "{match: [{headers: {x: {exact: '1'}}}]}",
                "{match: [{headers: {x: {exact: '2'}}}]}",
                Err("headers"),
            ),
            (
                "{match: [{queryParams: {q: {exact: '1'}}}]}",
                "{match: [{queryParams: {q: {exact: '2'}}}]}",
                Err("queryParams"),
            ),
            (
                "{match: [{uri: {prefix: /a}, ignoreUriCase: true}]}",
                "{match: [{uri: {prefix: /a}}]}",
                Err("ignoreUriCase"),
            ),
            ("{match: [{port: 80}]}", "{match: [{port: 81}]}", Err("port")),
            ("{match: [{sourceNamespace: a}]}", "{match: [{port: 81}]}", Err("sourceNamespace")),
            (
                "{match: [{sourceLabels: {a: b}}]}",
                "{match: [{sourceLabels: {a: c}}]}",
                Err("sourceLabels"),
            ),
            (
                "{match: [{gateways: [x, y]}]}",
                "{match: [{gateways: [y]}]}",
                Ok("{match: [{gateways: [y]}]}"),
            ),
            ("{match: [{gateways: [x]}]}", "{match: [{gateways: [y]}]}", Err("gateways")),
            // Each block joins every block of the root that it fits.
            (
                "{match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}]}",
                "{match: [{method: {exact: GET}}]}",
                Ok(
                    "{match: [{uri: {prefix: /a}, method: {exact: GET}}, {uri: {prefix: /b}, method: {exact: GET}}]}",
                ),
            ),
            (
                "{match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}]}",
                "{match: [{uri: {prefix: /b/c}}]}",
                Ok("{match: [{uri: {prefix: /b/c}}]}"),
            ),
            // One block that fits nowhere takes the whole route with it.
            (
                "{match: [{uri: {prefix: /a}}]}",
                "{match: [{uri: {prefix: /a/b}}, {uri: {prefix: /c}}]}",
                Err("uri"),
            ),
        ] {
            let want = want.map(|want| completed(&route(want).r#match, "a").into_owned());
            assert_eq!(merged(root, own), want, "{root} with {own}");
        }
    }

    #[test]
    fn names_are_joined() {
        for (root, own, want) in
            [("{name: a}", "{}", "a"), ("{}", "{name: b}", "b"), ("{name: a}", "{name: b}", "a-b")]
        {
            let merged = merge((&route(root), "a"), (&[route(own)], "b"));
            assert_eq!(merged.routes[0].1.name, want);
        }
    }

    #[test]
    fn a_gateway_belongs_to_the_namespace_of_the_object_that_names_it() {
        let root = route("{match: [{gateways: [gw, mesh]}]}");
        for (own, at, want) in [
            ("gw", "a", Some("a/gw")),
            ("gw", "b", None),
            ("a/gw", "b", Some("a/gw")),
            ("mesh", "b", Some("mesh")),
        ] {
            let own = route(&format!("{{match: [{{gateways: [{own}]}}]}}"));
            let merged = merged_match((&root, "a"), (&own, at));
            let merged = merged.map(|own| own[0].gateways.clone());
            assert_eq!(merged, want.map(|want| vec![want.to_owned()]), "{own:?} of {at}");
        }
    }
}
