//! `sluicegate check` and `sluicegate rules`, as a person types them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::desk::{Answer, Desk};

const WORLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/worlds/reviews.yaml");

fn split(v1: u32, v2: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: shop}}\n\
         spec:\n  hosts: [reviews]\n  http:\n  - route:\n    - destination: {{host: reviews, subset: v1}}\n      weight: {v1}\n    \
         - destination: {{host: reviews, subset: v2}}\n      weight: {v2}\n"
    )
}

#[test]
fn the_typo_is_denied_with_exit_code_1() {
    let desk = Desk::with(&[("old.yaml", &split(99, 1)), ("new.yaml", &split(1, 99))]);
    let answer = desk.run(&["check", "--old", "old.yaml", "--world", WORLD, "new.yaml"]);
    assert_eq!(answer.code(), 1, "{}", answer.err());
    assert!(
        answer.out().starts_with("denied: VirtualService shop/reviews (UPDATE)\n  canary-step: "),
        "{}",
        answer.out()
    );
}

#[test]
fn without_a_world_the_typo_is_denied_too_and_the_gap_is_said() {
    let desk = Desk::with(&[
        ("old.yaml", &split(99, 1)),
        ("new.yaml", &split(1, 99)),
        ("up.yaml", &split(90, 10)),
    ]);
    let answer = desk.run(&["check", "--old", "old.yaml", "new.yaml"]);
    assert_eq!(answer.code(), 1);
    assert!(answer.err().contains("were not looked up"), "{}", answer.err());
    assert_eq!(desk.run(&["check", "--old", "old.yaml", "up.yaml"]).code(), 0);
}

/// A ConfigMap as kubectl prints it, or what its key holds.
#[test]
fn the_history_of_a_file_tells_the_way_back() {
    let route = |subset: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: shop}}\n\
             spec: {{hosts: [reviews], http: [{{route: [{{destination: {{host: reviews, subset: {subset}}}}}]}}]}}\n"
        )
    };
    let kept = r#"{"routes": [{"namespace": "shop", "name": "reviews", "route": "http", "reigns": [{"host": "reviews.shop.svc.cluster.local", "subset": "blue", "until": "2026-11-26T12:00:00Z"}, {"host": "reviews.shop.svc.cluster.local", "subset": "green"}]}]}"#;
    let map = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: sluicegate}}\ndata:\n  history.json: '{kept}'\n"
    );
    let desk = Desk::with(&[
        ("old.yaml", &route("green")),
        ("new.yaml", &route("blue")),
        ("map.yaml", &map),
        ("history.json", kept),
        ("empty.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sluicegate}\n"),
    ]);
    let world =
        ["--world", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/worlds/blue-green.yaml")];
    let check = |history: &[&str]| {
        let arguments = [&["check", "--old", "old.yaml"][..], &world, history, &["new.yaml"]];
        desk.run(&arguments.concat())
    };
    assert_eq!(check(&[]).code(), 1);
    for file in ["map.yaml", "history.json"] {
        let answer = check(&["--history", file]);
        assert_eq!(answer.code(), 0, "{}{}", answer.out(), answer.err());
        assert!(answer.out().contains("until 2026-11-26T12:00:00Z"), "{}", answer.out());
    }
    let answer = check(&["--history", "empty.yaml"]);
    assert_eq!(answer.code(), 2);
    assert!(answer.err().contains("kubectl get configmap sluicegate"), "{}", answer.err());
}

#[test]
fn the_json_has_the_promised_shape() {
    let desk = Desk::with(&[("old.yaml", &split(99, 1)), ("new.yaml", &split(1, 99))]);
    let answer =
        desk.run(&["check", "--old", "old.yaml", "--world", WORLD, "-o", "json", "new.yaml"]);
    assert_eq!(answer.code(), 1);
    let json = answer.json();
    let review = &json["reviews"][0];
    assert_eq!(
        review["object"],
        serde_json::json!({"kind": "VirtualService", "namespace": "shop", "name": "reviews"})
    );
    assert_eq!(
        (&review["operation"], &review["allowed"]),
        (&Value::from("UPDATE"), &Value::from(false))
    );
    let violation = &review["violations"][0];
    assert_eq!(violation["rule"], "canary-step");
    assert_eq!(violation["action"], "deny");
    assert_eq!(violation["path"], "spec.http[0].route[1]");
    assert!(violation["message"].as_str().expect("text").contains("99 %"));
    assert_eq!(json.as_object().expect("an object").len(), 1);
    assert_eq!(violation.as_object().expect("an object").len(), 4);
}

