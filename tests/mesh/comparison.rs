//! `docs/comparison.md`: the mistakes of the golden cases, and who notices them. Made by running the tools, never by hand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use sluicegate::cluster::{self, Document};

use crate::harness::{Result, programs};

/// What stands between the input and the answer of a case.
const EXPECT: &str = "expect: |\n";

/// How much of a message a cell holds.
const MOST_CHARS: usize = 220;

const HEAD: &str = "\
# Who notices which mistake

Each golden case that is a mistake, that is, each write of `tests/cases/` that the gate refuses or warns about, was given to

- **Istio's validation**: `istioctl validate`, which runs the code of istiod's validating webhook on the new object alone. It is
  asked without the API server, whose CRDs refuse some broken shapes before any webhook sees them;
- **istioctl analyze**: with all objects of the case as they would be after the write (`--use-kube=false`, warnings and errors).
  It is a report on what is there: nothing calls it at admission. It is quoted as it came, also where it speaks of something
  else than the mistake;
- **Sluicegate**: the answer that the golden case holds.

The cases were written for this gate, by what goes wrong in a traffic shift. So the totals do not say how good the other tools
are: they look for other mistakes, and most of these are none in the text of a single object. What takes the old object or live
endpoints to notice, a tool that has neither cannot see. Canaries and Rollouts are left out: they are no objects of Istio's.

Written by `make comparison` with the istioctl of `tests/platform/istio`; `make test-mesh` checks that it is up to date.
";

/// A write that is a mistake.
struct Mistake {
    folder: String,
    name: String,
    why: String,
    /// `refuses` or `warns`, and the first line of each rule that does.
    verdict: &'static str,
    findings: Vec<String>,
    new: Option<Value>,
    after: Vec<Value>,
}

/// What a tool says.
#[derive(Default)]
struct Said {
    validation: String,
    is_refused: bool,
    analysis: Vec<String>,
}

pub(crate) fn is_up_to_date() -> Result {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("docs/comparison.md");
    let text = document(&mistakes(&root.join("tests/cases"))?)?;
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        return Ok(fs::write(path, text)?);
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differing = text.lines().zip(written.lines()).find(|(now, then)| now != then);
    match differing {
        None if text == written => Ok(()),
        None => Err("docs/comparison.md is out of date: run `make comparison`".into()),
        Some((now, then)) => Err(format!(
            "docs/comparison.md is out of date: run `make comparison`\n  now  {now}\n  then {then}"
        )
        .into()),
    }
}

