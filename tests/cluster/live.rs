use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use sluicegate::cluster::{Feed, Index, LiveReadError, MOST_REQUESTS, Next};
use sluicegate::policy::{Basis, Operation, Policies, Reference, Review, Verdict, evaluate};
use sluicegate::rules::ALL;
use sluicegate::world::{Kind, Mesh, World};

use super::api::{Answer, Api, Asked, list};
use super::index::{pod, service, slice, watched};
use super::{counts, ready_of};

/// An index with everything listed and these objects in it.
fn index(api: &Api, objects: &[(Kind, Value)]) -> Arc<Index> {
    let index = Index::new(Mesh::default(), api.client.clone());
    let index = Arc::new(index);
    for kind in Kind::ALL {
        let mut feed = Feed::new(Arc::clone(&index), kind);
        feed.take(Event::Init);
        for (_, object) in objects.iter().filter(|(own, _)| *own == kind) {
            feed.take(Event::InitApply(watched(object)));
        }
        feed.take(Event::InitDone);
    }
    index
}

fn service_reference(name: &str) -> Reference {
    Reference::Service { namespace: "shop".to_owned(), name: name.to_owned() }
}

fn endpoints(service: &str) -> Reference {
    Reference::Endpoints { namespace: "shop".to_owned(), service: service.to_owned() }
}

fn rules(namespace: &str) -> Reference {
    Reference::DestinationRules { namespace: namespace.to_owned() }
}

fn selectors(asked: &[Asked]) -> Vec<String> {
    let text = |own: &Asked| {
        let query = own.query.iter().map(|(key, value)| format!("{key}={value}"));
        format!("{}?{}", own.path, query.collect::<Vec<_>>().join("&"))
    };
    let mut all = asked.iter().map(text).collect::<Vec<_>>();
    all.sort();
    all
}

#[tokio::test]
async fn what_is_there_after_all_is_found() {
    let labels = json!({"app": "reviews", "version": "v2"});
    let api = Api::start(move |asked| {
        Answer::Json(match asked.path.rsplit('/').next() {
            Some("endpointslices") => list(&[slice("s", "reviews", &[("a", true)], 8)], 20),
            Some("pods") => list(&[pod("a", &labels, 9)], 20),
            _ => list(&[], 20),
        })
    })
    .await;
    let old = [
        (Kind::Service, service("reviews", 1)),
        (Kind::EndpointSlice, slice("old", "reviews", &[("gone", true), ("a", false)], 2)),
        (Kind::Pod, pod("a", &json!({"app": "reviews", "version": "2.0"}), 3)),
        (Kind::EndpointSlice, slice("other", "ratings", &[("x", true)], 2)),
    ];
    let index = index(&api, &old);
    index.confirm(&[endpoints("reviews")]).await.expect("answers");
    index.read(|world| {
        assert_eq!(counts(world, "shop", "reviews"), Some((1, 0)));
        assert_eq!(ready_of(world, "shop", "reviews", "v2"), 1);
        assert_eq!(world.slice_names("shop", "ratings").collect::<Vec<_>>(), ["other"]);
    });
    assert_eq!(
        selectors(&api.asked()),
        [
            "/api/v1/namespaces/shop/pods?labelSelector=app=reviews",
            "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?labelSelector=kubernetes.io/service-name=reviews",
        ]
    );
}

#[tokio::test]
async fn what_is_gone_is_gone() {
    let api = Api::start(|_| Answer::Json(list(&[], 20))).await;
    let rule =
        json!({"metadata": {"namespace": "shop", "name": "reviews"}, "spec": {"host": "reviews"}});
    let entry = json!({"metadata": {"namespace": "front", "name": "ext"}, "spec": {"hosts": ["a.example.com"]}});
    let route =
        json!({"metadata": {"namespace": "shop", "name": "old"}, "spec": {"hosts": ["reviews"]}});
    let mut elsewhere = rule.clone();
    elsewhere["metadata"]["namespace"] = "front".into();
    let old = [
        (Kind::Service, service("reviews", 1)),
        (Kind::Service, service("ratings", 1)),
        (Kind::DestinationRule, rule),
        (Kind::DestinationRule, elsewhere),
        (Kind::ServiceEntry, entry),
        (Kind::VirtualService, route),
    ];
    let index = index(&api, &old);
    let routes = Reference::VirtualServices { namespace: "shop".to_owned() };
    index.confirm(&[service_reference("reviews"), rules("shop")]).await.expect("answers");
    index.confirm(&[routes, Reference::ServiceEntries]).await.expect("answers");
    index.read(|world| {
        assert!(world.service("shop", "reviews").is_none());
        assert!(world.service("shop", "ratings").is_some(), "was not asked for");
        assert_eq!(
            world.names(Kind::DestinationRule),
            [("front".to_owned(), "reviews".to_owned())]
        );
        assert!(world.names(Kind::ServiceEntry).is_empty());
        assert!(world.names(Kind::VirtualService).is_empty());
    });
    assert_eq!(
        selectors(&api.asked()),
        [
            "/api/v1/namespaces/shop/services?fieldSelector=metadata.name=reviews",
            "/apis/networking.istio.io/v1/namespaces/shop/destinationrules?",
            "/apis/networking.istio.io/v1/namespaces/shop/virtualservices?",
            "/apis/networking.istio.io/v1/serviceentries?",
        ]
    );
}

