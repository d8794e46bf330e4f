//! The world under random changes counts like a model that simply keeps everything.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sluicegate::world::{
    EndpointSlice, Kind, Mesh, Object, Pod, Service, SliceEndpoint, Statistics, World,
};

use super::{counts, host, ready_of};

const NAMESPACES: [&str; 2] = ["shop", "front"];

#[derive(Debug, Clone)]
enum Change {
    Pod { at: usize, name: u8, app: u8, version: u8 },
    NoPod { at: usize, name: u8 },
    Slice { at: usize, name: u8, service: u8, endpoints: Vec<(u8, bool)> },
    NoSlice { at: usize, name: u8 },
}

fn change() -> impl Strategy<Value = Change> {
    let at = || 0..NAMESPACES.len();
    prop_oneof![
        (at(), 0u8..8, 0u8..2, 0u8..3).prop_map(|(at, name, app, version)| Change::Pod {
            at,
            name,
            app,
            version
        }),
        (at(), 0u8..8).prop_map(|(at, name)| Change::NoPod { at, name }),
        (at(), 0u8..4, 0u8..2, prop::collection::vec((0u8..8, any::<bool>()), 0..6)).prop_map(
            |(at, name, service, endpoints)| Change::Slice { at, name, service, endpoints }
        ),
        (at(), 0u8..4).prop_map(|(at, name)| Change::NoSlice { at, name }),
    ]
}

/// A slice's Service, and its Pods with their readiness.
type Slice = (u8, Vec<(u8, bool)>);

#[derive(Default)]
struct Model {
    pods: BTreeMap<(usize, u8), (u8, u8)>,
    slices: BTreeMap<(usize, u8), Slice>,
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::Pod { at, name, app, version } => {
                self.pods.insert((at, name), (app, version));
            }
            Change::NoPod { at, name } => {
                self.pods.remove(&(at, name));
            }
            Change::Slice { at, name, service, endpoints } => {
                self.slices.insert((at, name), (service, endpoints));
            }
            Change::NoSlice { at, name } => {
                self.slices.remove(&(at, name));
            }
        }
    }

    /// Ready and known unready endpoints of a Service, and the ready ones that a version's subset may select.
    fn counts(&self, at: usize, service: u8, version: u8) -> (u32, u32, u32) {
        let own = self.slices.iter().filter(|((own, _), (of, _))| *own == at && *of == service);
        let mut pods = BTreeMap::new();
        for &(pod, ready) in own.flat_map(|(_, (_, endpoints))| endpoints) {
            *pods.entry(pod).or_insert(false) |= ready;
        }
        let mut counts = (0, 0, 0);
        for (pod, ready) in pods {
            let known = self.pods.get(&(at, pod));
            counts.0 += u32::from(ready);
            counts.1 += u32::from(!ready && known.is_some());
            counts.2 += u32::from(ready && known.is_none_or(|&(_, own)| own == version));
        }
        counts
    }
}

fn labels(app: u8, version: u8) -> BTreeMap<String, String> {
    let pair = |key: &str, value: String| (key.to_owned(), value);
    BTreeMap::from([pair("app", format!("s{app}")), pair("version", format!("v{version}"))])
}

fn apply(world: &mut World, change: &Change) {
    match change {
        Change::Pod { at, name, app, version } => world.apply(Object::Pod(Pod {
            namespace: NAMESPACES[*at].to_owned(),
            name: format!("p{name}"),
            labels: labels(*app, *version),
            is_controlled: name % 2 == 0,
            ..Pod::default()
        })),
        Change::NoPod { at, name } => world.delete(Kind::Pod, NAMESPACES[*at], &format!("p{name}")),
        Change::Slice { at, name, service, endpoints } => {
            let endpoint = |&(pod, ready): &(u8, bool)| SliceEndpoint {
                pod: Some(format!("p{pod}")),
                ready,
                ..SliceEndpoint::default()
            };
            world.apply(Object::EndpointSlice(EndpointSlice {
                namespace: NAMESPACES[*at].to_owned(),
                name: format!("e{name}"),
                service: format!("s{service}"),
                endpoints: endpoints.iter().map(endpoint).collect(),
                ..EndpointSlice::default()
            }));
        }
        Change::NoSlice { at, name } => {
            world.delete(Kind::EndpointSlice, NAMESPACES[*at], &format!("e{name}"));
        }
    }
}

proptest! {
    #[test]
    fn the_world_counts_like_a_naive_model(changes in prop::collection::vec(change(), 0..60)) {
        let mut world = World::empty(Mesh::default());
        for namespace in NAMESPACES {
            for service in 0..2 {
                let (namespace, name) = (namespace.to_owned(), format!("s{service}"));
                world.apply(Object::Service(Service { namespace, name, ..Service::default() }));
            }
        }
        let mut model = Model::default();
        for change in &changes {
            apply(&mut world, change);
            model.apply(change);
            for (at, namespace) in NAMESPACES.into_iter().enumerate() {
                for service in 0..2 {
                    let name = format!("s{service}");
                    for version in 0..3 {
                        let (ready, unready, of_version) = model.counts(at, service, version);
                        prop_assert_eq!(counts(&world, namespace, &name), Some((ready, unready)));
                        prop_assert_eq!(ready_of(&world, namespace, &name, &format!("v{version}")), of_version);
                    }
                }
            }
            let carried = model.pods.values().collect::<BTreeSet<_>>();
            let statistics = world.statistics();
            prop_assert_eq!(statistics.pods, model.pods.len());
            prop_assert_eq!(statistics.slices, model.slices.len());
            prop_assert_eq!(statistics.label_sets, carried.len());
        }
        for kind in [Kind::Pod, Kind::EndpointSlice] {
            for (namespace, name) in world.names(kind) {
                world.delete(kind, &namespace, &name);
            }
        }
        prop_assert_eq!(world.statistics(), Statistics::default());
        prop_assert_eq!(world.endpoints(&host("shop", "s0")).map(|found| found.ready()), Some(0));
    }
}
