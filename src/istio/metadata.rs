//! What is read of the metadata of every object.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::shape::null_as_default;

/// A moment as Kubernetes writes it: seconds since 1970-01-01T00:00:00Z (`metav1.Time` has no finer unit).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Reads RFC 3339; anything else is no time at all, because a clock is evidence here and never a reason to fail.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|time| Self(time.as_second()))
    }
}

/// As Kubernetes writes it: `2026-11-03T14:02:11Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0) {
            Ok(time) => time.fmt(f),
            Err(_) => write!(f, "{} seconds after 1970", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no RFC 3339 time")))
    }
}

/// The parts of `metav1.ObjectMeta` that a verdict reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// `metadata.name`.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// `metadata.namespace`; empty where the object has none yet.
    #[serde(deserialize_with = "null_as_default")]
    pub namespace: String,
    /// `metadata.labels`.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Those of `metadata.annotations` that mean something here; the others may be large.
    #[serde(deserialize_with = "null_as_default")]
    pub(super) annotations: Annotations,
    /// `metadata.creationTimestamp`.
    #[serde(deserialize_with = "lenient_time")]
    pub creation_timestamp: Option<Timestamp>,
    /// Set as soon as the object is being deleted and only finalizers keep it.
    #[serde(deserialize_with = "lenient_time")]
    pub deletion_timestamp: Option<Timestamp>,
    /// What it belongs to.
    #[serde(deserialize_with = "null_as_default")]
    pub owner_references: Vec<OwnerReference>,
    /// Who wrote which fields, and when.
    #[serde(deserialize_with = "null_as_default")]
    managed_fields: Vec<ManagedFields>,
}

/// An entry of `metadata.ownerReferences`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// The owner's API group and version.
    #[serde(deserialize_with = "null_as_default")]
    pub api_version: String,
    /// The owner's kind.
    #[serde(deserialize_with = "null_as_default")]
    pub kind: String,
    /// The owner's name, in the object's own namespace.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Annotations {
    /// Set to `true`, a WorkloadEntry is unhealthy until its condition says otherwise.
    #[serde(rename = "proxy.istio.io/health-checks-enabled", deserialize_with = "null_as_default")]
    pub(super) has_health_checks: String,
    /// The Rollout whose controller wrote the labels of a DestinationRule's subsets (`pkg/apis/rollouts/v1alpha1/types.go`
    /// `ManagedByRolloutsKey`).
    #[serde(
        rename = "argo-rollouts.argoproj.io/managed-by-rollouts",
        deserialize_with = "null_as_default"
    )]
    rollout: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ManagedFields {
    #[serde(deserialize_with = "lenient_time")]
    time: Option<Timestamp>,
    #[serde(deserialize_with = "null_as_default")]
    subresource: String,
    #[serde(deserialize_with = "null_as_default")]
    fields_v1: OwnedFields,
}

/// Whether a manager owns anything below `spec`; what exactly it owns is skipped while parsing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct OwnedFields {
    #[serde(rename = "f:spec")]
    spec: Option<serde::de::IgnoredAny>,
}

impl Metadata {
    /// What Istio sorts objects by, the oldest first: creation, then name, then namespace. Creation has a resolution of a second,
    /// so that the name decides among objects of one `kubectl apply`. An object without a time is not stored yet: the youngest.
    ///
    /// Source: `pilot/pkg/model/config.go` `configCompareByCreationTime`.
    pub fn by_age(&self) -> (Timestamp, &str, &str) {
        let created = self.creation_timestamp.unwrap_or(Timestamp(i64::MAX));
        (created, &self.name, &self.namespace)
    }

    /// Whether istiod of `revision` sees the object: the label `istio.io/rev` is absent or names it.
    ///
    /// Source: `pkg/config/model.go` `LabelsInRevision`.
    pub fn is_in_revision(&self, revision: &str) -> bool {
        revision.is_empty() || self.labels.get("istio.io/rev").is_none_or(|label| label == revision)
    }

    /// Whether Argo Rollouts says on the object that it writes it. The mark goes with the last write.
    pub fn is_marked_by_argo(&self) -> bool {
        !self.annotations.rollout.is_empty()
    }

    /// When `spec` was last written, by the youngest `managedFields` entry that owns a part of it.
    pub fn spec_written(&self) -> Option<Timestamp> {
        let writes = self
            .managed_fields
            .iter()
            .filter(|by| by.subresource.is_empty() && by.fields_v1.spec.is_some());
        writes.filter_map(|by| by.time).max()
    }
}

/// An unreadable time is an unknown time.
fn lenient_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.as_deref().and_then(Timestamp::parse))
}
