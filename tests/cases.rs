//! Golden cases: `tests/cases/<rule>/<what-happens>.yaml`, objects in, answer out, each a test with its own name.
//!
//! `UPDATE_EXPECT=1 cargo test --test cases` rewrites the answers; read what changed before you commit it.

// Who compares a twin with them wants more.
#[allow(dead_code)]
mod golden;

use std::fs;
use std::path::Path;

use libtest_mimic::{Arguments, Failed, Trial};
use sluicegate::cluster;
use sluicegate::policy::{Action, Verdict, evaluate};

use self::golden::{Case, EXPECT};

fn main() {
    let arguments = Arguments::from_args();
    let trials = golden::files().into_iter().map(|path| {
        let name = golden::name(&path);
        Trial::test(name, move || check(&path))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn check(path: &Path) -> Result<(), Failed> {
    let text = fs::read_to_string(path)?;
    let (case, expect) = Case::parse(path, &text)?;
    let actual = say(&answer(&case)?);
    if actual == expect {
        return Ok(());
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let (input, _) = text.split_once(EXPECT).unwrap_or_default();
        return Ok(fs::write(path, format!("{input}{EXPECT}{actual}"))?);
    }
    Err(format!("--- expected\n{expect}--- actual\n{actual}").into())
}

fn answer(case: &Case) -> Result<Verdict, Failed> {
    let (policies, world, review) = (case.policies()?, case.world()?, case.review());
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