#[test]
fn a_stored_object_in_the_world_makes_it_an_update() {
    let desk = Desk::with(&[("world/stored.yaml", &split(99, 1)), ("new.yaml", &split(1, 99))]);
    let answer =
        desk.run(&["check", "--world", "world", "--world", WORLD, "-o", "json", "new.yaml"]);
    assert_eq!(answer.json()["reviews"][0]["operation"], "UPDATE");
    assert_eq!(answer.code(), 1);
}

#[test]
fn a_rollback_is_admitted_with_exit_code_0() {
    let desk = Desk::with(&[
        ("old.yaml", &split(20, 80)),
        ("new.yaml", &split(100, 0)),
        ("empty/none.yaml", "\n"),
    ]);
    for world in [WORLD, "empty"] {
        let answer = desk.run(&["check", "--old", "old.yaml", "--world", world, "new.yaml"]);
        assert_eq!(answer.code(), 0, "{world}: {} {}", answer.out(), answer.err());
        assert!(answer.out().starts_with("admitted: "), "{}", answer.out());
    }
}

#[test]
fn what_stands_beside_is_world_as_if_applied_together() {
    let world = fs::read_to_string(WORLD).expect("the world");
    let desk =
        Desk::with(&[("all.yaml", &format!("{world}---\n{}", split(90, 10).replace("v2", "v3")))]);
    let answer = desk.run(&["check", "all.yaml"]);
    assert_eq!(answer.code(), 1);
    assert!(answer.out().contains("subset-defined"), "{}", answer.out());
    let desk = Desk::with(&[("all.yaml", &format!("{world}---\n{}", split(90, 10)))]);
    assert_eq!(desk.run(&["check", "all.yaml"]).code(), 0);
}

fn subsets(names: &[&str]) -> String {
    let subsets = names.iter().map(|name| format!("{{name: {name}, labels: {{version: {name}}}}}"));
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: shop}}\n\
         spec: {{host: reviews, subsets: [{}]}}\n",
        subsets.collect::<Vec<_>>().join(", ")
    )
}

/// Kind, operation and whether it is admitted, of each write in the order in which they were judged.
fn judged(answer: &Answer) -> Vec<(String, String, bool)> {
    let json = answer.json();
    let reviews = json["reviews"].as_array().expect("reviews");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let one = |review: &Value| {
        let allowed = review["allowed"].as_bool().expect("allowed");
        (text(&review["object"]["kind"]), text(&review["operation"]), allowed)
    };
    reviews.iter().map(one).collect()
}

#[test]
fn each_write_sees_those_before_it() {
    let world = fs::read_to_string(WORLD).expect("the world");
    let sequence = [split(100, 0), split(70, 30), split(40, 60), split(0, 100)].join("---\n");
    let desk = Desk::with(&[("world.yaml", &world), ("all.yaml", &sequence)]);
    let answer = desk.run(&["check", "--world", "world.yaml", "-o", "json", "all.yaml"]);
    let verbs = judged(&answer).into_iter().map(|(_, verb, allowed)| (verb, allowed));
    let update = || ("UPDATE".to_owned(), true);
    let create = ("CREATE".to_owned(), true);
    assert_eq!(verbs.collect::<Vec<_>>(), [create, update(), update(), update()]);
    // In one write it is a jump.
    let jump = [split(100, 0), split(0, 100)].join("---\n");
    let desk = Desk::with(&[("world.yaml", &world), ("all.yaml", &jump)]);
    assert_eq!(desk.run(&["check", "--world", "world.yaml", "all.yaml"]).code(), 1);
}

#[test]
fn a_new_destination_rule_comes_before_what_names_it() {
    let world = fs::read_to_string(WORLD).expect("the world");
    let (before, rest) =
        world.split_once("---\napiVersion: networking.istio.io/v1").expect("a rule");
    let rest = rest.split_once("---\n").expect("more").1;
    let desk = Desk::with(&[
        ("world.yaml", &format!("{before}---\n{rest}")),
        ("all.yaml", &format!("{}---\n{}", split(90, 10), subsets(&["v1", "v2"]))),
    ]);
    let answer = desk.run(&["check", "--world", "world.yaml", "-o", "json", "all.yaml"]);
    assert_eq!(answer.code(), 0, "{}", answer.out());
    let kinds = judged(&answer).into_iter().map(|(kind, _, _)| kind).collect::<Vec<_>>();
    assert_eq!(kinds, ["DestinationRule", "VirtualService"]);
}

