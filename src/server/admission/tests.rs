use super::*;
use crate::istio::FieldPath;
use crate::policy::{Action, Basis, Finding, Operation, Verdict, Write};

fn finding(action: Action, message: &str) -> Finding {
    Finding {
        rule: "canary-step",
        action,
        path: FieldPath::parsed("spec.http[0]".to_owned()),
        message: message.to_owned(),
        rests_on: Vec::new(),
    }
}

fn asked() -> Asked {
    Asked { uid: "u-1".to_owned(), operation: "UPDATE", review: None, note: None }
}

fn said_about(findings: Vec<Finding>) -> serde_json::Value {
    let verdict = Verdict::of(Basis::Rules, findings);
    let answer = respond(&asked(), &verdict);
    serde_json::from_slice::<serde_json::Value>(&answer).expect("JSON")["response"].take()
}

#[test]
fn a_warning_is_one_short_line_whatever_it_quotes() {
    for message in
        ["short".to_owned(), "ä€🦀".repeat(300), "two\n\n  lines\u{1b}[31m\r\nred".to_owned()]
    {
        let said = said_about(vec![finding(Action::Warn, &message)]);
        let warning = said["warnings"][0].as_str().expect("a warning");
        assert!(warning.chars().count() < 256, "{}", warning.chars().count());
        assert!(!warning.contains(char::is_control), "{warning:?}");
        assert!(warning.starts_with("canary-step: spec.http[0]: "), "{warning}");
        assert_eq!(warning.ends_with('…'), message.len() > 1000, "{warning}");
        assert_eq!(said["allowed"], true);
    }
}

/// A warning without the rule and the path that it begins with.
fn warned(message: &str) -> String {
    let said = said_about(vec![finding(Action::Warn, message)]);
    let warning = said["warnings"][0].as_str().expect("a warning");
    warning.strip_prefix("canary-step: spec.http[0]: ").expect("the prefix").to_owned()
}

#[test]
fn the_lines_of_a_warning_become_sentences() {
    for (message, want) in [
        ("v3 is not defined\n  Passes: add v3 first.", "v3 is not defined. Passes: add v3 first."),
        ("gone.\n  Did you mean v1?\n  Passes: v1", "gone. Did you mean v1? Passes: v1"),
        ("the pods carry:\n  v1,\n  v2", "the pods carry: v1, v2"),
        ("look!\n\n  there;\n  \u{65e5}\u{672c}", "look! there; \u{65e5}\u{672c}"),
    ] {
        assert_eq!(warned(message), want);
    }
}

#[test]
fn a_long_warning_keeps_what_is_wrong_and_what_would_pass() {
    let why = "The subset wants version=v2, and the pods carry other labels. ".repeat(6);
    for way_out in [
        "Passes: add v2 first.",
        "Passes now: v2 up to 50.",
        "Passes without a warning: this once v2 is ready.",
    ] {
        let warning = warned(&format!("v2 selects no ready pod\n  {why}\n  {way_out}"));
        assert!(warning.starts_with("v2 selects no ready pod. The subset"), "{warning}");
        assert!(warning.ends_with(&format!("… {way_out}")), "{warning}");
        assert_eq!(warning.chars().count(), 255 - "canary-step: spec.http[0]: ".len(), "{warning}");
    }
    // Both too long: each keeps its beginning.
    let warning = warned(&format!("{}\n  Passes: {}", "wrong ".repeat(60), "right ".repeat(60)));
    assert!(warning.starts_with("wrong wrong"), "{warning}");
    assert!(warning.contains("… Passes: right right") && warning.ends_with('…'), "{warning}");
}

#[test]
fn a_refusal_shows_at_most_five_lines_per_finding_and_no_blank_one() {
    let long = (0..9).map(|n| format!("line {n}\n\n")).collect::<String>();
    let mut findings =
        (0..12).map(|n| finding(Action::Deny, &format!("{n}: {long}"))).collect::<Vec<_>>();
    findings.push(finding(Action::Audit, "nobody sees this"));
    let said = said_about(findings);
    let message = said["status"]["message"].as_str().expect("a message");
    assert_eq!(message.lines().count(), 10 * 5 + 1, "{message}");
    assert!(message.lines().all(|line| !line.trim().is_empty()), "{message}");
    assert!(message.ends_with("... and 2 more; correct these first."), "{message}");
    assert!(!said.to_string().contains("nobody sees this"));
    assert_eq!(said["auditAnnotations"]["rules"], "canary-step");
    assert_eq!(said["auditAnnotations"]["verdict"], "deny");
}

#[test]
fn a_finding_that_is_only_audited_is_annotated_and_not_shown() {
    let said = said_about(vec![finding(Action::Audit, "quiet")]);
    assert_eq!(said["allowed"], true);
    assert_eq!(said["warnings"], serde_json::Value::Null);
    assert_eq!(said["auditAnnotations"]["verdict"], "allow");
    assert_eq!(said["auditAnnotations"]["rules"], "canary-step");
}

