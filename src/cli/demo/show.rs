use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::Answer;
use super::scenes::Scene;

/// How wide a line of prose may be.
const WIDTH: usize = 96;

/// Prints the demo for a person.
pub(super) struct Show {
    colours: bool,
}

impl Show {
    pub(super) fn new(plain: bool) -> Self {
        let colours =
            !plain && std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colours }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn opening(&self, address: SocketAddr) -> String {
        format!(
            "{}\n\nA shop in namespace shop: reviews, ratings, details, payments, each with a v1 that has served for years and a new v2.\n\
             The gate listens on https://{address}/validate; each write goes there as an AdmissionReview, as an API server sends it.\n",
            self.paint("1", "Sluicegate: ten writes to a VirtualService")
        )
    }

    pub(super) fn scene(
        &self,
        index: usize,
        scene: &Scene,
        answer: &Answer,
        took: Duration,
    ) -> String {
        let number = index + 1;
        let mut text = format!("\n{}\n", self.paint("1", &format!("{number:2}. {}", scene.title)));
        text.push_str(&format!("    {}\n\n", self.paint("2", &scene.story)));
        let name = scene.new.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let stored = match &scene.old {
            Some(old) => lines(old),
            None => vec!["nothing".to_owned()],
        };
        text.push_str(&side_by_side(
            "stored",
            &stored,
            &format!("kubectl apply -f {name}.yaml"),
            &lines(&scene.new),
        ));
        let word = if answer.allowed {
            self.paint("1;32", "ADMITTED")
        } else {
            self.paint("1;31", "REFUSED")
        };
        text.push_str(&format!(
            "\n    {word} {}\n",
            self.paint("2", &format!("in {:.1} ms", took.as_secs_f64() * 1e3))
        ));
        for line in answer.message.lines().flat_map(wrapped) {
            text.push_str(&format!("      {line}\n"));
        }
        for line in
            answer.warnings.iter().flat_map(|warning| wrapped(&format!("Warning: {warning}")))
        {
            text.push_str(&format!("      {}\n", self.paint("33", &line)));
        }
        if !scene.is_expected(answer) {
            let wanted = scene.rule.as_deref().map_or(String::new(), |rule| format!(" by {rule}"));
            text.push_str(&format!(
                "      {} {:?}{wanted}\n",
                self.paint("1;31", "expected:"),
                scene.expect
            ));
        }
        text
    }

    pub(super) fn closing(&self, as_expected: usize, scenes: usize) -> String {
        let count = format!("{as_expected} of {scenes} verdicts as expected.");
        let count = self.paint(if as_expected == scenes { "1;32" } else { "1;31" }, &count);
        format!(
            "\n{count}\nTry your own: sluicegate check --world examples/world -n shop my-virtualservice.yaml\n"
        )
    }
}

/// The routes of an object in as few lines as a person would write them.
fn lines(object: &Value) -> Vec<String> {
    let routes = object.pointer("/spec/http").and_then(Value::as_array).into_iter().flatten();
    routes.flat_map(route).collect()
}

fn route(route: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(matches) = route.get("match") {
        lines.push(format!("- match: {}", flow(matches)));
    }
    let head = if lines.is_empty() { "- route:" } else { "  route:" };
    lines.push(head.to_owned());
    for entry in route.get("route").and_then(Value::as_array).into_iter().flatten() {
        let subset =
            entry.pointer("/destination/subset").and_then(Value::as_str).unwrap_or("(all pods)");
        let weight =
            entry.get("weight").map_or(String::new(), |weight| format!("  weight: {weight}"));
        lines.push(format!("    {subset}{weight}"));
    }
    lines
}

/// A value as YAML writes it in one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("{key}: {}", flow(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::String(text)
            if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphabetic() || c == '-') =>
        {
            text.clone()
        }
        other => other.to_string(),
    }
}

fn side_by_side(left: &str, before: &[String], right: &str, after: &[String]) -> String {
    let width =
        before.iter().map(|line| line.chars().count()).max().unwrap_or(0).max(left.len()) + 6;
    let mut text = format!("      {left:width$}$ {right}\n");
    for index in 0..before.len().max(after.len()) {
        let line = |lines: &[String]| lines.get(index).cloned().unwrap_or_default();
        let row = format!("      {:width$}  {}", line(before), line(after));
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// Breaks a line at spaces; what follows the first piece is indented.
fn wrapped(line: &str) -> Vec<String> {
    let indent = " ".repeat(line.len() - line.trim_start().len());
    let mut lines = Vec::new();
    let mut current = indent.clone();
    for word in line.split_whitespace() {
        let is_full = current.chars().count() + word.chars().count() + 1 > WIDTH;
        if is_full && current.trim() != "" {
            lines.push(std::mem::replace(&mut current, format!("{indent}    ")));
        }
        if current.trim() != "" && !current.ends_with(' ') {
            current.push(' ');
        }
        current.push_str(word);
    }
    lines.push(current);
    lines
}