#[test]
fn a_subset_may_go_after_its_share_and_not_before() {
    let strip = subsets(&["v1"]);
    let desk = Desk::with(&[
        ("world/now.yaml", &split(90, 10)),
        ("right.yaml", &[split(100, 0), strip.clone()].join("---\n")),
        ("wrong.yaml", &[strip, split(100, 0)].join("---\n")),
    ]);
    let check =
        |file: &str| desk.run(&["check", "--world", WORLD, "--world", "world", "-o", "json", file]);
    let right = judged(&check("right.yaml")).into_iter().map(|(_, _, allowed)| allowed);
    assert_eq!(right.collect::<Vec<_>>(), [true, true]);
    let wrong = check("wrong.yaml");
    assert_eq!(
        judged(&wrong),
        [
            ("DestinationRule".to_owned(), "UPDATE".to_owned(), false),
            ("VirtualService".to_owned(), "UPDATE".to_owned(), true),
        ]
    );
    assert_eq!(wrong.json()["reviews"][0]["violations"][0]["rule"], "subset-in-use");
}

#[test]
fn deletions_are_judged_one_after_the_other() {
    let (route, rule) = (split(90, 10), subsets(&["v1", "v2"]));
    let desk = Desk::with(&[
        ("world/now.yaml", &route),
        ("right.yaml", &[route.clone(), rule.clone()].join("---\n")),
        ("wrong.yaml", &[rule.clone(), route.clone()].join("---\n")),
        ("rule.yaml", &rule),
    ]);
    let check = |file: &str| {
        desk.run(&["check", "--delete", "--world", WORLD, "--world", "world", "-o", "json", file])
    };
    let allowed = |file: &str| {
        let judged = judged(&check(file)).into_iter();
        judged.map(|(_, verb, allowed)| {
            assert_eq!(verb, "DELETE");
            allowed
        })
    };
    assert_eq!(allowed("right.yaml").collect::<Vec<_>>(), [true, true]);
    assert_eq!(allowed("wrong.yaml").collect::<Vec<_>>(), [false, true]);
    assert_eq!(check("rule.yaml").code(), 1);
    // What is given is taken for stored where nothing else is known of it.
    let alone = desk.run(&["check", "--delete", "--world", WORLD, "right.yaml"]);
    assert_eq!(alone.code(), 0, "{}{}", alone.out(), alone.err());
    assert!(alone.out().starts_with("admitted: VirtualService shop/reviews (DELETE)\n"));
}

#[test]
fn standard_input_lists_and_json_are_read() {
    let desk = Desk::with(&[("old.yaml", &split(99, 1))]);
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}",
        split(1, 99).trim_end().replace('\n', "\n  ")
    );
    let answer = desk.run_with(&["check", "--old", "old.yaml", "-"], &list);
    assert_eq!(answer.code(), 1, "{} {}", answer.out(), answer.err());
    let json = r#"{"apiVersion":"networking.istio.io/v1beta1","kind":"VirtualService","metadata":{"name":"reviews","namespace":"shop"},
        "spec":{"hosts":["reviews"],"http":[{"route":[{"destination":{"host":"reviews","subset":"v2"}}]}]}}"#;
    assert_eq!(desk.run_with(&["check", "--old", "old.yaml", "-"], json).code(), 1);
}

#[test]
fn a_syntax_error_names_file_line_and_column() {
    let desk =
        Desk::with(&[("broken.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: [\n")]);
    let answer = desk.run(&["check", "broken.yaml"]);
    assert_eq!(answer.code(), 2);
    let place = answer.err().split("broken.yaml:").nth(1).map(str::to_owned).unwrap_or_default();
    let mut numbers = place.split(':');
    assert!(numbers.next().is_some_and(|line| line.parse::<u32>().is_ok()), "{}", answer.err());
    assert!(numbers.next().is_some_and(|column| column.parse::<u32>().is_ok()), "{}", answer.err());
}

