#![allow(missing_docs, reason = "criterion_group! writes an undocumented function")]
//! What a request costs inside the core: parse, evaluate, and the index behind it. Compare within one run only.
//!
//! `make bench`

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mimalloc::MiMalloc;
use serde_json::{Value, json};
use sluicegate::cluster;
use sluicegate::istio::{Host, VirtualService, Written};
use sluicegate::policy::{Operation, Policies, Review, evaluate};
use sluicegate::rules;
use sluicegate::world::{EndpointSlice, Kind, Mesh, Object, Pod, Service, SliceEndpoint, World};

/// That of the binary.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const REVIEWS: &str = include_str!("../tests/cases/worlds/reviews.yaml");

/// A VirtualService of `routes` routes by path and a weighted one behind them, with the metadata that a real one carries.
fn object(routes: usize, v2: u32) -> String {
    let split = json!([
        {"destination": {"host": "reviews", "subset": "v1"}, "weight": 100 - v2},
        {"destination": {"host": "reviews", "subset": "v2"}, "weight": v2},
    ]);
    let by_path = (0..routes).map(|index| {
        json!({
            "name": format!("route-{index}"),
            "match": [{"uri": {"prefix": format!("/path-{index}/")}, "headers": {"x-tenant": {"exact": format!("t{index}")}}}],
            "timeout": "3s",
            "retries": {"attempts": 2, "perTryTimeout": "1s", "retryOn": "5xx"},
            "route": [{"destination": {"host": "reviews", "subset": "v1", "port": {"number": 9080}}, "weight": 100}],
        })
    });
    let http = by_path.chain([json!({"route": split})]).collect::<Vec<_>>();
    let applied = serde_json::to_string(&http).expect("JSON");
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {
            "name": "reviews",
            "namespace": "shop",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied},
            "managedFields": [{"manager": "kubectl", "operation": "Update", "time": "2026-09-01T00:00:00Z",
                "fieldsV1": {"f:metadata": {"f:annotations": {}}, "f:spec": {"f:hosts": {}, "f:http": {}}}}],
        },
        "spec": {"hosts": ["reviews"], "http": http},
    })
    .to_string()
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for routes in [1, 30, 300] {
        let text = object(routes, 10);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(BenchmarkId::new("typed", text.len()), &text, |b, text| {
            b.iter(|| Written::<VirtualService>::read(black_box(text)).expect("an object"));
        });
        group.bench_with_input(BenchmarkId::new("value", text.len()), &text, |b, text| {
            b.iter(|| serde_json::from_str::<Value>(black_box(text)).expect("JSON"));
        });
        group.bench_with_input(BenchmarkId::new("skip", text.len()), &text, |b, text| {
            b.iter(|| {
                serde_json::from_str::<serde::de::IgnoredAny>(black_box(text)).expect("JSON")
            });
        });
    }
    group.finish();
}

fn review(old: &str, new: &str) -> Review {
    Review {
        operation: Operation::parse(Kind::VirtualService, Some(old), Some(new)),
        namespace: "shop".to_owned(),
        name: "reviews".to_owned(),
        user: "jane".to_owned(),
        dry_run: false,
    }
}

fn judge(c: &mut Criterion) {
    let documents = cluster::parse("reviews", REVIEWS).expect("the world of the cases");
    let world = cluster::world(Mesh::default(), &documents, "shop");
    let policies = Policies::new(Vec::new(), rules::ALL);
    let mut group = c.benchmark_group("evaluate");
    for (name, routes, from, to) in [
        ("unchanged", 1, 10, 10),
        ("rollback", 1, 80, 0),
        ("step", 1, 5, 10),
        ("typo", 1, 1, 99),
        ("step-30-routes", 30, 5, 10),
        ("step-10-routes", 10, 5, 10),
        ("step-100-routes", 100, 5, 10),
        ("step-300-routes", 300, 5, 10),
        ("step-1000-routes", 1_000, 5, 10),
        ("step-10000-routes", 10_000, 5, 10),
    ] {
        let review = review(&object(routes, from), &object(routes, to));
        group.bench_function(name, |b| {
            b.iter(|| evaluate(policies.in_force(&review, &world), black_box(&review), &world));
        });
    }
    group.finish();
}

/// A VirtualService of `count` destinations of one Service, `together` of them in each route; `shift` turns their weights. A
/// destination is one of the two `defined` subsets, or one of its own that nobody defines.
fn spread(count: usize, together: usize, shift: usize, defined: bool) -> String {
    let entry = |at: usize| {
        let subset = if defined { format!("v{}", at % 2 + 1) } else { format!("s{at}") };
        json!({"destination": {"host": "reviews", "subset": subset}, "weight": 1 + (at + shift) % 7})
    };
    let route = |first: usize| {
        json!({
            "match": [{"uri": {"prefix": format!("/path-{first}/")}}],
            "route": (first..first + together).map(entry).collect::<Vec<_>>(),
        })
    };
    let http = (0..count).step_by(together).map(route).collect::<Vec<_>>();
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"hosts": ["reviews"], "http": http},
    })
    .to_string()
}

