//! What a route is known by while its weights, its name and its place change: the requests that it matches.

use std::fmt::Write as _;
use std::hash::BuildHasher as _;

use foldhash::quality::FixedState;

use super::virtual_service::{Protocol, Route, RouteMatch, StringMatch};

impl Route {
    /// The requests that it matches, as a short text that stays the same over restarts and versions of the gate: `http` for the
    /// route that takes what is left, `http/` and a number for one with a match.
    pub fn key(&self, protocol: Protocol) -> String {
        let field = protocol.field();
        if self.r#match.is_empty() {
            return field.to_owned();
        }
        let mut alternatives = self.r#match.iter().map(text).collect::<Vec<_>>();
        alternatives.sort_unstable();
        alternatives.dedup();
        if alternatives.first().is_some_and(String::is_empty) {
            // An alternative without a condition takes everything.
            return field.to_owned();
        }
        format!("{field}/{:016x}", FixedState::default().hash_one(alternatives))
    }
}

/// The fields of an alternative that say anything.
fn text(own: &RouteMatch) -> String {
    // Every field is named, so that a new one is not forgotten here.
    let RouteMatch {
        uri,
        scheme,
        method,
        authority,
        headers,
        without_headers,
        query_params,
        ignore_uri_case,
        port,
        source_labels,
        source_namespace,
        gateways,
        sni_hosts,
        destination_subnets,
    } = own;
    let mut text = String::new();
    let mut say = |name: &str, value: &str| {
        // Lengths keep values apart from the names that follow them.
        let _ = write!(text, "{name}={}:{value};", value.len());
    };
    for (name, field) in
        [("uri", uri), ("scheme", scheme), ("method", method), ("authority", authority)]
    {
        if let Some(value) = field.as_ref().filter(|own| !takes_everything(name, own)) {
            say(name, &words(Some(value)));
        }
    }
    for (name, fields) in
        [("header", headers), ("without", without_headers), ("query", query_params)]
    {
        for (key, value) in fields {
            say(name, &format!("{key}={}", words(value.as_ref())));
        }
    }
    if *ignore_uri_case && uri.as_ref().is_some_and(|own| !takes_everything("uri", own)) {
        say("ignoreUriCase", "");
    }
    if let Some(port) = port {
        say("port", &port.to_string());
    }
    for (key, value) in source_labels {
        say("source", &format!("{key}={value}"));
    }
    if !source_namespace.is_empty() {
        say("namespace", source_namespace);
    }
    for (name, list) in [("gateway", gateways), ("sni", sni_hosts), ("subnet", destination_subnets)]
    {
        let mut list = list.clone();
        list.sort_unstable();
        list.iter().for_each(|own| say(name, own));
    }
    text
}

/// `uri: {prefix: /}` is how people write a catch-all.
fn takes_everything(field: &str, own: &StringMatch) -> bool {
    field == "uri" && matches!(own, StringMatch::Prefix(prefix) if prefix == "/")
}

fn words(own: Option<&StringMatch>) -> String {
    match own {
        None | Some(StringMatch::Present) => "present".to_owned(),
        Some(StringMatch::Exact(text)) => format!("exact {text}"),
        Some(StringMatch::Prefix(text)) => format!("prefix {text}"),
        Some(StringMatch::Regex(text)) => format!("regex {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> String {
        let route: Route = serde_saphyr::from_str(text).expect("a route");
        route.key(Protocol::Http)
    }

    #[test]
    fn only_what_is_matched_counts() {
        let beta = key(
            "{name: a, match: [{headers: {x-beta: {exact: 'true'}}}], route: [{destination: {host: a}}]}",
        );
        assert_eq!(beta, key("{name: b, match: [{headers: {x-beta: {exact: 'true'}}}]}"));
        assert_ne!(beta, key("{match: [{headers: {x-beta: {prefix: 'true'}}}]}"));
        for everything in ["{}", "{match: []}", "{match: [{uri: {prefix: /}}]}", "{match: [{}]}"] {
            assert_eq!(key(everything), "http");
        }
        let either = key("{match: [{port: 80}, {port: 81}]}");
        assert_eq!(either, key("{match: [{port: 81}, {port: 80}]}"));
    }

    /// What is kept over a restart is found again only while these stay: another number here is another format.
    #[test]
    fn the_number_is_the_same_in_every_build() {
        assert_eq!(key("{match: [{uri: {prefix: /pay}}]}"), "http/bb1829b79ca705e9");
    }
}
