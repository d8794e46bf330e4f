//! Canaries and Rollouts, in files and whatever JSON they are.

use std::fs;
use std::process::Command;

use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate::cluster;
use sluicegate::policy::{Action, Operation, Policies, Policy, Review, Verdict, evaluate};
use sluicegate::rules;
use sluicegate::world::{Kind, Mesh, World};

const ROLLOUTS: &str = include_str!("../cases/worlds/argo.yaml");

fn judge(kind: Kind, old: Option<&Value>, new: &Value, user: &str, world: &World) -> Verdict {
    let text = |spec: &Value| {
        json!({"metadata": {"name": "demo", "namespace": "shop"}, "spec": spec}).to_string()
    };
    let review = Review {
        operation: Operation::parse(kind, old.map(text).as_deref(), Some(&text(new))),
        namespace: "shop".to_owned(),
        name: "demo".to_owned(),
        user: user.to_owned(),
        dry_run: false,
    };
    let strict = json!({"rules": {"delivery-config": {"action": "Deny"}}});
    let strict = Policy::parse(rules::ALL, "strict", strict).expect("a policy");
    let policies = Policies::new(vec![strict], rules::ALL);
    evaluate(policies.in_force(&review, world), &review, world)
}

fn world() -> World {
    let documents = cluster::parse("argo", ROLLOUTS).expect("the world of the cases");
    cluster::world(Mesh::default(), &documents, "shop")
}

/// A value that may stand in any field of a plan.
fn anything() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        (-20i64..130).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!({})),
        prop::collection::vec((-20i64..130).prop_map(Value::from), 0..8).prop_map(Value::from),
    ]
}

fn canary() -> impl Strategy<Value = Value> {
    let fields = [
        "iterations",
        "maxWeight",
        "stepWeight",
        "stepWeights",
        "stepWeightPromotion",
        "threshold",
        "primaryReadyThreshold",
        "canaryReadyThreshold",
        "metrics",
        "webhooks",
        "match",
    ];
    let field = prop::sample::select(fields.to_vec()).prop_map(str::to_owned);
    let analysis = prop::collection::btree_map(field, anything(), 0..5);
    (analysis, anything(), any::<bool>()).prop_map(|(analysis, provider, skips)| {
        json!({"analysis": analysis, "skipAnalysis": skips, "targetRef": {"name": "demo"},
            "service": {"port": 80}, "provider": provider.as_str().map(|_| "istio")})
    })
}

