//! How a golden case is read: what is asked, what is known, and what is wanted.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate::cluster::{self, Document};
use sluicegate::policy::{Operation, Policies, Policy, Review};
use sluicegate::rules;
use sluicegate::world::{Kind, Mesh, Reign, RouteHistory, SelectorError, World};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What stands between the input and the answer of a case.
pub(crate) const EXPECT: &str = "expect: |\n";

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// The files of all cases, sorted.
pub(crate) fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(&folder(), &mut files);
    files.sort();
    files
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

/// The rule and the name of a case.
pub(crate) fn name(path: &Path) -> String {
    path.strip_prefix(folder()).unwrap_or(path).with_extension("").display().to_string()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Case {
    /// The `spec` of the policy in force.
    pub(crate) policy: Option<Value>,
    /// Files of `worlds/`.
    #[serde(default)]
    pub(crate) world: Vec<String>,
    /// Further objects; one of the same kind and name replaces an earlier one.
    #[serde(default)]
    pub(crate) cluster: Vec<Value>,
    /// The stored object: whole (VirtualService, DestinationRule, Canary or Rollout), or only the `spec` of a VirtualService (name reviews,
    /// namespace shop, hosts reviews).
    pub(crate) old: Option<Value>,
    /// The object to be stored, likewise.
    pub(crate) new: Option<Value>,
    /// `DELETE`, of the old object; otherwise the objects tell.
    pub(crate) operation: Option<String>,
    #[serde(default)]
    pub(crate) user: String,
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// What is remembered of the routes of the object: by route (`http` for the catch-all), who carried most, one after the other.
    #[serde(default)]
    pub(crate) history: BTreeMap<String, Vec<Reign>>,
    /// No kind is listed yet.
    #[serde(default)]
    pub(crate) blind: bool,
    /// No world is given at all.
    #[serde(default)]
    pub(crate) blank: bool,
    /// Other clusters belong to the mesh.
    #[serde(default)]
    pub(crate) multi_cluster: bool,
    /// What istiod was told, as flags say it; what its ConfigMap says may lie in `cluster`.
    #[serde(default)]
    pub(crate) mesh: Flags,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Flags {
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
) -> std::result::Result<Mesh, SelectorError> {
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
    let selectors = selectors.collect::<std::result::Result<Vec<_>, _>>()?;
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

impl Case {
    /// The input of a case and its answer.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<(Self, String)> {
        let (input, expect) = text.split_once(EXPECT).ok_or("a case ends with `expect: |`")?;
        let mut documents = cluster::parse(&path.display().to_string(), input)?;
        let value = documents.pop().ok_or("a case holds one document")?.value;
        let mut case: Self = serde_json::from_value(value)?;
        case.old = case.old.map(whole);
        case.new = case.new.map(whole);
        match case.operation.as_deref() {
            None if case.new.is_some() => {}
            None => return Err("a case has a new object, or `operation: DELETE`".into()),
            Some("DELETE") if case.new.is_none() && case.old.is_some() => {}
            Some(_) => {
                let asked = "`operation` is DELETE, and then there is an old object and no new one";
                return Err(asked.into());
            }
        }
        Ok((case, expect.to_owned()))
    }

    pub(crate) fn policies(&self) -> Result<Policies> {
        let policies = match &self.policy {
            None => Vec::new(),
            Some(spec) => vec![Policy::parse(rules::ALL, "shop-policy", spec.clone())?],
        };
        Ok(Policies::new(policies, rules::ALL))
    }

    pub(crate) fn world(&self) -> Result<World> {
        let mut world = if self.blind {
            World::new(Mesh::default())
        } else if self.blank {
            World::blank(Mesh::default())
        } else {
            let documents = objects(&self.world, self.cluster.clone())?;
            let mesh = mesh(&self.mesh, self.multi_cluster, &documents)?;
            cluster::world(mesh, &documents, "shop")
        };
        let histories = self.history.iter().map(|(route, reigns)| RouteHistory {
            namespace: self.namespace(),
            name: self.name(),
            route: route.clone(),
            reigns: reigns.clone(),
        });
        world.restore(histories.collect());
        Ok(world)
    }

    pub(crate) fn review(&self) -> Review {
        let text = |object: &Option<Value>| object.as_ref().map(Value::to_string);
        Review {
            namespace: self.namespace(),
            name: self.name(),
            operation: Operation::parse(
                self.kind(),
                text(&self.old).as_deref(),
                text(&self.new).as_deref(),
            ),
            user: self.user.clone(),
            dry_run: self.dry_run,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.object()["kind"].as_str() {
            Some("DestinationRule") => Kind::DestinationRule,
            Some("Canary") => Kind::Canary,
            Some("Rollout") => Kind::Rollout,
            _ => Kind::VirtualService,
        }
    }

    pub(crate) fn namespace(&self) -> String {
        self.field("namespace").unwrap_or_else(|| "shop".to_owned())
    }

    pub(crate) fn name(&self) -> String {
        self.field("name").unwrap_or_else(|| "reviews".to_owned())
    }

    fn object(&self) -> &Value {
        self.new.as_ref().or(self.old.as_ref()).unwrap_or(&Value::Null)
    }

    fn field(&self, field: &str) -> Option<String> {
        self.object()["metadata"][field].as_str().map(str::to_owned)
    }
}

/// The objects of the named worlds and of the case; the last one of a kind and name counts.
fn objects(worlds: &[String], cluster: Vec<Value>) -> Result<Vec<Document>> {
    let folder = folder().join("worlds");
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
