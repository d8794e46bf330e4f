//! What the gate remembers of a route is enough for every way back, and for no way forward.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate::cluster;
use sluicegate::istio::Timestamp;
use sluicegate::policy::{Operation, Policies, Review, Verdict, evaluate};
use sluicegate::rules;
use sluicegate::world::{Kind, Mesh, Object, RouteHistory, World};

/// Names without a meaning.
const NAMES: [&str; 3] = ["amber", "beryl", "coral"];
/// Somebody, and both of the tools: an account alone earns nothing.
const USERS: [&str; 3] = [
    "jane",
    "system:serviceaccount:istio-system:flagger",
    "system:serviceaccount:argo-rollouts:argo-rollouts",
];

fn time(seconds: i64) -> String {
    Timestamp(1_790_000_000 + seconds).to_string()
}

fn object(value: &Value) -> Object {
    cluster::object_in(value.clone(), "shop").expect("an object of a kind that is read")
}

/// A version that carried most.
#[derive(Debug, Clone, Copy)]
struct Held {
    at: usize,
    image: u32,
    is_settled: bool,
    seconds: i64,
    order: u32,
}

/// Who carries most.
#[derive(Debug, Clone, Copy)]
struct Holder {
    at: usize,
    is_settled: bool,
    since: i64,
    order: u32,
}

/// The cluster and the gate as a team lives with them.
struct Shop {
    now: i64,
    images: [u32; 3],
    created: [i64; 3],
    revision: [i64; 3],
    weights: [u32; 3],
    /// When these were written.
    written: i64,
    /// Who carried most, one entry for each version.
    held: Vec<Held>,
    holder: Holder,
    world: World,
    /// As watches that lag know it: without the last write, and what came after it.
    stale: World,
}

impl Shop {
    fn new(created: [i64; 3]) -> Self {
        let mut own = Self {
            now: 100,
            images: [1, 2, 3],
            created,
            revision: created,
            weights: [100, 0, 0],
            written: 100,
            held: Vec::new(),
            holder: Holder { at: 0, is_settled: true, since: 100, order: 0 },
            world: World::empty(Mesh::default()),
            stale: World::empty(Mesh::default()),
        };
        own.start_gate(Vec::new());
        own
    }