/// Every share changes, and where no DestinationRule defines the subsets each destination costs a finding.
fn judge_destinations(c: &mut Criterion) {
    let documents = cluster::parse("reviews", REVIEWS).expect("the world of the cases");
    let world = cluster::world(Mesh::default(), &documents, "shop");
    let policies = Policies::new(Vec::new(), rules::ALL);
    let mut group = c.benchmark_group("destinations");
    group.sample_size(10);
    for count in [100, 1_000, 10_000, 100_000] {
        for (name, together) in [("in-one-route", count), ("spread", 10)] {
            let (old, new) = (spread(count, together, 0, false), spread(count, together, 1, false));
            let review = review(&old, &new);
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| evaluate(policies.in_force(&review, &world), black_box(&review), &world));
            });
        }
    }
    group.finish();
}

/// The largest objects from their text to the verdict: what has to be done within 250 ms.
fn answer(c: &mut Criterion) {
    let documents = cluster::parse("reviews", REVIEWS).expect("the world of the cases");
    let world = cluster::world(Mesh::default(), &documents, "shop");
    let policies = Policies::new(Vec::new(), rules::ALL);
    let mut group = c.benchmark_group("answer");
    group.sample_size(10);
    let of = |together, defined| [0, 1].map(|shift| spread(100_000, together, shift, defined));
    for (name, [old, new]) in [
        ("10000-routes", [object(10_000, 5), object(10_000, 10)]),
        ("100000-defined-in-one-route", of(100_000, true)),
        ("100000-defined-spread", of(10, true)),
        ("100000-undefined-in-one-route", of(100_000, false)),
        ("100000-undefined-spread", of(10, false)),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let review = review(black_box(&old), black_box(&new));
                evaluate(policies.in_force(&review, &world), &review, &world)
            });
        });
    }
    group.finish();
}

fn pods(count: usize) -> (Vec<Object>, Host) {
    let labels = |index: usize| {
        let version = if index.is_multiple_of(10) { "v2" } else { "v1" };
        let fixed = (0..10).map(|key| (format!("example.com/label-{key}"), "value".to_owned()));
        fixed
            .chain([
                ("app".to_owned(), "reviews".to_owned()),
                ("version".to_owned(), version.to_owned()),
            ])
            .collect::<BTreeMap<_, _>>()
    };
    let mut objects = vec![Object::Service(Service {
        namespace: "shop".to_owned(),
        name: "reviews".to_owned(),
        selector: BTreeMap::from([("app".to_owned(), "reviews".to_owned())]),
        ..Service::default()
    })];
    let name = |index: usize| format!("reviews-6d4cf56db6-{index:05}");
    objects.extend((0..count).map(|index| {
        Object::Pod(Pod {
            namespace: "shop".to_owned(),
            name: name(index),
            labels: labels(index),
            is_controlled: true,
            ..Pod::default()
        })
    }));
    objects.extend((0..count).step_by(100).map(|first| {
        let endpoints = (first..(first + 100).min(count)).map(|index| SliceEndpoint {
            pod: Some(name(index)),
            ready: true,
            ..SliceEndpoint::default()
        });
        Object::EndpointSlice(EndpointSlice {
            namespace: "shop".to_owned(),
            name: format!("reviews-{first}"),
            service: "reviews".to_owned(),
            endpoints: endpoints.collect(),
            ..EndpointSlice::default()
        })
    }));
    (objects, Host::resolve("reviews", "shop", "cluster.local"))
}

fn index(c: &mut Criterion) {
    let mut group = c.benchmark_group("index");
    group.sample_size(20);
    let fill = |objects: Vec<Object>| {
        let mut world = World::empty(Mesh::default());
        objects.into_iter().for_each(|object| world.apply(object));
        world
    };
    let (objects, host) = pods(10_000);
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("fill-10000-pods", |b| {
        b.iter_batched(|| objects.clone(), fill, BatchSize::LargeInput);
    });
    group.throughput(Throughput::Elements(1));
    let mut world = fill(objects.clone());
    group.bench_function("apply-one-pod", |b| {
        b.iter_batched(|| objects[1].clone(), |pod| world.apply(pod), BatchSize::SmallInput);
    });
    let v2 = BTreeMap::from([("version".to_owned(), "v2".to_owned())]);
    for size in [10, 1_000, 10_000] {
        let (objects, _) = pods(size);
        let world = fill(objects);
        group.bench_with_input(BenchmarkId::new("selected", size), &world, |b, world| {
            b.iter(|| world.selected(black_box(&host), &v2, None).map(|found| found.ready()));
        });
    }
    let (objects, _) = pods(1_000);
    group.bench_function("replace-1000-pods", |b| {
        b.iter_batched_ref(
            || fill(objects.clone()),
            |world| {
                for (namespace, name) in world.names(Kind::Pod) {
                    world.delete(Kind::Pod, &namespace, &name);
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, parse, judge, judge_destinations, answer, index);
criterion_main!(benches);
