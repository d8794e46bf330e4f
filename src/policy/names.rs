//! What a subset's or host's name says by itself: a role, a version, or nothing.

use std::cmp::Ordering;

use super::settings::Roles;
use crate::istio::Host;

/// What a name says of its part in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It serves when nothing is being rolled out.
    Stable,
    /// It is being rolled out.
    Canary,
}

/// A version-like name, taken apart: `reviews-v1.10` is stem `reviews` and numbers 1, 10.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version<'a> {
    /// What stands in front of the version.
    stem: &'a str,
    /// The numbers as written, and what follows them.
    numbers: &'a str,
}

impl<'a> Version<'a> {
    /// Which of two versions of one thing is the earlier one, `Less` where it is this; `None` where they are versions of
    /// different things, or equal.
    pub(super) fn compare(self, other: Version<'_>) -> Option<Ordering> {
        let order = || self.numbers().cmp(other.numbers());
        let is_same_thing = self.stem.eq_ignore_ascii_case(other.stem);
        is_same_thing.then(order).filter(|order| order.is_ne())
    }

    /// The most significant one first.
    fn numbers(self) -> impl Iterator<Item = u64> + 'a {
        self.numbers.split(SEPARATORS).map_while(|part| part.parse().ok())
    }
}

/// What stands between the numbers of a version.
const SEPARATORS: [char; 3] = ['.', '-', '_'];

const STABLE: [&str; 2] = ["primary", "stable"];
const CANARY: [&str; 2] = ["canary", "preview"];

/// The role that a name says, as a whole or by one of its parts: `podinfo-primary`, `canary-svc`. A name that says both says
/// nothing.
pub(super) fn role(name: &str) -> Option<Role> {
    let says = |words: &[&str]| {
        let mut parts = name.as_bytes().split(|byte| matches!(byte, b'-' | b'_' | b'.'));
        parts.any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word.as_bytes())))
    };
    match (says(&STABLE), says(&CANARY)) {
        (true, false) => Some(Role::Stable),
        (false, true) => Some(Role::Canary),
        _ => None,
    }
}

/// The role that the policy gives to any of these names.
pub(super) fn policy_role(roles: &Roles, names: &[&str]) -> Option<Role> {
    let named = |patterns: &[String]| {
        patterns.iter().any(|pattern| names.iter().any(|name| fits(pattern, name)))
    };
    if named(&roles.stable) {
        Some(Role::Stable)
    } else if named(&roles.canary) {
        Some(Role::Canary)
    } else {
        None
    }
}

/// A name against a pattern with `*` at either end.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(_)) if pattern.len() >= 2 => name.contains(&pattern[1..pattern.len() - 1]),
        (Some(suffix), _) => name.ends_with(suffix),
        (None, Some(prefix)) => name.starts_with(prefix),
        (None, None) => pattern == name,
    }
}

/// The version that a name says: `v1`, `1.10`, `reviews-v2`, `v1-2-3`, and with a `v` also in front of other words: `v2-mysql`. A
/// name that only ends in a digit (`web2`) says none.
pub(super) fn version(name: &str) -> Option<Version<'_>> {
    /// No name in Kubernetes is longer.
    const LONGEST: usize = 253;
    if name.len() > LONGEST {
        return None;
    }
    let starts = std::iter::once(0).chain(name.match_indices(['-', '_']).map(|(at, _)| at + 1));
    for start in starts {
        let rest = &name[start..];
        let (numbers, may_go_on) = match rest.strip_prefix(['v', 'V']) {
            Some(numbers) => (numbers, true),
            None => (rest, false),
        };
        if !numbers.starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        let stem = name[..start].trim_end_matches(['-', '_']);
        let version = Version { stem, numbers };
        let count = version.numbers().count();
        if count > 0 && (may_go_on || count == numbers.split(SEPARATORS).count()) {
            return Some(version);
        }
    }
    None
}

/// What hosts have in common that differ at most in a version or role suffix: the Service's stem and its namespace; of any other
/// host, itself.
pub fn thing(host: &Host, domain: &str) -> (String, String) {
    match host.service(domain) {
        Some((name, namespace)) => (stem(name), namespace.to_owned()),
        None => (host.as_str().to_owned(), String::new()),
    }
}

/// A Service's name without what tells its versions or roles apart: `reviews-v2` and `reviews-canary` are both `reviews`,
/// `stable-svc` and `canary-svc` both `svc`.
pub(super) fn stem(name: &str) -> String {
    if let Some(version) = version(name) {
        return version.stem.to_lowercase();
    }
    if role(name).is_none() {
        return name.to_owned();
    }
    let parts = name.split(['-', '_', '.']).filter(|part| role(part).is_none());
    parts.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_names() {
        for (name, want) in [
            ("v1", Some(("", vec![1]))),
            ("1.10", Some(("", vec![1, 10]))),
            ("reviews-v2", Some(("reviews", vec![2]))),
            ("v1-2-3", Some(("", vec![1, 2, 3]))),
            ("v2-mysql-vm", Some(("", vec![2]))),
            ("ratings-v2-mysql", Some(("ratings", vec![2]))),
            ("2-mysql", None),
            ("v2x", None),
            ("web2", None),
            ("canary", None),
            ("", None),
        ] {
            let found = version(name).map(|own| (own.stem, own.numbers().collect::<Vec<_>>()));
            assert_eq!(found, want, "{name}");
        }
    }

    #[test]
    fn roles_are_read_from_parts() {
        for (name, want) in [
            ("podinfo-primary", Some(Role::Stable)),
            ("stable", Some(Role::Stable)),
            ("podinfo-canary", Some(Role::Canary)),
            ("preview", Some(Role::Canary)),
            ("stable-svc", Some(Role::Stable)),
            ("canary-of-stable", None),
            ("blue", None),
            ("unstable", None),
        ] {
            assert_eq!(role(name), want, "{name}");
        }
    }

    #[test]
    fn stems_tell_kin() {
        for (name, want) in [
            ("reviews-v2", "reviews"),
            ("canary-svc", "svc"),
            ("reviews-canary", "reviews"),
            ("reviews", "reviews"),
            ("cart", "cart"),
        ] {
            assert_eq!(stem(name), want);
        }
    }
}
