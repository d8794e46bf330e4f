use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::print;
use crate::policy::{Action, Entry, words};
use crate::rules;

/// Arguments of `sluicegate rules`.
#[derive(Debug, Args)]
pub(super) struct Rules {
    /// The rule whose manual to print; all rules as a table without it.
    id: Option<String>,
}

impl Rules {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Some(id) = self.id else {
            print(&table());
            return Ok(ExitCode::SUCCESS);
        };
        let Some(entry) = rules::ALL.iter().find(|entry| entry.id == id) else {
            let meant = words::near_miss(&id, rules::ALL.iter().map(|entry| entry.id));
            let meant = meant.map_or(String::new(), |meant| format!("; did you mean {meant}?"));
            bail!("no rule is called {id:?}{meant} (`sluicegate rules` lists them)");
        };
        print(&manual(entry));
        Ok(ExitCode::SUCCESS)
    }
}

/// The rules as a Markdown table: id, what it asks, default action.
pub fn table() -> String {
    let first = |entry: &Entry| {
        entry.manual().lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
    };
    let default = |entry: &Entry| match entry.action {
        Action::Deny => "Deny",
        Action::Warn => "Warn",
        Action::Audit => "Audit",
        Action::Off => "Off",
    };
    let rows =
        rules::ALL.iter().map(|entry| (entry.id, first(entry), default(entry))).collect::<Vec<_>>();
    let width = |of: fn(&(&'static str, String, &'static str)) -> usize, head: usize| {
        rows.iter().map(of).max().unwrap_or(0).max(head)
    };
    let (id, what) = (width(|row| row.0.len(), 4), width(|row| row.1.len(), 14));
    let line = |a: &str, b: &str, c: &str| format!("| {a:id$} | {b:what$} | {c:7} |\n");
    let mut text = line("rule", "what it asks for", "default");
    text.push_str(&format!("|{:-<id$}--|{:-<what$}--|---------|\n", "", ""));
    text.extend(rows.iter().map(|row| line(row.0, &row.1, row.2)));
    text
}

fn manual(entry: &Entry) -> String {
    let mut text = format!("{}\n\n{}\n", entry.id, entry.manual());
    let parameters = entry.parameters();
    if !parameters.is_empty() {
        text.push_str("\nParameters, under `rules.");
        text.push_str(entry.id);
        text.push_str("` of a policy:\n");
        for (name, what, default) in parameters {
            let default =
                if default.is_empty() { String::new() } else { format!(" (default {default})") };
            text.push_str(&format!("  {name}: {what}{default}\n"));
        }
    }
    text
}
