//! What runs elsewhere and no test can run here is at least well-formed and asks for no more than it needs.

use std::fs;
use std::path::Path;

use serde_json::Value;

fn workflows() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/workflows");
    let files =
        fs::read_dir(&folder).expect("workflows").map(|entry| entry.expect("a file").path());
    let read = |path: &Path| serde_saphyr::from_str(&fs::read_to_string(path).expect("a text"));
    files
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let parsed = read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, parsed)
        })
        .collect()
}

fn jobs(workflow: &Value) -> Vec<(&String, &Value)> {
    let jobs = workflow["jobs"].as_object().expect("jobs").iter().collect::<Vec<_>>();
    assert!(!jobs.is_empty());
    jobs
}

fn steps(job: &Value) -> impl Iterator<Item = &Value> {
    job["steps"].as_array().into_iter().flatten()
}

#[test]
fn every_action_is_pinned() {
    let mut count = 0;
    for (name, workflow) in workflows() {
        for (job, own) in jobs(&workflow) {
            for step in steps(own).filter_map(|step| step["uses"].as_str()) {
                let version = step.split_once('@').map(|(_, version)| version).unwrap_or_default();
                let is_version = version
                    .strip_prefix('v')
                    .is_some_and(|rest| rest.split('.').all(|part| part.parse::<u32>().is_ok()));
                assert!(is_version, "{name}, job {job}: {step} has no version");
                count += 1;
            }
        }
    }
    assert!(count >= 5, "{count}");
}

#[test]
fn no_job_may_write_what_it_does_not_say() {
    for (name, workflow) in workflows() {
        let permissions = workflow["permissions"].as_object();
        let permissions = permissions.unwrap_or_else(|| panic!("{name}: no permissions"));
        assert!(permissions.values().all(|may| may == "read"), "{name}: every job may write");
        for (job, own) in jobs(&workflow) {
            assert!(own["timeout-minutes"].is_u64(), "{name}, job {job}: no time limit");
            let writes = |what: &str| own["permissions"][what] == "write";
            // Who signs and pushes is nobody who may change the repository.
            assert!(!(writes("contents") && writes("id-token")), "{name}, job {job}");
        }
    }
}

/// What a workflow makes exists, and what somebody else wrote is never part of a command.
#[test]
fn commands_are_ours() {
    let makefile = Path::new(env!("CARGO_MANIFEST_DIR")).join("Makefile");
    let makefile = fs::read_to_string(makefile).expect("a Makefile");
    let mut made = 0;
    for (name, workflow) in workflows() {
        for (_, own) in jobs(&workflow) {
            for run in steps(own).filter_map(|step| step["run"].as_str()) {
                assert!(!run.contains("${{"), "{name}: hand {run} its values as environment");
                for line in run.lines().filter_map(|line| line.trim().strip_prefix("make ")) {
                    let target = line.split(' ').next().unwrap_or_default();
                    assert!(makefile.contains(&format!("\n{target}:")), "{name}: make {target}");
                    made += 1;
                }
            }
        }
    }
    assert!(made >= 2, "{made}");
}
