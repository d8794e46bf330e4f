//! What the rules refuse by the two objects alone and the twin lets pass, as docs/admission-policy.md says it.

use crate::harness::Result;

/// Why, and which cases show it.
const UNSEEN: [(&str, &[&str]); 7] = [
    (
        "names that say nothing: only who carries more speaks against it, and that may be the way back",
        &[
            "canary-step/a-replaced-destination-is-a-shift",
            "canary-step/a-young-workload-cannot-be-a-return",
            "canary-step/colours-without-a-word-go-by-weight",
            "canary-step/equal-labels-in-another-namespace-are-other-pods",
            "canary-step/overlapping-subsets-add-up",
            "canary-step/the-label-less-subset-reaches-the-canary",
            "decision/a-hash-that-no-rollout-knows-says-nothing",
            "decision/a-slip-that-was-undone-is-no-way-back",
            "decision/another-image-is-no-way-back",
            "decision/forth-to-a-younger-service-without-a-workload",
            "decision/of-services-of-the-same-age-the-weight-counts",
            "decision/the-hash-of-the-new-version-is-a-canary",
            "decision/the-history-knows-what-the-name-was-before",
            "decision/the-history-of-another-route-says-nothing",
            "decision/what-was-rolled-back-at-once-is-no-way-back",
            "subset-ready/dynamic-dns-has-no-subsets",
        ],
    ),
    ("requests that two matches share", &["canary-step/where-two-matches-meet"]),
    (
        "a path that is matched without regard to case",
        &["canary-step/without-regard-to-case-everybody-of-the-path"],
    ),
    (
        "tls and tcp routes with another match than before",
        &[
            "canary-step/a-gateway-asks-no-tcp-client-who-it-is",
            "canary-step/a-longer-range-takes-tcp-connections-wherever-it-stands",
            "canary-step/a-more-specific-name-takes-tls-connections-wherever-it-stands",
        ],
    ),
    (
        "a delivery controller's account: what it drives is not known, and so all that it writes passes",
        &["managed-weights/an-account-alone-earns-nothing"],
    ),
    (
        "regular expressions: CEL cannot ask whether one is valid",
        &[
            "structure/a-look-ahead-is-no-re2",
            "structure/a-possessive-repetition-is-no-re2",
            "structure/a-star-asks-for-presence-except-in-a-path",
            "structure/rewrites-and-origins-are-expressions-too",
        ],
    ),
    (
        "tls and tcp routes that ask for the same",
        &[
            "structure/a-partial-wildcard-is-no-tls-name",
            "structure/a-tls-match-without-a-range-gets-that-of-the-one-before",
            "structure/a-tls-name-twice-in-one-match-is-refused-at-a-gateway-too",
            "structure/tcp-ranges-that-are-the-same-are-refused",
            "structure/tls-names-in-another-case-are-the-same",
            "structure/tls-names-that-overlap-are-refused",
        ],
    ),
];

/// Why the twin may let a case pass.
pub(crate) fn reason(name: &str) -> Option<&'static str> {
    UNSEEN.iter().find(|(_, names)| names.contains(&name)).map(|(reason, _)| *reason)
}

/// Each of them is refused by the rules and passes the twin: a twin that has learned to see it is told to say so.
pub(crate) fn is_exact(mut is_unseen: impl FnMut(&str) -> Result<bool>) -> Result {
    for (reason, names) in UNSEEN {
        for name in names {
            if !is_unseen(name)? {
                return Err(format!("{name}: {reason}, says the list, but the twin sees it").into());
            }
        }
    }
    Ok(())
}
