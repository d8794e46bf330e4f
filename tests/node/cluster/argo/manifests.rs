//! What a team writes that delivers `demo` with Argo Rollouts.

use serde_json::{Value, json};

use super::super::app::probe;
use crate::harness::list;

/// So many versions there are.
pub(super) const REVISIONS: u32 = 4;

const PORT: u16 = 9080;

/// How traffic is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One Service, and the two subsets of a DestinationRule.
    Subsets,
    /// Two Services.
    Services,
    /// Two Services that change their parts with every rollout.
    PingPong,
}

impl Mode {
    /// As it is called in the names of namespaces and recordings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Subsets => "subsets",
            Self::Services => "services",
            Self::PingPong => "ping-pong",
        }
    }

    fn services(self) -> &'static [&'static str] {
        match self {
            Self::Subsets => &["demo"],
            Self::Services => &["demo", "demo-stable", "demo-canary"],
            Self::PingPong => &["demo", "demo-ping", "demo-pong"],
        }
    }

    fn destinations(self) -> [Value; 2] {
        match self {
            Self::Subsets => {
                ["stable", "canary"].map(|subset| json!({ "host": "demo", "subset": subset }))
            }
            Self::Services | Self::PingPong => {
                [1, 2].map(|at| json!({ "host": self.services()[at] }))
            }
        }
    }
}

/// What a Rollout is told beside its mode.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Of `spec.strategy.canary`: `steps` and what else there is.
    pub(crate) canary: Value,
    /// Of `spec`: `rollbackWindow` and the like.
    pub(crate) spec: Value,
    /// The routes that it may put in front.
    pub(crate) managed: &'static [&'static str],
    /// What it refers to.
    pub(crate) objects: Vec<Value>,
}

impl Plan {
    pub(crate) fn steps(steps: &Value) -> Self {
        Self::canary(json!({ "steps": steps }))
    }

    pub(crate) fn canary(canary: Value) -> Self {
        Self { canary, spec: json!({}), managed: &[], objects: Vec::new() }
    }
}

/// What is in the team's repository beside its Rollout, which refers to it.
pub(super) fn surroundings(mode: Mode, plan: &Plan) -> Value {
    let mut objects: Vec<_> = mode.services().iter().map(|name| service(name)).collect();
    objects.extend(routing(mode));
    objects.extend(plan.objects.iter().cloned());
    list(&objects)
}

/// What the controller changes of it.
pub(super) fn routing(mode: Mode) -> Vec<Value> {
    match mode {
        Mode::Subsets => vec![virtual_service(mode), destination_rule()],
        Mode::Services | Mode::PingPong => vec![virtual_service(mode)],
    }
}

pub(super) fn image(revision: u32) -> String {
    format!("sluicegate.dev/demo:{revision}")
}

pub(super) fn environment(is_ready: bool) -> Value {
    let port = json!({ "name": "PORT", "value": PORT.to_string() });
    match is_ready {
        true => json!([port]),
        false => json!([port, { "name": "READY", "value": "false" }]),
    }
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "selector": { "app": "demo" }, "ports": [{ "name": "http", "port": 80, "targetPort": "http" }] },
    })
}

fn virtual_service(mode: Mode) -> Value {
    let [first, second] = mode.destinations();
    let route =
        json!([{ "destination": first, "weight": 100 }, { "destination": second, "weight": 0 }]);
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "demo" },
        "spec": { "hosts": ["demo"], "http": [{ "name": "primary", "route": route }] },
    })
}

fn destination_rule() -> Value {
    let subset = |name: &str| json!({ "name": name, "labels": { "app": "demo" } });
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": { "name": "demo" },
        "spec": { "host": "demo", "subsets": [subset("stable"), subset("canary")] },
    })
}

/// The first version.
pub(super) fn rollout(mode: Mode, plan: &Plan) -> Value {
    let mut istio = json!({ "virtualService": { "name": "demo", "routes": ["primary"] } });
    let mut canary = match mode {
        Mode::Subsets => {
            let subsets = json!({ "name": "demo", "stableSubsetName": "stable", "canarySubsetName": "canary" });
            istio["destinationRule"] = subsets;
            json!({})
        }
        Mode::Services => json!({ "stableService": "demo-stable", "canaryService": "demo-canary" }),
        Mode::PingPong => {
            json!({ "pingPong": { "pingService": "demo-ping", "pongService": "demo-pong" } })
        }
    };
    canary["trafficRouting"] = json!({ "istio": istio });
    if !plan.managed.is_empty() {
        let managed: Vec<_> = plan.managed.iter().map(|name| json!({ "name": name })).collect();
        canary["trafficRouting"]["managedRoutes"] = managed.into();
    }
    // The one excludes the other; with the third the controller waits for ever, gate or not.
    if plan.canary["dynamicStableScale"] != true {
        canary["scaleDownDelaySeconds"] = 1.into();
        canary["abortScaleDownDelaySeconds"] = 2.into();
    }
    merge(&mut canary, &plan.canary);
    let labels = json!({ "app": "demo" });
    let mut spec = json!({
        "replicas": 1,
        "selector": { "matchLabels": labels },
        "template": { "metadata": { "labels": labels }, "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "demo", "image": image(1), "imagePullPolicy": "Never",
                "env": environment(true),
                "ports": [{ "name": "http", "containerPort": PORT }],
                "readinessProbe": probe("/ready", "http", 1),
            }],
        }},
        "strategy": { "canary": canary },
    });
    merge(&mut spec, &plan.spec);
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": { "name": "demo" }, "spec": spec,
    })
}

/// What is given takes the place of what is there.
fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}
