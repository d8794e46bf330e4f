//! What an HTTP route does beside routing: mirrors, retries, timeouts, faults, rewrites.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::shape::{null_as_default, object, optional_object, whole_number};
use super::virtual_service::{Destination, Route, StringMatch};

/// A percentage; one that is written without a value is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Percent {
    /// From 0 to 100, fractions allowed.
    #[serde(deserialize_with = "null_as_default")]
    pub value: f64,
}

/// An element of `http[].mirrors`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Mirror {
    /// Where the copies go.
    #[serde(deserialize_with = "object")]
    pub destination: Destination,
    /// How many requests are copied; absent means all of them.
    #[serde(deserialize_with = "optional_object")]
    pub percentage: Option<Percent>,
}

/// `http[].retries`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Retries {
    /// How often a failed try is repeated; 0 and absent turn retries off.
    #[serde(deserialize_with = "whole_number")]
    pub attempts: Option<i64>,
    /// How long each try may take; absent means as long as the request.
    #[serde(deserialize_with = "duration")]
    pub per_try_timeout: Option<Duration>,
}

/// `http[].fault`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Fault {
    /// Requests that wait.
    #[serde(deserialize_with = "optional_object")]
    pub delay: Option<FaultDelay>,
    /// Requests that are answered with an error.
    #[serde(deserialize_with = "optional_object")]
    pub abort: Option<FaultAbort>,
}

/// `http[].fault.delay`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultDelay {
    /// How many requests wait.
    #[serde(deserialize_with = "optional_object")]
    pub percentage: Option<Percent>,
    /// The deprecated spelling, used where `percentage` is absent.
    #[serde(deserialize_with = "whole_number")]
    pub percent: Option<i64>,
    /// How long they wait; without it there is no delay.
    #[serde(deserialize_with = "duration")]
    pub fixed_delay: Option<Duration>,
}

impl FaultDelay {
    /// How many requests wait, in percent; none where no percentage is written (`route.go` `TranslateFault`).
    pub fn percent(&self) -> f64 {
        match self.percentage {
            Some(percentage) => percentage.value,
            None => self.percent.unwrap_or(0) as f64,
        }
    }
}

/// `http[].fault.abort`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultAbort {
    /// How many requests are answered with an error; absent means none.
    #[serde(deserialize_with = "optional_object")]
    pub percentage: Option<Percent>,
    /// The HTTP status.
    #[serde(deserialize_with = "whole_number")]
    pub http_status: Option<i64>,
    /// The gRPC status instead.
    #[serde(deserialize_with = "null_as_default")]
    pub grpc_status: String,
}

/// `http[].rewrite`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rewrite {
    /// Rewrites the path by a regular expression.
    #[serde(deserialize_with = "optional_object")]
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// `http[].rewrite.uriRegexRewrite`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RegexRewrite {
    /// The expression.
    #[serde(deserialize_with = "null_as_default")]
    pub r#match: String,
}

/// `http[].corsPolicy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsPolicy {
    /// The origins that may ask.
    #[serde(deserialize_with = "null_as_default")]
    pub allow_origins: Vec<StringMatch>,
}

/// A place that gets copies of a route's requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mirrored<'a> {
    /// Its place in `mirrors`; `None` for `mirror`.
    pub at: Option<usize>,
    /// Where the copies go.
    pub to: &'a Destination,
    /// The part of the requests that is copied, above 0 and up to 1.
    pub part: f64,
}

impl Route {
    /// Where copies of its requests go; what is turned off is left out.
    ///
    /// An absent percentage is all of them, a written 0 or `{}` none, and `mirrorPercentage` beats `mirrorPercent`.
    ///
    /// Source: `pilot/pkg/networking/core/route/route.go` `MirrorPercent`, `MirrorPercentByPolicy`.
    pub fn mirrored(&self) -> impl Iterator<Item = Mirrored<'_>> {
        let deprecated = self.mirror_percent.or(self.mirror_percent_snake);
        let of_mirror = match (self.mirror_percentage, deprecated) {
            (Some(percentage), _) => percentage.value,
            (None, Some(percent)) => percent as f64,
            (None, None) => 100.0,
        };
        let first = self.mirror.iter().map(move |to| (None, to, of_mirror));
        let others = self.mirrors.iter().enumerate().map(|(at, mirror)| {
            let percent = mirror.percentage.map_or(100.0, |percentage| percentage.value);
            (Some(at), &mirror.destination, percent)
        });
        let all = first.chain(others).filter(|(.., percent)| *percent > 0.0);
        all.map(|(at, to, percent)| Mirrored { at, to, part: (percent / 100.0).min(1.0) })
    }
}

/// Reads a duration; `null`, and one that no Istio reads, counts as absent.
pub(super) fn duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.as_deref().and_then(parse_duration))
}

/// A duration as Istio writes them: `1h`, `1.5s`, `1m30s`, `250ms`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, unit) = rest.split_at(end);
        let end = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        let (unit, behind) = unit.split_at(end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let own = Duration::try_from_secs_f64(digits.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(own)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_istio_writes_them() {
        for (text, want) in [
            ("1h", Some(3_600_000)),
            ("1.5s", Some(1500)),
            ("1m30s", Some(90_000)),
            ("250ms", Some(250)),
            ("0s", Some(0)),
            ("", None),
            ("10", None),
            ("ten", None),
            ("1d", None),
            ("-1s", None),
            ("99999999999999999999999h", None),
        ] {
            assert_eq!(parse_duration(text), want.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn an_absent_percentage_mirrors_everything_and_an_empty_one_nothing() {
        for (text, want) in [
            ("{mirror: {host: a}}", vec![("a", 1.0)]),
            ("{mirror: {host: a}, mirrorPercentage: {value: 5.5}}", vec![("a", 0.055)]),
            ("{mirror: {host: a}, mirrorPercentage: {value: 0}}", vec![]),
            ("{mirror: {host: a}, mirrorPercentage: {}}", vec![]),
            ("{mirror: {host: a}, mirrorPercent: 0}", vec![]),
            ("{mirror: {host: a}, mirror_percent: 20}", vec![("a", 0.2)]),
            (
                "{mirror: {host: a}, mirrorPercent: 20, mirrorPercentage: {value: 50}}",
                vec![("a", 0.5)],
            ),
            ("{mirrorPercentage: {value: 50}}", vec![]),
            (
                "{mirrors: [{destination: {host: a}}, {destination: {host: b}, percentage: {value: 10}}]}",
                vec![("a", 1.0), ("b", 0.1)],
            ),
        ] {
            let route: Route = serde_saphyr::from_str(text).expect("a route");
            let said = route.mirrored().map(|mirrored| (mirrored.to.host.as_str(), mirrored.part));
            assert_eq!(said.collect::<Vec<_>>(), want, "{text}");
        }
    }
}
