//! The rules of the house, as tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sluicegate::policy::Action;
use sluicegate::{cluster, rules};

/// Rooms in the order in which they may be entered: a room may use those in front of it.
const ROOMS: [&str; 9] =
    ["istio", "delivery", "world", "policy", "rules", "certs", "cluster", "server", "cli"];

/// Rooms that do not wait, look at a clock, read files or talk to anybody.
const PURE: [&str; 5] = ["istio", "delivery", "world", "policy", "rules"];

/// Pairs that stand side by side and must not know each other, although the order would allow it.
const STRANGERS: [(&str, &str); 3] =
    [("certs", "policy"), ("certs", "rules"), ("cluster", "rules")];

/// No file is longer.
const MOST_LINES: usize = 500;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The code of a file without its tests and comments.
fn code(path: &Path) -> String {
    let text = read(path);
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn rooms_are_entered_in_order() {
    for (at, room) in ROOMS.iter().enumerate() {
        for path in files(&root().join("src").join(room), "rs") {
            let code = code(&path);
            let strangers = STRANGERS.iter().filter(|(own, _)| own == room).map(|(_, other)| other);
            for other in ROOMS[at + 1..].iter().chain(strangers) {
                assert!(
                    !code.contains(&format!("crate::{other}")),
                    "{} uses {other}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn the_core_is_pure() {
    let outside = [
        "async fn",
        ".await",
        "tokio",
        "std::fs",
        "std::net::Tcp",
        "Instant",
        "SystemTime",
        "kube::",
        "tracing::",
    ];
    for room in PURE {
        for path in files(&root().join("src").join(room), "rs") {
            let code = code(&path);
            for word in outside {
                assert!(!code.contains(word), "{} reaches outside: {word}", path.display());
            }
        }
    }
}

#[test]
fn every_rule_file_is_in_the_book() {
    let stems = files(&root().join("src/rules"), "rs")
        .into_iter()
        .map(|path| path.file_stem().expect("a file name").to_string_lossy().replace('_', "-"));
    let files = stems.filter(|stem| stem != "mod").collect::<BTreeSet<_>>();
    let book = rules::ALL.iter().map(|entry| entry.id.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(files, book);
    assert_eq!(book.len(), rules::ALL.len(), "an id stands twice");
}

#[test]
fn every_rule_has_a_manual() {
    for entry in rules::ALL {
        let manual = entry.manual();
        assert!(manual.lines().count() >= 3, "{} needs more than a sentence", entry.id);
        assert!(manual.starts_with(char::is_uppercase), "{}: {manual}", entry.id);
        let parts = ["Reads:", "Why:", "Passes:"].map(|part| format!("\n{part} "));
        for part in &parts {
            assert!(manual.contains(part), "the manual of {} has no part {part:?}", entry.id);
        }
        let examples = ["\nRefused: ", "\nWarned about: "];
        assert!(
            examples.iter().any(|part| manual.contains(part)),
            "the manual of {} shows nothing that it is against",
            entry.id
        );
    }
}

#[test]
fn every_rule_has_cases_on_both_sides() {
    for entry in rules::ALL {
        let folder = root().join("tests/cases").join(entry.id);
        let answers = files(&folder, "yaml").into_iter().map(|path| {
            let text = read(&path);
            text.split_once("expect: |\n")
                .unwrap_or_else(|| panic!("{} has no answer", path.display()))
                .1
                .to_owned()
        });
        let answers = answers.collect::<Vec<_>>();
        let said = match entry.action {
            Action::Deny => format!("  deny {}: ", entry.id),
            _ => format!("  warn {}: ", entry.id),
        };
        assert!(
            answers.iter().any(|answer| answer.contains(&said)),
            "{} is against nothing",
            entry.id
        );
        let is_silent = |answer: &String| {
            answer.starts_with("  admitted")
                && (entry.action == Action::Deny || !answer.contains(&said))
        };
        assert!(answers.iter().any(is_silent), "{} lets nothing pass", entry.id);
    }
}

#[test]
fn every_folder_of_cases_belongs_to_somebody() {
    let known = rules::ALL
        .iter()
        .map(|entry| entry.id)
        .chain(["decision", "in-force", "worlds"])
        .collect::<BTreeSet<_>>();
    for entry in fs::read_dir(root().join("tests/cases")).expect("cases") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(known.contains(name.as_str()), "tests/cases/{name} belongs to no rule");
    }
}

#[test]
fn no_file_is_too_long() {
    for path in
        files(&root().join("src"), "rs").into_iter().chain(files(&root().join("tests"), "rs"))
    {
        let lines = read(&path).lines().count();
        assert!(lines <= MOST_LINES, "{} has {lines} lines", path.display());
    }
}

#[test]
fn the_readme_lists_the_rules() {
    let table = sluicegate::cli::rules_table();
    assert!(
        read(&root().join("README.md")).contains(&table),
        "put the output of `sluicegate rules` into README.md:\n{table}"
    );
}

#[test]
fn the_documented_permissions_are_those_that_are_used() {
    let text = read(&root().join("docs/webhook.md"));
    let rules = text.lines().filter(|line| line.trim_start().starts_with("- {apiGroups:"));
    let mut documented = BTreeSet::new();
    for line in rules {
        let list = |after: &str| {
            let rest = line.split(after).nth(1).unwrap_or_else(|| panic!("{line}"));
            let items = rest.split(']').next().unwrap_or_default().split(',');
            items.map(|item| item.trim().trim_matches('"').to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(list("verbs: ["), ["get", "list", "watch"]);
        let group = list("apiGroups: [").concat();
        documented.extend(list("resources: [").into_iter().map(|plural| (group.clone(), plural)));
    }
    let used = cluster::RESOURCES.iter().map(|own| (own.group.to_owned(), own.plural.to_owned()));
    assert_eq!(documented, used.collect::<BTreeSet<_>>());
}

/// What docs/controllers.md says of a write, a golden case shows.
#[test]
fn every_write_of_the_controllers_page_has_its_case() {
    let text = read(&root().join("docs/controllers.md"));
    let lines = text.lines().filter(|line| {
        line.starts_with("| Flagger")
            || line.starts_with("| Argo")
            || line.starts_with("| a person")
    });
    let mut count = 0;
    for line in lines {
        let cell = line.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        for name in cell.split('`').skip(1).step_by(2) {
            let has =
                |folder: &str| root().join(format!("tests/cases/{folder}/{name}.yaml")).exists();
            let folders = ["decision", "managed-weights", "delivery-config", "subset-in-use"];
            assert!(folders.into_iter().any(has), "no case {name}");
            count += 1;
        }
    }
    assert!(count >= 25, "{count}");
}

#[test]
fn messages_never_exceed_five_lines() {
    for path in files(&root().join("tests/cases"), "yaml") {
        let text = read(&path);
        let Some((_, answer)) = text.split_once("expect: |\n") else { continue };
        let mut length = 0;
        for line in answer.lines().skip(1) {
            length = if line.starts_with("    ") { length + 1 } else { 1 };
            assert!(length <= 5, "{}: {line}", path.display());
        }
    }
}
