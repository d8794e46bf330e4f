use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashMap;

use super::attribute::Test;
use super::{Attribute, Condition};

/// Conditions in the order in which they are tried, found by what they ask for: who takes these requests first?
///
/// Each condition is filed under the one of its parts that fewest others share. A question looks only where one of its own
/// parts can imply that part, so that a list of ten thousand routes by path is not read from the top for each of them.
#[derive(Debug)]
pub struct ConditionIndex {
    entries: Vec<Entry>,
    /// Entries by the hash of their part. A collision only costs a comparison more.
    filed: HashMap<u64, Vec<usize>>,
    /// Of attributes that are tested for prefixes: which lengths those have.
    prefix_lengths: HashMap<u64, Vec<bool>>,
    /// The first entry that takes everything.
    catch_all: Option<usize>,
    equal: HashMap<Condition, usize>,
    seed: u64,
    steps: Cell<u64>,
}

#[derive(Debug)]
struct Entry {
    condition: Condition,
    place: usize,
}

/// So many comparisons one index makes at the most. It takes an object built for it to need them: beyond, only an equal
/// condition and a catch-all are found.
const MOST_STEPS: u64 = 250_000;

impl ConditionIndex {
    /// The conditions, each with the place where it stands; places never fall.
    pub fn new<'a>(conditions: impl IntoIterator<Item = (usize, &'a Condition)>) -> Self {
        let entries = conditions.into_iter();
        let entries = entries
            .map(|(place, condition)| Entry { condition: condition.clone(), place })
            .collect::<Vec<_>>();
        let mut index = Self {
            filed: HashMap::new(),
            prefix_lengths: HashMap::new(),
            catch_all: entries.iter().position(|entry| entry.condition.is_catch_all()),
            equal: HashMap::new(),
            seed: RandomState::new().hash_one(0),
            steps: Cell::new(0),
            entries,
        };
        let keys = index
            .entries
            .iter()
            .map(|entry| entry.condition.parts.iter().map(|part| index.keys(part)).collect())
            .collect::<Vec<Vec<Vec<u64>>>>();
        let mut shared: HashMap<u64, usize> = HashMap::new();
        for key in keys.iter().flatten().flatten() {
            *shared.entry(*key).or_default() += 1;
        }
        for (at, parts) in keys.iter().enumerate() {
            let crowd = |keys: &Vec<u64>| keys.iter().map(|key| shared[key]).max().unwrap_or(0);
            let part = (0..parts.len()).min_by_key(|&part| crowd(&parts[part]));
            let Some(part) = part else { continue };
            for key in &parts[part] {
                index.filed.entry(*key).or_default().push(at);
            }
            let (attribute, test) = &index.entries[at].condition.parts[part];
            if let Test::Prefix(text) | Test::FoldedPrefix(text) = test {
                let key = index.hash(kind(test), attribute);
                let lengths = index.prefix_lengths.entry(key).or_default();
                if lengths.len() <= text.len() {
                    lengths.resize(text.len() + 1, false);
                }
                lengths[text.len()] = true;
            }
        }
        for (at, entry) in index.entries.iter().enumerate() {
            index.equal.entry(entry.condition.clone()).or_insert(at);
        }
        index
    }

    /// The first condition that takes every request under `condition`, and its place.
    pub fn first_covering(&self, condition: &Condition) -> Option<(usize, &Condition)> {
        let mut best = self.catch_all;
        if let Some(first) = best.filter(|&first| first == 0) {
            return Some((self.entries[first].place, &self.entries[first].condition));
        }
        if let Some(&equal) = self.equal.get(condition) {
            best = Some(best.map_or(equal, |best| best.min(equal)));
        }
        for part in condition.parts.iter() {
            self.each_candidate(part, |filed| {
                for &at in filed {
                    if best.is_some_and(|best| at >= best) || self.steps.get() >= MOST_STEPS {
                        break;
                    }
                    self.steps.set(self.steps.get() + 1);
                    if self.entries[at].condition.covers(condition) {
                        best = Some(at);
                        break;
                    }
                }
            });
        }
        best.map(|at| (self.entries[at].place, &self.entries[at].condition))
    }

    /// The first place where exactly this condition stands.
    pub fn place_of(&self, condition: &Condition) -> Option<usize> {
        self.equal.get(condition).map(|&at| self.entries[at].place)
    }

    /// How many comparisons it has made: what a proof of linear work counts.
    pub fn steps(&self) -> u64 {
        self.steps.get()
    }

    /// Whether it has come to the end of the comparisons that it may make: then it may not have found what covers a condition.
    pub fn is_exhausted(&self) -> bool {
        self.steps.get() >= MOST_STEPS
    }

    /// What an entry with this part is filed under.
    fn keys(&self, (attribute, test): &(Attribute, Test)) -> Vec<u64> {
        let text = |text: &str| vec![self.extend(self.hash(kind(test), attribute), text)];
        match (attribute, test) {
            (Attribute::WithoutHeader(_) | Attribute::DestinationSubnets, _) => {
                vec![self.any(attribute)]
            }
            (_, test) if test.takes_any_value() => vec![self.any(attribute)],
            (
                _,
                Test::Exact(value)
                | Test::Prefix(value)
                | Test::FoldedExact(value)
                | Test::FoldedPrefix(value)
                | Test::Regex(value),
            ) => text(value),
            (_, Test::AnyOf(values)) => {
                // `*foo.com` is a suffix that no dot begins.
                let is_odd = |value: &str| {
                    value.starts_with('*') && !value.starts_with("*.") && value != "*"
                };
                let key = |value: &String| match is_odd(value) {
                    true => self.any(attribute),
                    false => self.extend(self.hash(kind(test), attribute), value),
                };
                values.iter().map(key).collect()
            }
            (_, Test::Present) => vec![self.any(attribute)],
        }
    }

    /// Everything that is filed under a part that `part` may imply.
    fn each_candidate(
        &self,
        (attribute, test): &(Attribute, Test),
        mut look: impl FnMut(&[usize]),
    ) {
        let mut look_at = |key: u64| {
            if let Some(filed) = self.filed.get(&key) {
                look(filed);
            }
        };
        look_at(self.any(attribute));
        if let Attribute::Header(name) = attribute {
            look_at(self.any(&Attribute::WithoutHeader(name.clone())));
        }
        let exact = |kind: Kind, text: &str| self.extend(self.hash(kind, attribute), text);
        match test {
            Test::Present => {}
            Test::Regex(text) => look_at(exact(Kind::Regex, text)),
            Test::Exact(text) | Test::Prefix(text) => {
                let folded = text.to_ascii_lowercase();
                look_at(exact(Kind::Exact, text));
                look_at(exact(Kind::FoldedExact, &folded));
                self.each_prefix(Kind::Prefix, attribute, text, &mut look_at);
                self.each_prefix(Kind::FoldedPrefix, attribute, &folded, &mut look_at);
            }
            Test::FoldedExact(text) | Test::FoldedPrefix(text) => {
                look_at(exact(Kind::FoldedExact, text));
                self.each_prefix(Kind::Prefix, attribute, text, &mut look_at);
                self.each_prefix(Kind::FoldedPrefix, attribute, text, &mut look_at);
            }
            Test::AnyOf(values) => {
                // What covers the whole list covers its first value.
                let Some(first) = values.first() else { return };
                look_at(exact(Kind::AnyOf, first));
                look_at(exact(Kind::AnyOf, "*"));
                for (at, _) in first.match_indices('.') {
                    look_at(exact(Kind::AnyOf, &format!("*{}", &first[at..])));
                }
            }
        }
    }

    /// The keys of all filed prefixes of `text`, in one pass over it.
    fn each_prefix(
        &self,
        kind: Kind,
        attribute: &Attribute,
        text: &str,
        look_at: &mut impl FnMut(u64),
    ) {
        let start = self.hash(kind, attribute);
        let Some(lengths) = self.prefix_lengths.get(&start) else { return };
        let mut hash = start;
        let mut bytes = text.bytes();
        for &is_filed in lengths {
            if is_filed {
                look_at(hash);
            }
            let Some(byte) = bytes.next() else { return };
            hash = step(hash, byte);
        }
    }

    fn any(&self, attribute: &Attribute) -> u64 {
        self.hash(Kind::Any, attribute)
    }

    fn hash(&self, kind: Kind, attribute: &Attribute) -> u64 {
        let (tag, name) = match attribute {
            Attribute::Uri => (0, ""),
            Attribute::Scheme => (1, ""),
            Attribute::Method => (2, ""),
            Attribute::Authority => (3, ""),
            Attribute::Header(name) => (4, name.as_str()),
            Attribute::WithoutHeader(name) => (5, name.as_str()),
            Attribute::QueryParam(name) => (6, name.as_str()),
            Attribute::Port => (7, ""),
            Attribute::SourceLabel(name) => (8, name.as_str()),
            Attribute::SourceNamespace => (9, ""),
            Attribute::Gateways => (10, ""),
            Attribute::SniHosts => (11, ""),
            Attribute::DestinationSubnets => (12, ""),
        };
        step(self.extend(step(step(self.seed, kind as u8), tag), name), 0)
    }

    fn extend(&self, hash: u64, text: &str) -> u64 {
        text.bytes().fold(hash, step)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Any,
    Exact,
    Prefix,
    FoldedExact,
    FoldedPrefix,
    Regex,
    AnyOf,
}

fn kind(test: &Test) -> Kind {
    match test {
        Test::Present => Kind::Any,
        Test::Exact(_) => Kind::Exact,
        Test::Prefix(_) => Kind::Prefix,
        Test::FoldedExact(_) => Kind::FoldedExact,
        Test::FoldedPrefix(_) => Kind::FoldedPrefix,
        Test::Regex(_) => Kind::Regex,
        Test::AnyOf(_) => Kind::AnyOf,
    }
}

/// Takes one byte in: a hash that grows with the text, so that those of all its prefixes come with it.
fn step(hash: u64, byte: u8) -> u64 {
    (hash.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
