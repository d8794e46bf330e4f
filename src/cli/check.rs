use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{complain, policy, print};
use crate::cluster::{self, Document};
use crate::policy::{Action, Finding, Operation, Review, Verdict, evaluate};
use crate::world::{Mesh, World};

/// The only API group whose VirtualServices are judged.
const GROUP: &str = "networking.istio.io/";

/// Arguments of `sluicegate check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 when every write is admitted, 1 when one is denied, 2 when the input cannot be used."
)]
pub(super) struct Check {
    /// Files or folders with the objects to judge, `-` for standard input; what is no VirtualService there is part of the world,
    /// as if applied together.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The objects as they are stored now; a VirtualService found there makes the write an UPDATE.
    #[arg(long, value_name = "PATH")]
    old: Option<PathBuf>,
    /// Files or folders with what the cluster holds; without any, and without a Service beside the VirtualServices, only the
    /// text is judged.
    #[arg(long, value_name = "PATH")]
    world: Vec<PathBuf>,
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
        let given = self.load(&self.paths)?;
        let (objects, beside): (Vec<_>, Vec<_>) = given.into_iter().partition(is_virtual_service);
        let stored = self
            .load(self.old.as_slice())?
            .into_iter()
            .filter(is_virtual_service)
            .collect::<Vec<_>>();
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
        let world = if is_blank {
            World::blank(Mesh::default())
        } else {
            cluster::world(Mesh::default(), &documents, &self.namespace)
        };
        let stored =
            stored.iter().chain(documents.iter().filter(|document| is_virtual_service(document)));
        let stored = stored.collect::<Vec<_>>();
        let reviews = objects.iter().map(|document| {
            let review = self.review(document, &stored);
            let policy = policies.in_force(review.object(), &review.namespace, &world);
            let verdict = evaluate(policy, &review, &world);
            (review, verdict)
        });
        let reviews = reviews.collect::<Vec<_>>();
        if objects.is_empty() {
            complain(
                "no VirtualService of networking.istio.io is given: there is nothing to judge",
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

    fn review(&self, document: &Document, stored: &[&Document]) -> Review {
        let (namespace, name) = self.identity(document);
        let old = stored.iter().find(|old| self.identity(old) == (namespace.clone(), name.clone()));
        let old = old.map(|old| old.value.to_string());
        let operation = Operation::parse(old.as_deref(), &document.value.to_string());
        Review { operation, namespace, name, user: self.user.clone(), dry_run: self.dry_run }
    }

    fn identity(&self, document: &Document) -> (String, String) {
        let field = |pointer| document.value.pointer(pointer).and_then(|value| value.as_str());
        let namespace = field("/metadata/namespace").filter(|namespace| !namespace.is_empty());
        let name =
            field("/metadata/name").or_else(|| field("/metadata/generateName")).unwrap_or_default();
        (namespace.unwrap_or(&self.namespace).to_owned(), name.to_owned())
    }
}

fn is_virtual_service(document: &Document) -> bool {
    let version =
        document.value.get("apiVersion").and_then(|version| version.as_str()).unwrap_or_default();
    document.value["kind"] == "VirtualService" && version.starts_with(GROUP)
}

fn text(reviews: &[(Review, Verdict)]) -> String {
    let one = |(review, verdict): &(Review, Verdict)| {
        let word = if verdict.allowed() { "admitted" } else { "denied" };
        let mut text = format!(
            "{word}: VirtualService {}/{} ({})\n",
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
                kind: "VirtualService",
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
