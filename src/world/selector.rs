//! Label selectors, as Kubernetes reads them.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;

/// A label selector with the meaning of `metav1.LabelSelector`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels that must be there with these values.
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions, all of which must hold.
    pub match_expressions: Vec<Requirement>,
}

/// One condition of a [`LabelSelector`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
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

    /// Whether Kubernetes takes it: a condition with `In` or `NotIn` has values, one with `Exists` or `DoesNotExist` has none, and
    /// keys and values are such as labels can have.
    ///
    /// # Errors
    /// What is wrong with it.
    ///
    /// Source: `k8s.io/apimachinery/pkg/labels` `NewRequirement`.
    pub fn check(&self) -> Result<(), SelectorError> {
        for (key, value) in &self.match_labels {
            check_key(key)?;
            check_value(value)?;
        }
        for Requirement { key, operator, values } in &self.match_expressions {
            check_key(key)?;
            values.iter().try_for_each(|value| check_value(value))?;
            let wants_values = matches!(operator, Operator::In | Operator::NotIn);
            if wants_values == values.is_empty() {
                let key = key.clone();
                return Err(SelectorError::Values { key, operator: *operator });
            }
        }
        Ok(())
    }
}

/// Why a label selector cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// No label can be called so.
    #[error("{0:?} is no name of a label")]
    Key(String),
    /// No label can have this value.
    #[error("{0:?} is no value that a label can have")]
    Value(String),
    /// `In` without values, or `Exists` with some.
    #[error("{key}: {operator:?} {}", if matches!(operator, Operator::In | Operator::NotIn) { "needs values" } else { "takes no values" })]
    Values {
        /// The label.
        key: String,
        /// How it is compared.
        operator: Operator,
    },
    /// An operator that there is not.
    #[error("{0:?} is no operator: In, NotIn, Exists or DoesNotExist")]
    Operator(String),
    /// No selector at all.
    #[error(
        "a selector reads like `env=prod`, `env in (prod, test)`, `team` or `!team`, joined by commas; {0:?} does not"
    )]
    Text(String),
}

fn check_key(key: &str) -> Result<(), SelectorError> {
    let name = key.rsplit('/').next().unwrap_or_default();
    let fits = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let is_key = !name.is_empty() && name.len() <= 63 && key.split('/').all(fits);
    if is_key && key.matches('/').count() <= 1 {
        Ok(())
    } else {
        Err(SelectorError::Key(key.to_owned()))
    }
}

fn check_value(value: &str) -> Result<(), SelectorError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if value.len() <= 63 && value.chars().all(fits) {
        Ok(())
    } else {
        Err(SelectorError::Value(value.to_owned()))
    }
}

/// As `kubectl get --selector` writes it: `env in (prod,test),team!=old,!legacy`.
impl FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut selector = Self::default();
        for term in terms(text) {
            let wrong = || SelectorError::Text(term.to_owned());
            let set = [(" notin ", Operator::NotIn), (" in ", Operator::In)];
            let set = set.into_iter().find_map(|(word, operator)| {
                let (key, rest) = term.split_once(word)?;
                Some((key, operator, rest.trim()))
            });
            let (key, operator, values) = if let Some((key, operator, rest)) = set {
                let list = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
                let list = list.ok_or_else(wrong)?;
                (key, operator, list.split(',').map(|value| value.trim().to_owned()).collect())
            } else if let Some((key, value)) = term.split_once("!=") {
                (key, Operator::NotIn, vec![value.trim().to_owned()])
            } else if let Some((key, value)) = term.split_once('=') {
                let value = value.strip_prefix('=').unwrap_or(value).trim();
                selector.match_labels.insert(key.trim().to_owned(), value.to_owned());
                continue;
            } else if let Some(key) = term.strip_prefix('!') {
                (key, Operator::DoesNotExist, Vec::new())
            } else {
                (term, Operator::Exists, Vec::new())
            };
            let key = key.trim().to_owned();
            selector.match_expressions.push(Requirement { key, operator, values });
        }
        if selector == Self::default() {
            return Err(SelectorError::Text(text.to_owned()));
        }
        selector.check()?;
        Ok(selector)
    }
}

/// The parts of a selector between the commas that stand outside of parentheses.
fn terms(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let parts = text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).collect()
}

/// As [`LabelSelector::from_str`] reads it; one that selects everything is `everything`.
impl Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
        let expressions = self.match_expressions.iter().map(|own| {
            let values = own.values.join(",");
            match own.operator {
                Operator::In => format!("{} in ({values})", own.key),
                Operator::NotIn => format!("{} notin ({values})", own.key),
                Operator::Exists => own.key.clone(),
                Operator::DoesNotExist => format!("!{}", own.key),
            }
        });
        let terms = labels.chain(expressions).collect::<Vec<_>>();
        f.write_str(if terms.is_empty() { "everything" } else { "" })?;
        f.write_str(&terms.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubectl_writes_is_read() {
        let labels = |text: &str| {
            let pairs = text.split(' ').filter(|pair| !pair.is_empty());
            let pairs = pairs.filter_map(|pair| pair.split_once('='));
            pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        for (selector, selected, left_out) in [
            ("env=prod", "env=prod", "env=test"),
            ("env == prod", "env=prod team=a", ""),
            ("env!=prod", "", "env=prod"),
            ("env in (prod, test)", "env=test", "env=old"),
            ("env notin (prod,test),team", "team=a", "team=a env=prod"),
            ("example.com/mesh,!legacy", "example.com/mesh=on", "example.com/mesh=on legacy=yes"),
        ] {
            let read = selector.parse::<LabelSelector>().expect(selector);
            assert!(read.matches(&labels(selected)), "{selector} {selected:?}");
            assert!(!read.matches(&labels(left_out)), "{selector} {left_out:?}");
            assert_eq!(read.to_string().parse(), Ok(read), "{selector}");
        }
        for wrong in ["", ",", "env in prod", "env in ()x", "a b", "env=a b", "!", "=prod", "a/b/c"]
        {
            assert!(wrong.parse::<LabelSelector>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_kubernetes_refuses_is_refused() {
        let one = |operator, values: &[&str]| LabelSelector {
            match_expressions: vec![Requirement {
                key: "env".to_owned(),
                operator,
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            }],
            ..LabelSelector::default()
        };
        for operator in [Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist] {
            let wants_values = matches!(operator, Operator::In | Operator::NotIn);
            assert_eq!(one(operator, &["prod"]).check().is_ok(), wants_values);
            assert_eq!(one(operator, &[]).check().is_err(), wants_values);
        }
        assert_eq!(LabelSelector::default().check(), Ok(()), "it selects everything");
    }
}
