//! What must hold for every write, not only for the written cases.

use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate::cluster;
use sluicegate::policy::{Operation, Policies, Review, Verdict, evaluate, fractions};
use sluicegate::rules;
use sluicegate::world::{Kind, Mesh, World};

const REVIEWS: &str = include_str!("../cases/worlds/reviews.yaml");

fn reviews() -> World {
    let documents = cluster::parse("reviews", REVIEWS).expect("the world of the cases");
    cluster::world(Mesh::default(), &documents, "shop")
}

/// Worlds from everything to nothing.
fn worlds() -> Vec<World> {
    let documents = cluster::parse("reviews", REVIEWS).expect("the world of the cases");
    let without = |kind: &str| {
        let kept = documents
            .iter()
            .filter(|document| document.value["kind"] != kind)
            .cloned()
            .collect::<Vec<_>>();
        cluster::world(Mesh::default(), &kept, "shop")
    };
    vec![
        reviews(),
        without("DestinationRule"),
        without("Deployment"),
        without("Service"),
        World::empty(Mesh::default()),
        World::new(Mesh::default()),
        World::blank(Mesh::default()),
    ]
}

fn judge(old: Option<&Value>, new: &Value, world: &World) -> Verdict {
    let whole = |spec: &Value| {
        json!({"metadata": {"name": "reviews", "namespace": "shop"}, "spec": spec}).to_string()
    };
    let review = Review {
        operation: Operation::parse(
            Kind::VirtualService,
            old.map(whole).as_deref(),
            Some(&whole(new)),
        ),
        namespace: "shop".to_owned(),
        name: "reviews".to_owned(),
        user: "somebody".to_owned(),
        dry_run: false,
    };
    let policies = Policies::new(Vec::new(), rules::ALL);
    evaluate(policies.in_force(&review, world), &review, world)
}

fn destination(subset: &str, weight: Option<u32>) -> Value {
    match weight {
        Some(weight) => {
            json!({"destination": {"host": "reviews", "subset": subset}, "weight": weight})
        }
        None => json!({"destination": {"host": "reviews", "subset": subset}}),
    }
}

fn split(v1: u32, v2: u32) -> Value {
    json!({"hosts": ["reviews"], "http": [{"route": [destination("v1", Some(v1)), destination("v2", Some(v2))]}]})
}

/// Match blocks of which no two can hold for the same request.
fn apart(index: usize) -> Value {
    json!([{"uri": {"exact": format!("/{index}")}}])
}

