//! The chart's ValidatingAdmissionPolicies beside the rules whose twins they are, on a real API server: every golden case that needs
//! no cluster is written there, and judged alike, but for what docs/admission-policy.md says they do not see.
//!
//! `make test-chart` builds what is needed and runs them; a plain `cargo test` leaves them out.

// The counts are for whoever runs it.
#![allow(clippy::print_stdout)]

mod api;
// The cases have a test of their own, and the end-to-end tests use more of the harness.
#[allow(dead_code)]
#[path = "../golden/mod.rs"]
mod golden;
#[allow(dead_code, unused_imports)]
#[path = "../e2e/harness/mod.rs"]
mod harness;
mod policies;
mod unseen;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};
use sluicegate::policy::{Action, Verdict, evaluate};
use sluicegate::world::{Kind, Mesh, World};

use self::api::Api;
use self::golden::Case;
use self::harness::sandbox::Sandbox;
use self::harness::{ControlPlane, Result, text};
use self::policies::{Set, put_in_force};
use self::write::{Answer, Writer};

/// The rules that have a twin.
const TWINS: [&str; 3] = ["structure", "weight-sum", "canary-step"];

/// A case and what the rules say of it.
struct Judged {
    name: String,
    case: Case,
    /// The rules with a twin that refuse it.
    refused_by: BTreeSet<&'static str>,
    /// Whether the cluster changes nothing about that.
    is_alone: bool,
}

fn judge() -> Result<Vec<Judged>> {
    let mut judged = Vec::new();
    for path in golden::files() {
        let text = fs::read_to_string(&path)?;
        let (case, _) = Case::parse(&path, &text).map_err(|error| error.to_string())?;
        if case.kind() != Kind::VirtualService || case.new.is_none() {
            continue;
        }
        let say = |world: &World| -> Result<Verdict> {
            let policies = case.policies().map_err(|error| error.to_string())?;
            let review = case.review();
            Ok(evaluate(policies.in_force(&review, world), &review, world))
        };
        let world = case.world().map_err(|error| error.to_string())?;
        let (seen, alone) = (say(&world)?, say(&World::blank(Mesh::default()))?);
        judged.push(Judged {
            name: golden::name(&path),
            refused_by: refused_by(&seen),
            is_alone: seen.is_decided() && refused_by(&seen) == refused_by(&alone),
            case,
        });
    }
    Ok(judged)
}

fn refused_by(verdict: &Verdict) -> BTreeSet<&'static str> {
    let rules = verdict.of_action(Action::Deny).map(|finding| finding.rule);
    rules.filter(|rule| TWINS.contains(rule)).collect()
}

/// The policies of the cases, each with the label of its set.
fn sets(sandbox: &Sandbox, judged: &[Judged]) -> Result<BTreeMap<String, Set>> {
    let policies = judged.iter().map(|own| key(&own.case)).collect::<BTreeSet<_>>();
    let sets = policies.into_iter().enumerate().map(|(at, key)| {
        let policy = serde_json::from_str(&key)?;
        Ok((key, Set::render(sandbox, &format!("set-{at}-of-cases"), &policy)?))
    });
    sets.collect()
}

fn key(case: &Case) -> String {
    case.policy.clone().unwrap_or(Value::Null).to_string()
}

#[derive(Default)]
struct Count {
    admitted: usize,
    refused: usize,
    /// By the schema of the CRD; the gate says the same for servers without one.
    refused_by_schema: usize,
    unseen: usize,
    too_strict: usize,
}

#[test]
#[ignore = "needs Helm: make test-chart"]
fn the_twin_says_what_the_rules_say() -> std::result::Result<(), String> {
    compare().map_err(text)
}

