//! How the text of an object becomes one of our types, or says which field has which wrong shape.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::destination_rule::{DestinationRule, DestinationRuleSpec};
use super::metadata::Metadata;
use super::path::FieldPath;
use super::shape::{Object, object};
use super::virtual_service::{VirtualService, VirtualServiceSpec};

/// A kind whose writes are judged.
pub trait Judged: Sized {
    /// The parts of `spec` that a verdict reads.
    type Spec: Default + DeserializeOwned;

    /// The object that these parts make up.
    fn of(metadata: Metadata, spec: Self::Spec) -> Self;

    /// `metadata`.
    fn metadata(&self) -> &Metadata;

    /// Whether the two can be equal, as far as that is seen cheaply.
    fn may_equal(&self, _: &Self) -> bool {
        true
    }
}

impl Judged for VirtualService {
    type Spec = VirtualServiceSpec;

    fn of(metadata: Metadata, spec: VirtualServiceSpec) -> Self {
        Self { metadata, spec }
    }

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn may_equal(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl Judged for DestinationRule {
    type Spec = DestinationRuleSpec;

    fn of(metadata: Metadata, spec: DestinationRuleSpec) -> Self {
        Self { metadata, spec }
    }

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// An object with its `spec` also as it was written.
#[derive(Debug)]
pub struct Written<'a, T> {
    /// The parts that a verdict reads.
    pub object: T,
    /// The whole `spec`, fields that no rule reads included; absent where the object has none.
    pub spec: Option<&'a RawValue>,
}

/// An object that the CRD's schema would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ShapeError {
    /// Where.
    pub path: FieldPath,
    /// What is wrong.
    pub reason: String,
}

#[derive(Default, Deserialize)]
struct Envelope<'a> {
    #[serde(default, deserialize_with = "object")]
    metadata: Metadata,
    #[serde(borrow, default)]
    spec: Option<&'a RawValue>,
}

impl<'a, T: Judged> Written<'a, T> {
    /// Reads an object from JSON: one pass to find `spec`, one to read it.
    ///
    /// # Errors
    /// Where a field has a type that the CRD does not know, with its path.
    pub fn read(json: &'a str) -> Result<Self, ShapeError> {
        let Object(Envelope { metadata, spec }) =
            serde_json::from_str(json).map_err(|_| located::<Object<Shape>>(json, ""))?;
        let text = spec.map_or("null", RawValue::get);
        let Object(parts) = serde_json::from_str::<Object<T::Spec>>(text)
            .map_err(|_| located::<Object<T::Spec>>(text, "spec"))?;
        Ok(Self { object: T::of(metadata, parts), spec })
    }

    /// Whether both say the same: the same text, or the same JSON value in another order or notation.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let (Some(own), Some(theirs)) = (self.spec, other.spec) else {
            return self.spec.is_none() && other.spec.is_none();
        };
        if own.get() == theirs.get() {
            return true;
        }
        let value = |raw: &RawValue| serde_json::from_str::<serde_json::Value>(raw.get()).ok();
        // The cheap comparison first: only where all that is read is equal can the whole be.
        self.object.may_equal(&other.object) && value(own) == value(theirs)
    }
}

/// The outer shape, for the place of an error in it.
#[derive(Default, Deserialize)]
struct Shape {
    #[serde(default, rename = "metadata", deserialize_with = "object")]
    _metadata: Metadata,
}

/// Reads again, slower, to say where the first reading failed.
fn located<T: for<'de> Deserialize<'de>>(text: &str, below: &str) -> ShapeError {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let (path, reason) = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(error) => (error.path().to_string(), error.inner().to_string()),
        Ok(_) => (".".to_owned(), "is no JSON object of this kind".to_owned()),
    };
    let reason = plain(reason.split(" at line ").next().unwrap_or(&reason));
    let path = match (below, path.as_str()) {
        ("", ".") => "object".to_owned(),
        ("", path) => path.to_owned(),
        (below, ".") => below.to_owned(),
        (below, path) => format!("{below}.{path}"),
    };
    ShapeError { path: FieldPath::parsed(path), reason }
}

/// serde's words for a wrong type, in those of a person who writes YAML.
fn plain(reason: &str) -> String {
    let types =
        reason.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "));
    let Some((found, expected)) = types else { return reason.to_owned() };
    let name = |word: &str| match word {
        "map" | "a map" => "an object".to_owned(),
        "sequence" | "a sequence" => "a list".to_owned(),
        "null" => "nothing".to_owned(),
        "i64" | "u32" => "a whole number".to_owned(),
        "a string" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        word if word.starts_with("struct ") => "an object".to_owned(),
        word => {
            word.strip_prefix("string ").map_or(word.to_owned(), |text| format!("the text {text}"))
        }
    };
    format!("this is {}; {} is expected", name(found), name(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_shape_is_located() {
        for (json, path) in [
            (r#"{"spec":{"http":{"route":[]}}}"#, "spec.http"),
            (r#"{"spec":{"http":[{"route":[{"weight":"ten"}]}]}}"#, "spec.http[0].route[0].weight"),
            (r#"{"spec":[]}"#, "spec"),
            (r#"{"spec":{"http":[["a"]]}}"#, "spec.http[0]"),
            (
                r#"{"spec":{"http":[{"route":[{"destination":["a"]}]}]}}"#,
                "spec.http[0].route[0].destination",
            ),
            (r#"{"metadata":{"name":7},"spec":{}}"#, "metadata.name"),
            ("[]", "object"),
        ] {
            let error = Written::<VirtualService>::read(json).expect_err(json);
            assert_eq!(error.path.as_str(), path, "{json}");
        }
    }

    #[test]
    fn notation_is_no_difference_and_fields_nobody_reads_are() {
        for (a, b, want) in [
            (
                r#"{"spec":{"hosts":["a"],"http":[]}}"#,
                r#"{"spec":{"http":[],"hosts":["a"]}}"#,
                true,
            ),
            (
                r#"{"spec":{"hosts":["a"]}}"#,
                r#"{"spec":{"hosts":["a"]},"metadata":{"name":"x"}}"#,
                true,
            ),
            (
                r#"{"spec":{"http":[{"timeout":"1s"}]}}"#,
                r#"{"spec":{"http":[{"timeout":"2s"}]}}"#,
                false,
            ),
            (r#"{"spec":{}}"#, r#"{}"#, false),
        ] {
            let read = |json| Written::<VirtualService>::read(json).expect(json);
            assert_eq!(read(a).says_the_same(&read(b)), want, "{a} {b}");
        }
    }
}