#[test]
fn unusable_input_is_exit_code_2() {
    let desk = Desk::with(&[
        ("vs.yaml", &split(90, 10)),
        ("unknown-rule.yaml", "rules: {canary-stop: {action: Warn}}\n"),
        ("unknown-field.yaml", "steps: {max: 10}\n"),
        ("out-of-range.yaml", "step: {max: 500}\n"),
        ("structure-off.yaml", "rules: {structure: {action: 'Off'}}\n"),
    ]);
    for arguments in [
        vec!["check", "nowhere.yaml"],
        vec!["check"],
        vec!["check", "--policy", "unknown-rule.yaml", "vs.yaml"],
        vec!["check", "--policy", "unknown-field.yaml", "vs.yaml"],
        vec!["check", "--policy", "out-of-range.yaml", "vs.yaml"],
        vec!["check", "--policy", "structure-off.yaml", "vs.yaml"],
        vec!["check", "--world", "nowhere", "vs.yaml"],
        vec!["rules", "canary-stop"],
        vec!["serve"],
        vec!["schema", "canary"],
        vec!["self-test", "--kubeconfig", "nowhere"],
        vec!["unregister", "--kubeconfig", "nowhere"],
    ] {
        let answer = desk.run(&arguments);
        assert_eq!(answer.code(), 2, "{arguments:?}: {}", answer.err());
        assert!(!answer.err().is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_shape_that_no_server_takes_is_a_denial() {
    let desk = Desk::with(&[
        (
            "map.yaml",
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: {hosts: [a], http: {route: []}}\n",
        ),
        (
            "no-host.yaml",
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: {hosts: [a], http: [{route: [{destination: {}}]}]}\n",
        ),
        (
            "no-spec.yaml",
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n",
        ),
    ]);
    for file in ["map.yaml", "no-host.yaml", "no-spec.yaml"] {
        let answer = desk.run(&["check", "-o", "json", file]);
        assert_eq!(answer.code(), 1, "{file}: {}", answer.err());
        assert_eq!(answer.json()["reviews"][0]["violations"][0]["rule"], "structure", "{file}");
    }
}

#[test]
fn virtual_services_of_other_groups_are_ignored() {
    let other = split(1, 99).replace("networking.istio.io/v1", "example.com/v1");
    let desk = Desk::with(&[("other.yaml", &other)]);
    let answer = desk.run(&["check", "-o", "json", "other.yaml"]);
    assert_eq!(answer.code(), 0);
    assert_eq!(answer.json(), serde_json::json!({"reviews": []}));
}

#[test]
fn the_policy_of_a_file_is_in_force() {
    let strict = "apiVersion: sluicegate.dev/v1alpha1\nkind: CanaryPolicy\nmetadata: {name: strict}\nspec: {precedence: 1, step: {max: 5}}\n\
                  ---\napiVersion: sluicegate.dev/v1alpha1\nkind: CanaryPolicy\nmetadata: {name: loose}\nspec: {match: {hosts: [reviews]}, precedence: 2, mode: Warn}\n";
    let desk = Desk::with(&[
        ("old.yaml", &split(99, 1)),
        ("new.yaml", &split(1, 99)),
        ("strict.yaml", "{step: {max: 5}}\n"),
        ("ten.yaml", &split(90, 10)),
        ("both.yaml", strict),
    ]);
    let denied = desk.run(&["check", "--policy", "strict.yaml", "--old", "old.yaml", "ten.yaml"]);
    assert_eq!(denied.code(), 1, "{}", denied.err());
    assert!(denied.out().contains("5 points"), "{}", denied.out());
    let warned = desk.run(&["check", "--policy", "both.yaml", "--old", "old.yaml", "new.yaml"]);
    assert_eq!(warned.code(), 0, "{}", warned.out());
    assert!(warned.out().contains("warning: canary-step"), "{}", warned.out());
}

#[test]
fn the_policy_of_the_manual_can_be_used() {
    let manual = include_str!("../../docs/policy.md");
    let policy = manual.split("```").nth(1).and_then(|block| block.strip_prefix("yaml\n"));
    let desk = Desk::with(&[
        ("policy.yaml", policy.expect("a block of YAML")),
        ("old.yaml", &split(100, 0)),
        ("new.yaml", &split(94, 6)),
    ]);
    let arguments = ["check", "--policy", "policy.yaml", "--old", "old.yaml", "new.yaml"];
    // It selects namespaces by a label, and without a world none is known: such a namespace counts as selected.
    let answer = desk.run(&arguments);
    assert_eq!(answer.code(), 1, "{}{}", answer.out(), answer.err());
    assert!(answer.out().contains("policy shop"), "{}", answer.out());
}

#[test]
fn a_dry_run_and_a_namespace_are_as_on_the_server() {
    let nameless = split(90, 10).replace(", namespace: shop", "").replace("v2", "v3");
    let desk = Desk::with(&[("new.yaml", &nameless)]);
    let arguments = ["check", "--world", WORLD, "-n", "shop", "new.yaml"];
    assert_eq!(desk.run(&arguments).code(), 1);
    let dry = desk.run(&[&arguments[..], &["--dry-run"]].concat());
    assert_eq!(dry.code(), 0, "{}", dry.out());
    assert!(dry.out().contains("warning: subset-defined"), "{}", dry.out());
}

#[test]
fn what_istiod_was_told_comes_from_flags_and_from_its_config_map() {
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
        data: {mesh: \"defaultDestinationRuleExportTo: ['.']\"}\n";
    let broken = config.replace("['.']", "[");
    let old = split(100, 0);
    let desk = Desk::with(&[
        ("old.yaml", &old),
        ("new.yaml", &split(90, 10)),
        ("private/istio.yaml", config),
        ("broken/istio.yaml", &broken),
    ]);
    let base = ["check", "--world", WORLD, "--old", "old.yaml", "new.yaml"];
    let with = |more: &[&str]| desk.run(&[&base[..], more].concat());
    assert_eq!(with(&[]).code(), 0, "{}", with(&[]).out());
    let private = with(&["--world", "private"]);
    assert_eq!(private.code(), 1, "{}", private.out());
    assert!(private.out().contains("clients outside shop"), "{}", private.out());
    let public = ["--world", "private", "--default-destination-rule-export-to", "*"];
    assert_eq!(with(&public).code(), 0, "a flag wins: {}", with(&public).out());
    // A ConfigMap of another revision says nothing.
    let other = ["--world", "private", "--revision", "canary"];
    assert_eq!(with(&other).code(), 0, "{}", with(&other).out());
    let moved = ["--world", "private", "--istio-namespace", "infra"];
    assert_eq!(with(&moved).code(), 0, "{}", with(&moved).out());
    let broken = with(&["--world", "broken"]);
    assert_eq!(broken.code(), 2, "{}", broken.out());
    assert!(broken.err().contains("ConfigMap istio-system/istio"), "{}", broken.err());
}

#[test]
fn what_istiod_does_not_read_is_a_warning_and_what_nobody_knows_is_an_error() {
    let namespace = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{mesh: 'on'}}}}\n"
        )
    };
    let (old, new) = (split(100, 0), split(1, 99));
    let elsewhere = "apiVersion: v1\nkind: Service\nmetadata: {name: other, namespace: web}\n";
    let desk = Desk::with(&[
        ("old.yaml", &old),
        ("new.yaml", &new),
        ("shop/namespace.yaml", &namespace("shop")),
        ("web/service.yaml", elsewhere),
        ("web/namespace.yaml", &namespace("web")),
        ("bare/service.yaml", elsewhere),
    ]);
    let base = ["check", "--world", WORLD, "--world", "shop", "--old", "old.yaml", "new.yaml"];
    let with = |more: &[&str]| desk.run(&[&base[..], more].concat());
    let refused = with(&["--discovery-selector", "mesh=on"]);
    assert_eq!(refused.code(), 1, "{}{}", refused.out(), refused.err());
    let unread = with(&["--discovery-selector", "mesh=off", "--discovery-selector", "!mesh"]);
    assert_eq!(unread.code(), 0, "{}{}", unread.out(), unread.err());
    assert!(unread.out().contains("warning: namespace-read"), "{}", unread.out());
    let known = with(&["--discovery-selector", "mesh=on", "--world", "web"]);
    assert_eq!(known.code(), 1, "{}{}", known.out(), known.err());
    let open = with(&["--discovery-selector", "mesh=on", "--world", "bare"]);
    assert_eq!(open.code(), 2, "{}{}", open.out(), open.err());
    assert!(open.err().contains("which labels namespace web has"), "{}", open.err());
    let wrong = with(&["--discovery-selector", "mesh in on"]);
    assert_eq!(wrong.code(), 2, "{}", wrong.out());
    assert!(wrong.err().contains("a selector reads like"), "{}", wrong.err());
}

#[test]
fn the_rules_are_listed_and_explained() {
    let desk = Desk::with(&[]);
    let table = desk.run(&["rules"]);
    assert_eq!(table.code(), 0);
    for entry in sluicegate::rules::ALL {
        assert!(table.out().contains(&format!("| {} ", entry.id)), "{}", table.out());
        let manual = desk.run(&["rules", entry.id]);
        assert_eq!(manual.code(), 0);
        assert!(manual.out().starts_with(entry.id), "{}", manual.out());
    }
    assert!(desk.run(&["rules", "subset-ready"]).out().contains("minReady"));
    assert!(desk.run(&["rules", "canary-stop"]).err().contains("did you mean canary-step?"));
}

#[test]
fn the_examples_are_judged_as_the_demo_says() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/world");
    assert!(examples.is_dir());
    let demo = Desk::with(&[]).run(&["demo", "--plain"]);
    assert_eq!(demo.code(), 0, "{}{}", demo.out(), demo.err());
    assert!(demo.out().contains("10 of 10 verdicts as expected."), "{}", demo.out());
}
