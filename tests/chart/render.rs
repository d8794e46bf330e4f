//! What is rendered is the same every time, and what a real API server takes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::{Kubectl, Result, list};
use crate::helm::{HELMS, Helm, chart, ci_values, documents, name};
use crate::stage::{NAMESPACE, Stage};
use crate::{Scenario, scenario};

pub(crate) fn all() -> Vec<Scenario> {
    let mut all = vec![
        scenario("every_branch_is_rendered_by_some_values", every_branch_is_rendered),
        scenario("every_switch_is_turned_both_ways", every_switch_is_turned_both_ways),
        scenario("every_pair_of_switches_is_rendered", pairs_of_switches),
        scenario("the_api_server_would_complain", the_api_server_would_complain),
        scenario("no_image_but_ours", no_image_but_ours),
        scenario("a_new_policy_restarts_no_pod", a_new_policy_restarts_no_pod),
    ];
    for (stem, file) in ci_values().unwrap_or_default() {
        for helm in HELMS {
            let (file, title) = (file.clone(), format!("{}_renders_{stem}", helm.0));
            all.push(scenario(title, move |stage: &Stage| renders(stage, helm, &file)));
        }
    }
    all
}

/// Twice the same bytes, no object twice, and the real API server takes each of them without a warning.
fn renders(stage: &Stage, helm: Helm, file: &str) -> Result {
    let arguments = ["--values", file];
    let text = helm.template(&arguments)?;
    if text != helm.template(&arguments)? {
        return Err("two renderings differ".into());
    }
    let objects = documents(&text)?;
    let mut seen = BTreeSet::new();
    for object in &objects {
        let place = object["metadata"]["namespace"].as_str().unwrap_or_default();
        if !seen.insert((name(object), place.to_owned(), object["apiVersion"].to_string())) {
            return Err(format!("{} stands there twice", name(object)).into());
        }
    }
    match refused(stage.plane()?.admin(), &objects)? {
        Some(said) => Err(said.into()),
        None => Ok(()),
    }
}

/// What the API server has against objects; a warning counts, as long as the chart could do something about it.
fn refused(admin: &Kubectl, objects: &[Value]) -> Result<Option<String>> {
    let mut by_namespace = BTreeMap::<&str, Vec<Value>>::new();
    for object in objects {
        let mut own = object.clone();
        // Its account is an object of the same rendering, and a dry run stores nothing.
        if own["kind"] == "Pod" {
            own["spec"]["serviceAccountName"] = json!("default");
        }
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(NAMESPACE);
        by_namespace.entry(namespace).or_default().push(own);
    }
    let asks_for_the_node =
        objects.iter().any(|own| own["spec"]["template"]["spec"]["hostNetwork"] == true);
    let mut complaints = String::new();
    for (namespace, objects) in by_namespace {
        let own = Kubectl { namespace: namespace.to_owned(), ..admin.clone() };
        // As Helm 4 sends them.
        let flags = ["--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"];
        let answer = own.apply_with(&flags, &list(&objects))?;
        let is_counted =
            |line: &&str| !(asks_for_the_node && line.contains("would violate PodSecurity"));
        let said = answer.stderr().lines().filter(is_counted).collect::<Vec<_>>();
        if !answer.is_success() || !said.is_empty() {
            complaints += &format!("in {namespace}: {}\n", said.join("\n"));
        }
    }
    Ok(Some(complaints).filter(|said| !said.is_empty()))
}

/// What `refused` says of a Pod that is not restricted, of a field that does not exist, and of a condition that is none.
fn the_api_server_would_complain(stage: &Stage) -> Result {
    let objects = HELMS[1].objects(&[])?;
    let spoiled: [(&str, &str, Value); 3] = [
        ("Deployment", "/spec/template/spec/containers/0/securityContext", json!({})),
        ("Service", "/spec/ports/0", json!({ "port": 443, "targetProt": "webhook" })),
        (
            "ValidatingWebhookConfiguration",
            "/webhooks/0/matchConditions/0/expression",
            json!("a ="),
        ),
    ];
    for (kind, path, value) in spoiled {
        let mut own = objects.iter().find(|own| own["kind"] == kind).ok_or(kind)?.clone();
        *own.pointer_mut(path).ok_or(path)? = value;
        if refused(stage.plane()?.admin(), &[own])?.is_none() {
            return Err(format!("nobody minds {path} of {kind}").into());
        }
    }
    Ok(())
}

