//! What is left of a policy that cannot be used as it is.

use serde_json::{Map, Value, json};

use super::rule::Entry;
use super::settings::Policy;

impl Policy {
    /// The policy without the fields and the rules that cannot be read, and their names: of those the defaults are in force.
    ///
    /// For a process that has no last good policy and must judge all the same. `mode` and `controllers` say who is never refused,
    /// and a slip in another field must not change that. Where `match` cannot be read nobody knows whom the rest is for, and
    /// nothing is left.
    pub fn salvage(
        entries: &'static [Entry],
        name: &str,
        spec: Value,
    ) -> (Option<Self>, Vec<String>) {
        let reads = |part: Value| Self::parse(entries, name, part).is_ok();
        let Value::Object(fields) = spec else { return (None, vec!["spec".to_owned()]) };
        let (mut kept, mut left_out) = (Map::new(), Vec::new());
        for (field, value) in fields {
            if let ("rules", Value::Object(rules)) = (field.as_str(), &value) {
                let is_good = |(id, own): &(String, Value)| reads(json!({"rules": {id: own}}));
                let (good, bad): (Vec<_>, Vec<_>) = rules.clone().into_iter().partition(is_good);
                left_out.extend(bad.into_iter().map(|(id, _)| format!("rules.{id}")));
                kept.insert(field, good.into_iter().collect());
            } else if reads(json!({&field: value})) {
                kept.insert(field, value);
            } else {
                left_out.push(field);
            }
        }
        let is_addressed = !left_out.iter().any(|field| field == "match");
        let policy = Self::parse(entries, name, kept.into()).ok().filter(|_| is_addressed);
        (policy, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Mode;
    use crate::rules;

    fn salvage(spec: Value) -> (Option<Policy>, Vec<String>) {
        Policy::salvage(rules::ALL, "tried", spec)
    }

    #[test]
    fn what_can_be_read_by_itself_is_kept() {
        let (policy, left_out) = salvage(json!({
            "mode": "Audit", "steps": {"max": 5}, "roles": {"stable": "blue"}, "precedence": 7,
            "controllers": {"flagger": ["system:serviceaccount:ops:flagger"]},
            "rules": {"canary-stop": {"action": "Off"}, "weight-sum": {"total": "relative"}, "capacity": {"maxFactor": 0}},
        }));
        let policy = policy.expect("a policy");
        assert_eq!((policy.spec().mode, policy.spec().precedence), (Mode::Audit, 7));
        assert_eq!(policy.spec().controllers.flagger, ["system:serviceaccount:ops:flagger"]);
        assert_eq!(left_out, ["roles", "rules.canary-stop", "rules.capacity", "steps"]);
    }

    #[test]
    fn a_good_policy_loses_nothing() {
        let (policy, left_out) = salvage(json!({"step": {"max": 5}, "match": {"hosts": ["a"]}}));
        assert_eq!(policy.expect("a policy").spec().step.max(), 5.0);
        assert!(left_out.is_empty(), "{left_out:?}");
    }

    #[test]
    fn what_nobody_knows_the_objects_of_is_for_none() {
        for spec in [json!({"match": {"host": "a"}, "mode": "Audit"}), json!("Audit")] {
            let (policy, left_out) = salvage(spec.clone());
            assert!(policy.is_none() && left_out.len() == 1, "{spec}: {left_out:?}");
        }
    }

    #[test]
    fn a_mode_with_a_slip_in_it_keeps_the_gate_shut() {
        let (policy, left_out) = salvage(json!({"mode": "audit"}));
        assert_eq!(policy.expect("a policy").spec().mode, Mode::Enforce);
        assert_eq!(left_out, ["mode"]);
    }
}
