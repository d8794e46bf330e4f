//! YAML as kubectl reads it.

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::{Location, Spanned};

/// Maps whose values Kubernetes knows as strings only.
const TEXT_MAPS: [&str; 6] =
    ["annotations", "labels", "matchLabels", "nodeSelector", "selector", "sourceLabels"];

/// A document as it was written: a scalar keeps its place where its own spelling matters, `1.10` and `on` in a label.
#[derive(Debug)]
pub(super) enum Tree {
    Scalar(Value),
    List(Vec<Tree>),
    Map(BTreeMap<String, Tree>),
    Placed(Box<Placed>),
}

/// A part of a document and where it stands.
#[derive(Debug)]
pub(super) struct Placed {
    tree: Tree,
    used: Location,
    defined: Location,
}

impl Placed {
    /// The line it begins in, counted from 1; `None` for JSON.
    pub(super) fn line(&self) -> Option<usize> {
        usize::try_from(self.used.line()).ok().filter(|&line| line > 0)
    }

    /// The same in JSON, from the text that it was parsed from.
    pub(super) fn into_value(self, text: &str) -> Value {
        self.tree.into_value(text)
    }

    /// The members of a `List`, each with its own place; the document itself where it is none.
    pub(super) fn members(self) -> Vec<Self> {
        let Tree::Map(fields) = &self.tree else { return vec![self] };
        let is_list = matches!(fields.get("kind"), Some(Tree::Scalar(Value::String(kind))) if kind.ends_with("List"));
        if !is_list || !matches!(fields.get("items"), Some(Tree::List(_))) {
            return vec![self];
        }
        let Self { tree: Tree::Map(mut fields), used, defined } = self else { return Vec::new() };
        let Some(Tree::List(items)) = fields.remove("items") else { return Vec::new() };
        let placed = items.into_iter().map(|item| match item {
            Tree::Placed(placed) => *placed,
            tree => Self { tree, used, defined },
        });
        placed.flat_map(Self::members).collect()
    }
}

impl Tree {
    fn into_value(self, text: &str) -> Value {
        match self {
            Self::Scalar(value) => value,
            Self::List(items) => items.into_iter().map(|item| item.into_value(text)).collect(),
            Self::Map(fields) => {
                let fields = fields.into_iter().map(|(key, value)| {
                    let is_text = TEXT_MAPS.contains(&key.as_str());
                    (key, if is_text { value.into_texts(text) } else { value.into_value(text) })
                });
                Value::Object(fields.collect())
            }
            Self::Placed(placed) => placed.into_value(text),
        }
    }

    /// The value of `labels` and its like: scalars in it become the strings that their author meant.
    fn into_texts(self, text: &str) -> Value {
        let Self::Map(fields) = self else { return self.into_value(text) };
        let spelled = |value| match value {
            Self::Placed(placed) => placed.into_text(text),
            value => as_text(value.into_value(text), None),
        };
        let fields = fields.into_iter().map(|(key, value)| (key, spelled(value)));
        Value::Object(fields.collect::<Map<_, _>>())
    }
}

impl Placed {
    fn into_text(self, text: &str) -> Value {
        let span = self.defined.span();
        let spelling = span.byte_offset().zip(span.byte_len()).and_then(|(start, length)| {
            let start = usize::try_from(start).ok()?;
            text.get(start..start.checked_add(usize::try_from(length).ok()?)?)
        });
        as_text(self.tree.into_value(text), spelling.map(str::trim))
    }
}

fn as_text(value: Value, spelling: Option<&str>) -> Value {
    match value {
        Value::Bool(_) | Value::Number(_) => {
            Value::String(spelling.map_or_else(|| value.to_string(), str::to_owned))
        }
        value => value,
    }
}

impl<'de> Deserialize<'de> for Placed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced: used, defined } = Spanned::deserialize(deserializer)?;
        Ok(Self { tree: value, used, defined })
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor { keeps_places: false })
    }
}

/// A value whose direct members keep their places.
struct Inner(Tree);

impl<'de> Deserialize<'de> for Inner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor { keeps_places: true }).map(Self)
    }
}

struct TreeVisitor {
    keeps_places: bool,
}

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value that JSON knows")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        if self.keeps_places {
            while let Some(item) = access.next_element::<Placed>()? {
                items.push(Tree::Placed(Box::new(item)));
            }
        } else {
            while let Some(item) = access.next_element()? {
                items.push(item);
            }
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = if self.keeps_places {
                Tree::Placed(Box::new(access.next_value()?))
            } else if key == "items" || TEXT_MAPS.contains(&key.as_str()) {
                access.next_value::<Inner>()?.0
            } else {
                access.next_value()?
            };
            // YAML's own reader refuses this by itself; JSON's does not.
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate key {key:?}")));
            }
            fields.insert(key, value);
        }
        Ok(Tree::Map(fields))
    }
}
