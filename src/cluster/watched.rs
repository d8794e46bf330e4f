//! An object as a watch or a list sends it.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicResourceScope;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};

use super::resources::Resource;
use super::{read, repair};
use crate::world::{Kind, Object};

/// An object as the API server sends it: its text, and from its metadata only what a watch needs.
///
/// Taking it in cannot fail on anything that is JSON, so that one strange object does not stop the watch of all others.
#[derive(Debug, Clone)]
pub struct Watched {
    metadata: ObjectMeta,
    json: Box<RawValue>,
}

impl Watched {
    /// The parts that a verdict reads, for an object of `kind`.
    pub(super) fn read(&self, kind: Kind) -> Option<Object> {
        read::json(kind, self.json.get())
    }

    pub(super) fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub(super) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn version(&self) -> u64 {
        version(self.metadata.resource_version.as_deref())
    }
}

/// A resourceVersion as a number that grows with every write (KEP-5504 promises what etcd always did); 0 for any other.
pub(super) fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Outer {
    #[serde(deserialize_with = "read::null_as_default")]
    metadata: Key,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Key {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
}

impl<'de> Deserialize<'de> for Watched {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = deserializer.deserialize_newtype_struct(RAW_VALUE, RawVisitor)?;
        let Outer { metadata: Key { name, namespace, resource_version } } =
            serde_json::from_str(json.get()).unwrap_or_else(|_| {
                repair::read(serde_json::from_str(json.get()).unwrap_or_default())
            });
        let metadata = ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() };
        Ok(Self { metadata, json })
    }
}

/// What serde_json knows its `RawValue` by. Under another name, and inside of a watch event whose `object` comes before its
/// `type`, the slower way through a `Value` is taken.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Box<RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Deserialize::deserialize(MapAccessDeserializer::new(map))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        to_raw_value(&value).map_err(D::Error::custom)
    }
}

/// A row of the table in one of its versions.
#[derive(Debug, Clone, Copy)]
pub struct Served {
    /// Which resource.
    pub resource: &'static Resource,
    /// Which of its versions, counted from the best one.
    pub version: usize,
}

impl Served {
    pub(super) fn version(self) -> &'static str {
        self.resource.versions.get(self.version).copied().unwrap_or("v1")
    }
}

impl kube::Resource for Watched {
    type DynamicType = Served;
    type Scope = DynamicResourceScope;

    fn kind(served: &Served) -> Cow<'_, str> {
        served.resource.spelled().into()
    }

    fn group(served: &Served) -> Cow<'_, str> {
        served.resource.group.into()
    }

    fn version(served: &Served) -> Cow<'_, str> {
        (*served).version().into()
    }

    fn plural(served: &Served) -> Cow<'_, str> {
        served.resource.plural.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::api::WatchEvent;

    #[test]
    fn an_object_is_taken_in_whatever_surrounds_it() {
        let object = r#"{"metadata":{"name":"a","namespace":"shop","resourceVersion":"7","labels":{"a":1}}}"#;
        for event in [
            format!(r#"{{"type":"ADDED","object":{object}}}"#),
            format!(r#"{{"object":{object},"type":"ADDED"}}"#),
        ] {
            let event: WatchEvent<Watched> = serde_json::from_str(&event).expect(&event);
            let WatchEvent::Added(own) = event else { panic!("was added") };
            assert_eq!((own.namespace(), own.name(), own.version()), ("shop", "a", 7));
        }
        for (json, name) in [
            (r#"{"metadata":{"name":"a","namespace":7}}"#, "a"),
            (r#"{"metadata":"none"}"#, ""),
            (r#"[1]"#, ""),
            ("null", ""),
        ] {
            let own: Watched = serde_json::from_str(json).expect(json);
            assert_eq!(own.name(), name, "{json}");
            assert_eq!(own.read(Kind::Pod).is_some(), !name.is_empty(), "{json}");
        }
    }
}
