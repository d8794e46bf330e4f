//! The cluster's way into the world: files, hand-fed events, a make-believe API server.

mod api;
mod certificates;
mod churn;
mod discovery;
mod files;
mod index;
mod live;
mod members;
mod memory;
mod mesh_config;
mod watch;

use std::collections::BTreeMap;

use sluicegate::istio::Host;
use sluicegate::world::{Mesh, World};

/// Ready and unready endpoints of a Service.
fn counts(world: &World, namespace: &str, service: &str) -> Option<(u32, u32)> {
    let endpoints = world.endpoints(&host(namespace, service))?;
    Some((endpoints.ready(), endpoints.unready()))
}

/// How many of its ready endpoints carry the label `version`.
fn ready_of(world: &World, namespace: &str, service: &str, version: &str) -> u32 {
    let labels = BTreeMap::from([("version".to_owned(), version.to_owned())]);
    world.selected(&host(namespace, service), &labels, None).map_or(0, |found| found.ready())
}

fn host(namespace: &str, service: &str) -> Host {
    Host::resolve(service, namespace, &Mesh::default().domain)
}
