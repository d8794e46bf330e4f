//! What must hold for every write of a delivery controller, and for everybody's rollback of what it drives.

use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate::cluster;
use sluicegate::policy::{
    Action, Basis, Operation, Policies, Reference, Review, Verdict, evaluate,
};
use sluicegate::rules;
use sluicegate::world::{Kind, Mesh, World};

const WORLD: &str = include_str!("../cases/worlds/argo.yaml");
const CONTROLLER: &str = "system:serviceaccount:argo-rollouts:argo-rollouts";

/// Worlds in which Rollout cart is known, with everything around it or without some of it.
fn worlds() -> Vec<World> {
    let documents = cluster::parse("argo", WORLD).expect("the world of the cases");
    let without = |kinds: &[&str]| {
        let kept =
            documents.iter().filter(|own| !kinds.iter().any(|kind| own.value["kind"] == *kind));
        cluster::world(Mesh::default(), &kept.cloned().collect::<Vec<_>>(), "shop")
    };
    vec![
        without(&[]),
        without(&["DestinationRule"]),
        without(&["EndpointSlice", "Pod"]),
        without(&["DestinationRule", "EndpointSlice", "Pod", "Service"]),
    ]
}

fn judge(old: &Value, new: &Value, user: &str, world: &World) -> Verdict {
    let whole = |http: &Value| {
        let spec = json!({"hosts": ["cart"], "http": http});
        json!({"metadata": {"name": "cart", "namespace": "shop"}, "spec": spec}).to_string()
    };
    let review = Review {
        operation: Operation::parse(Kind::VirtualService, Some(&whole(old)), Some(&whole(new))),
        namespace: "shop".to_owned(),
        name: "cart".to_owned(),
        user: user.to_owned(),
        dry_run: false,
    };
    let policies = Policies::new(Vec::new(), rules::ALL);
    evaluate(policies.in_force(&review, world), &review, world)
}

/// A route of Rollout cart, with any weights, a third destination or a mirror.
fn route() -> impl Strategy<Value = Value> {
    let weight = || prop::option::of(0u32..=200);
    (weight(), weight(), prop::option::of(0u32..=40), any::<bool>()).prop_map(
        |(stable, canary, extra, mirrors)| {
            let to = |subset: &str, weight: Option<u32>| match weight {
                Some(weight) => {
                    json!({"destination": {"host": "cart", "subset": subset}, "weight": weight})
                }
                None => json!({"destination": {"host": "cart", "subset": subset}}),
            };
            let mut all = vec![to("old", stable), to("next", canary)];
            all.extend(extra.map(|weight| to("cart-6f7-1-0-exp", Some(weight))));
            let mut route = json!({"name": "primary", "route": all});
            if mirrors {
                route["mirror"] = json!({"host": "cart", "subset": "next"});
            }
            route
        },
    )
}

/// What the controller may have written: its own routes for a header or a mirror in front of the user's one.
fn written() -> impl Strategy<Value = Value> {
    let header = json!({
        "name": "header-route",
        "match": [{"headers": {"x-canary": {"exact": "true"}}}],
        "route": [{"destination": {"host": "cart", "subset": "next"}, "weight": 100}],
    });
    (any::<bool>(), route()).prop_map(move |(has_header, route)| {
        let front = has_header.then(|| header.clone());
        front.into_iter().chain([route]).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Its controller may write whatever does not break the proxies of everybody.
    #[test]
    fn the_driver_is_refused_only_what_is_broken((old, new) in (written(), written())) {
        for world in worlds() {
            let verdict = judge(&old, &new, CONTROLLER, &world);
            let is_broken = verdict.basis == Basis::Broken;
            prop_assert!(verdict.allowed() || is_broken, "{old} -> {new}: {verdict:?}");
            prop_assert!(!is_broken || verdict.findings.iter().any(|own| own.rule == "structure"));
        }
    }

    /// Whoever it is, and whatever the cluster holds, may give everything back to what the Rollout calls stable.
    #[test]
    fn anybody_may_take_the_canary_back(old in written()) {
        let new = json!([{"name": "primary", "route": [
            {"destination": {"host": "cart", "subset": "old"}, "weight": 100},
            {"destination": {"host": "cart", "subset": "next"}, "weight": 0},
        ]}]);
        for world in worlds() {
            for user in ["jane", CONTROLLER] {
                let verdict = judge(&old, &new, user, &world);
                prop_assert!(verdict.allowed(), "{user} from {old}: {verdict:?}");
            }
        }
    }

    /// Nobody else raises it, by one point or by all.
    #[test]
    fn nobody_else_raises_the_canary(from in 0u32..100, by in 1u32..=100) {
        let split = |canary: u32| json!([{"name": "primary", "route": [
            {"destination": {"host": "cart", "subset": "old"}, "weight": 100 - canary},
            {"destination": {"host": "cart", "subset": "next"}, "weight": canary},
        ]}]);
        let to = (from + by).min(100);
        let verdict = judge(&split(from), &split(to), "jane", &worlds()[0]);
        prop_assert!(!verdict.allowed());
        prop_assert!(verdict.findings.iter().any(|own| own.rule == "managed-weights"));
    }
}

/// A Rollout may have come or gone a moment ago: what a refusal rests on is read again, on either side.
#[test]
fn a_refusal_rests_on_what_drives() {
    let split = |stable: u32, canary: u32| {
        json!([{"name": "primary", "route": [
            {"destination": {"host": "cart", "subset": "old"}, "weight": stable},
            {"destination": {"host": "cart", "subset": "next"}, "weight": canary},
        ]}])
    };
    let rollouts = Reference::Rollouts { namespace: "shop".to_owned() };
    let refused = |old: &Value, new: &Value, user: &str, world: &World| {
        let verdict = judge(old, new, user, world);
        let refusals = verdict.of_action(Action::Deny).cloned().collect::<Vec<_>>();
        assert!(!refusals.is_empty(), "{user}: {verdict:?}");
        refusals
    };
    // That it is driven is why a person is refused.
    let by_hand = refused(&split(80, 20), &split(60, 40), "jane", &worlds()[0]);
    assert!(by_hand.iter().all(|own| own.rests_on.contains(&rollouts)), "{by_hand:?}");
    // That it is not is why the controller is, whatever the rule.
    let documents = cluster::parse("argo", WORLD).expect("the world of the cases");
    let mut documents = documents.into_iter().collect::<Vec<_>>();
    documents.retain(|own| own.value["kind"] != "Rollout");
    let undriven = cluster::world(Mesh::default(), &documents, "shop");
    let unknown = refused(&split(80, 20), &split(1, 90), CONTROLLER, &undriven);
    assert!(unknown.iter().all(|own| own.rests_on.contains(&rollouts)), "{unknown:?}");
    let strange = refused(&split(80, 20), &split(1, 90), "jane", &undriven);
    assert!(!strange.iter().any(|own| own.rests_on.contains(&rollouts)), "{strange:?}");
}
