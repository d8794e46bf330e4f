//! Golden cases: `tests/cases/<rule>/<what-happens>.yaml`, objects in, answer out, each a test with its own name.
//!
//! `UPDATE_EXPECT=1 cargo test --test cases` rewrites the answers; read what changed before you commit it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate::cluster::{self, Document};
use sluicegate::policy::{Action, Operation, Policies, Policy, Review, Verdict, evaluate};
use sluicegate::rules;
use sluicegate::world::{Kind, Mesh, Reign, RouteHistory, SelectorError, World};

/// What stands between the input and the answer of a case.
const EXPECT: &str = "expect: |\n";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    /// The `spec` of the policy in force.
    policy: Option<Value>,
    /// Files of `worlds/`.
    #[serde(default)]
    world: Vec<String>,
    /// Further objects; one of the same kind and name replaces an earlier one.
    #[serde(default)]
    cluster: Vec<Value>,
    /// The stored object: whole (VirtualService, DestinationRule, Canary or Rollout), or only the `spec` of a VirtualService (name reviews,
    /// namespace shop, hosts reviews).
    old: Option<Value>,
    /// The object to be stored, likewise.
    new: Option<Value>,
    /// `DELETE`, of the old object; otherwise the objects tell.
    operation: Option<String>,
    #[serde(default)]
    user: String,
    #[serde(default)]
    dry_run: bool,
    /// What is remembered of the routes of the object: by route (`http` for the catch-all), who carried most, one after the other.
    #[serde(default)]
    history: BTreeMap<String, Vec<Reign>>,
    /// No kind is listed yet.
    #[serde(default)]
    blind: bool,
    /// No world is given at all.
    #[serde(default)]
    blank: bool,
    /// Other clusters belong to the mesh.
    #[serde(default)]
    multi_cluster: bool,
    /// What istiod was told, as flags say it; what its ConfigMap says may lie in `cluster`.
    #[serde(default)]
    mesh: Flags,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Flags {
    revision: Option<String>,
    domain: Option<String>,
    cluster_id: Option<String>,
    plain_destination_rule_merge: bool,
    root_namespace: Option<String>,
    default_virtual_service_export_to: Vec<String>,
    default_destination_rule_export_to: Vec<String>,
    default_service_export_to: Vec<String>,
    discovery_selector: Vec<String>,
}

/// The mesh's settings: of the case, then of the ConfigMap among its objects, then Istio's defaults.
fn mesh(
    flags: &Flags,
    is_multi_cluster: bool,
    documents: &[Document],
) -> Result<Mesh, SelectorError> {
    let own = |flag: &Option<String>, default: String| flag.clone().unwrap_or(default);
    let default = Mesh::default();
    let revision = own(&flags.revision, default.revision);
    let root = own(&flags.root_namespace, default.root_namespace);
    let name = cluster::MeshConfigName::of(&root, &revision);
    let config = match cluster::mesh_config_in(documents, &name) {
        cluster::Reading::Found(config) => *config,
        cluster::Reading::Absent | cluster::Reading::Unknown(_) => cluster::MeshConfig::default(),
    };
    let first = |flag: &[String], config: &[String]| {
        if flag.is_empty() { config.to_vec() } else { flag.to_vec() }
    };
    let selectors = flags.discovery_selector.iter().map(|text| text.parse());
    let selectors = selectors.collect::<Result<Vec<_>, _>>()?;
    Ok(Mesh {
        domain: own(&flags.domain, default.domain),
        root_namespace: match config.root_namespace.as_str() {
            own if flags.root_namespace.is_none() && !own.is_empty() => own.to_owned(),
            _ => root,
        },
        revision,
        default_virtual_service_export_to: first(
            &flags.default_virtual_service_export_to,
            &config.default_virtual_service_export_to,
        ),
        default_destination_rule_export_to: first(
            &flags.default_destination_rule_export_to,
            &config.default_destination_rule_export_to,
        ),
        default_service_export_to: first(
            &flags.default_service_export_to,
            &config.default_service_export_to,
        ),
        cluster: own(&flags.cluster_id, default.cluster),
        has_enhanced_merge: !flags.plain_destination_rule_merge,
        discovery_selectors: match selectors.is_empty() {
            // istiod then reads all namespaces, and so does the gate.
            true => config.discovery_selectors().unwrap_or_default(),
            false => selectors,
        },
        is_multi_cluster,
    })
}

fn main() {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let trials = files.into_iter().map(|path| {
        let name =
            path.strip_prefix(&root).unwrap_or(&path).with_extension("").display().to_string();
        Trial::test(name, move || check(&path))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder)
        .expect("a folder of cases")
        .map(|entry| entry.expect("an entry").path());
    for path in entries {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "worlds") {
                collect(&path, files);
            }
        } else {
            files.push(path);
        }
    }
}

