use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::mesh::MeshArguments;
use super::{complain, policy, print};
use crate::cluster::{self, Document, Reading};
use crate::policy::words::list;
use crate::policy::{Action, Finding, Operation, Review, Verdict, evaluate};
use crate::world::{Kind, World};

/// Arguments of `sluicegate check`.
#[derive(Debug, Args)]
#[command(
    after_help = "The writes are judged one after the other, as if applied: each sees those before it that were admitted. \
                  DestinationRules that are not stored yet come first, then everything in the order given, Canaries and Rollouts \
                  last; what these drive is known from the beginning.\n\n\
                  Exit code: 0 when every write is admitted, 1 when one is denied, 2 when the input cannot be used."
)]
pub(super) struct Check {
    /// Files or folders with the VirtualServices, DestinationRules, Canaries and Rollouts to judge, `-` for standard input; what
    /// else is there is part of the world.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The objects as they are stored now; what is found there, or in the world, makes the write an UPDATE.
    #[arg(long, value_name = "PATH")]
    old: Option<PathBuf>,
    /// Judge the deletion of the objects instead.
    #[arg(long)]
    delete: bool,
    /// Files or folders with what the cluster holds; without any, and without a Service beside the objects, only the text is
    /// judged.
    #[arg(long, value_name = "PATH")]
    world: Vec<PathBuf>,
    /// Who carried the routes before: the ConfigMap of `serve --memory`, or what its key history.json holds.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// The policy to judge by; the built-in default without one.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The namespace of objects that name none.
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// The user who writes.
    #[arg(long, default_value = "")]
    user: String,
    /// Judge as a server-side dry run.
    #[arg(long)]
    dry_run: bool,
    /// How to print the verdicts.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    mesh: MeshArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let policies = policy::load(self.policy.as_deref())?;
        let (objects, beside): (Vec<_>, Vec<_>) =
            self.load(&self.paths)?.into_iter().partition(|document| kind(document).is_some());
        let mut documents = Vec::new();
        for path in &self.world {
            match cluster::load(std::slice::from_ref(path)) {
                // An empty folder is an empty cluster.
                Err(cluster::FileError::NoFiles { .. }) => {}
                loaded => documents.extend(loaded?),
            }
        }
        let is_blank = self.world.is_empty()
            && !beside.iter().any(|document| document.value["kind"] == "Service");
        documents.extend(beside);
        let old = self.load(self.old.as_slice())?;
        documents.extend(old.into_iter().filter(|document| kind(document).is_some()));
        let mut stored = documents
            .iter()
            .filter_map(|document| Some((self.identity(document)?, document.value.to_string())))
            .collect::<HashMap<_, _>>();
        // Who drives a VirtualService is asked in its review.
        if !self.delete {
            let is_driver = |document: &&Document| kind(document).is_some_and(drives);
            documents.extend(objects.iter().filter(is_driver).cloned());
        }
        let name = self.mesh.config();
        let reading = cluster::mesh_config_in(&documents, &name);
        if let Reading::Unknown(reason) = &reading {
            anyhow::bail!("{name}: {reason}");
        }
        let mesh = self.mesh.settings(&reading);
        let mut world = if is_blank {
            World::blank(mesh)
        } else {
            cluster::world(mesh, &documents, &self.namespace)
        };
        if let Some(path) = &self.history {
            let documents = cluster::load(std::slice::from_ref(path))?;
            let kept = cluster::memories_in(&documents)
                .with_context(|| format!("reading {}", path.display()))?;
            world.restore(kept);
        }
        let mut objects = objects
            .into_iter()
            .filter_map(|document| Some((self.identity(&document)?, document)))
            .collect::<Vec<_>>();
        // A VirtualService and its new DestinationRule come together, in whatever order the files stand. Helm, Flux and Argo CD
        // apply them in this one.
        // What a Rollout is asked rests on its VirtualServices.
        objects.sort_by_key(|(identity, _)| match identity.0 {
            Kind::DestinationRule => u8::from(self.delete || stored.contains_key(identity)),
            kind => 1 + u8::from(!self.delete && drives(kind)),
        });
        let mut reviews = Vec::new();
        for (identity, document) in objects {
            let review = self.review(&identity, &document, &stored);
            let verdict = evaluate(policies.in_force(&review, &world), &review, &world);
            if !verdict.is_decided() {
                return Err(undescribed(&world, &review.namespace));
            }
            if verdict.allowed() {
                let (kind, namespace, name) = &identity;
                if self.delete {
                    world.delete(*kind, namespace, name);
                    stored.remove(&identity);
                } else {
                    if let Some(object) = cluster::object_in(document.value.clone(), namespace) {
                        world.apply(object);
                    }
                    stored.insert(identity, document.value.to_string());
                }
            }
            reviews.push((review, verdict));
        }
        if reviews.is_empty() {
            complain(
                "no VirtualService or DestinationRule of networking.istio.io, no Canary of flagger.app and no Rollout of argoproj.io is given: there is nothing to judge",
            );
        } else if is_blank {
            complain(
                "no --world and no Service is given: hosts, subsets and endpoints were not looked up",
            );
        }
        print(&match self.output {
            Output::Text => text(&reviews),
            Output::Json => json(&reviews)?,
        });
        let denied = reviews.iter().any(|(_, verdict)| !verdict.allowed());
        Ok(ExitCode::from(u8::from(denied)))
    }

    fn load(&self, paths: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
        let mut documents = Vec::new();
        for path in paths {
            if path.as_os_str() == "-" {
                let text = std::io::read_to_string(std::io::stdin())?;
                documents.extend(cluster::parse("standard input", &text)?);
            } else {
                documents.extend(cluster::load(std::slice::from_ref(path))?);
            }
        }
        Ok(documents)
    }

    fn review(
        &self,
        identity: &Identity,
        document: &Document,
        stored: &HashMap<Identity, String>,
    ) -> Review {
        let (kind, namespace, name) = identity.clone();
        let given = document.value.to_string();
        let old = stored.get(identity).map(String::as_str);
        let operation = if self.delete {
            Operation::parse(kind, old.or(Some(&given)), None)
        } else {
            Operation::parse(kind, old, Some(&given))
        };
        Review { operation, namespace, name, user: self.user.clone(), dry_run: self.dry_run }
    }

    /// What an object is known by; `None` for one that is not judged.
    fn identity(&self, document: &Document) -> Option<Identity> {
        let field = |pointer| document.value.pointer(pointer).and_then(|value| value.as_str());
        let namespace = field("/metadata/namespace").filter(|namespace| !namespace.is_empty());
        let name =
            field("/metadata/name").or_else(|| field("/metadata/generateName")).unwrap_or_default();
        let namespace = namespace.unwrap_or(&self.namespace).to_owned();
        Some((kind(document)?, namespace, name.to_owned()))
    }
}