fn mistakes(cases: &Path) -> Result<Vec<Mistake>> {
    let mut files = Vec::new();
    for folder in
        sorted(cases)?.into_iter().filter(|path| path.is_dir() && !path.ends_with("worlds"))
    {
        files.extend(sorted(&folder)?);
    }
    let mut found = Vec::new();
    for file in files {
        found.extend(mistake(cases, &file)?);
    }
    Ok(found)
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

/// `None` where the case is no mistake, or shows something else than a write to a cluster.
fn mistake(cases: &Path, file: &Path) -> Result<Option<Mistake>> {
    let text = fs::read_to_string(file)?;
    let (input, expect) = text.split_once(EXPECT).ok_or("a case ends with `expect: |`")?;
    let case = cluster::parse(&file.display().to_string(), input)?.pop();
    let case = case.ok_or("a case holds one document")?.value;
    if ["blind", "blank", "mesh", "multiCluster", "dryRun"]
        .iter()
        .any(|own| case.get(own).is_some())
    {
        return Ok(None);
    }
    let (verdict, word) = if expect.starts_with("  denied") {
        ("refuses", "  deny ")
    } else if expect.starts_with("  admitted (rules)") || expect.starts_with("  admitted (text)") {
        ("warns", "  warn ")
    } else {
        return Ok(None);
    };
    let findings = expect.lines().filter_map(|line| line.strip_prefix(word));
    // What canary-step warns about it takes for a rollback, which is no mistake.
    let findings = findings.filter(|line| word == "  deny " || !line.starts_with("canary-step"));
    let findings = findings.map(str::to_owned).collect::<Vec<_>>();
    if findings.is_empty() {
        return Ok(None);
    }
    let part = |path: Option<&Path>| {
        path.and_then(Path::file_stem).unwrap_or_default().to_string_lossy().into_owned()
    };
    let why = input
        .lines()
        .find_map(|line| line.strip_prefix("# ").filter(|own| !own.starts_with("trap ")));
    let old = case.get("old").cloned().map(whole);
    let new = case.get("new").cloned().map(whole);
    let is_foreign = |own: &Value| own["kind"] == "Canary" || own["kind"] == "Rollout";
    if new.as_ref().or(old.as_ref()).is_some_and(is_foreign) {
        return Ok(None);
    }
    let is_delete = case["operation"] == "DELETE";
    let new = new.filter(|_| !is_delete);
    let mut after = objects(cases, &case)?;
    for gone in [&old, &new].into_iter().flatten() {
        after.remove(&key(gone));
    }
    after.extend(new.as_ref().map(|new| (key(new), new.clone())));
    Ok(Some(Mistake {
        folder: part(file.parent()),
        name: part(Some(file)),
        why: why.unwrap_or_default().to_owned(),
        verdict,
        findings,
        new,
        after: after.into_values().collect(),
    }))
}

type Key = (String, String, String);

fn key(object: &Value) -> Key {
    let text =
        |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

/// The objects of the case's worlds and its own; the last one of a kind and name counts.
fn objects(cases: &Path, case: &Value) -> Result<BTreeMap<Key, Value>> {
    let mut all: Vec<Document> = Vec::new();
    for name in case["world"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        all.extend(cluster::load(&[cases.join(format!("worlds/{name}.yaml"))])?);
    }
    let own = case["cluster"].as_array().into_iter().flatten().cloned();
    let all = all.into_iter().map(|document| document.value).chain(own);
    Ok(all
        .map(|object| {
            let object = in_shop(object);
            (key(&object), object)
        })
        .collect())
}

/// A case may hold only the `spec` of VirtualService shop/reviews.
fn whole(object: Value) -> Value {
    if object.get("kind").is_some() {
        return in_shop(object);
    }
    let mut spec = object;
    if let Some(fields) = spec.as_object_mut() {
        fields.entry("hosts").or_insert_with(|| json!(["reviews"]));
    }
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": "reviews", "namespace": "shop" }, "spec": spec,
    })
}

/// Where a case says no namespace it means shop.
fn in_shop(mut object: Value) -> Value {
    if object["kind"] != "Namespace" && object["metadata"].get("namespace").is_none() {
        object["metadata"]["namespace"] = "shop".into();
    }
    object
}

fn document(mistakes: &[Mistake]) -> Result<String> {
    let said = ask(mistakes)?;
    let count = |is_so: &dyn Fn(&Said) -> bool| said.iter().filter(|own| is_so(own)).count();
    let verdicts = |word: &str| mistakes.iter().filter(|own| own.verdict == word).count();
    let mut text = HEAD.to_owned();
    writeln!(
        text,
        "\n| {} mistakes | refused | reported |\n|---|---|---|\n| Istio's validation | {} | {} |\n| istioctl analyze | 0 | {} |\n| Sluicegate | {} | {} |",
        mistakes.len(),
        count(&|own| own.is_refused),
        count(&|own| own.validation.starts_with(WARNS)),
        count(&|own| !own.analysis.is_empty()),
        verdicts("refuses"),
        verdicts("warns"),
    )?;
    writeln!(
        text,
        "\n| what the cases are about | mistakes | Istio's validation says something | istioctl analyze does |\n|---|---|---|---|"
    )?;
    for (folder, [all, validated, analysed]) in by_folder(mistakes, &said) {
        writeln!(text, "| [{folder}](#{folder}) | {all} | {validated} | {analysed} |")?;
    }
    let mut folder = "";
    for (mistake, said) in mistakes.iter().zip(&said) {
        if mistake.folder != folder {
            folder = &mistake.folder;
            writeln!(
                text,
                "\n## {folder}\n\n| mistake | Istio's validation | istioctl analyze | Sluicegate |\n|---|---|---|---|"
            )?;
        }
        let Mistake { name, why, verdict, findings, .. } = mistake;
        let analysis =
            if said.analysis.is_empty() { NOTHING.to_owned() } else { said.analysis.join("<br>") };
        let findings = findings.iter().map(|line| cell(line)).collect::<Vec<_>>().join("<br>");
        writeln!(
            text,
            "| [{}](../tests/cases/{folder}/{name}.yaml): {} | {} | {analysis} | {verdict}: {findings} |",
            name.replace('-', " "),
            cell(why),
            said.validation,
        )?;
    }
    Ok(text)
}

