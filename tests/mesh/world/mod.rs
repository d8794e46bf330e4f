//! Small clusters, as templates: `@` in them becomes the name of one copy, so that many stand in one cluster side by side.

mod dice;
mod fence;
mod generate;
mod lower;
mod routes;
mod shrink;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

pub(crate) use self::fence::fence;
pub(crate) use self::generate::generate;
pub(crate) use self::shrink::smaller;

/// The label by which all objects of a round are deleted.
pub(crate) const ROUND: &str = "mesh.sluicegate.dev/round";

/// An object of a template, and when it is created: Istio orders by creation time, which counts whole seconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    /// 0 comes at least a second before 1.
    pub(crate) wave: usize,
    pub(crate) object: Value,
}

/// A template.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct World(pub(crate) Vec<Piece>);

/// How many waves there are.
pub(crate) const WAVES: usize = 2;

impl World {
    /// A fixed one: YAML documents; the annotation `wave: "1"` makes an object younger.
    pub(crate) fn parse(name: &str, text: &str) -> crate::harness::Result<Self> {
        let documents = sluicegate::cluster::parse(name, text)?;
        let piece = |document: sluicegate::cluster::Document| {
            let mut object = document.value;
            let wave =
                object.pointer("/metadata/annotations/wave").and_then(Value::as_str) == Some("1");
            if wave {
                object["metadata"].as_object_mut().map(|own| own.remove("annotations"));
            }
            Piece { wave: usize::from(wave), object }
        };
        Ok(Self(documents.into_iter().map(piece).collect()))
    }

    /// The same for a mesh with another domain than Istio's default.
    pub(crate) fn in_domain(&self, domain: &str) -> Self {
        let own = format!(".svc.{domain}");
        let piece = |piece: &Piece| {
            let text = |text: &str| text.replace(".svc.cluster.local", &own);
            Piece { wave: piece.wave, object: map_texts(&piece.object, &text) }
        };
        Self(self.0.iter().map(piece).collect())
    }

    /// The objects of copy `number` that belong to a wave.
    pub(crate) fn copy(&self, number: usize, round: &str, wave: usize) -> Vec<Value> {
        let own = self.0.iter().filter(|piece| piece.wave == wave);
        own.map(|piece| {
            let mut object = fill(&piece.object, number);
            object["metadata"]["labels"][ROUND] = round.into();
            object
        })
        .collect()
    }

    /// Whether it has a Sidecar: those of a namespace are for all worlds that stand there at the time.
    pub(crate) fn is_fenced(&self) -> bool {
        self.0.iter().any(|piece| piece.object["kind"] == "Sidecar")
    }

    /// Every text at this pointer's field name, anywhere: `subset`, `host`.
    pub(crate) fn texts(&self, field: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for piece in &self.0 {
            texts(&piece.object, field, &mut found);
        }
        found
    }

    /// Every text in a list at this field name, anywhere: `sniHosts`.
    pub(crate) fn lists(&self, field: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for piece in &self.0 {
            lists(&piece.object, field, &mut found);
        }
        found
    }

    /// As a person would write it, for a report.
    pub(crate) fn yaml(&self) -> String {
        let pieces = self.0.iter().map(|piece| {
            let wave = if piece.wave > 0 { "# a second later\n" } else { "" };
            format!("{wave}{}\n", piece.object)
        });
        pieces.collect::<Vec<_>>().join("---\n")
    }
}

/// `@` becomes the copy's name; `ip:3` its third address; `lo:@` an address of its own on this machine.
pub(crate) fn fill(value: &Value, number: usize) -> Value {
    map_texts(value, &|text| fill_text(text, number))
}

/// Every text in it changed, keys included.
fn map_texts(value: &Value, change: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(text)),
        Value::Array(items) => items.iter().map(|item| map_texts(item, change)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (change(key), map_texts(value, change)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

pub(crate) fn fill_text(text: &str, number: usize) -> String {
    if text == "lo:@" {
        // Apart from those of another run that is under way.
        let run = 16 + std::process::id() % 200;
        return format!("127.{run}.{}.{}", number / 250, 1 + number % 250);
    }
    match text.strip_prefix("ip:") {
        Some(host) => format!("10.{}.{}.{host}", 32 + number / 250, number % 250),
        None => text.replace('@', &format!("w{number}")),
    }
}

fn texts(value: &Value, field: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| texts(item, field, found)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == field => {
                        found.insert(text.clone());
                    }
                    value => texts(value, field, found),
                }
            }
        }
        _ => {}
    }
}

fn lists(value: &Value, field: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| lists(item, field, found)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::Array(items) if key == field => {
                        found.extend(items.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    value => lists(value, field, found),
                }
            }
        }
        _ => {}
    }
}
