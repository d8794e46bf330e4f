//! How numbers, names and labels are said in messages.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::world::LabelledCount;
use crate::world::{ANY_NAMESPACE, Client};

/// A share as people write it: `99 %`, `12.5 %`, and never `0 %` for something that is there.
pub fn percent(share: f64) -> Cow<'static, str> {
    let points = (share * 100.0).max(0.0) + 0.0;
    let rounded = (points * 10.0).round() / 10.0;
    if points > 1e-9 && rounded <= 0.0 {
        return Cow::Borrowed("less than 0.1 %");
    }
    Cow::Owned(format!("{} %", number(rounded)))
}

/// A number without a trailing `.0`.
pub fn number(value: f64) -> String {
    if (value - value.round()).abs() < 1e-6 {
        format!("{}", value.round())
    } else {
        format!("{value:.1}")
    }
}

/// `1 pod`, `3 pods`.
pub fn counted(count: u32, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// The verb for so many.
pub fn are(count: u32) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

/// The verb for so many.
pub fn carry(count: u32) -> &'static str {
    if count == 1 { "carries" } else { "carry" }
}

/// `2 ready pods of reviews carry version=v1`: endpoints with the same labels, `of` whom they are.
pub fn alike(group: &LabelledCount, noun: &str, of: &str) -> String {
    let said = labels(group.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let LabelledCount { ready, unready, .. } = *group;
    if ready == 0 {
        let (are, carry) = (are(unready), carry(unready));
        return format!("{} that {are} not ready {carry} {said}", counted(unready, noun));
    }
    format!("{}{of} {} {said}", counted(ready, &format!("ready {noun}")), carry(ready))
}

/// `app=reviews, version=v1`.
pub fn labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut parts =
        labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
    parts.sort();
    if parts.is_empty() { "no labels".to_owned() } else { parts.join(", ") }
}

/// Labels kept in a map, as [`labels`] says them.
pub fn label_map(map: &BTreeMap<String, String>) -> String {
    labels(map.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

/// `a, b and c`; at most five of them, then how many more.
pub fn list(items: &[String]) -> String {
    const MOST: usize = 5;
    match items {
        [] => "none".to_owned(),
        [one] => one.clone(),
        items if items.len() > MOST => {
            format!("{} and {} more", items[..MOST].join(", "), items.len() - MOST)
        }
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The candidate that `written` was probably meant to be: close in spelling, and not `written` itself.
pub fn near_miss<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let folded = |text: &str| text.to_lowercase().replace(['_', '.', ' '], "-");
    let close = |candidate: &str| {
        let (a, b) = (folded(written), folded(candidate));
        let longest = a.chars().count().max(b.chars().count());
        let distance = strsim::damerau_levenshtein(&a, &b);
        // One slip in a short name, two in a longer one; a `v` in front or a `.0` behind is the classic of version labels.
        let slips = if longest <= 2 {
            0
        } else if longest <= 5 {
            1
        } else {
            2
        };
        let same_version = version_core(&a) == version_core(&b) && version_core(&a).is_some();
        (distance <= slips || same_version).then_some((distance, candidate.len()))
    };
    let candidates = candidates.into_iter().filter(|candidate| *candidate != written);
    let scored =
        candidates.filter_map(|candidate| close(candidate).map(|score| (score, candidate)));
    scored.min_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(b.1))).map(|(_, candidate)| candidate)
}

/// `v2`, `2`, `2.0` and `v2-0-0` are one version.
fn version_core(text: &str) -> Option<Vec<u64>> {
    let numbers =
        text.strip_prefix('v').unwrap_or(text).split('-').map(|part| part.parse::<u64>().ok());
    let mut numbers = numbers.collect::<Option<Vec<_>>>()?;
    while numbers.len() > 1 && numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some(numbers)
}

/// Clients like this one, as messages say it.
pub fn clients(client: &Client) -> String {
    let namespace = &client.namespace;
    if let Some(waypoint) = &client.waypoint {
        return format!("clients behind waypoint {waypoint}");
    }
    match (&client.gateway, namespace.as_str()) {
        (Some(gateway), _) => format!("gateway {gateway}"),
        (None, ANY_NAMESPACE) => "clients in the mesh".to_owned(),
        (None, _) if !client.labels.is_empty() => {
            format!("clients in namespace {namespace} with {}", label_map(&client.labels))
        }
        (None, _) => format!("clients in namespace {namespace}"),
    }
}

/// Port numbers, as messages say them.
pub fn numbers(ports: &BTreeSet<i64>) -> String {
    list(&ports.iter().map(i64::to_string).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_said_as_people_write_them() {
        for (share, want) in [
            (0.99, "99 %"),
            (0.0, "0 %"),
            (1.0, "100 %"),
            (0.125, "12.5 %"),
            (1.0 / 3.0, "33.3 %"),
            (1e-7, "less than 0.1 %"),
        ] {
            assert_eq!(percent(share), want);
        }
    }

    #[test]
    fn a_near_miss_is_a_slip_and_not_another_name() {
        for (written, candidates, want) in [
            ("v2", vec!["2.0", "v1"], Some("2.0")),
            ("v3", vec!["v1", "v2"], None),
            ("reveiws", vec!["reviews", "ratings"], Some("reviews")),
            ("canray", vec!["stable", "canary"], Some("canary")),
            ("v2", vec!["V2"], Some("V2")),
            ("ratings", vec!["reviews"], None),
        ] {
            assert_eq!(near_miss(written, candidates), want, "{written}");
        }
    }
}