const NOTHING: &str = "nothing";
/// How Istio's validation begins where it only warns; of a deletion it says nothing at all.
const WARNS: &str = "warns: ";

/// Of each folder: its mistakes, and those of them about which each of Istio's tools says anything.
fn by_folder<'a>(mistakes: &'a [Mistake], said: &[Said]) -> BTreeMap<&'a str, [usize; 3]> {
    let mut counts: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for (mistake, said) in mistakes.iter().zip(said) {
        let own = counts.entry(&mistake.folder).or_default();
        let is_validated = said.is_refused || said.validation.starts_with(WARNS);
        own[0] += 1;
        own[1] += usize::from(is_validated);
        own[2] += usize::from(!said.analysis.is_empty());
    }
    counts
}

/// Asks the tools about all mistakes, two at a time.
fn ask(mistakes: &[Mistake]) -> Result<Vec<Said>> {
    let program = programs::find("istioctl")?;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut own = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(mistake) = mistakes.get(at) else { return own };
            own.push((
                at,
                ask_about(&program, mistake)
                    .map_err(|error| error.message().unwrap_or_default().to_owned()),
            ));
        }
    };
    let mut answers = thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect::<Vec<_>>()
    });
    answers.sort_by_key(|(at, _)| *at);
    if answers.len() != mistakes.len() {
        return Err("a worker died".into());
    }
    answers.into_iter().map(|(_, said)| said.map_err(Into::into)).collect()
}

fn ask_about(program: &Path, mistake: &Mistake) -> Result<Said> {
    let folder = tempfile::tempdir()?;
    let mut said = Said { validation: "no write to validate".to_owned(), ..Said::default() };
    if let Some(new) = &mistake.new {
        let file = folder.path().join("new.yaml");
        fs::write(&file, new.to_string())?;
        let output = Command::new(program).arg("validate").arg("-f").arg(&file).output()?;
        let stderr = String::from_utf8_lossy(&output.stderr)
            .replace(&file.display().to_string(), "new.yaml");
        let lines = stderr.lines().map(str::trim).filter(|line| {
            !line.is_empty()
                && !line.contains("is valid")
                && !line.contains("has warnings:")
                && !line.starts_with("Error: ")
                && !line.ends_with("occurred:")
        });
        let lines = lines.map(|line| cell(line.trim_start_matches("* "))).collect::<Vec<_>>();
        said.is_refused = !output.status.success();
        said.validation = match (said.is_refused, lines.is_empty()) {
            (true, _) => format!("refuses: {}", lines.join("<br>")),
            (false, false) => format!("{WARNS}{}", lines.join("<br>")),
            (false, true) => NOTHING.to_owned(),
        };
    }
    let file = folder.path().join("after.yaml");
    let after = mistake.after.iter().map(|object| format!("{object}\n")).collect::<Vec<_>>();
    fs::write(&file, after.join("---\n"))?;
    let output = Command::new(program)
        .args(["analyze", "--use-kube=false", "-A", "-o", "json", "--output-threshold", "Warning"])
        .arg(&file)
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("failed parsing JSON") {
        // An object that the CRDs refuse: Istio has no words for it.
        said.analysis.push("cannot read the object".to_owned());
        return Ok(said);
    }
    let messages: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{}: istioctl analyze: {error}: {stderr}", mistake.name))?;
    for message in messages.as_array().into_iter().flatten() {
        let text = |field: &str| message[field].as_str().unwrap_or_default();
        said.analysis.push(cell(&format!(
            "{} {}: {}",
            text("code"),
            text("level").to_lowercase(),
            text("message")
        )));
    }
    said.analysis.sort();
    said.analysis.dedup();
    Ok(said)
}

/// A text as a cell of a table holds it.
fn cell(text: &str) -> String {
    let mut short = text.chars().take(MOST_CHARS).collect::<String>();
    if short.len() < text.len() {
        short.push_str(" ...");
    }
    short.replace('|', "\\|").replace('<', "&lt;")
}
