//! The checker of expressions against RE2's own answers, which `tests/re2/oracle.py` wrote down.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde::Deserialize;
use sluicegate::istio::check_re2;

#[derive(Deserialize)]
struct Answer {
    regex: String,
    valid: bool,
}

#[test]
fn re2_and_the_checker_agree() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/re2/oracle.jsonl");
    let file = std::env::var_os("RE2_ORACLE").map_or(own, Into::into);
    let text = fs::read_to_string(&file).expect("RE2's answers");
    let mut differences = Vec::new();
    let mut taken = 0;
    let mut refused = 0;
    for line in text.lines() {
        let Answer { regex, valid } = serde_json::from_str(line).expect("an answer");
        match check_re2(&regex) {
            Ok(()) if !valid => differences.push(format!("RE2 refuses {regex:?}")),
            // What a newer RE2 may know is never a reason to refuse.
            Err(error) if valid && error.problem.is_certain() => {
                differences.push(format!("RE2 takes {regex:?}, but: {error}"));
            }
            _ => {}
        }
        taken += u32::from(valid);
        refused += u32::from(!valid);
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(taken > 300 && refused > 200, "too few to tell: {taken} taken, {refused} refused");
}

proptest! {
    #[test]
    fn nothing_makes_the_checker_panic(regex in "\\PC{0,60}") {
        let _ = check_re2(&regex);
    }

    #[test]
    fn nothing_that_looks_like_an_expression_makes_it_panic(regex in "[\\\\(){}\\[\\]|*+?^$.:<>=!PpQEx0-9a-zé,-]{0,60}") {
        if let Err(error) = check_re2(&regex) {
            prop_assert!(regex.contains(error.part), "{:?} is no part of it", error.part);
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
