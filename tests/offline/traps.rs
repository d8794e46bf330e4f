//! The traps of Istio's semantics: every one has at least one golden case that shows it (`# trap 14` in the case's head).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What catches people, and simple implementations of a gate like this one, by the number that cases refer to.
const TRAPS: [&str; 52] = [
    "an omitted weight is 0, neither an error nor 1",
    "all weights omitted add up to 0",
    "a single destination gets everything, whatever its weight",
    "two routes instead of two destinations are no split",
    "a sum other than 100 is legal, and shares are weight over sum",
    "a weight indented below `destination` is dropped",
    "duplicate destinations add up",
    "the order of destinations carries no meaning",
    "a rollback passes whatever the side that it leaves is like",
    "a two-part host is a name of its own",
    "a short name belongs to the namespace of the object that holds it",
    "a DestinationRule beside the VirtualService is not beside the service",
    "a DestinationRule of the client's namespace shadows all others",
    "exportTo omitted and exportTo `*` are not merged",
    "equal exportTo is merged, subsets add up",
    "an exact host hides a wildcard",
    "a private DestinationRule is seen by its own namespace only",
    "a workloadSelector changes what selected and other clients see",
    "Pods with the subset's labels that the Service does not select",
    "a ready Pod is not a ready endpoint",
    "topology labels are on no Pod",
    "a destination without subset, or a subset without labels, reaches the canary too",
    "overlapping subsets share endpoints",
    "endpoints that are no Pods",
    "a canary of two Services has no subset at all",
    "headless, PASSTHROUGH and internalTrafficPolicy Local make weights mean something else",
    "a header route after a catch-all is dead",
    "an empty block in an OR list takes everything",
    "a dead route that says the same is harmless",
    "no default route answers 404",
    "routes compared by index see shifts where there are none",
    "a new route in front hides a step",
    "DELETE and CREATE evade the old object",
    "a VirtualService that is not in force changes nothing",
    "the weights of a delegate are weights",
    "a gateway-only VirtualService leaves the mesh to plain routing",
    "consistentHash does not pin a user to a version",
    "a mirror without a percentage mirrors everything",
    "redirect and directResponse have no weights",
    "retries stay on the canary",
    "outlier detection ejects a small canary whole, or never",
    "a port left out of a Service with several",
    "an ExternalName destination is the external host",
    "an unchanged spec passes whatever happened since",
    "a bundle is applied in some order, and a dry run stores nothing",
    "all API versions have one schema",
    "an object of another revision does not exist",
    "a DestinationRule edit that keeps the subset's name moves its share",
    "a deleted DestinationRule uncovers a less specific one",
    "controllers write in several steps, and a denial wedges them",
    "wildcards, upper case and a dot at the end are other hosts",
    "a host with `.svc.` in it need not be a Service's",
];

/// The heads of all cases: what stands in front of the first field, comments only.
fn heads(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("a folder of cases") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            heads(&path, found);
        } else {
            let text = fs::read_to_string(&path).expect("a case");
            let head = text.lines().take_while(|line| line.starts_with('#'));
            let head = head.collect::<Vec<_>>().join("\n");
            found.push((path, head));
        }
    }
}

fn cases() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    heads(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases"), &mut found);
    found.retain(|(path, _)| !path.parent().is_some_and(|folder| folder.ends_with("worlds")));
    found
}

#[test]
fn every_trap_has_a_case() {
    let mut shown: BTreeMap<usize, Vec<PathBuf>> = BTreeMap::new();
    for (path, head) in cases() {
        for numbers in head.lines().filter_map(|line| line.strip_prefix("# trap ")) {
            for number in numbers.split([',', ' ']).filter(|part| !part.is_empty()) {
                let number = number.parse::<usize>().unwrap_or_else(|_| {
                    panic!("{}: `# trap {numbers}` wants numbers", path.display())
                });
                assert!(
                    (1..=TRAPS.len()).contains(&number),
                    "{}: there is no trap {number}",
                    path.display()
                );
                shown.entry(number).or_default().push(path.clone());
            }
        }
    }
    let open = TRAPS.iter().enumerate().map(|(at, what)| (at + 1, what));
    let open = open.filter(|(number, _)| !shown.contains_key(number)).collect::<Vec<_>>();
    assert!(open.is_empty(), "these have no case with a line `# trap N` in its head: {open:#?}");
}

#[test]
fn every_case_says_what_it_shows() {
    for (path, head) in cases() {
        let says = head.lines().any(|line| !line.starts_with("# trap ") && line.len() > 12);
        assert!(says, "{} begins with no sentence in a comment", path.display());
    }
}

#[test]
fn there_are_at_least_two_hundred_cases() {
    assert!(cases().len() >= 200, "{}", cases().len());
}