/// What is missing among the files where labels decide which namespaces istiod reads.
fn undescribed(world: &World, own: &str) -> anyhow::Error {
    let mut namespaces = world.undescribed_namespaces();
    if world.namespace_labels(own).is_none() {
        namespaces.insert(own.to_owned());
    }
    let namespaces = namespaces.into_iter().collect::<Vec<_>>();
    anyhow::anyhow!(
        "discoverySelectors are set, and no file says which labels namespace {} has; add it to --world, as `kubectl get namespaces -o yaml` prints it",
        list(&namespaces)
    )
}

/// Kind, namespace and name.
type Identity = (Kind, String, String);

/// The kind of an object that is judged.
fn kind(document: &Document) -> Option<Kind> {
    let version =
        document.value.get("apiVersion").and_then(|version| version.as_str()).unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    match (group, document.value["kind"].as_str()?) {
        ("networking.istio.io", "VirtualService") => Some(Kind::VirtualService),
        ("networking.istio.io", "DestinationRule") => Some(Kind::DestinationRule),
        ("flagger.app", "Canary") => Some(Kind::Canary),
        ("argoproj.io", "Rollout") => Some(Kind::Rollout),
        _ => None,
    }
}

/// Whether objects of this kind say who writes a VirtualService.
fn drives(kind: Kind) -> bool {
    matches!(kind, Kind::Canary | Kind::Rollout)
}

fn text(reviews: &[(Review, Verdict)]) -> String {
    let one = |(review, verdict): &(Review, Verdict)| {
        let word = if verdict.allowed() { "admitted" } else { "denied" };
        let mut text = format!(
            "{word}: {} {}/{} ({})\n",
            kind_name(review),
            review.namespace,
            review.name,
            review.verb()
        );
        for finding in shown(verdict) {
            let word = if finding.action == Action::Deny { "" } else { "warning: " };
            text.push_str(&format!("  {word}{}\n", finding.to_string().replace('\n', "\n  ")));
        }
        text
    };
    reviews.iter().map(one).collect()
}

fn kind_name(review: &Review) -> &'static str {
    review.kind().map_or("object", Kind::name)
}

/// What the writer gets to see.
fn shown(verdict: &Verdict) -> impl Iterator<Item = &Finding> {
    verdict.findings.iter().filter(|finding| matches!(finding.action, Action::Deny | Action::Warn))
}

fn json(reviews: &[(Review, Verdict)]) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Answer<'a> {
        object: Object<'a>,
        operation: &'a str,
        allowed: bool,
        violations: Vec<Violation<'a>>,
    }
    #[derive(Serialize)]
    struct Object<'a> {
        kind: &'a str,
        namespace: &'a str,
        name: &'a str,
    }
    #[derive(Serialize)]
    struct Violation<'a> {
        rule: &'a str,
        action: &'a str,
        path: &'a str,
        message: &'a str,
    }
    let answers = reviews.iter().map(|(review, verdict)| {
        let violations = shown(verdict).map(|finding| Violation {
            rule: finding.rule,
            action: finding.action.name(),
            path: finding.path.as_str(),
            message: &finding.message,
        });
        Answer {
            object: Object {
                kind: kind_name(review),
                namespace: &review.namespace,
                name: &review.name,
            },
            operation: review.verb(),
            allowed: verdict.allowed(),
            violations: violations.collect(),
        }
    });
    let answers = std::collections::BTreeMap::from([("reviews", answers.collect::<Vec<_>>())]);
    Ok(serde_json::to_string_pretty(&answers)? + "\n")
}