/// Every template leaves something with some values of `ci/`, and the other Helm leaves the same.
fn every_branch_is_rendered(_: &Stage) -> Result {
    let mut templates = BTreeSet::new();
    for (_, file) in ci_values()? {
        let [three, four] = HELMS.map(|helm| helm.objects(&["--values", &file]));
        let sorted = |mut objects: Vec<Value>| {
            objects.sort_by_key(Value::to_string);
            objects
        };
        if sorted(three?) != sorted(four?) {
            return Err(format!("{file}: the two Helms differ").into());
        }
        let text = HELMS[1].template(&["--values", &file])?;
        let sources = text.lines().filter_map(|line| line.strip_prefix("# Source: sluicegate/"));
        templates.extend(sources.map(str::to_owned));
    }
    let mut missing = Vec::new();
    for folder in ["templates", "templates/tests"] {
        for entry in std::fs::read_dir(chart().join(folder))? {
            let file = entry?.file_name().to_string_lossy().into_owned();
            let path = format!("{folder}/{file}");
            if file.ends_with(".yaml") && file != "validate.yaml" && !templates.contains(&path) {
                missing.push(path);
            }
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(format!("never rendered: {missing:?}").into()) }
}

/// Each boolean of values.yaml is set to the other value by some file of `ci/`.
fn every_switch_is_turned_both_ways(_: &Stage) -> Result {
    let read = |path: &str| -> Result<Value> {
        Ok(serde_saphyr::from_str(&std::fs::read_to_string(path)?)?)
    };
    let default = read(&chart().join("values.yaml").display().to_string())?;
    let turned = ci_values()?.iter().map(|(_, file)| read(file)).collect::<Result<Vec<Value>>>()?;
    let mut never = Vec::new();
    for path in switches(&default, "") {
        let usual = default.pointer(&path);
        if !turned.iter().any(|own| own.pointer(&path).is_some_and(|set| Some(set) != usual)) {
            never.push(path);
        }
    }
    if never.is_empty() { Ok(()) } else { Err(format!("never turned: {never:?}").into()) }
}

fn switches(value: &Value, at: &str) -> Vec<String> {
    match value {
        Value::Bool(_) => vec![at.to_owned()],
        Value::Object(fields) => {
            fields.iter().flat_map(|(key, own)| switches(own, &format!("{at}/{key}"))).collect()
        }
        _ => Vec::new(),
    }
}

fn no_image_but_ours(_: &Stage) -> Result {
    for (_, file) in ci_values()? {
        let arguments = ["--values", &file, "--set", "image.repository=registry.example/ours"];
        for line in HELMS[1].template(&arguments)?.lines() {
            if let Some(image) = line.trim().strip_prefix("image: ")
                && !image.trim_matches('"').starts_with("registry.example/ours")
            {
                return Err(format!("{file}: {image}").into());
            }
        }
    }
    Ok(())
}

/// The gate follows its file: the ConfigMap alone changes.
fn a_new_policy_restarts_no_pod(_: &Stage) -> Result {
    let before = HELMS[1].objects(&[])?;
    let after = HELMS[1].objects(&["--set", "policy.step.max=20"])?;
    let changed = before.iter().zip(&after).filter(|(a, b)| a != b).map(|(a, _)| name(a));
    let changed = changed.collect::<Vec<_>>();
    if before.len() != after.len() || changed != ["ConfigMap sluicegate-policy"] {
        return Err(format!("a new policy of {NAMESPACE} changes {changed:?}").into());
    }
    Ok(())
}

/// Every two switches in every of their four positions, in as few renderings as a simple search finds; each is what the API server
/// takes.
fn pairs_of_switches(stage: &Stage) -> Result {
    let text = std::fs::read_to_string(chart().join("values.yaml"))?;
    let all = switches(&serde_saphyr::from_str(&text)?, "");
    let mut open = BTreeSet::new();
    for (at, _) in all.iter().enumerate() {
        for other in at + 1..all.len() {
            open.extend(
                [(false, false), (false, true), (true, false), (true, true)]
                    .map(|on| (at, other, on)),
            );
        }
    }
    let monitors = |name: &str| all.iter().position(|path| path == name).ok_or("a switch is gone");
    let (service, pod) = (monitors("/serviceMonitor/enabled")?, monitors("/podMonitor/enabled")?);
    // Which the chart refuses.
    open.remove(&(service.min(pod), service.max(pod), (true, true)));
    let pairs = open.len();
    let mut rows = 0;
    while let Some(&(first, second, (one, two))) = open.first() {
        let mut row = vec![None; all.len()];
        (row[first], row[second]) = (Some(one), Some(two));
        for at in 0..all.len() {
            let gain = |on: bool| {
                let met = row.iter().enumerate().filter_map(|(other, set)| Some((other, (*set)?)));
                let pair = |(other, set)| {
                    if other < at { (other, at, (set, on)) } else { (at, other, (on, set)) }
                };
                let pairs = met.map(pair).collect::<Vec<_>>();
                let is_refused = on
                    && ((at == service && row[pod] == Some(true))
                        || (at == pod && row[service] == Some(true)));
                if is_refused {
                    None
                } else {
                    Some(pairs.iter().filter(|pair| open.contains(pair)).count())
                }
            };
            if row[at].is_none() {
                row[at] = Some(gain(true) > gain(false));
            }
        }
        let row = row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>();
        open.retain(|&(a, b, on)| (row[a], row[b]) != on);
        let sets =
            all.iter().zip(&row).map(|(path, on)| format!("{}={on}", path[1..].replace('/', ".")));
        let mut set = sets.collect::<Vec<_>>().join(",");
        set += ",serviceAccount.name=somebody-elses";
        let admin = stage.plane()?.admin();
        let objects = HELMS[rows % 2].objects(&["--set", &set])?;
        if let Some(said) = refused(admin, &objects)? {
            return Err(format!("{set}: {said}").into());
        }
        rows += 1;
    }
    if pairs < 500 || rows > 40 {
        Err(format!("{pairs} pairs in {rows} renderings").into())
    } else {
        Ok(())
    }
}
