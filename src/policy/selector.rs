//! Label selectors, as Kubernetes reads them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// A label selector with the meaning of `metav1.LabelSelector`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels that must be there with these values.
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions, all of which must hold.
    pub match_expressions: Vec<Requirement>,
}

/// One condition of a [`LabelSelector`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// What it is compared with; empty for `Exists` and `DoesNotExist`.
    #[serde(default)]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether an object with these labels is selected; an empty selector selects everything.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        let holds = |requirement: &Requirement| {
            let value = labels.get(&requirement.key);
            let named = value.is_some_and(|value| requirement.values.contains(value));
            match requirement.operator {
                Operator::In => named,
                Operator::NotIn => !named,
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        };
        self.match_labels.iter().all(has) && self.match_expressions.iter().all(holds)
    }
}
