//! What others judge charts by: helm lint, helm-unittest, kube-score, checkov. Exceptions are in `exceptions.yaml`, with a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};

use serde::Deserialize;
use serde_json::Value;

use crate::harness::Result;
use crate::helm::{HELMS, chart, ci_values, program, root};
use crate::stage::Stage;
use crate::{Scenario, scenario};

/// What a judge asks for and the chart does not do: the check, and why not.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Exceptions {
    kube_score: BTreeMap<String, String>,
    checkov: BTreeMap<String, String>,
}

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("helm_lint_has_nothing_to_say", helm_lint),
        scenario("helm_unittest", helm_unittest),
        scenario("kube_score_is_content_but_for_the_exceptions", kube_score),
        scenario("checkov_is_content_but_for_the_exceptions", checkov),
        scenario("what_is_packaged_is_the_chart_alone", package),
    ]
}

fn exceptions() -> Result<Exceptions> {
    let text = std::fs::read_to_string(root().join("tests/chart/exceptions.yaml"))?;
    let exceptions: Exceptions = serde_saphyr::from_str(&text)?;
    let reasons = exceptions.kube_score.values().chain(exceptions.checkov.values());
    match reasons.filter(|reason| reason.len() < 40).count() {
        0 => Ok(exceptions),
        count => Err(format!("{count} exceptions have no reason worth the name").into()),
    }
}

/// Fails with all that a program said.
fn succeeded(what: &str, output: &Output) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{what}: {said}{}", String::from_utf8_lossy(&output.stderr)).into())
}

fn helm_lint(_: &Stage) -> Result {
    let chart = chart().display().to_string();
    for helm in HELMS {
        for (_, file) in ci_values()? {
            let namespace = ["--namespace", "sluicegate-system", "--values", &file];
            let output =
                helm.run(&[&["lint", "--strict", "--quiet", &chart], &namespace[..]].concat())?;
            succeeded(&format!("{} lint, {file}", helm.0), &output)?;
        }
    }
    Ok(())
}

fn helm_unittest(_: &Stage) -> Result {
    // A copy: it leaves a folder for snapshots beside the suites.
    let folder = tempfile::tempdir()?;
    let copied = Command::new("cp").arg("-R").arg(chart()).arg(folder.path()).output()?;
    succeeded("cp", &copied)?;
    let output = Command::new(program("helm-unittest")?)
        .args(["--strict", "--color=false", "sluicegate"])
        .current_dir(folder.path())
        .output()?;
    let said = succeeded("helm-unittest", &output)?;
    // Suites that are not found would pass as well.
    let files = std::fs::read_dir(chart().join("tests"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let suites = files.filter(|name| name.ends_with("_test.yaml")).count();
    if suites == 0 || !said.contains(&format!("Test Suites: {suites} passed, {suites} total")) {
        return Err(format!("{suites} suites: {said}").into());
    }
    Ok(())
}

/// What is judged: the defaults, and everything that can be turned on at once.
fn renderings() -> Result<Vec<String>> {
    let files = ci_values()?;
    let judged = files.iter().filter(|(stem, _)| ["default", "all"].contains(&stem.as_str()));
    judged.map(|(_, file)| HELMS[1].template(&["--values", file])).collect()
}

/// Every complaint is an exception, and every exception is needed.
fn compare(
    judge: &str,
    found: BTreeMap<String, String>,
    excepted: &BTreeMap<String, String>,
) -> Result {
    let new = found.iter().filter(|(check, _)| !excepted.contains_key(*check));
    let new = new.map(|(check, what)| format!("{check}: {what}")).collect::<Vec<_>>();
    let unneeded = excepted.keys().filter(|check| !found.contains_key(*check)).collect::<Vec<_>>();
    if new.is_empty() && unneeded.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{judge} complains:\n{}\nexceptions that nobody needs: {unneeded:?}",
        new.join("\n")
    )
    .into())
}

fn kube_score(_: &Stage) -> Result {
    let mut found = BTreeMap::new();
    for text in renderings()? {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("chart.yaml");
        std::fs::write(&file, text)?;
        let output = Command::new(program("kube-score")?)
            .args(["score", "--output-format", "json", "--kubernetes-version", "v1.33"])
            .arg(&file)
            .output()?;
        let objects: Vec<Value> = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
        if objects.len() < 5 {
            return Err(format!("it saw {} objects", objects.len()).into());
        }
        for object in &objects {
            for check in object["checks"].as_array().into_iter().flatten() {
                // 10 is good; 7 almost, with an advice; 5 a warning; 1 critical.
                if check["grade"].as_u64().unwrap_or(10) < 10 && check["skipped"] != true {
                    let id = check["check"]["id"].as_str().unwrap_or_default().to_owned();
                    found.insert(id, format!("{} {}", object["object_name"], check["comments"]));
                }
            }
        }
    }
    compare("kube-score", found, &exceptions()?.kube_score)
}

fn checkov(_: &Stage) -> Result {
    let mut found = BTreeMap::new();
    let mut passed = BTreeSet::new();
    for text in renderings()? {
        // It passes by folders whose name begins with a dot.
        let folder = tempfile::Builder::new().prefix("chart-").tempdir()?;
        std::fs::write(folder.path().join("chart.yaml"), text)?;
        let output = Command::new(program("checkov")?)
            .args([
                "--framework",
                "kubernetes",
                "--output",
                "json",
                "--quiet",
                "--compact",
                "--directory",
            ])
            .arg(folder.path())
            // It asks its vendor for guidelines otherwise.
            .arg("--skip-download")
            .env("HOME", folder.path())
            .output()?;
        let report: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
        let checks = |which: &str| report["results"][which].as_array().cloned().unwrap_or_default();
        for check in checks("failed_checks") {
            let word = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
            found.insert(word("check_id"), format!("{} {}", word("resource"), word("check_name")));
        }
        passed.insert(report["summary"]["passed"].as_u64().unwrap_or_default() > 50);
    }
    if passed.contains(&false) {
        return Err("it has looked at next to nothing".into());
    }
    compare("checkov", found, &exceptions()?.checkov)
}

/// Without tests and values of tests, and the same twice.
fn package(_: &Stage) -> Result {
    for helm in HELMS {
        let folder = tempfile::tempdir()?;
        let (chart, to) = (chart().display().to_string(), folder.path().display().to_string());
        succeeded("helm package", &helm.run(&["package", &chart, "--destination", &to])?)?;
        let archive = std::fs::read_dir(folder.path())?.next().ok_or("no archive")??.path();
        let listed = Command::new("tar").arg("-tzf").arg(archive).output()?;
        let listed = succeeded("tar", &listed)?;
        for line in listed.lines() {
            let is_foreign =
                line.starts_with("sluicegate/tests/") || line.starts_with("sluicegate/ci/");
            if is_foreign {
                return Err(format!("{} packs {line}", helm.0).into());
            }
        }
        for wanted in
            ["values.schema.json", "templates/tests/self-test.yaml", "files/dashboard.json"]
        {
            if !listed.lines().any(|line| line == format!("sluicegate/{wanted}")) {
                return Err(format!("{} packs no {wanted}", helm.0).into());
            }
        }
    }
    Ok(())
}