    fn workloads(&self) -> Vec<Value> {
        let of = |at: usize| {
            let name = NAMES[at];
            let image = format!("shop/reviews:{}", self.images[at]);
            let template = json!({
                "metadata": {"labels": {"app": "reviews", "stone": name}},
                "spec": {"containers": [{"name": "app", "image": image}]},
            });
            let metadata = |name: &str, created| json!({"name": name, "namespace": "shop", "creationTimestamp": time(created)});
            let mut set = json!({
                "apiVersion": "apps/v1", "kind": "ReplicaSet",
                "metadata": metadata(&format!("{name}-1"), self.revision[at]),
                "spec": {"replicas": 1, "template": template},
            });
            set["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "controller": true}]);
            let deployment = json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": metadata(name, self.created[at]),
                "spec": {"replicas": 1, "template": template},
            });
            [deployment, set]
        };
        (0..3).flat_map(of).collect()
    }

    fn everything(&self) -> Vec<Value> {
        let endpoint = |at: usize| {
            json!({
                "addresses": [format!("10.0.0.{}", at + 1)], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": NAMES[at], "namespace": "shop"},
            })
        };
        let mut all = vec![
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "reviews"}, "spec": {"selector": {"app": "reviews"}, "ports": [{"port": 80}]}}),
            json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "reviews"}, "spec": {"host": "reviews", "subsets": NAMES.map(|name| json!({"name": name, "labels": {"stone": name}}))}}),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": "reviews-1", "labels": {"kubernetes.io/service-name": "reviews"}},
                "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [endpoint(0), endpoint(1), endpoint(2)],
            }),
        ];
        all.extend(NAMES.map(|name| {
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "labels": {"app": "reviews", "stone": name}, "ownerReferences": [{"kind": "ReplicaSet", "name": format!("{name}-1"), "controller": true}]},
                "spec": {"nodeName": "a"}, "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
            })
        }));
        all.extend(self.workloads());
        all.push(self.routes(self.weights, self.written));
        all
    }

    fn routes(&self, weights: [u32; 3], written: i64) -> Value {
        let to = |at: usize| json!({"destination": {"host": "reviews", "subset": NAMES[at]}, "weight": weights[at]});
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {
                "name": "reviews", "namespace": "shop", "creationTimestamp": time(100),
                "managedFields": [{"manager": "kubectl", "operation": "Update", "time": time(written), "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {"hosts": ["reviews"], "http": [{"route": (0..3).filter(|&at| weights[at] > 0).map(to).collect::<Vec<_>>()}]},
        })
    }

    /// A gate that has just come up: it was handed what another one kept, and lists the cluster.
    fn start_gate(&mut self, kept: Vec<RouteHistory>) {
        let everything = self.everything();
        let listed = || {
            let mut world = World::empty(Mesh::default());
            world.restore(kept.clone());
            everything.iter().for_each(|own| world.apply(object(own)));
            world
        };
        (self.world, self.stale) = (listed(), listed());
    }

    fn kept(&self) -> Vec<RouteHistory> {
        // What is kept lies in a ConfigMap as text.
        let text = serde_json::to_string(&self.world.memories()).expect("no strange keys");
        serde_json::from_str(&text).expect("what was written")
    }

    fn judge(&self, weights: [u32; 3], user: &str, world: &World) -> Verdict {
        let (old, new) = (self.routes(self.weights, self.written), self.routes(weights, self.now));
        let review = Review {
            operation: Operation::parse(
                Kind::VirtualService,
                Some(&old.to_string()),
                Some(&new.to_string()),
            ),
            namespace: "shop".to_owned(),
            name: "reviews".to_owned(),
            user: user.to_owned(),
            dry_run: false,
        };
        let policies = Policies::new(Vec::new(), rules::ALL);
        evaluate(policies.in_force(&review, world), &review, world)
    }

    /// Writes it, if the gate lets it.
    fn write(&mut self, weights: [u32; 3]) -> bool {
        if weights == self.weights || !self.judge(weights, "jane", &self.world).allowed() {
            return false;
        }
        // The watch of the stale one brings what was written before this.
        self.stale.apply(object(&self.routes(self.weights, self.written)));
        for own in self.workloads() {
            self.stale.apply(object(&own));
        }
        self.written = self.now;
        let before = std::mem::replace(&mut self.weights, weights);
        let most = weights.into_iter().max().expect("three");
        let leading = (0..3).filter(|&at| weights[at] == most).collect::<Vec<_>>();
        let holder = if leading.contains(&self.holder.at) { self.holder.at } else { leading[0] };
        if holder != self.holder.at && leading.len() == 1 {
            self.take_over(holder, before[holder]);
        }
        self.world.apply(object(&self.routes(weights, self.now)));
        true
    }

    fn take_over(&mut self, at: usize, had: u32) {
        let Holder { at: last, is_settled, since, order } = self.holder;
        let image = self.images[last];
        let is_same = |own: &Held| (own.at, own.image) == (last, image);
        let same = self.held.iter().copied().find(is_same);
        self.held.retain(|own| !is_same(own));
        let lasted = self.now - since;
        let seconds = lasted + same.map_or(0, |own| own.seconds);
        let is_settled = is_settled || seconds >= 600 || same.is_some_and(|own| own.is_settled);
        let order = same.map_or(order, |own| own.order.min(order));
        self.held.push(Held { at: last, image, is_settled, seconds, order });
        let known = self.held.iter().find(|own| (own.at, own.image) == (at, self.images[at]));
        let behind = self.held.iter().map(|own| own.order + 1).max().unwrap_or(0);
        self.holder = Holder {
            at,
            is_settled: known.is_some_and(|own| own.is_settled) || self.weights[at] <= had + 50,
            since: self.now,
            order: known.map_or(behind, |own| own.order),
        };
    }

    /// Whether it carried before those that carry most of what it would take over, or for long.
    fn is_way_back(&self, own: &Held) -> bool {
        let others = (0..3).filter(|&at| at != own.at);
        let most = others.clone().map(|at| self.weights[at]).max().unwrap_or(0);
        let mut against = others.filter(|&at| self.weights[at] == most);
        let order = |at: usize| {
            let held = self.held.iter().filter(|held| held.at == at).map(|held| held.order);
            held.chain((self.holder.at == at).then_some(self.holder.order)).min()
        };
        own.seconds >= 600 || against.all(|at| order(at).is_none_or(|order| order >= own.order))
    }

    fn bring(&mut self) {
        for own in self.workloads() {
            self.world.apply(object(&own));
        }
    }

    fn everything_to(at: usize) -> [u32; 3] {
        let mut weights = [0; 3];
        weights[at] = 100;
        weights
    }

    /// The ways back, and the ways forward that look like one.
    fn check(&self) -> Result<(), TestCaseError> {
        let kept = self.kept();
        let remembering = |mut world: World| {
            world.restore(kept.clone());
            world
        };
        let (empty, blind) =
            (remembering(World::empty(Mesh::default())), remembering(World::new(Mesh::default())));
        let worlds = [
            ("full", &self.world),
            ("stale", &self.stale),
            ("empty", &empty),
            ("unreachable", &blind),
        ];
        let is_current = |own: &&Held| own.is_settled && self.images[own.at] == own.image;
        let stable = self.held.iter().filter(is_current).filter(|own| self.is_way_back(own));
        let Holder { at: holder, is_settled, since, .. } = self.holder;
        let is_settled = is_settled || self.written - since >= 600;
        let is_heaviest = (0..3).all(|at| at == holder || self.weights[at] < self.weights[holder]);
        let carries = Some(holder).filter(|_| is_heaviest);
        let stable: BTreeSet<usize> = stable.map(|own| own.at).chain(carries).collect();
        for &at in &stable {
            for (name, world) in worlds {
                for user in USERS {
                    let verdict = self.judge(Self::everything_to(at), user, world);
                    prop_assert!(
                        verdict.allowed(),
                        "{user} may not go back to {} in the {name} world from {:?}: {verdict:#?}\n{:#?}",
                        NAMES[at],
                        self.weights,
                        world.remembered("shop", "reviews")
                    );
                }
            }
        }
        for at in (0..3).filter(|at| !stable.contains(at) && self.weights[*at] < 50 && is_settled) {
            // A new version where an old one was stable: what was there is known, and this is not it.
            let of_it = || self.held.iter().filter(|own| own.at == at);
            let is_another = of_it().all(|own| own.image != self.images[at]);
            let was_stable = of_it().any(|own| own.is_settled);
            if was_stable && is_another && self.weights[holder] > 50 {
                let verdict = self.judge(Self::everything_to(at), "jane", &self.world);
                prop_assert!(
                    !verdict.allowed(),
                    "a jump to a new version of {}: {verdict:#?}",
                    NAMES[at]
                );
            }
        }
        Ok(())
    }
}

