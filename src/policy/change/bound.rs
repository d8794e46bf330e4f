//! What a VirtualService is bound to.

use std::collections::HashSet;

use crate::istio::{Host, VirtualService, full_gateway};
use crate::world::{MESH, World};

/// What an object is bound to, with full names.
pub(super) struct Bound {
    pub(super) hosts: Vec<Host>,
    host_set: HashSet<Host>,
    pub(super) gateways: Vec<String>,
}

impl Bound {
    /// Of an object of `namespace`, if there is one.
    pub(super) fn of(object: Option<&VirtualService>, namespace: &str, world: &World) -> Self {
        let Some(object) = object else {
            return Self { hosts: Vec::new(), host_set: HashSet::new(), gateways: Vec::new() };
        };
        let domain = &world.mesh().domain;
        let hosts = object.spec.hosts.iter().map(|host| Host::resolve(host, namespace, domain));
        let hosts = hosts.collect::<Vec<_>>();
        let gateways = object.spec.gateways.iter().map(|gateway| full_gateway(gateway, namespace));
        let gateways = if object.spec.gateways.is_empty() {
            vec![MESH.to_owned()]
        } else {
            gateways.collect()
        };
        Self { host_set: hosts.iter().cloned().collect(), hosts, gateways }
    }

    pub(super) fn has_host(&self, host: &Host) -> bool {
        self.host_set.contains(host)
    }
}