fn compare() -> Result {
    let judged = judge()?;
    let sandbox = Arc::new(Sandbox::new()?);
    let sets = sets(&sandbox, &judged)?;
    let default = sets.get("null").ok_or("no case has the default policy")?;
    let mutants = mutants(&sandbox, default)?;

    let plane = ControlPlane::start(Arc::clone(&sandbox))?;
    let api = Api::new(&plane)?;
    let writer = Writer::new(&plane, &api, judged.iter().map(|own| own.case.namespace()))?;
    // The default set goes last: it refuses what is broken for everyone, and shows that all are in force.
    let others = sets.values().filter(|set| set.label != default.label);
    let ordered = others.chain(mutants.iter().map(|(_, set)| set)).chain([default]).cloned();
    put_in_force(&api, &ordered.collect::<Vec<_>>())?;

    let (mut count, mut elsewhere, mut wrong) = (Count::default(), Count::default(), Vec::new());
    for own in &judged {
        let set = &sets[&key(&own.case)];
        let answer = writer.write(&own.case, &set.label)?;
        let count = if own.is_alone { &mut count } else { &mut elsewhere };
        let must = !own.refused_by.is_empty();
        match &answer {
            Answer::Schema if must => count.refused_by_schema += 1,
            Answer::Refused(said) if is_by_the_same(said, &own.refused_by) => {
                count.refused += 1;
            }
            Answer::Admitted(_) if !must => count.admitted += 1,
            Answer::Admitted(_) if own.is_alone && unseen::reason(&own.name).is_some() => {
                count.unseen += 1;
            }
            _ if own.is_alone => wrong.push(format!(
                "{}: the rules refuse it by {:?}, the API server said {answer:?}",
                own.name, own.refused_by
            )),
            // What the cluster decides the twin cannot know, and docs/admission-policy.md says so.
            Answer::Admitted(_) => count.unseen += 1,
            _ => count.too_strict += 1,
        }
    }
    println!(
        "{} cases need no cluster: {} admitted by both, {} refused by both ({} of them by the CRD), {} that the twin does not see",
        judged.iter().filter(|own| own.is_alone).count(),
        count.admitted,
        count.refused + count.refused_by_schema,
        count.refused_by_schema,
        count.unseen,
    );
    println!(
        "{} cases rest on the cluster: {} judged alike, {} that the twin lets pass, {} that it refuses and the gate does not",
        judged.iter().filter(|own| !own.is_alone).count(),
        elsewhere.admitted + elsewhere.refused + elsewhere.refused_by_schema,
        elsewhere.unseen,
        elsewhere.too_strict,
    );
    if !wrong.is_empty() {
        return Err(wrong.join("\n").into());
    }
    unseen::is_exact(|name| {
        let own = judged.iter().find(|own| own.name == name && own.is_alone);
        let own = own.ok_or_else(|| format!("{name} is no case that needs no cluster"))?;
        let answer = writer.write(&own.case, &sets[&key(&own.case)].label)?;
        Ok(!own.refused_by.is_empty() && matches!(answer, Answer::Admitted(_)))
    })?;
    if count.admitted < 300 || count.refused < 80 {
        return Err("there are fewer cases than there were".into());
    }
    modes(&judged, &sets, &writer)?;
    find_mutants(&judged, &mutants, &writer)
}

/// Whether one of these rules refused. What is broken the gate judges no further; the API server asks all policies.
fn is_by_the_same(message: &str, refused_by: &BTreeSet<&'static str>) -> bool {
    TWINS.iter().any(|rule| {
        says(message, rule) && (refused_by.contains(rule) || refused_by.contains("structure"))
    })
}

/// Whether the API server says that a rule's twin refused, and what passes.
fn says(message: &str, rule: &str) -> bool {
    message.contains(&format!(" denied request: {rule}: spec")) && message.contains("Passes")
}

/// Warnings are given and not only no refusals, and Audit is silent.
fn modes(judged: &[Judged], sets: &BTreeMap<String, Set>, writer: &Writer<'_>) -> Result {
    let cases = [
        ("weight-sum/a-warning-where-the-policy-says-so", "weight-sum: "),
        ("canary-step/warn-mode-warns", "canary-step: "),
        ("canary-step/audit-mode-says-nothing", ""),
    ];
    for (name, warning) in cases {
        let own = judged.iter().find(|own| own.name == name).ok_or("no such case")?;
        let answer = writer.write(&own.case, &sets[&key(&own.case)].label)?;
        let Answer::Admitted(warnings) = &answer else {
            return Err(format!("{name}: {answer:?}").into());
        };
        let is_right = match warning {
            "" => warnings.is_empty(),
            warning => warnings.iter().any(|said| said.contains(warning)),
        };
        if !is_right {
            return Err(format!("{name}: the warnings are {warnings:?}").into());
        }
    }
    Ok(())
}

/// Sets that differ from the default one, each by one thing.
fn mutants(sandbox: &Sandbox, default: &Set) -> Result<Vec<(&'static str, Set)>> {
    let step = |max: u32| json!({ "step": { "max": max } });
    let expression = |rule: &'static str, at: usize| {
        move |object: &mut Value| {
            let is_rule =
                object["metadata"]["name"].as_str().is_some_and(|name| name.ends_with(rule));
            if is_rule && object["kind"] == "ValidatingAdmissionPolicy" {
                object["spec"]["validations"][at]["expression"] = json!("true");
            }
        }
    };
    Ok(vec![
        ("a larger step", Set::render(sandbox, "mutant-0", &step(60))?),
        ("a smaller step", Set::render(sandbox, "mutant-1", &step(40))?),
        ("no step", default.with("mutant-2", expression("canary-step", 0))),
        ("no sum", default.with("mutant-3", expression("weight-sum", 0))),
        ("no route at all", default.with("mutant-4", expression("structure", 0))),
        ("nothing broken", default.with("mutant-5", expression("structure", 1))),
    ])
}

/// The comparison can fail: each of these is found by a case of the default policy.
fn find_mutants(judged: &[Judged], mutants: &[(&'static str, Set)], writer: &Writer<'_>) -> Result {
    let own = |own: &&Judged| {
        own.is_alone && own.case.policy.is_none() && unseen::reason(&own.name).is_none()
    };
    for (what, set) in mutants {
        let mut found = None;
        for judged in judged.iter().filter(own) {
            let is_refused =
                !matches!(writer.write(&judged.case, &set.label)?, Answer::Admitted(_));
            if is_refused == judged.refused_by.is_empty() {
                found = Some(&judged.name);
                break;
            }
        }
        match found {
            Some(name) => println!("{what}: found by {name}"),
            None => return Err(format!("{what}: no case finds it").into()),
        }
    }
    Ok(())
}