#[tokio::test]
async fn no_answer_is_no_confirmation() {
    let api = Api::start(|asked| match asked.path.rsplit('/').next() {
        Some("services") => Answer::Json(list(&[], 20)),
        _ => Answer::Never,
    })
    .await;
    let index = index(&api, &[(Kind::Service, service("reviews", 1))]);
    let begun = Instant::now();
    let error = index.confirm(&[service_reference("reviews"), rules("shop")]).await;
    assert!(matches!(error, Err(LiveReadError::Slow(_))), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(index.read(|world| world.service("shop", "reviews").is_some()), "nothing has changed");

    let api = Api::start(|_| Answer::Status(500)).await;
    let failing = self::index(&api, &[]);
    let error = failing.confirm(&[rules("shop")]).await.expect_err("was refused").to_string();
    let want = "destinationrules of namespace shop could not be read from the API server: as the test wants it";
    assert_eq!(error, want);
    let error = Index::unconnected(Mesh::default()).confirm(&[rules("shop")]).await;
    assert!(matches!(error, Err(LiveReadError::NoClient)), "{error:?}");
}

#[tokio::test]
async fn requests_are_merged_and_few() {
    let api = Api::start(|_| Answer::Json(list(&[], 20))).await;
    let index = index(&api, &[(Kind::Service, service("a", 1)), (Kind::Service, service("b", 1))]);
    // What a refusal for lack of an endpoint rests on, with two destinations, for clients in three namespaces.
    let all =
        [endpoints("a"), endpoints("b"), rules("shop"), rules("front"), rules("istio-system")];
    assert_eq!(index.cost(&all), MOST_REQUESTS);
    index.confirm(&all).await.expect("fits");
    assert_eq!(
        selectors(&api.asked()),
        [
            "/api/v1/namespaces/shop/pods?labelSelector=app in (a,b)",
            "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?labelSelector=kubernetes.io/service-name in (a,b)",
            "/apis/networking.istio.io/v1/destinationrules?",
        ]
    );
    let services = [service_reference("a"), service_reference("b"), Reference::ServiceEntries];
    index.confirm(&services).await.expect("fits");
    let asked = selectors(&api.asked());
    assert_eq!(asked.len(), 5);
    assert!(asked.contains(&"/api/v1/namespaces/shop/services?".to_owned()), "{asked:?}");
    let routes = |namespace: &str| Reference::VirtualServices { namespace: namespace.to_owned() };
    assert_eq!(index.cost(&[routes("shop"), routes("front")]), 1);
    let many =
        (0..4).map(|i| Reference::Service { namespace: format!("n{i}"), name: "a".to_owned() });
    let error = index.confirm(&many.collect::<Vec<_>>()).await;
    assert!(matches!(error, Err(LiveReadError::TooMany { needed: 4 })), "{error:?}");
    assert_eq!(api.asked().len(), 5, "nobody was asked");
}

#[tokio::test]
async fn a_name_that_nothing_can_have_is_not_asked_for() {
    let api = Api::start(|_| Answer::Status(400)).await;
    let index = index(&api, &[]);
    for name in ["a,b", "Reviews", "a=b", "", "a/../b"] {
        index.confirm(&[service_reference(name), endpoints(name)]).await.expect(name);
    }
    for namespace in ["kube-system/secrets?", "..", "a b"] {
        index.confirm(&[rules(namespace)]).await.expect(namespace);
    }
    assert!(api.asked().is_empty());
}

#[tokio::test]
async fn an_older_watch_event_does_not_undo_a_live_read() {
    let api = Api::start(|asked| match asked.path.rsplit('/').next() {
        Some("services") => Answer::Json(list(&[service("reviews", 8)], 20)),
        _ => Answer::Status(404),
    })
    .await;
    let index = index(&api, &[]);
    let there = || index.read(|world| world.service("shop", "reviews").is_some());
    index.confirm(&[service_reference("reviews")]).await.expect("answers");
    assert!(there());
    let mut feed = Feed::new(Arc::clone(&index), Kind::Service);
    feed.take(Event::Delete(watched(&service("reviews", 5))));
    assert!(there(), "that was before it was created anew");
    feed.take(Event::Apply(watched(&service("other", 6))));
    assert!(
        index.read(|world| world.service("shop", "other").is_some()),
        "others are not concerned"
    );
    feed.take(Event::Delete(watched(&service("reviews", 21))));
    assert!(!there());

    // A list that was asked for before the live read may be older: it is asked for again.
    feed.take(Event::Init);
    index.confirm(&[service_reference("reviews")]).await.expect("answers");
    assert_eq!(feed.take(Event::InitDone), Next::ListAgain);
    assert!(there());
    feed.take(Event::Init);
    assert_eq!(feed.take(Event::InitDone), Next::Follow);
    assert!(!there());
    index.confirm(&[rules("shop")]).await.expect("without a CRD there is none");
}

#[tokio::test]
async fn confirmed_and_judged_in_one() {
    let api = Api::start(|_| Answer::Json(list(&[service("reviews", 8)], 20))).await;
    let index = index(&api, &[]);
    let judge = |world: &World| match world.service("shop", "reviews") {
        Some(_) => Verdict::allow(Basis::Rules),
        None => Verdict::undecided(vec![Kind::Service]),
    };
    assert!(!index.judge(&judge).is_decided());
    let verdict = index.confirm_and_judge(&[service_reference("reviews")], &judge).await;
    assert!(verdict.expect("answers").is_decided());
}

#[tokio::test]
async fn an_older_object_does_not_come_back_after_a_live_read() {
    let api = Api::start(|_| Answer::Json(list(&[], 20))).await;
    let index = index(&api, &[(Kind::Service, service("reviews", 1))]);
    let there = || index.read(|world| world.service("shop", "reviews").is_some());
    let mut feed = Feed::new(Arc::clone(&index), Kind::Service);
    index.confirm(&[service_reference("reviews")]).await.expect("answers");
    assert!(!there());
    feed.take(Event::Apply(watched(&service("reviews", 5))));
    assert!(!there(), "the event was on its way when it was deleted");
    feed.take(Event::Apply(watched(&service("reviews", 21))));
    assert!(there(), "and then it was made anew");

    // The same in a list that was asked for before the live read, whose objects come in no order.
    for (version, is_there) in [(5, false), (20, false), (21, true)] {
        feed.take(Event::Init);
        index.confirm(&[service_reference("reviews")]).await.expect("answers");
        assert!(!there());
        feed.take(Event::InitApply(watched(&service("other", 30))));
        feed.take(Event::InitApply(watched(&service("reviews", version))));
        assert_eq!(feed.take(Event::InitDone), Next::ListAgain);
        assert_eq!(there(), is_there, "{version}");
    }
}

/// Nobody is refused for the sake of clients whom a Sidecar keeps from the VirtualService that no watch has brought yet.
#[tokio::test]
async fn a_sidecar_that_is_not_seen_yet_takes_its_clients_out_of_a_refusal() {
    let istio = |name: &str, namespace: &str, spec: Value| json!({"metadata": {"namespace": namespace, "name": name, "resourceVersion": "5"}, "spec": spec});
    let subsets = json!([{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]);
    let rule =
        istio("reviews", "shop", json!({"host": "reviews", "exportTo": ["."], "subsets": subsets}));
    let fence = istio("default", "istio-system", json!({"egress": [{"hosts": ["./*"]}]}));
    let pods = [("one", "v1"), ("two", "v2")]
        .map(|(name, version)| pod(name, &json!({"app": "reviews", "version": version}), 1));
    let stored = [
        (Kind::Service, service("reviews", 1)),
        (Kind::EndpointSlice, slice("a", "reviews", &[("one", true), ("two", true)], 1)),
        (Kind::Pod, pods[0].clone()),
        (Kind::Pod, pods[1].clone()),
        (Kind::DestinationRule, rule.clone()),
    ];
    let route = |weights: [u32; 2]| {
        let to = |(at, weight): (usize, u32)| json!({"destination": {"host": "reviews", "subset": format!("v{}", at + 1)}, "weight": weight});
        let entries = weights.into_iter().enumerate().map(to).collect::<Vec<_>>();
        istio("reviews", "shop", json!({"hosts": ["reviews"], "http": [{"route": entries}]}))
            .to_string()
    };
    let (old, new) = (route([100, 0]), route([90, 10]));
    let operation = Operation::parse(Kind::VirtualService, Some(&old), Some(&new));
    let (namespace, name) = ("shop".to_owned(), "reviews".to_owned());
    let review = Review { operation, namespace, name, user: String::new(), dry_run: false };
    let policies = Policies::new(Vec::new(), ALL);
    let judge = |world: &World| evaluate(policies.in_force(&review, world), &review, world);
    for has_fence in [true, false] {
        let (rule, fence) = (rule.clone(), fence.clone());
        let api = Api::start(move |asked| match asked.path.rsplit('/').next() {
            Some("destinationrules") => Answer::Json(list(std::slice::from_ref(&rule), 20)),
            Some("sidecars") if has_fence => Answer::Json(list(std::slice::from_ref(&fence), 20)),
            Some("sidecars") => Answer::Status(404),
            other => panic!("nothing rests on {other:?}"),
        })
        .await;
        let index = index(&api, &stored);
        let verdict = index.judge(&judge);
        assert!(!verdict.allowed(), "{verdict:?}");
        let [references] = &verdict.to_confirm(&BTreeSet::new())[..] else { panic!("{verdict:?}") };
        let confirmed = index.confirm_and_judge(references, &judge).await.expect("answers");
        assert_eq!(confirmed.allowed(), has_fence, "{confirmed:?}");
        assert_eq!(
            selectors(&api.asked()),
            [
                "/apis/networking.istio.io/v1/destinationrules?",
                "/apis/networking.istio.io/v1/namespaces/istio-system/sidecars?",
            ]
        );
    }
}