/// A VirtualService-like value with anything in it.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!("reviews")),
        Just(json!({"exact": "x"})),
    ];
    let names = prop::sample::select(vec![
        "hosts",
        "http",
        "tcp",
        "tls",
        "route",
        "match",
        "destination",
        "host",
        "subset",
        "weight",
        "port",
        "number",
        "uri",
        "headers",
        "prefix",
        "regex",
        "exact",
        "gateways",
        "exportTo",
        "sourceLabels",
        "name",
        "redirect",
        "delegate",
    ]);
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names.clone(), inner, 0..6).prop_map(|map| map
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<Value>()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The older version may always have everything back, from every split, in every world, also with a sum that is wrong.
    #[test]
    fn any_rollback_is_admitted(v1 in 0u32..=100, v2 in 1u32..=100, rest in prop::option::of(Just(0u32)), wrong in 1u32..=100) {
        let old = split(v1, v2);
        let whole = json!({"hosts": ["reviews"], "http": [{"route": [destination("v1", None)]}]});
        let zeroed = json!({"hosts": ["reviews"], "http": [{"route": [
            destination("v1", Some(wrong)),
            destination("v2", rest),
        ]}]});
        for world in worlds() {
            for new in [&whole, &zeroed] {
                let verdict = judge(Some(&old), new, &world);
                prop_assert!(verdict.allowed(), "{old} -> {new}: {verdict:?}");
            }
        }
    }

    /// Any step down passes, too.
    #[test]
    fn any_lowering_is_admitted(from in 1u32..=100, by in 1u32..=100) {
        let to = from.saturating_sub(by);
        for world in worlds() {
            let verdict = judge(Some(&split(100 - from, from)), &split(100 - to, to), &world);
            prop_assert!(verdict.allowed(), "{from} -> {to}: {verdict:?}");
        }
    }

    /// A step up passes exactly as far as the policy says.
    #[test]
    fn a_rise_passes_up_to_the_limit(from in 0u32..=100, to in 0u32..=100) {
        prop_assume!(to > from);
        let verdict = judge(Some(&split(100 - from, from)), &split(100 - to, to), &reviews());
        // Where v2 carries more already, age and weight contradict each other and nobody is stopped.
        let expected = to - from <= 50 || from > 50;
        prop_assert_eq!(verdict.allowed(), expected, "{} -> {}: {:?}", from, to, verdict);
    }

    /// The order of destinations means nothing.
    #[test]
    fn permuting_destinations_changes_no_verdict(old in (0u32..=100, 0u32..=100), new in (0u32..=100, 0u32..=100)) {
        let swap = |spec: &Value| {
            let mut spec = spec.clone();
            let route = spec.pointer_mut("/http/0/route").and_then(Value::as_array_mut).expect("a route");
            route.reverse();
            spec
        };
        let world = reviews();
        let (old, new) = (split(old.0, old.1), split(new.0, new.1));
        let straight = judge(Some(&old), &new, &world);
        for (old, new) in [(&old, &swap(&new)), (&swap(&old), &new), (&swap(&old), &swap(&new))] {
            let turned = judge(Some(old), new, &world);
            prop_assert_eq!(straight.allowed(), turned.allowed());
            let rules = |verdict: &Verdict| {
                let mut rules = verdict.findings.iter().map(|finding| (finding.rule, finding.action)).collect::<Vec<_>>();
                rules.sort();
                rules
            };
            prop_assert_eq!(rules(&straight), rules(&turned));
        }
    }

    /// The order of routes that do not overlap means nothing.
    #[test]
    fn permuting_routes_that_do_not_overlap_changes_no_verdict(
        weights in prop::collection::vec((0u32..=100, 0u32..=100), 1..6),
        seed in any::<u64>(),
    ) {
        let route = |index: usize, v2: u32| json!({
            "match": apart(index),
            "route": [destination("v1", Some(100 - v2)), destination("v2", Some(v2))],
        });
        let spec = |routes: Vec<Value>| json!({"hosts": ["reviews"], "http": routes});
        let old = spec(weights.iter().enumerate().map(|(index, (old, _))| route(index, *old)).collect());
        let mut routes = weights.iter().enumerate().map(|(index, (_, new))| route(index, *new)).collect::<Vec<_>>();
        let straight = spec(routes.clone());
        let count = routes.len();
        for step in 0..count {
            routes.swap(step, (seed.rotate_left(step as u32 * 7) % count as u64) as usize);
        }
        let world = reviews();
        let (a, b) = (judge(Some(&old), &straight, &world), judge(Some(&old), &spec(routes), &world));
        prop_assert_eq!(a.allowed(), b.allowed());
        prop_assert_eq!(a.findings.len(), b.findings.len());
    }

    /// Shares sum to 1, or are all 0 where the weights are.
    #[test]
    fn shares_sum_to_one(weights in prop::collection::vec(prop::option::of(0i64..=i64::from(i32::MAX)), 1..8)) {
        let entries = weights.iter().map(|weight| match weight {
            Some(weight) => json!({"destination": {"host": "a"}, "weight": weight}),
            None => json!({"destination": {"host": "a"}}),
        });
        let route = serde_json::from_value(json!({"route": entries.collect::<Vec<_>>()})).expect("a route");
        let sum = fractions(&route).iter().sum::<f64>();
        let total = weights.iter().flatten().sum::<i64>();
        if weights.len() > 1 && total == 0 {
            prop_assert_eq!(sum, 0.0);
        } else {
            prop_assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        }
    }

    /// Nothing that JSON can say makes the core panic, and it always answers.
    #[test]
    fn no_input_panics(old in prop::option::of(anything()), new in anything()) {
        for world in [reviews(), World::new(Mesh::default()), World::blank(Mesh::default())] {
            let _ = judge(old.as_ref(), &new, &world);
        }
    }

    /// Nor does any text that is no JSON at all.
    #[test]
    fn no_text_panics(text in ".{0,64}") {
        for kind in Kind::ALL {
            let _ = Operation::parse(kind, Some(&text), Some(&text));
        }
    }
}
