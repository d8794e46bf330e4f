//! Work per review stays in proportion to what is written: a quadratic step would keep these tests for minutes.

use serde_json::{Value, json};
use sluicegate::cluster;
use sluicegate::istio::{Arrival, Condition, ConditionIndex, Reading, RouteMatch};
use sluicegate::policy::{Action, Operation, Policies, Review, Verdict, evaluate};
use sluicegate::rules;
use sluicegate::world::{Kind, Mesh};

const REVIEWS: &str = include_str!("../cases/worlds/reviews.yaml");

fn judge(old: &Value, new: &Value) -> Verdict {
    judge_with("", old, new)
}

/// With further objects in the world; one of the same name replaces an earlier one.
fn judge_with(further: &str, old: &Value, new: &Value) -> Verdict {
    let mut documents = cluster::parse("reviews", REVIEWS).expect("the world of the cases");
    documents.extend(cluster::parse("further", further).expect("further objects"));
    let world = cluster::world(Mesh::default(), &documents, "shop");
    let whole = |spec: &Value| {
        json!({"metadata": {"name": "reviews", "namespace": "shop"}, "spec": spec}).to_string()
    };
    let review = Review {
        operation: Operation::parse(
            Kind::VirtualService,
            Some(whole(old).as_str()),
            Some(whole(new).as_str()),
        ),
        namespace: "shop".to_owned(),
        name: "reviews".to_owned(),
        user: "somebody".to_owned(),
        dry_run: false,
    };
    let policies = Policies::new(Vec::new(), rules::ALL);
    evaluate(policies.in_force(&review, &world), &review, &world)
}

fn destination(subset: &str, weight: u32) -> Value {
    json!({"destination": {"host": "reviews", "subset": subset}, "weight": weight})
}

fn spec(http: Vec<Value>) -> Value {
    json!({"hosts": ["reviews"], "http": http})
}

/// Routes by path, each to one subset, in front of a split.
fn by_path(count: usize, subset: &str, v2: u32) -> Value {
    let routes = (0..count).map(|index| {
        json!({
            "match": [{"uri": {"prefix": format!("/path-{index}/")}}],
            "route": [destination(subset, 100)],
        })
    });
    let split = json!({"route": [destination("v1", 100 - v2), destination("v2", v2)]});
    spec(routes.chain([split]).collect())
}

fn condition(block: Value) -> Condition {
    let block: RouteMatch = serde_json::from_value(block).expect("a match");
    Condition::of(&block, &Arrival::at("mesh", "shop"), Reading::Usual).expect("a condition")
}

/// A name and the match of the route at a place.
type Shape<'a> = (&'a str, fn(usize) -> Value);

/// Comparisons that an index makes while each of its conditions is asked about once.
fn steps(conditions: &[Condition]) -> u64 {
    let index = ConditionIndex::new(conditions.iter().enumerate());
    for (at, condition) in conditions.iter().enumerate() {
        assert_eq!(index.first_covering(condition).map(|(found, _)| found), Some(at));
    }
    index.steps()
}

#[test]
fn looking_for_a_route_compares_a_few_of_thousands() {
    let shapes: [Shape<'_>; 5] = [
        ("paths", |at| json!({"uri": {"exact": format!("/{at}")}})),
        ("prefixes", |at| json!({"uri": {"prefix": format!("/{at}/")}})),
        (
            "headers under one path",
            |at| json!({"uri": {"prefix": "/api"}, "headers": {"x-tenant": {"exact": format!("t{at}")}}}),
        ),
        ("regular expressions", |at| json!({"uri": {"regex": format!("/{at}/.*")}})),
        ("names", |at| json!({"sniHosts": [format!("h{at}.shop.example.com")]})),
    ];
    for (name, shape) in shapes {
        for count in [1_000, 4_000] {
            let conditions = (0..count).map(|at| condition(shape(at))).collect::<Vec<_>>();
            let steps = steps(&conditions);
            assert!(steps <= 3 * count as u64, "{name}: {steps} steps for {count}");
        }
    }
}

#[test]
fn a_rise_among_two_thousand_routes_is_found() {
    let verdict = judge(&by_path(2_000, "v1", 5), &by_path(2_000, "v2", 5));
    assert!(!verdict.allowed());
    assert!(judge(&by_path(2_000, "v1", 5), &by_path(2_000, "v1", 10)).allowed());
    assert!(judge(&by_path(2_000, "v2", 5), &by_path(2_000, "v1", 5)).allowed(), "a rollback");
}

