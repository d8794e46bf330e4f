//! Route matching and shares against an independent oracle that answers one request after the other, as Envoy would. It shares no
//! code with the crate: it reads the JSON.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate::istio::{
    Arrival, Condition, ConditionIndex, Protocol, Reading, RouteMatch, VirtualServiceSpec,
};
use sluicegate::policy::{Change, Clients, Operation, Policies, PolicySpec, Review, evaluate};
use sluicegate::rules;
use sluicegate::world::{Kind, Mesh, World};

/// One request of one client in the mesh.
#[derive(Debug, Clone)]
struct Request {
    path: &'static str,
    method: &'static str,
    /// Lower-case names.
    headers: BTreeMap<&'static str, &'static str>,
    query: Option<&'static str>,
    port: i64,
    app: Option<&'static str>,
    namespace: &'static str,
}

/// Every request that the generated routes can tell apart, more or less.
fn requests() -> Vec<Request> {
    let mut all = Vec::new();
    for path in ["/", "/a", "/a/b", "/A/b", "/b"] {
        for x in [None, Some(""), Some("1"), Some("12"), Some("2")] {
            for y in [None, Some("1")] {
                for (method, query) in [("GET", None), ("POST", Some("1")), ("GET", Some("2"))] {
                    for (port, app, namespace) in [
                        (80, None, "shop"),
                        (81, Some("web"), "shop"),
                        (80, Some("api"), "bank"),
                        (80, Some("web"), "bank"),
                    ] {
                        let headers = [("x", x), ("y", y)].into_iter();
                        let headers = headers.filter_map(|(name, value)| Some((name, value?)));
                        let headers = headers.collect();
                        all.push(Request { path, method, headers, query, port, app, namespace });
                    }
                }
            }
        }
    }
    all
}

/// `StringMatch` on a value that is there.
fn says(test: &Value, value: &str, folds: bool) -> bool {
    let fold = |text: &str| if folds { text.to_lowercase() } else { text.to_owned() };
    if let Some(exact) = test["exact"].as_str() {
        return fold(value) == fold(exact);
    }
    if let Some(prefix) = test["prefix"].as_str() {
        return fold(value).starts_with(&fold(prefix));
    }
    match test["regex"].as_str() {
        None | Some("*" | ".*") => true,
        Some("/.*") => value.starts_with('/'),
        Some(".+") => !value.is_empty(),
        Some(other) => panic!("{other}"),
    }
}

fn entries<'a>(block: &'a Value, field: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    block[field].as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// Whether a block holds: first what istiod evaluates for the proxy, then what Envoy does for the request.
fn holds(block: &Value, request: &Request) -> bool {
    if block["port"].as_i64().is_some_and(|port| port != request.port) {
        return false;
    }
    if let Some(gateways) = block["gateways"].as_array() {
        if !gateways.iter().any(|gateway| gateway == "mesh") {
            return false;
        }
    } else {
        let other_label = entries(block, "sourceLabels")
            .any(|(_, value)| request.app.is_none_or(|app| value != app));
        let namespace = block["sourceNamespace"].as_str();
        if other_label || namespace.is_some_and(|namespace| namespace != request.namespace) {
            return false;
        }
    }
    let folds = block["ignoreUriCase"] == true;
    // Of any other attribute a bare `*` asks for presence; of a path it is an expression that RE2 does not take.
    let is_no_expression = block["uri"]["regex"] == "*";
    if !block["uri"].is_null() && (is_no_expression || !says(&block["uri"], request.path, folds)) {
        return false;
    }
    if !block["method"].is_null() && !says(&block["method"], request.method, false) {
        return false;
    }
    let header = |name: &str| request.headers.get(name.to_lowercase().as_str()).copied();
    let is_presence = |test: &Value| {
        test["regex"] == "*" || test.as_object().is_none_or(|fields| fields.is_empty())
    };
    entries(block, "headers")
        .all(|(name, test)| header(name).is_some_and(|value| says(test, value, false)))
        && entries(block, "withoutHeaders").all(|(name, test)| match header(name) {
            // Absent counts as empty, but where presence is asked for.
            None => is_presence(test) || !says(test, "", false),
            Some(value) => !says(test, value, false),
        })
        && entries(block, "queryParams")
            .all(|(_, test)| request.query.is_some_and(|value| says(test, value, false)))
}

/// The first route that takes the request.
fn first_route(spec: &Value, request: &Request) -> Option<usize> {
    spec["http"].as_array()?.iter().position(|route| match route["match"].as_array() {
        None => true,
        Some(blocks) => blocks.iter().any(|block| holds(block, request)),
    })
}

/// Requests out of so many that each subset gets, and out of how many, as Envoy's weighted clusters count.
fn counts(spec: &Value, route: usize) -> (BTreeMap<String, u64>, u64) {
    let entries = spec["http"][route]["route"].as_array().expect("destinations");
    let weight = |entry: &Value| match entries.len() {
        1 => 1,
        _ => entry["weight"].as_u64().unwrap_or(0),
    };
    let mut counts = BTreeMap::new();
    for entry in entries {
        let subset = entry["destination"]["subset"].as_str().expect("a subset").to_owned();
        *counts.entry(subset).or_default() += weight(entry);
    }
    let total = counts.values().sum();
    (counts, total)
}

