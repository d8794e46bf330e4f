//! What a policy may say, as a JSON schema: for editors, and for Helm, which checks values by one.

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::rule::{Entry, Stage};
use super::settings::PolicySpec;
use super::verdict::Action;

/// The JSON schema (draft 2020-12) of the `spec` of a CanaryPolicy with these rules. It is closed, so that a word with a slip in it
/// is an error, and nothing in it refers to another part: any part of it can be used by itself.
///
/// What it takes and [`Policy::parse`](super::Policy::parse) does not is nothing; tests compare the two.
pub fn schema(entries: &[Entry]) -> Value {
    let mut root = self_contained::<PolicySpec>();
    plain(&mut root);
    root.insert("title".to_owned(), "The spec of a CanaryPolicy (sluicegate.dev/v1alpha1)".into());
    if let Some(rules) = root.get_mut("properties").and_then(|own| own.get_mut("rules")) {
        let own = entries.iter().map(|entry| (entry.id.to_owned(), of_rule(entry)));
        rules["properties"] = own.collect::<Map<_, _>>().into();
        rules["additionalProperties"] = false.into();
    }
    root.to_value()
}

/// The schema of a type in one piece.
pub(super) fn self_contained<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|own| own.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>()
}

/// What may stand under the rule's id: its parameters, and what it does.
fn of_rule(entry: &Entry) -> Value {
    let own = |mut schema: Schema| {
        plain(&mut schema);
        for key in ["$schema", "title"] {
            schema.remove(key);
        }
        schema.to_value()
    };
    let (mut schema, mut action) = (own(entry.schema()), own(self_contained::<Action>()));
    let what = match entry.stage {
        Stage::Broken => {
            action["enum"] = json!(["Deny"]);
            "What it finds is broken for everyone, and always refused.".to_owned()
        }
        _ => {
            let shipped = entry.action;
            action["default"] = json!(shipped);
            let words = action["description"].as_str().unwrap_or_default();
            format!("{words}\nUnless given: `{shipped:?}`.")
        }
    };
    action["description"] = what.into();
    // The manual is the description; its parts and examples are what `sluicegate rules ID` prints.
    let first = entry.manual().lines().next().unwrap_or_default().to_owned();
    schema["description"] = format!("{first} See `sluicegate rules {}`.", entry.id).into();
    if schema["properties"].is_null() {
        schema["properties"] = json!({});
    }
    schema["properties"]["action"] = action;
    schema
}

/// For readers who are no compiler: a list of words is one `enum`, so that a validator names all of them in one line, and
/// descriptions have neither links for rustdoc nor the line breaks of the code.
fn plain(schema: &mut Schema) {
    struct Plain;
    impl Transform for Plain {
        fn transform(&mut self, schema: &mut Schema) {
            transform_subschemas(self, schema);
            if let Some(Value::String(text)) = schema.get_mut("description") {
                *text = text.replace("[`", "`").replace("`]", "`").replace('\n', " ");
            }
            if schema.get("default").is_some_and(Value::is_null) {
                schema.remove("default");
            }
            as_one_enum(schema);
        }
    }
    Plain.transform(schema);
}

fn as_one_enum(schema: &mut Schema) {
    let Some(Value::Array(choices)) = schema.get("oneOf") else { return };
    let word = |choice: &Value| {
        let text = |key| choice.get(key).and_then(Value::as_str);
        Some((text("const")?.to_owned(), text("description").unwrap_or_default().to_owned()))
    };
    let Some(words) = choices.iter().map(word).collect::<Option<Vec<_>>>() else { return };
    let own = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let said = words.iter().map(|(word, what)| format!("\n`{word}`: {what}"));
    let description = own.to_owned() + &said.collect::<String>();
    schema.remove("oneOf");
    schema.insert("type".to_owned(), "string".into());
    schema.insert("description".to_owned(), description.into());
    let names = words.into_iter().map(|(word, _)| word);
    schema.insert("enum".to_owned(), names.collect());
}