fn request(over: serde_json::Value) -> Vec<u8> {
    let mut request = serde_json::json!({
        "uid": "u-1",
        "resource": {"group": "networking.istio.io", "version": "v1", "resource": "virtualservices"},
        "operation": "CREATE",
        "namespace": "shop",
        "userInfo": {"username": "ada"},
        "object": {"metadata": {"generateName": "reviews-", "namespace": "other"}, "spec": {}},
        "oldObject": null,
        "options": {"kind": "CreateOptions"},
    });
    let fields = request.as_object_mut().expect("an object");
    for (name, value) in over.as_object().expect("an object") {
        fields.insert(name.clone(), value.clone());
    }
    serde_json::json!({"apiVersion": API_VERSION, "kind": KIND, "request": request})
        .to_string()
        .into_bytes()
}

#[test]
fn what_is_judged_and_what_is_not() {
    let core = serde_json::json!({"group": "", "version": "v1", "resource": "pods"});
    let rules = serde_json::json!({"group": "networking.istio.io", "version": "v1", "resource": "destinationrules"});
    let entries = serde_json::json!({"group": "networking.istio.io", "version": "v1", "resource": "serviceentries"});
    let canaries =
        serde_json::json!({"group": "flagger.app", "version": "v1beta1", "resource": "canaries"});
    let of_argo = |resource: &str| serde_json::json!({"group": "argoproj.io", "version": "v1alpha1", "resource": resource});
    let (rollouts, applications) = (of_argo("rollouts"), of_argo("applications"));
    let object = serde_json::json!({"spec": {"hosts": ["a"]}});
    let rule = serde_json::json!({"spec": {"host": "a"}});
    for (over, want, is_noted) in [
        (serde_json::json!({}), "create", false),
        (serde_json::json!({"operation": "UPDATE"}), "create", false),
        (serde_json::json!({"operation": "UPDATE", "oldObject": object}), "update", false),
        (serde_json::json!({"oldObject": object}), "create", false),
        (
            serde_json::json!({"operation": "DELETE", "object": null, "oldObject": object}),
            "delete",
            false,
        ),
        (serde_json::json!({"operation": "DELETE", "object": null}), "delete of nothing", false),
        (
            serde_json::json!({"operation": "DELETE", "object": null, "oldObject": {"spec": 7}}),
            "delete of nothing",
            false,
        ),
        (serde_json::json!({"object": {"spec": 7}}), "unreadable", false),
        (serde_json::json!({"object": null}), "nothing", false),
        (serde_json::json!({"subResource": "status"}), "not ours", false),
        (serde_json::json!({"resource": rules, "object": rule}), "create of rules", false),
        (serde_json::json!({"resource": rules, "object": {"spec": 7}}), "unreadable", false),
        (serde_json::json!({"resource": rules, "subResource": "status"}), "not ours", false),
        (serde_json::json!({"resource": entries}), "not ours", false),
        (serde_json::json!({"resource": canaries}), "create of a Canary", false),
        (serde_json::json!({"resource": canaries, "object": {"spec": 7}}), "not ours", false),
        (serde_json::json!({"resource": canaries, "object": null}), "not ours", false),
        (serde_json::json!({"resource": canaries, "subResource": "status"}), "not ours", false),
        (
            serde_json::json!({"resource": rollouts, "operation": "UPDATE", "oldObject": object}),
            "update of a Rollout",
            false,
        ),
        (serde_json::json!({"resource": applications}), "not ours", true),
        (serde_json::json!({"resource": core, "object": null}), "not ours", true),
    ] {
        let asked = parse(&request(over.clone())).expect("a review");
        let got = match asked.review.as_ref().map(|review| &review.operation) {
            None => "nothing",
            Some(Operation::VirtualService(Write::Create(_))) => "create",
            Some(Operation::VirtualService(Write::Update { .. })) => "update",
            Some(Operation::VirtualService(Write::Delete(Some(_)))) => "delete",
            Some(Operation::VirtualService(Write::Delete(None))) => "delete of nothing",
            Some(Operation::DestinationRule(Write::Create(_))) => "create of rules",
            Some(Operation::DestinationRule(_)) => "another write of rules",
            Some(Operation::Unreadable { .. }) => "unreadable",
            Some(Operation::Canary(Write::Create(_))) => "create of a Canary",
            Some(Operation::Rollout(Write::Update { .. })) => "update of a Rollout",
            Some(Operation::Canary(_) | Operation::Rollout(_)) => "another write of these",
            Some(Operation::NotOurs) => "not ours",
        };
        assert_eq!((got, asked.note.is_some()), (want, is_noted), "{over}");
    }
}

#[test]
fn names_come_from_the_request_and_then_from_the_object() {
    for (over, want) in [
        (serde_json::json!({}), ("shop", "reviews-")),
        (serde_json::json!({"name": "reviews"}), ("shop", "reviews")),
        (serde_json::json!({"name": "", "namespace": ""}), ("other", "reviews-")),
    ] {
        let review = parse(&request(over.clone())).expect("a review").review.expect("an object");
        assert_eq!((review.namespace.as_str(), review.name.as_str()), want, "{over}");
        assert_eq!((review.user.as_str(), review.dry_run), ("ada", false));
    }
}
