//! Alerts and the dashboard: valid, about series that exist, with a runbook each, and firing when they should.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{Gate, Result, http};
use crate::helm::{HELMS, one, program, root};
use crate::stage::Stage;
use crate::{Scenario, scenario};

const RULES: [&str; 2] = ["--set", "prometheusRule.enabled=true"];

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("promtool_takes_the_alerts", promtool_takes_the_alerts),
        scenario("alerts_fire_when_they_should", alerts_fire),
        scenario("every_alert_is_tried_and_has_a_runbook", every_alert_is_tried),
        scenario("an_alert_can_be_left_out", an_alert_can_be_left_out),
        scenario("series_of_alerts_and_dashboard_exist", series_exist),
        scenario("promtool_takes_the_metrics", promtool_takes_the_metrics),
    ]
}

/// The `spec` of the PrometheusRule, which is a file of rules.
fn rules(arguments: &[&str]) -> Result<Value> {
    let objects = HELMS[1].objects(&[&RULES, arguments].concat())?;
    Ok(one(&objects, "PrometheusRule", "sluicegate")?["spec"].clone())
}

fn alerts(rules: &Value) -> impl Iterator<Item = &Value> {
    rules["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|group| group["rules"].as_array())
        .flatten()
}

fn names(rules: &Value) -> BTreeSet<String> {
    alerts(rules).filter_map(|own| own["alert"].as_str()).map(str::to_owned).collect()
}

fn promtool(arguments: &[&str], folder: &std::path::Path) -> Result<Output> {
    Ok(Command::new(program("promtool")?).args(arguments).current_dir(folder).output()?)
}

fn succeeded(output: &Output) -> Result {
    if output.status.success() {
        return Ok(());
    }
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    Err(String::from_utf8_lossy(&said).into_owned().into())
}

fn promtool_takes_the_alerts(_: &Stage) -> Result {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("rules.json"), rules(&[])?.to_string())?;
    succeeded(&promtool(
        &["check", "rules", "--lint=all", "--lint-fatal", "rules.json"],
        folder.path(),
    )?)
}

/// tests/chart/alerts.yaml says what Prometheus sees and which alerts it makes of it.
fn alerts_fire(_: &Stage) -> Result {
    let folder = tempfile::tempdir()?;
    let mut rules = rules(&[])?;
    // A test would have to repeat every word of them.
    for group in rules["groups"].as_array_mut().into_iter().flatten() {
        for alert in group["rules"].as_array_mut().into_iter().flatten() {
            alert["annotations"] = serde_json::json!({});
        }
    }
    std::fs::write(folder.path().join("rules.json"), rules.to_string())?;
    std::fs::copy(root().join("tests/chart/alerts.yaml"), folder.path().join("alerts.yaml"))?;
    succeeded(&promtool(&["test", "rules", "alerts.yaml"], folder.path())?)
}

fn every_alert_is_tried(_: &Stage) -> Result {
    let rules = rules(&[])?;
    let tried: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(root().join("tests/chart/alerts.yaml"))?)?;
    let tests = tried["tests"].as_array().into_iter().flatten();
    let tried = tests.flat_map(|test| test["alert_rule_test"].as_array()).flatten();
    let mut firing = BTreeSet::new();
    let mut silent = BTreeSet::new();
    for own in tried {
        let name = own["alertname"].as_str().unwrap_or_default().to_owned();
        let expected = own["exp_alerts"].as_array().is_some_and(|all| !all.is_empty());
        if expected { &mut firing } else { &mut silent }.insert(name);
    }
    let all = names(&rules);
    if all.len() < 15 || firing != all || silent != all {
        return Err(format!(
            "alerts {all:?}\nfire in a test {firing:?}\nand stay silent {silent:?}"
        )
        .into());
    }
    let runbooks = std::fs::read_to_string(root().join("docs/runbooks.md"))?;
    // As GitHub makes an anchor of a heading that is one word.
    let anchors =
        runbooks.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_lowercase);
    let anchors = anchors.collect::<BTreeSet<_>>();
    let page = "https://github.com/sluicegate/sluicegate/blob/main/docs/runbooks.md#";
    for alert in alerts(&rules) {
        let url = alert["annotations"]["runbook_url"].as_str().unwrap_or_default();
        let anchor = url.strip_prefix(page).ok_or_else(|| format!("{alert}"))?;
        if !anchors.contains(anchor) {
            return Err(format!("docs/runbooks.md has no heading {anchor}").into());
        }
        for key in ["summary", "description"] {
            let text = alert["annotations"][key].as_str().unwrap_or_default();
            if text.is_empty() {
                return Err(format!("{} has no {key}", alert["alert"]).into());
            }
        }
    }
    let alerts = all.iter().map(|name| name.to_lowercase()).collect::<BTreeSet<_>>();
    let foreign =
        anchors.iter().filter(|own| own.starts_with("sluicegate") && !alerts.contains(*own));
    match foreign.collect::<Vec<_>>().as_slice() {
        [] => Ok(()),
        foreign => {
            Err(format!("docs/runbooks.md is about alerts that are not there: {foreign:?}").into())
        }
    }
}

