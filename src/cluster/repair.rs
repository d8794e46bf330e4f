//! An object with fields of a wrong shape: what can be read of it.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serde_path_to_error::{Path, Segment};

/// How many wrong fields are looked for before the object is cut down to its name.
const MOST_REPAIRS: usize = 64;

/// Reads what can be read of an object: a field of a wrong type is taken as text where that helps (a label `1.0`), else
/// left out. When nothing helps, only namespace and name remain, so that the object still replaces what it was before.
pub(super) fn read<T: DeserializeOwned + Default>(mut value: Value) -> T {
    for _ in 0..MOST_REPAIRS {
        match serde_path_to_error::deserialize(&value) {
            Ok(object) => return object,
            Err(error) => {
                if !repair(&mut value, error.path()) {
                    break;
                }
            }
        }
    }
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    let bare = json!({"metadata": {"namespace": text("namespace"), "name": text("name")}});
    serde_json::from_value(bare).unwrap_or_default()
}

/// Makes the value at `path` a string where it is a number or a boolean, else takes it out; `false` where nothing is there.
fn repair(value: &mut Value, path: &Path) -> bool {
    let known = |segment: &&Segment| matches!(segment, Segment::Map { .. } | Segment::Seq { .. });
    let segments = path.iter().take_while(known).collect::<Vec<_>>();
    let Some((last, parents)) = segments.split_last() else { return false };
    let mut parent = value;
    for segment in parents {
        let Some(below) = child(parent, segment) else { return false };
        parent = below;
    }
    match child(parent, last) {
        Some(Value::Number(number)) => {
            let text = number.to_string();
            return set(parent, last, text);
        }
        Some(Value::Bool(truth)) => {
            let text = truth.to_string();
            return set(parent, last, text);
        }
        _ => {}
    }
    match (parent, last) {
        (Value::Object(fields), Segment::Map { key }) => fields.remove(key).is_some(),
        (Value::Array(items), Segment::Seq { index }) if *index < items.len() => {
            items.remove(*index);
            true
        }
        _ => false,
    }
}

fn child<'a>(value: &'a mut Value, segment: &Segment) -> Option<&'a mut Value> {
    match segment {
        Segment::Map { key } => value.get_mut(key),
        Segment::Seq { index } => value.get_mut(index),
        _ => None,
    }
}

fn set(parent: &mut Value, at: &Segment, text: String) -> bool {
    match child(parent, at) {
        Some(place) => {
            *place = Value::String(text);
            true
        }
        None => false,
    }
}
