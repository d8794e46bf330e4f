//! What one attribute of a request is tested for.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::istio::StringMatch;

/// A test of one attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Test {
    Present,
    Exact(String),
    Prefix(String),
    /// Without regard to ASCII case, kept in lower case (`ignoreUriCase`).
    FoldedExact(String),
    /// Likewise.
    FoldedPrefix(String),
    /// An RE2 expression for the whole value; compared as text, never run.
    Regex(String),
    AnyOf(BTreeSet<String>),
}

impl Test {
    pub(super) fn of(value: Option<&StringMatch>, folds_case: bool) -> Self {
        match value {
            Some(StringMatch::Exact(text)) if folds_case => {
                Self::FoldedExact(text.to_ascii_lowercase())
            }
            Some(StringMatch::Prefix(text)) if folds_case => {
                Self::FoldedPrefix(text.to_ascii_lowercase())
            }
            Some(StringMatch::Exact(text)) => Self::Exact(text.clone()),
            Some(StringMatch::Prefix(text)) => Self::Prefix(text.clone()),
            // A bare `*` asks for presence (Istio's own special case, route.go `canBeConvertedToPresentMatch`).
            Some(StringMatch::Regex(regex)) if regex == "*" => Self::Present,
            Some(StringMatch::Regex(regex)) => Self::Regex(regex.clone()),
            Some(StringMatch::Present) | None => Self::Present,
        }
    }

    /// Of a path, where a bare `*` asks for nothing special: it is no RE2 expression, and no path satisfies it.
    pub(super) fn of_path(value: &StringMatch, folds_case: bool) -> Self {
        match value {
            StringMatch::Regex(regex) => Self::Regex(regex.clone()),
            value => Self::of(Some(value), folds_case),
        }
    }

    pub(super) fn any_of(values: &[String]) -> Self {
        Self::AnyOf(values.iter().cloned().collect())
    }

    /// True of every value there can be, the empty one included.
    pub(super) fn takes_any_value(&self) -> bool {
        match self {
            Self::Present => true,
            Self::Prefix(prefix) | Self::FoldedPrefix(prefix) => prefix.is_empty(),
            Self::Regex(regex) => matches!(regex.as_str(), ".*" | "^.*$" | "(.*)"),
            _ => false,
        }
    }

    /// True of every value that a client usually sends.
    pub(super) fn takes_any_usual_value(&self) -> bool {
        self.takes_any_value()
            || matches!(self, Self::Regex(regex) if matches!(regex.as_str(), ".+" | "^.+$" | "(.+)"))
    }

    /// True of every path: a path always starts with a slash.
    pub(super) fn takes_any_path(&self) -> bool {
        self.ends_the_list()
            || self.takes_any_usual_value()
            || matches!(self, Self::Regex(regex) if matches!(regex.as_str(), "/.*" | "^/.*$" | "^/.*" | "/(.*)"))
    }

    /// A path for which Istio sends nothing that stands behind it (route.go `IsCatchAllRoute`).
    pub(super) fn ends_the_list(&self) -> bool {
        match self {
            Self::Present => true,
            Self::Prefix(prefix) | Self::FoldedPrefix(prefix) => prefix == "/" || prefix.is_empty(),
            Self::Regex(regex) => regex == ".*",
            _ => false,
        }
    }

    /// Whether every value that satisfies `inner` satisfies this; `false` also where that cannot be told.
    pub(super) fn covers(&self, inner: &Self) -> bool {
        use Test::{AnyOf, Exact, FoldedExact, FoldedPrefix, Prefix};
        match (self, inner) {
            (AnyOf(outer), AnyOf(inner)) => inner.is_subset(outer),
            (_, AnyOf(_)) => false,
            (Prefix(prefix), Exact(value) | Prefix(value)) => value.starts_with(prefix.as_str()),
            (FoldedPrefix(prefix), Exact(value) | Prefix(value)) => {
                value.to_ascii_lowercase().starts_with(prefix.as_str())
            }
            (FoldedPrefix(prefix), FoldedExact(value) | FoldedPrefix(value)) => {
                value.starts_with(prefix.as_str())
            }
            (Prefix(prefix), FoldedExact(value) | FoldedPrefix(value)) => {
                !prefix.contains(|at: char| at.is_ascii_alphabetic())
                    && value.starts_with(prefix.as_str())
            }
            (FoldedExact(text), Exact(value)) => *text == value.to_ascii_lowercase(),
            (outer, inner) => outer == inner || outer.takes_any_value(),
        }
    }

