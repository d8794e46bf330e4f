//! The real things: API server, istiod and Envoys, started once, stopped whatever happens.

mod api;
mod envoy;
mod istiod;
mod web;

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use sluicegate::world::Mesh;
use tokio::runtime::Runtime;

pub(crate) use self::api::Api;
pub(crate) use self::envoy::{Envoy, Mode, Proxy};
pub(crate) use self::istiod::Istiod;
pub(crate) use self::web::Connection;
use crate::court::Bench;
use crate::harness::sandbox::Sandbox;
use crate::harness::{ControlPlane, Result};

/// The namespaces that the worlds live in: those of applications, and the one of the gateway's Pods.
///
/// They are the same for all worlds, so that a handful of Envoys, one per client, can be asked about many worlds at once;
/// worlds are kept apart by the names of their hosts.
pub(crate) const NAMESPACES: [&str; 5] = ["alpha", "beta", "gamma", "ingress", "istio-system"];

/// The label that all of them carry but one: some meshes read only what has it. The gateway's is known by its name.
pub(crate) const PART: &str = "mesh.sluicegate.dev/part=core";
pub(crate) const OUTSIDE: &str = "beta";

/// A control plane with Istio's, shared by all tests that do not need one of their own.
#[derive(Default)]
pub(crate) struct Stage(OnceLock<std::result::Result<Running, String>>);

/// What runs. Fields are dropped in order: whoever needs another goes first.
pub(crate) struct Running {
    pub(crate) bench: OnceLock<std::result::Result<Bench, String>>,
    pub(crate) istiod: Istiod,
    pub(crate) api: Api,
    pub(crate) plane: ControlPlane,
    pub(crate) runtime: Runtime,
    /// The Nodes and Namespaces, as they were stored.
    pub(crate) standing: Vec<Value>,
}

impl Stage {
    /// Started by the first test that asks.
    pub(crate) fn running(&self) -> Result<&Running> {
        let running = self.0.get_or_init(|| {
            Running::start().map_err(|error| error.message().unwrap_or("failed").to_owned())
        });
        running.as_ref().map_err(|error| error.as_str().into())
    }

    /// What istiod and the Envoys said, for whoever reads why a test failed.
    pub(crate) fn print_logs(&self) {
        if let Some(Ok(running)) = self.0.get() {
            running.plane.sandbox().print_logs("istiod");
            running.plane.sandbox().print_logs("envoy-");
        }
    }
}

impl Running {
    pub(crate) fn start() -> Result<Self> {
        Self::start_with(&Mesh::default())
    }

    /// With an istiod that is told this about the mesh.
    pub(crate) fn start_with(mesh: &Mesh) -> Result<Self> {
        let plane = ControlPlane::start(Arc::new(Sandbox::new()?))?;
        for name in NAMESPACES.into_iter().chain(["traffic"]) {
            plane.namespace(name, None)?;
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let api = runtime.block_on(Api::new(&plane.sandbox().path().join("admin.kubeconfig")))?;
        // Nodes before istiod: their labels are on the endpoints from the first push on.
        let mut standing = Vec::new();
        for name in NAMESPACES {
            let is_part = ![OUTSIDE, "ingress"].contains(&name);
            standing.push(runtime.block_on(api.label(name, PART, is_part))?);
        }
        for zone in ["a", "b"] {
            let labels = json!({
                "topology.kubernetes.io/region": "north", "topology.kubernetes.io/zone": format!("north-{zone}"),
                "kubernetes.io/hostname": format!("node-{zone}"),
            });
            let name = format!("node-{zone}");
            let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels } });
            standing.push(runtime.block_on(api.create(&node))?);
        }
        let istiod = Istiod::start(&plane, mesh, &[])?;
        Ok(Self { bench: OnceLock::new(), istiod, api, plane, runtime, standing })
    }
}