/// The request as a block that holds for it alone.
fn as_block(request: &Request) -> RouteMatch {
    let texts = request.headers.iter().map(|(name, value)| (*name, json!({"exact": value})));
    let texts = texts.collect::<BTreeMap<_, _>>();
    let absent = ["x", "y"].into_iter().filter(|name| !request.headers.contains_key(name));
    let mut block = json!({
        "uri": {"exact": request.path},
        "method": {"exact": request.method},
        "headers": texts,
        "withoutHeaders": absent.map(|name| (name, json!({}))).collect::<BTreeMap<_, _>>(),
        "port": request.port,
        "sourceNamespace": request.namespace,
    });
    if let Some(query) = request.query {
        block["queryParams"] = json!({"q": {"exact": query}});
    }
    if let Some(app) = request.app {
        block["sourceLabels"] = json!({"app": app});
    }
    serde_json::from_value(block).expect("a block")
}

fn parsed(spec: &Value) -> VirtualServiceSpec {
    serde_json::from_value(spec.clone()).expect("a spec")
}

/// Text matches over few values, so that they meet.
fn text(values: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let value = prop::sample::select(values);
    prop_oneof![
        3 => value.clone().prop_map(|value| json!({"exact": value})),
        3 => value.prop_map(|value| json!({"prefix": value})),
        1 => Just(json!({})),
        1 => prop::sample::select(&["*", ".*"][..]).prop_map(|regex| json!({"regex": regex})),
    ]
}

fn path() -> impl Strategy<Value = Value> {
    let odd = prop::sample::select(&[".*", "/.*", ".+"][..]);
    prop_oneof![5 => text(&["/", "/a", "/a/b", "/A", "/b"]), 1 => odd.prop_map(|odd| json!({"regex": odd}))]
}

fn block() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(&["x", "X", "y"][..]);
    let header = || prop::collection::btree_map(names.clone(), text(&["1", "12", "2"]), 1..3);
    let field = |strategy: BoxedStrategy<Value>| prop::option::weighted(0.3, strategy);
    let any = |values: &'static [&'static str]| prop::sample::select(values);
    let fields = (
        (
            field(path().boxed()),
            field(text(&["GET", "POST"]).boxed()),
            field(header().prop_map(|all| json!(all)).boxed()),
            field(header().prop_map(|all| json!(all)).boxed()),
            field(text(&["1", "2"]).prop_map(|test| json!({"q": test})).boxed()),
        ),
        (
            prop::option::weighted(0.15, prop::sample::select(vec![json!(80), json!(81)])),
            prop::option::weighted(0.15, any(&["web", "api"]).prop_map(|app| json!({"app": app}))),
            prop::option::weighted(0.1, any(&["shop", "bank"]).prop_map(Value::from)),
            prop::option::weighted(
                0.1,
                prop::sample::select(vec![
                    json!(["mesh"]),
                    json!(["edge"]),
                    json!(["mesh", "edge"]),
                ]),
            ),
            prop::option::weighted(0.2, Just(json!(true))),
        ),
    );
    fields.prop_map(
        |((uri, method, headers, without, query), (port, labels, namespace, gateways, folds))| {
            let fields = [
                ("uri", uri),
                ("method", method),
                ("headers", headers),
                ("withoutHeaders", without),
                ("queryParams", query),
                ("port", port),
                ("sourceLabels", labels),
                ("sourceNamespace", namespace),
                ("gateways", gateways),
                ("ignoreUriCase", folds),
            ];
            let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
            fields
                .collect::<BTreeMap<_, _>>()
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()
        },
    )
}

fn route() -> impl Strategy<Value = Value> {
    let blocks = prop::option::weighted(0.85, prop::collection::vec(block(), 1..3));
    let weight = prop::option::weighted(0.8, 0u32..=300);
    let subset = prop::sample::select(&["v1", "v2", "v3"][..]);
    let entries = prop::collection::vec((subset, weight), 1..4);
    (blocks, entries).prop_map(|(blocks, entries)| {
        let entries = entries.into_iter().map(|(subset, weight)| match weight {
            Some(weight) => {
                json!({"destination": {"host": "reviews", "subset": subset}, "weight": weight})
            }
            None => json!({"destination": {"host": "reviews", "subset": subset}}),
        });
        let mut route = json!({"route": entries.collect::<Vec<_>>()});
        if let Some(blocks) = blocks {
            route["match"] = blocks.into();
        }
        route
    })
}

fn routes() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(route(), 1..6)
}

fn spec(http: &[Value]) -> Value {
    json!({"hosts": ["reviews"], "http": http})
}

fn review(old: &Value, new: &Value) -> Review {
    let whole = |spec: &Value| {
        json!({"metadata": {"name": "reviews", "namespace": "shop"}, "spec": spec}).to_string()
    };
    Review {
        operation: Operation::parse(
            Kind::VirtualService,
            Some(whole(old).as_str()),
            Some(whole(new).as_str()),
        ),
        namespace: "shop".to_owned(),
        name: "reviews".to_owned(),
        user: "somebody".to_owned(),
        dry_run: false,
    }
}