/// What a team does.
#[derive(Debug, Clone, Copy)]
enum Event {
    Step { to: usize, by: u32 },
    Everything { to: usize },
    Restart { of: usize },
    NewVersion { of: usize },
    MadeAnew { of: usize },
    NewGate,
    Wait { seconds: i64 },
}

fn event() -> impl Strategy<Value = Event> {
    let one = || 0usize..3;
    prop_oneof![
        4 => (one(), 1u32..=50).prop_map(|(to, by)| Event::Step { to, by }),
        3 => one().prop_map(|to| Event::Everything { to }),
        2 => one().prop_map(|of| Event::Restart { of }),
        1 => one().prop_map(|of| Event::NewVersion { of }),
        1 => one().prop_map(|of| Event::MadeAnew { of }),
        1 => Just(Event::NewGate),
        1 => (1i64..2000).prop_map(|seconds| Event::Wait { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Ramps, promotions, restarts, new versions and new gates, under names without a meaning: whoever was stable takes everything
    /// back in one write, whatever the cluster looks like by then.
    #[test]
    fn a_way_back_is_open_in_every_state(
        created in [0i64..90, 0i64..90, 0i64..90],
        events in prop::collection::vec(event(), 1..24),
    ) {
        let mut shop = Shop::new(created);
        shop.check()?;
        for event in events {
            shop.now += 7;
            match event {
                Event::Step { to, by } => {
                    let from = (0..3).filter(|&at| at != to).max_by_key(|&at| shop.weights[at]).expect("two");
                    let by = by.min(shop.weights[from]);
                    let mut weights = shop.weights;
                    weights[from] -= by;
                    weights[to] += by;
                    shop.write(weights);
                }
                Event::Everything { to } => drop(shop.write(Shop::everything_to(to))),
                Event::Restart { of } => shop.revision[of] = shop.now,
                Event::NewVersion { of } => {
                    shop.images[of] += 10;
                    shop.revision[of] = shop.now;
                }
                Event::MadeAnew { of } => (shop.created[of], shop.revision[of]) = (shop.now, shop.now),
                Event::NewGate => {
                    let kept = shop.kept();
                    shop.start_gate(kept);
                }
                Event::Wait { seconds } => shop.now += seconds,
            }
            shop.bring();
            shop.check()?;
        }
    }
}

/// A subset that is given other labels moves its traffic although no VirtualService changes: that is remembered, too.
#[test]
fn labels_that_a_subset_had_are_a_way_back() {
    let shop = Shop::new([0, 0, 0]);
    let rule = |stone: &str, written: i64| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": {
                "name": "reviews", "namespace": "shop",
                "managedFields": [{"manager": "kubectl", "time": time(written), "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {"host": "reviews", "subsets": [{"name": "amber", "labels": {"stone": stone}}]},
        })
    };
    let judge = |world: &World, old: &Value, new: &Value| {
        let review = Review {
            operation: Operation::parse(
                Kind::DestinationRule,
                Some(&old.to_string()),
                Some(&new.to_string()),
            ),
            namespace: "shop".to_owned(),
            name: "reviews".to_owned(),
            user: "jane".to_owned(),
            dry_run: false,
        };
        let policies = Policies::new(Vec::new(), rules::ALL);
        evaluate(policies.in_force(&review, world), &review, world)
    };
    let (amber, beryl, back) = (rule("amber", 200), rule("beryl", 300), rule("amber", 400));
    let mut world = shop.world;
    world.apply(object(&amber));
    assert!(!judge(&world, &amber, &beryl).allowed(), "nobody knows beryl");
    // Somebody did it all the same, while no gate was there.
    world.apply(object(&beryl));
    let verdict = judge(&world, &beryl, &back);
    assert!(verdict.allowed(), "{verdict:#?}");
    assert!(verdict.findings.iter().any(|own| own.message.contains(&time(300))), "{verdict:#?}");
    // What it was given then had everything for a moment, by a jump.
    world.apply(object(&back));
    assert!(!judge(&world, &back, &rule("beryl", 500)).allowed());
}