fn an_alert_can_be_left_out(_: &Stage) -> Result {
    let without = rules(&["--set-json", r#"prometheusRule.disabled=["SluicegateSlow"]"#])?;
    let mut all = names(&rules(&[])?);
    all.remove("SluicegateSlow");
    if names(&without) == all { Ok(()) } else { Err(format!("{:?}", names(&without)).into()) }
}

/// What /metrics of a real gate answers.
fn metrics(stage: &Stage) -> Result<String> {
    let gate = Gate::start(stage.plane()?, "metrics")?;
    let (_, text) = http::get(gate.status_port(), "/metrics").ok_or("no metrics")?;
    Ok(text)
}

/// The names of ours, and of the process, in expressions.
fn series(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let ours = |word: &&str| word.starts_with("sluicegate_") || word.starts_with("process_");
    words.filter(ours).map(str::to_owned).collect()
}

fn series_exist(stage: &Stage) -> Result {
    let text = metrics(stage)?;
    let exported = series(&text);
    let objects = HELMS[1].objects(&[&RULES[..], &["--set", "dashboard.enabled=true"]].concat())?;
    let board = one(&objects, "ConfigMap", "sluicegate-dashboard")?;
    let board: Value =
        serde_json::from_str(board["data"]["sluicegate.json"].as_str().unwrap_or_default())?;
    let panels = board["panels"].as_array().into_iter().flatten();
    let targets = panels.flat_map(|panel| panel["targets"].as_array()).flatten();
    let shown = targets.filter_map(|own| own["expr"].as_str()).collect::<Vec<_>>().join("\n");
    let rules = rules(&[])?;
    let alerted =
        alerts(&rules).filter_map(|own| own["expr"].as_str()).collect::<Vec<_>>().join("\n");
    let (shown, alerted) = (series(&shown), series(&alerted));
    let missing = shown.union(&alerted).filter(|own| !exported.contains(*own)).collect::<Vec<_>>();
    if !missing.is_empty() {
        return Err(format!("/metrics has no {missing:?}").into());
    }
    // Nothing of ours is exported for nobody.
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE sluicegate_"));
    let families =
        families.filter_map(|line| line.split(' ').next()).map(|own| format!("sluicegate_{own}"));
    let unshown =
        families.filter(|own| !shown.iter().any(|series| series.starts_with(own.as_str())));
    match unshown.collect::<Vec<_>>().as_slice() {
        [] => Ok(()),
        unshown => Err(format!("the dashboard shows nothing of {unshown:?}").into()),
    }
}

fn promtool_takes_the_metrics(stage: &Stage) -> Result {
    use std::io::Write as _;
    let text = metrics(stage)?;
    let mut child = Command::new(program("promtool")?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().ok_or("no stdin")?.write_all(text.as_bytes())?;
    succeeded(&child.wait_with_output()?)?;
    Ok(())
}
