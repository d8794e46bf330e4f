//! What real delivery controllers wrote on a real node (`tests/node`), judged again: `tests/recorded/<tool>/<scenario>.jsonl` says
//! what happened, the `.expect` beside it what the gate says of each write.
//!
//! `UPDATE_RECORDED=1 make test-cluster` records anew; `UPDATE_EXPECT=1 cargo test --test offline recorded` rewrites the answers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sluicegate::cluster;
use sluicegate::policy::{Action, Basis, Operation, Policies, Review, Verdict, evaluate};
use sluicegate::rules;
use sluicegate::world::{Kind, Mesh, World};

const CLOSED: &str = "a way back would be closed by a gate that knows nothing";

/// Which of the two is stable is said by the Rollout alone; while nothing is known of it, the answer is to try again.
const UNTOLD: &str = "argo/turns-ping-pong";

/// All of them together.
const MOST_BYTES: u64 = 3_000_000;

/// Every recording, with its name: `flagger/promotion`.
fn recordings() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let mut found = Vec::new();
    for tool in entries(&root) {
        for file in entries(&tool)
            .into_iter()
            .filter(|file| file.extension().is_some_and(|own| own == "jsonl"))
        {
            let name = file.strip_prefix(&root).unwrap_or(&file).with_extension("");
            found.push((name.display().to_string(), file));
        }
    }
    found.sort();
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("a recording");
    text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The cluster, as it was when something was written.
struct Replay {
    account: String,
    namespace: String,
    world: World,
    /// Nothing but Canaries and Rollouts: what a gate knows that has lost everything else.
    deliveries: World,
    stored: BTreeMap<(String, String), Value>,
    said: String,
    complaints: Vec<String>,
}

impl Replay {
    fn of(file: &Path) -> Self {
        let mut events = lines(file).into_iter();
        let head = events.next().expect("a first line");
        let mut own = Self {
            account: text(&head, "account").to_owned(),
            namespace: text(&head, "namespace").to_owned(),
            world: World::empty(Mesh::default()),
            deliveries: World::empty(Mesh::default()),
            stored: BTreeMap::new(),
            said: String::new(),
            complaints: Vec::new(),
        };
        events.for_each(|event| own.take(&event));
        own
    }

    fn take(&mut self, event: &Value) {
        let (object, gone) = (event.get("object"), event.get("gone"));
        let kind = text(object.or(gone).expect("an object or what is gone"), "kind");
        let name = object.map(|own| &own["metadata"]).or(gone).map(|own| text(own, "name"));
        let (kind, name) = (kind.to_owned(), name.unwrap_or_default().to_owned());
        let known =
            Kind::ALL.into_iter().find(|own| own.name() == kind).expect("a kind that is read");
        let object = object.map(|own| {
            let mut own = own.clone();
            if known != Kind::Namespace {
                own["metadata"]["namespace"] = json!(self.namespace);
            }
            own
        });
        if matches!(known, Kind::VirtualService | Kind::DestinationRule) {
            self.judge(event, known, &name, object.as_ref());
            if event["code"].as_u64().is_none_or(|code| code >= 300) {
                return;
            }
        }
        match object {
            Some(object) => {
                let read = || {
                    cluster::object_in(object.clone(), &self.namespace)
                        .expect("a kind that is read")
                };
                if matches!(known, Kind::Canary | Kind::Rollout) {
                    self.deliveries.apply(read());
                }
                self.world.apply(read());
                self.stored.insert((kind, name), object);
            }
            None => {
                let namespace = if known == Kind::Namespace { "" } else { &self.namespace };
                self.world.delete(known, namespace, &name);
                self.deliveries.delete(known, namespace, &name);
                self.stored.remove(&(kind, name));
            }
        }
    }

    fn judge(&mut self, event: &Value, kind: Kind, name: &str, new: Option<&Value>) {
        let old = self.stored.get(&(kind.name().to_owned(), name.to_owned()));
        let (old, new_text) = (old.map(Value::to_string), new.map(Value::to_string));
        let review = Review {
            operation: Operation::parse(kind, old.as_deref(), new_text.as_deref()),
            namespace: self.namespace.clone(),
            name: name.to_owned(),
            user: text(event, "by").to_owned(),
            dry_run: false,
        };
        let policies = Policies::new(Vec::new(), rules::ALL);
        let judge = |world: &World| evaluate(policies.in_force(&review, world), &review, world);
        let verdict = judge(&self.world);
        let blind = judge(&World::new(Mesh::default()));
        let line = line(event, kind, name, new, &verdict);
        let was = if verdict.allowed() { "admitted" } else { "denied" };
        let mut complain = |what: &str| self.complaints.push(format!("{line}    {what}"));
        if review.user == self.account {
            if !verdict.allowed() {
                complain("the controller would be stopped");
            }
            if !judge(&self.deliveries).allowed() {
                complain("the controller would be stopped where nothing else is known");
            }
            if blind.of_action(Action::Deny).next().is_some() {
                complain("the controller would be refused by a gate that knows nothing");
            }
        } else if !text(event, "said").is_empty() || event["code"] == 403 {
            let is_stored = event["code"].as_u64().is_some_and(|code| code < 300);
            if verdict.allowed() != is_stored {
                complain(&format!("is {was}, and was not"));
            }
        }
        if verdict.basis == Basis::Lowering && !blind.allowed() {
            complain(CLOSED);
        }
        self.said += &line;
    }
}