    /// Whether no value can satisfy both; `false` also where that cannot be told.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        use Test::{Exact, FoldedExact, FoldedPrefix, Prefix};
        let is_folded = |test: &Self| matches!(test, FoldedExact(_) | FoldedPrefix(_));
        let folds = is_folded(self) || is_folded(other);
        let is_equal = |a: &[u8], b: &[u8]| if folds { a.eq_ignore_ascii_case(b) } else { a == b };
        let starts = |text: &str, with: &str| {
            let start = text.as_bytes().get(..with.len());
            start.is_some_and(|start| is_equal(start, with.as_bytes()))
        };
        match (self, other) {
            (Exact(a) | FoldedExact(a), Exact(b) | FoldedExact(b)) => {
                !is_equal(a.as_bytes(), b.as_bytes())
            }
            (Prefix(prefix) | FoldedPrefix(prefix), Exact(value) | FoldedExact(value))
            | (Exact(value) | FoldedExact(value), Prefix(prefix) | FoldedPrefix(prefix)) => {
                !starts(value, prefix)
            }
            (Prefix(a) | FoldedPrefix(a), Prefix(b) | FoldedPrefix(b)) => {
                !starts(a, b) && !starts(b, a)
            }
            _ => false,
        }
    }

    /// Whether "the header is not this" is implied by "the header is not `inner`". An absent header reads as the empty text,
    /// except for a test of presence (route.go `TranslateRouteMatch`, `treat_missing_header_as_empty`).
    pub(super) fn absence_covers(&self, inner: &Self) -> bool {
        match (self, inner) {
            (Self::Present, inner) => *inner == Self::Present,
            (Self::Exact(text) | Self::Prefix(text), Self::Present) => !text.is_empty(),
            (_, Self::Present) => false,
            (outer, inner) => inner.covers(outer),
        }
    }
}

/// SNI lists compare by wildcard, each inner name by some outer one.
pub(super) fn sni_covers(outer: &Test, inner: &Test) -> bool {
    by_each(outer, inner, super::super::host_covers)
}

/// Address ranges compare by their bits, each inner one by some outer one.
pub(super) fn subnets_cover(outer: &Test, inner: &Test) -> bool {
    by_each(outer, inner, |outer, inner| {
        outer == inner
            || subnet(outer)
                .zip(subnet(inner))
                .is_some_and(|(outer, inner)| range_covers(outer, inner))
    })
}

fn by_each(outer: &Test, inner: &Test, covers: impl Fn(&str, &str) -> bool) -> bool {
    match (outer, inner) {
        (Test::AnyOf(outer), Test::AnyOf(inner)) => {
            inner.iter().all(|inner| outer.iter().any(|outer| covers(outer, inner)))
        }
        _ => false,
    }
}

/// How many bits of an address range count; 0 for what is none, as Envoy never gets to see it.
pub(super) fn range_length(range: &str) -> u32 {
    subnet(range).map_or(0, |(_, length)| length)
}

/// An address range: its bits and how many of them count. A lone address is a range of one.
fn subnet(text: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let address = address.parse::<IpAddr>().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(most);
    (length <= most).then_some((address, length))
}

/// An address range as Envoy compares it, with the bits that do not count left out; `None` for what is none, and for one that
/// istiod leaves out because it begins at `0.0.0.0`.
pub(in crate::istio) fn masked_range(text: &str) -> Option<String> {
    let (address, length) = subnet(text)?;
    if address == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        return None;
    }
    let masked = match address {
        IpAddr::V4(own) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(own.to_bits() & mask))
        }
        IpAddr::V6(own) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(own.to_bits() & mask))
        }
    };
    Some(format!("{masked}/{length}"))
}

fn range_covers((outer, length): (IpAddr, u32), (inner, inner_length): (IpAddr, u32)) -> bool {
    let same = match (outer, inner) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(32 - length).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(128 - length).unwrap_or(0) == 0
        }
        _ => false,
    };
    same && length <= inner_length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_by_their_bits() {
        for (outer, inner, want) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.1.0.0/16", "10.0.0.0/8", false),
            ("10.1.0.0/16", "10.1.2.3", true),
            ("10.1.0.0/16", "10.2.0.0/24", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("::/0", "1.2.3.4", false),
            ("fd00::/8", "fd00:1::/32", true),
            ("nonsense", "nonsense", true),
            ("10.0.0.0/99", "10.0.0.1", false),
        ] {
            let test = |text: &str| Test::any_of(&[text.to_owned()]);
            assert_eq!(subnets_cover(&test(outer), &test(inner)), want, "{outer} over {inner}");
        }
    }
}
