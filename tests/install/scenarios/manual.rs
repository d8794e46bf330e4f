//! The commands of `docs/install.md`, word by word, as somebody types them who has just found it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::scenarios;
use crate::cluster::{App, Node};
use crate::harness::process::in_network;
use crate::harness::{Answer, Result, programs};
use crate::helm;
use crate::release::import_image;

scenarios![the_manual_leads_to_a_refused_typo];

/// What it promises, with the image at hand.
const PROMISED: Duration = Duration::from_secs(300);

fn the_manual_leads_to_a_refused_typo() -> Result {
    let node = Node::start()?;
    import_image(&node)?;
    // What it takes for granted: Bookinfo's application in the default namespace.
    let _reviews = App::serving(node.kubectl("default"), &[("v1", 99), ("v2", 1)])?;
    let manual = include_str!("../../../docs/install.md");
    let (first_steps, _) = manual.split_once("## 4.").ok_or("the manual has no step 4")?;
    let commands = blocks(first_steps, "sh");
    let [install, test, typo, sum] = commands[..] else {
        return Err(format!("other commands than four: {commands:?}").into());
    };
    let shell = Shell::new(&node)?;
    let began = Instant::now();
    shell.run(install)?.succeeded()?;
    shell.run(test)?.succeeded()?;
    let answers = blocks(first_steps, "text");
    let [answer] = answers[..] else { return Err(format!("other answers: {answers:?}").into()) };
    let words = answer.lines().flat_map(|line| line.split("...")).map(str::trim);
    shell.run(typo)?.refused(&words.collect::<Vec<_>>())?;
    let took = began.elapsed();
    eprintln!("from the first command to the refused typo: {:.1} s", took.as_secs_f64());
    if took > PROMISED {
        return Err(format!("that is more than {PROMISED:?}").into());
    }
    let tried = shell.run(sum)?;
    if !tried.stderr().contains("denied the request: weight-sum: ") {
        return Err(format!("a sum of 10 passed: {tried}").into());
    }
    Ok(())
}

/// What is in a manual's blocks of one language.
fn blocks<'a>(manual: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let blocks = manual.split(fence.as_str()).skip(1);
    blocks.filter_map(|rest| Some(rest.split_once("\n```")?.0)).collect()
}

/// One with `helm` and `kubectl` on its path and the node's cluster as the one in use.
struct Shell<'a> {
    node: &'a Node,
    home: PathBuf,
}

impl<'a> Shell<'a> {
    fn new(node: &'a Node) -> Result<Self> {
        let home = node.sandbox().path().join("newcomer");
        fs::create_dir_all(home.join("bin"))?;
        for (name, program) in [("helm", helm::Version::Four.program()), ("kubectl", "kubectl")] {
            symlink(programs::find(program)?, home.join("bin").join(name))?;
        }
        Ok(Self { node, home })
    }

    /// Where the repository is checked out.
    fn run(&self, commands: &str) -> Result<Answer> {
        let mut command = in_network(&self.node.namespaces().network(), Path::new("sh"));
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(["-c", commands])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("HOME", &self.home)
            .env("KUBECONFIG", &self.node.admin().kubeconfig)
            .env("PATH", format!("{}:{path}", self.home.join("bin").display()));
        let output = command.output().map_err(|error| format!("starting sh: {error}"))?;
        Ok(Answer::of(commands.to_owned(), &output))
    }
}