/// What the gate says of a write, and what it said then where that differs: a watch may have been late. The API server does not ask
/// about what changes no spec and what is only cleared up, and where no gate answers in time a controller goes on without one.
fn line(event: &Value, kind: Kind, name: &str, new: Option<&Value>, verdict: &Verdict) -> String {
    let by = text(event, "by").rsplit(':').next().unwrap_or_default();
    let mut rules = verdict.findings.iter().map(|own| own.rule).collect::<Vec<_>>();
    rules.dedup();
    let word = match (verdict.is_decided(), verdict.allowed()) {
        (false, _) => "undecided",
        (true, false) => "deny",
        (true, true) if verdict.of_action(Action::Warn).next().is_some() => "warn",
        (true, true) => "allow",
    };
    let rules = rules.join(",");
    let says = format!("{word} {} {rules}", verdict.basis.name()).trim_end().to_owned();
    let then = match text(event, "said") {
        "" if matches!(verdict.basis, Basis::Unchanged | Basis::NotJudged) => {
            " (not asked)".to_owned()
        }
        "" => " (no gate answered)".to_owned(),
        then if then == says => String::new(),
        then => format!(" (then: {then})"),
    };
    let what = new.map(|own| shape(&own["spec"])).unwrap_or_default();
    let (at, verb) = (event["at"].as_f64().unwrap_or_default(), text(event, "verb"));
    format!("{at:6.1} {by} {verb} {} {name}{what}: {says}{then}\n", kind.name())
}

/// The routes of a VirtualService, ` [primary=80 canary=20]`, or the subsets of a DestinationRule, ` {stable=hash}`.
fn shape(spec: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut said = String::new();
    for route in ["http", "tls", "tcp"].into_iter().flat_map(|own| list(&spec[own])) {
        let to = list(&route["route"]).into_iter().map(|to| {
            let own = &to["destination"];
            let name = own["subset"].as_str().or(own["host"].as_str()).unwrap_or_default();
            to["weight"].as_u64().map_or(name.to_owned(), |weight| format!("{name}={weight}"))
        });
        let to = to.collect::<Vec<_>>().join(" ");
        let matched = if route["match"].is_null() { "" } else { "match " };
        let mirror = route["mirror"]["host"].as_str().map(|host| format!(" mirror {host}"));
        said += &format!(" [{matched}{to}{}]", mirror.unwrap_or_default());
    }
    let subsets = list(&spec["subsets"]).into_iter().map(|own| {
        let hash = own["labels"]["rollouts-pod-template-hash"].as_str().unwrap_or_default();
        format!("{}={hash}", text(&own, "name"))
    });
    let subsets = subsets.collect::<Vec<_>>().join(" ");
    if !subsets.is_empty() {
        said += &format!(" {{{subsets}}}");
    }
    said
}

#[test]
fn recorded_writes_get_the_answers_that_are_kept() {
    let mut complaints = String::new();
    for (name, file) in recordings() {
        let replay = Replay::of(&file);
        let is_known = |own: &&String| name == UNTOLD && own.contains(CLOSED);
        let own = replay.complaints.iter().filter(|own| !is_known(own));
        own.for_each(|own| complaints += &format!("{name}: {own}\n"));
        let expect = file.with_extension("expect");
        let kept = fs::read_to_string(&expect).unwrap_or_default();
        if kept == replay.said {
            continue;
        }
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&expect, replay.said).expect("written");
        } else {
            complaints += &format!("{name}:\n--- kept\n{kept}--- now\n{}", replay.said);
        }
    }
    assert!(complaints.is_empty(), "{complaints}");
}

/// A recording that nobody names is evidence of nothing.
#[test]
fn every_recording_is_in_the_book() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/controllers.md");
    let page = fs::read_to_string(page).expect("the page");
    let mut bytes = 0;
    for (name, file) in recordings() {
        assert!(page.contains(&format!("`{name}`")), "docs/controllers.md does not name `{name}`");
        bytes += fs::metadata(&file).expect("a file").len();
    }
    assert!(bytes < MOST_BYTES, "{bytes}");
}