/// What old and new have in common: mostly the old routes, some gone, moved, changed or new.
fn edits() -> impl Strategy<Value = (Vec<Value>, Vec<Value>)> {
    (routes(), routes(), prop::collection::vec((any::<bool>(), 0usize..8), 0..6)).prop_map(
        |(old, other, edits)| {
            let mut new = old.clone();
            for (at, (inserts, place)) in edits.into_iter().enumerate() {
                let place = place.min(new.len());
                match (inserts, other.get(at)) {
                    (true, Some(route)) => new.insert(place, route.clone()),
                    (true, None) if place > 0 => new.swap(0, place - 1),
                    (false, _) if place < new.len() && new.len() > 1 => drop(new.remove(place)),
                    _ => {}
                }
            }
            (old, new)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 160, ..ProptestConfig::default() })]

    /// The first match is Envoy's first match.
    #[test]
    fn the_first_route_that_takes_a_request_is_envoys(http in routes()) {
        let written = spec(&http);
        let typed = parsed(&written);
        for reading in [Reading::Usual, Reading::Strict] {
            let arrival = Arrival::at("mesh", "shop");
            let conditions = typed.http.iter().map(|route| Condition::alternatives(route, &arrival, reading)).collect::<Vec<_>>();
            let all = conditions.iter().enumerate().flat_map(|(at, own)| own.iter().map(move |own| (at, own)));
            let index = ConditionIndex::new(all);
            for request in requests() {
                let asked = Condition::of(&as_block(&request), &arrival, reading).expect("a request");
                let ours = index.first_covering(&asked).map(|(at, _)| at);
                let envoys = first_route(&written, &request);
                // No regular expression is run: strictly read, `/.*` is a text like any other.
                let is_text = |at: usize| http[at].to_string().contains(r#""regex":"/.*""#) || http[at].to_string().contains(r#""regex":".+""#);
                if reading == Reading::Strict && envoys.is_some_and(is_text) {
                    continue;
                }
                prop_assert_eq!(ours, envoys, "{:?} {:?} in {}", reading, request, written);
            }
        }
    }

    /// Whoever serves a request before and after, a flow says so, with Envoy's shares; and where nobody's share changes for any
    /// request, nothing is said to move.
    #[test]
    fn every_request_that_changes_hands_is_in_a_flow((old, new) in edits()) {
        let (old, new) = (spec(&old), spec(&new));
        let world = World::blank(Mesh::default());
        let review = review(&old, &new);
        let users = [Clients::of(review.object().expect("an object"), &review.namespace, &world)];
        let change = Change::of(&review, &users, None, &PolicySpec::default(), &world, false).expect("two objects");
        prop_assert!(!change.is_partial);
        for request in requests() {
            let (was, is) = (first_route(&old, &request), first_route(&new, &request));
            if was.is_none() && is.is_none() {
                continue;
            }
            let mut flows = change.flows.iter().filter(|flow| flow.protocol == Protocol::Http);
            let found = flows.find(|flow| {
                flow.before.as_ref().map(|side| side.route) == was
                    && flow.after.as_ref().map(|side| side.route) == is
            });
            let Some(flow) = found else {
                return Err(TestCaseError::fail(format!("no flow {was:?} -> {is:?} for {request:?}: {old} -> {new}")));
            };
            for (side, spec) in [(&flow.before, &old), (&flow.after, &new)] {
                let Some(side) = side else { continue };
                let (counts, total) = counts(spec, side.route);
                for (subset, count) in counts {
                    let own = side.shares.carrying().filter(|share| change.destinations.get(share.destination).subset.as_ref() == subset);
                    let share = own.map(|share| share.fraction).sum::<f64>();
                    let wanted = if total == 0 { 0.0 } else { count as f64 / total as f64 };
                    prop_assert!((share - wanted).abs() < 1e-9, "{subset} {share} {wanted} in {spec}");
                }
            }
        }
    }

    /// A route that is said to be never reached is reached by no request.
    #[test]
    fn what_is_called_dead_is_dead(http in routes()) {
        let written = spec(&http);
        let world = World::blank(Mesh::default());
        let review = review(&spec(&[json!({"route": [{"destination": {"host": "reviews", "subset": "v1"}}]})]), &written);
        let policies = Policies::new(Vec::new(), rules::ALL);
        let verdict = evaluate(policies.in_force(&review, &world), &review, &world);
        let dead = verdict.findings.iter().filter(|finding| finding.message.starts_with("never reached:")).map(|finding| finding.path.to_string()).collect::<Vec<_>>();
        for request in requests() {
            if let Some(at) = first_route(&written, &request) {
                let path = format!("spec.http[{at}]");
                prop_assert!(!dead.iter().any(|dead| *dead == path || *dead == format!("{path}.match")), "{path} is said to be dead, and takes {request:?}: {written}");
            }
        }
    }
}