fn check(path: &Path) -> Result<(), Failed> {
    let text = fs::read_to_string(path)?;
    let (input, expect) = text.split_once(EXPECT).ok_or("a case ends with `expect: |`")?;
    let mut documents = cluster::parse(&path.display().to_string(), input)?;
    let value = documents.pop().ok_or("a case holds one document")?.value;
    let verdict = answer(serde_json::from_value(value)?)?;
    let actual = say(&verdict);
    if actual == expect {
        return Ok(());
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        return Ok(fs::write(path, format!("{input}{EXPECT}{actual}"))?);
    }
    Err(format!("--- expected\n{expect}--- actual\n{actual}").into())
}

fn answer(case: Case) -> Result<Verdict, Failed> {
    let policies = match case.policy {
        None => Vec::new(),
        Some(spec) => vec![Policy::parse(rules::ALL, "shop-policy", spec)?],
    };
    let policies = Policies::new(policies, rules::ALL);
    let mut world = if case.blind {
        World::new(Mesh::default())
    } else if case.blank {
        World::blank(Mesh::default())
    } else {
        let documents = objects(&case.world, case.cluster)?;
        let mesh = mesh(&case.mesh, case.multi_cluster, &documents)?;
        cluster::world(mesh, &documents, "shop")
    };
    let (old, new) = (case.old.map(whole), case.new.map(whole));
    let new = match case.operation.as_deref() {
        None => Some(new.ok_or("a case has a new object, or `operation: DELETE`")?),
        Some("DELETE") if new.is_none() => None,
        Some(_) => return Err("`operation` is DELETE, and then there is no new object".into()),
    };
    let object = new.as_ref().or(old.as_ref()).ok_or("a deletion has an old object")?;
    let kind = match object["kind"].as_str() {
        Some("DestinationRule") => Kind::DestinationRule,
        Some("Canary") => Kind::Canary,
        Some("Rollout") => Kind::Rollout,
        _ => Kind::VirtualService,
    };
    let field = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
    let text = |object: &Value| object.to_string();
    let histories = case.history.into_iter().map(|(route, reigns)| RouteHistory {
        namespace: field("namespace").unwrap_or_else(|| "shop".to_owned()),
        name: field("name").unwrap_or_else(|| "reviews".to_owned()),
        route,
        reigns,
    });
    world.restore(histories.collect());
    let review = Review {
        namespace: field("namespace").unwrap_or_else(|| "shop".to_owned()),
        name: field("name").unwrap_or_else(|| "reviews".to_owned()),
        operation: Operation::parse(
            kind,
            old.as_ref().map(text).as_deref(),
            new.as_ref().map(text).as_deref(),
        ),
        user: case.user,
        dry_run: case.dry_run,
    };
    let verdict = evaluate(policies.in_force(&review, &world), &review, &world);
    for finding in verdict.of_action(Action::Deny) {
        // What is refused because of the cluster is read again; what the text alone says needs nothing.
        let looks = ["subset-defined", "subset-ready", "subset-in-use", "vs-in-use"];
        if looks.contains(&finding.rule) && finding.rests_on.is_empty() {
            return Err(format!("nothing would be read again for {finding}").into());
        }
        // A refusal that costs more could never be confirmed, and its write would get 503 for ever.
        let reads = cluster::requests(&finding.rests_on, &world);
        if reads > cluster::MOST_REQUESTS {
            return Err(format!("{reads} live reads would confirm {finding}").into());
        }
    }
    Ok(verdict)
}

/// The objects of the named worlds and of the case; the last one of a kind and name counts.
fn objects(worlds: &[String], cluster: Vec<Value>) -> Result<Vec<Document>, Failed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/worlds");
    let mut all = Vec::new();
    for name in worlds {
        all.extend(cluster::load(&[folder.join(format!("{name}.yaml"))])?);
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": cluster});
    all.extend(cluster::parse("cluster", &list.to_string())?);
    let key = |document: &Document| {
        let field =
            |pointer| document.value.pointer(pointer).map(Value::to_string).unwrap_or_default();
        (field("/kind"), field("/metadata/namespace"), field("/metadata/name"))
    };
    let last: BTreeMap<_, _> = all.into_iter().map(|document| (key(&document), document)).collect();
    Ok(last.into_values().collect())
}

fn whole(object: Value) -> Value {
    if object.get("kind").is_some() {
        return object;
    }
    let mut spec = object;
    if let Some(fields) = spec.as_object_mut() {
        fields.entry("hosts").or_insert_with(|| json!(["reviews"]));
    }
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": spec,
    })
}

/// The answer as a case keeps it: the verdict and the step that decided, then every finding.
fn say(verdict: &Verdict) -> String {
    let word = match (verdict.is_decided(), verdict.allowed()) {
        (false, _) => "undecided",
        (true, true) => "admitted",
        (true, false) => "denied",
    };
    let findings =
        verdict.findings.iter().map(|finding| format!("{} {finding}", finding.action.name()));
    let lines = std::iter::once(format!("{word} ({})", verdict.basis.name())).chain(findings);
    let indented =
        |text: String| text.lines().map(|line| format!("  {line}\n")).collect::<String>();
    lines.map(indented).collect()
}
