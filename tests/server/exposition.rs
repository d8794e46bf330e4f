//! What /metrics says, read as strictly as Prometheus and promtool read it.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::{config, harmless, probe, start, typo};

/// The samples of one metric, with what was said about it first.
#[derive(Default)]
struct Family {
    kind: String,
    samples: Vec<Sample>,
}

struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Sample {
    fn series(&self) -> String {
        format!("{}{:?}", self.name, self.labels)
    }
}

fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(is_part)
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}').expect("a closing brace")),
    };
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').expect("a label");
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let value = value.expect("quotes");
        assert!(is_name(key) && !value.contains(['"', '\\', '\n']), "{line}");
        (key.to_owned(), value.to_owned())
    };
    assert!(is_name(name), "{line}");
    let labels = labels.split(',').filter(|own| !own.is_empty()).map(pair);
    let labels = labels.collect();
    Sample { name: name.to_owned(), labels, value: value.parse().expect("a number") }
}

/// Each family once and in one piece: HELP, TYPE, samples.
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line has no end");
    let mut families = BTreeMap::new();
    let (mut current, mut helped) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect("words");
            assert!(
                is_name(name) && words.ends_with('.') || name.starts_with("process_"),
                "{line}"
            );
            helped = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert_eq!(name, helped, "TYPE follows its HELP");
            let family = Family { kind: kind.to_owned(), samples: Vec::new() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} comes twice");
            current = name.to_owned();
        } else {
            let sample = sample(line);
            let family = families.get_mut(&current).unwrap_or_else(|| panic!("untyped: {line}"));
            let suffixes: &[&str] = match family.kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                "counter" | "gauge" => &[""],
                kind => panic!("{kind}: {line}"),
            };
            let is_own = |suffix: &&str| sample.name == format!("{current}{suffix}");
            assert!(suffixes.iter().any(is_own), "{line} is not of {current}");
            family.samples.push(sample);
        }
    }
    families
}

fn check(families: &BTreeMap<String, Family>) {
    let mut series = BTreeSet::new();
    for (name, family) in families {
        assert!(!family.samples.is_empty(), "{name} has no series");
        assert_eq!(name.ends_with("_total"), family.kind == "counter", "{name}: {}", family.kind);
        for sample in &family.samples {
            assert!(series.insert(sample.series()), "{} comes twice", sample.series());
            assert!(family.kind == "gauge" || sample.value >= 0.0, "{}", sample.series());
        }
        if family.kind == "histogram" {
            let value = |suffix: &str| {
                let of = |sample: &&Sample| sample.name == format!("{name}{suffix}");
                family.samples.iter().find(of).expect(suffix).value
            };
            let buckets = family.samples.iter().filter(|sample| sample.name.ends_with("_bucket"));
            let buckets = buckets
                .map(|sample| (sample.labels["le"].parse().expect("a bound"), sample.value))
                .collect::<Vec<(f64, f64)>>();
            assert!(buckets.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1));
            assert_eq!(buckets.first().map(|first| first.0), Some(0.0001), "from 100 us");
            assert_eq!(buckets.last().copied(), Some((f64::INFINITY, value("_count"))));
            assert!(value("_sum") >= 0.0);
        }
    }
}

fn own(families: &BTreeMap<String, Family>) -> BTreeMap<String, f64> {
    let samples = families.values().flat_map(|family| &family.samples);
    let samples = samples.filter(|sample| sample.name.starts_with("sluicegate_"));
    samples.map(|sample| (sample.series(), sample.value)).collect()
}

#[tokio::test]
async fn every_series_is_well_formed_and_none_appears_later() {
    let server = start(config()).await;
    let before = parse(&probe(server.status, "/metrics").await.text());
    check(&before);
    for (series, value) in own(&before) {
        let is_gauge =
            ["sluicegate_kind", "expiry", "policy_current"].iter().any(|own| series.contains(own));
        assert!(value == 0.0 || is_gauge, "{series} begins with {value}");
    }
    for body in [typo(), harmless(), b"{".to_vec()] {
        server.client.review(body).await;
    }
    let after = parse(&probe(server.status, "/metrics").await.text());
    check(&after);
    let (before, after) = (own(&before), own(&after));
    assert!(after["sluicegate_review_duration_seconds_count{}"] == 3.0);
    // A series that appears with its first event hides that event from every rate().
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
}