/// How many more findings of its kind a message counts.
fn more_of(message: &str) -> usize {
    let rest = message.split("The same is wrong in ").nth(1);
    rest.and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn what_is_built_to_be_slow_is_answered() {
    let route =
        |block: Value, subset: &str| json!({"match": [block], "route": [destination(subset, 100)]});
    let nested = |at: usize| json!({"uri": {"prefix": format!("/{}", "a".repeat(600 - at))}});
    let regex = |at: usize| json!({"headers": {"x": {"regex": format!("a{at}")}}});
    let without = |at: usize| json!({"withoutHeaders": {"x": {"exact": format!("a{at}")}}});
    let shapes: [(&str, &dyn Fn(usize) -> Value); 3] =
        [("nested", &nested), ("regex", &regex), ("without", &without)];
    for (name, shape) in shapes {
        let all = |subset| spec((0..600).map(|at| route(shape(at), subset)).collect());
        let verdict = judge(&all("v1"), &all("v2"));
        // A header that is asked for is an opt-in; the others are everybody's requests.
        assert_eq!(verdict.allowed(), name == "regex", "{name}: {verdict:?}");
        assert!(judge(&all("v2"), &all("v1")).allowed(), "{name}: a rollback");
    }
    let many = |shift: usize| {
        let entries =
            (0..5_000).map(|at| destination(&format!("s{at}"), 1 + (at as u32 + shift as u32) % 7));
        json!({"route": entries.collect::<Vec<_>>()})
    };
    let verdict = judge(&spec(vec![many(0)]), &spec(vec![many(1)]));
    let undefined = verdict.findings.iter().filter(|finding| finding.rule == "subset-defined");
    let counted = undefined.map(|finding| 1 + more_of(&finding.message)).sum::<usize>();
    assert_eq!(counted, 5_000, "each subset that nobody defines is counted");
}

#[test]
fn the_same_mistake_in_a_thousand_places_is_told_once_and_counted() {
    let routes = |v9: u32| {
        let route = |index| {
            json!({
                "match": [{"uri": {"prefix": format!("/path-{index}/")}}],
                "route": [destination("v1", 100 - v9), destination("v9", v9)],
            })
        };
        spec((0..1000).map(route).collect())
    };
    let verdict = judge(&routes(0), &routes(10));
    let told = verdict.findings.iter().filter(|finding| finding.rule == "subset-defined");
    let told = told.collect::<Vec<_>>();
    assert_eq!(told.len(), 64);
    assert_eq!(told.iter().map(|finding| more_of(&finding.message)).sum::<usize>(), 936);
}

/// Also where it only earns a warning, because nobody's requests are at stake.
#[test]
fn a_thousand_hosts_that_nobody_has_are_told_once_and_counted() {
    let routes = |host: &str| {
        let route = |index| {
            json!({
                "match": [{"uri": {"prefix": format!("/path-{index}/")}}],
                "route": [{"destination": {"host": format!("{host}-{index}")}}],
            })
        };
        json!({"hosts": ["shop.example.com"], "http": (0..1000).map(route).collect::<Vec<_>>()})
    };
    let served = spec(vec![json!({"route": [destination("v1", 100)]})]);
    let others = |action| if action == Action::Warn { Action::Deny } else { Action::Warn };
    for (old, action) in [(routes("former"), Action::Warn), (served, Action::Deny)] {
        let mut new = routes("nobody");
        new["hosts"] = old["hosts"].clone();
        let verdict = judge(&old, &new);
        let of = |action| {
            let own = verdict.of_action(action).filter(|own| own.rule == "destination-exists");
            own.collect::<Vec<_>>()
        };
        let told = of(action);
        assert_eq!((told.len(), of(others(action)).len()), (64, 0), "{action:?}");
        let counted = told.iter().map(|own| 1 + more_of(&own.message)).sum::<usize>();
        assert_eq!(counted, 1000, "{action:?}");
    }
}

/// Of what the text says, too; and where the stored object had some of it, what is new is what is refused.
#[test]
fn the_same_slip_in_a_thousand_routes_is_told_once_and_counted() {
    let routes = |wrong: usize| {
        let route = |index| {
            let v2 = if index < wrong { 2 } else { 1 };
            json!({
                "match": [{"uri": {"prefix": format!("/path-{index}/")}}],
                "route": [destination("v1", 99), destination("v2", v2)],
            })
        };
        spec((0..1000).map(route).collect())
    };
    let verdict = judge(&routes(900), &routes(1000));
    for (action, count) in [(Action::Deny, 100), (Action::Warn, 900)] {
        let told = verdict.of_action(action).filter(|own| own.rule == "weight-sum");
        let told = told.collect::<Vec<_>>();
        assert_eq!(told.len(), 64, "{action:?}");
        assert_eq!(told.iter().map(|own| 1 + more_of(&own.message)).sum::<usize>(), count);
        assert!(told.iter().all(|own| own.message.contains("the weights add up to 101")));
        let is_old = |message: &str| message.contains("It was so before this write.");
        assert!(told.iter().all(|own| is_old(&own.message) == (action == Action::Warn)));
    }
}

/// What is left out is said, and nothing is said where nothing is.
#[test]
fn what_is_not_compared_is_said() {
    let is_said = |verdict: &Verdict| {
        verdict.findings.iter().any(|own| own.message.contains("than is compared in one write"))
    };
    // Each needs the header to be absent, so that each may cover any other: that takes a comparison for every pair.
    let without = |at: usize, subset: &str| {
        json!({
            "match": [{"withoutHeaders": {"x": {"exact": format!("a{at}")}}}],
            "route": [destination(subset, 100)],
        })
    };
    let all = |count: usize, subset: &str| {
        spec(
            (0..count)
                .map(|at| without(at, subset))
                .chain([json!({"route": [destination("v1", 100)]})])
                .collect(),
        )
    };
    assert!(is_said(&judge(&all(800, "v1"), &all(800, "v2"))), "comparisons of conditions");
    assert!(!is_said(&judge(&all(20, "v1"), &all(20, "v2"))));

    // A host with more versions than are asked what they have in common.
    let many = |count: usize, shift: usize| {
        let subset =
            |at: usize| json!({"name": format!("s{at}"), "labels": {"version": format!("s{at}")}});
        let rule = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": {"name": "reviews", "namespace": "shop"},
            "spec": {"host": "reviews", "subsets": (0..count).map(subset).collect::<Vec<_>>()},
        });
        let split = |heavy: usize| {
            let weight = |at| if at == heavy { 2 } else { 1 };
            let all = (0..count).map(|at| destination(&format!("s{at}"), weight(at)));
            spec(vec![json!({"route": all.collect::<Vec<_>>()})])
        };
        judge_with(&rule.to_string(), &split(0), &split(shift))
    };
    assert!(is_said(&many(300, 1)), "versions of one host");
    assert!(!is_said(&many(200, 1)));
}