fn rollout() -> impl Strategy<Value = Value> {
    let names = ["setWeight", "pause", "analysis", "experiment", "setHeaderRoute", "plugin"];
    let step = (prop::sample::select(names.to_vec()), anything());
    let step = step.prop_map(|(name, value)| json!({name: value}));
    let managed = prop::option::of(prop::sample::select(vec!["primary", "header-route"]));
    (prop::collection::vec(step, 0..6), managed, anything()).prop_map(
        |(steps, managed, analysis)| {
            let managed = managed.into_iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
            json!({"strategy": {"canary": {"steps": steps, "analysis": analysis, "trafficRouting": {
            "managedRoutes": managed, "istio": {"virtualService": {"name": "demo"}}}}}})
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever it is, there is an answer, the tool itself is not refused, and what was stored before is no reason to refuse it.
    #[test]
    fn nothing_panics_and_no_tool_is_refused(
        (old, new) in prop_oneof![(canary(), canary()), (rollout(), rollout())],
    ) {
        for world in [world(), World::new(Mesh::default()), World::blank(Mesh::default())] {
            for (kind, user) in [
                (Kind::Canary, "system:serviceaccount:istio-system:flagger"),
                (Kind::Rollout, "system:serviceaccount:argo-rollouts:argo-rollouts"),
            ] {
                let own = judge(kind, Some(&old), &new, user, &world);
                prop_assert!(own.allowed(), "{new}: {own:?}");
                let again = judge(kind, Some(&new), &new, "jane", &world);
                prop_assert!(again.findings.is_empty(), "{new}: {again:?}");
                let mut labelled = new.clone();
                labelled["template"] = json!({"metadata": {"labels": {"revision": "2"}}});
                let labelled = judge(kind, Some(&new), &labelled, "jane", &world);
                prop_assert!(labelled.findings.is_empty(), "{new}: {labelled:?}");
                let by_hand = judge(kind, None, &new, "jane", &world);
                prop_assert!(by_hand.is_decided(), "{new}");
            }
        }
    }
}

/// Objects as large as the API server takes them; a quadratic step would keep this test for minutes.
#[test]
fn work_is_in_proportion_to_what_is_written() {
    let count = 10_000;
    let metrics = |max: u32| {
        (0..count).map(move |_| json!({"name": "a", "templateRef": {}, "thresholdRange": {}, "threshold": max}))
    };
    let weights =
        |from: i64| (0..count).map(move |at| json!((at + from) % 101)).collect::<Vec<_>>();
    let canary = |from: i64| {
        json!({"targetRef": {"name": "demo"}, "analysis": {
            "metrics": metrics(1).collect::<Vec<_>>(), "stepWeights": weights(from)}})
    };
    let rollout = |from: i64| {
        let steps = (0..count)
            .flat_map(|at| [json!({"setWeight": (at * 51 + from) % 101}), json!({"pause": {}})]);
        let managed = (0..count).map(|at| json!({"name": format!("route-{at}")}));
        json!({"strategy": {"canary": {"steps": steps.collect::<Vec<_>>(), "trafficRouting": {
            "managedRoutes": managed.collect::<Vec<_>>(), "istio": {
                "virtualServices": vec![json!({"name": "demo", "routes": weights(0).iter().map(Value::to_string).collect::<Vec<_>>()}); 50]}}}}})
    };
    for (kind, old, new) in
        [(Kind::Canary, canary(0), canary(1)), (Kind::Rollout, rollout(0), rollout(1))]
    {
        let verdict = judge(kind, None, &new, "jane", &world());
        assert!(verdict.of_action(Action::Deny).count() >= 1, "{kind:?}");
        assert!(verdict.findings.len() <= 200, "{}", verdict.findings.len());
        judge(kind, Some(&old), &new, "jane", &world());
    }
}

/// `sluicegate check` judges them beside the VirtualServices that they drive, in whatever order these stand.
#[test]
fn files_of_a_release_are_judged_together() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = |name: &str, text: &str, arguments: &[&str]| {
        fs::write(folder.path().join(name), text).expect("a file");
        let answer = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
            .args(["check", name, "--namespace", "shop", "--world", "world"])
            .args(arguments)
            .current_dir(&folder)
            .output()
            .expect("the binary runs");
        let out = String::from_utf8_lossy(&answer.stdout).into_owned();
        (answer.status.code(), out, String::from_utf8_lossy(&answer.stderr).into_owned())
    };
    fs::create_dir(folder.path().join("world")).expect("a folder");
    let rollout = "{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: demo}, spec: {strategy: {canary: {stableService: demo-stable, canaryService: demo-canary, steps: [{setWeight: 50}, {pause: {}}], trafficRouting: {managedRoutes: [{name: primary}], istio: {virtualService: {name: demo}}}}}}}";
    let routes = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: demo}, spec: {hosts: [demo], http: [{name: primary, route: [{destination: {host: demo-stable}, weight: 100}, {destination: {host: demo-canary}, weight: 0}]}]}}";
    for files in [format!("{rollout}\n---\n{routes}"), format!("{routes}\n---\n{rollout}")] {
        let (code, out, err) = run("release.yaml", &files, &[]);
        assert_eq!(code, Some(0), "{out}{err}");
        assert!(out.contains("admitted: VirtualService shop/demo (CREATE)"), "{out}");
        assert!(out.contains("admitted: Rollout shop/demo (CREATE)"), "{out}");
        assert!(out.contains("primary is a route of your own"), "{out}");
    }
    // What was stored so is not told again.
    fs::write(folder.path().join("old.yaml"), rollout).expect("a file");
    let (_, out, err) =
        run("release.yaml", &format!("{routes}\n---\n{rollout}"), &["--old", "old.yaml"]);
    assert!(out.contains("admitted: Rollout shop/demo (UPDATE)"), "{out}{err}");
    assert!(!out.contains("delivery-config"), "{out}");
    let (code, out, _) = run("release.yaml", rollout, &["--delete"]);
    assert_eq!((code, out.as_str()), (Some(0), "admitted: Rollout shop/demo (DELETE)\n"));
    let (code, _, err) = run(
        "none.yaml",
        "{apiVersion: argoproj.io/v1alpha1, kind: Workflow, metadata: {name: a}}",
        &[],
    );
    assert_eq!(code, Some(0));
    assert!(err.contains("no Canary of flagger.app"), "{err}");
}
