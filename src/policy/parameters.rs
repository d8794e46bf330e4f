//! Numbers in a rule's parameters, with their ranges.

use schemars::JsonSchema;
use serde::Deserialize;

/// A rule's parameter from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(try_from = "f64")]
#[schemars(extend("minimum" = 0.0, "maximum" = 100.0))]
pub struct Percentage(f64);

impl Percentage {
    /// What a rule ships with.
    ///
    /// # Panics
    /// At compile time, where `value` is out of range.
    pub const fn new(value: f64) -> Self {
        assert!(value >= 0.0 && value <= 100.0, "a percentage is from 0 to 100");
        Self(value)
    }

    /// From 0 to 100.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Percentage {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        if (0.0..=100.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(format!("{value} is not from 0 to 100"))
        }
    }
}

/// A rule's parameter that says "so many times": 1 and above.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(try_from = "f64")]
#[schemars(extend("minimum" = 1.0))]
pub struct Factor(f64);

impl Factor {
    /// What a rule ships with.
    ///
    /// # Panics
    /// At compile time, where `value` is out of range.
    pub const fn new(value: f64) -> Self {
        assert!(value >= 1.0, "a factor is 1 or more");
        Self(value)
    }

    /// 1 or more.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Factor {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        if value >= 1.0 && value.is_finite() {
            Ok(Self(value))
        } else {
            Err(format!("{value} is less than 1"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_out_of_range_are_refused() {
        for (json, want) in
            [("0", true), ("12.5", true), ("100", true), ("-1", false), ("101", false)]
        {
            assert_eq!(serde_json::from_str::<Percentage>(json).is_ok(), want, "{json}");
        }
        for (json, want) in [("1", true), ("2.5", true), ("0.5", false), ("-2", false)] {
            assert_eq!(serde_json::from_str::<Factor>(json).is_ok(), want, "{json}");
        }
    }
}
