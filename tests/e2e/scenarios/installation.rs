//! The gate is there before what it looks after.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluicegate::cluster::RESOURCES;

use super::scenarios;
use crate::harness::{
    App, ControlPlane, Gate, Result, Sandbox, Stage, eventually, virtual_service,
};

scenarios![a_gate_is_ready_before_istio_is_installed];

/// What the gate says of each kind: whether it is installed.
fn installed(gate: &Gate) -> Result<BTreeMap<String, bool>> {
    let metrics = gate.metrics()?;
    let lines = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix("sluicegate_kind_installed{kind=\"")?;
        let (kind, value) = rest.split_once("\"} ")?;
        Some((kind.to_owned(), value == "1"))
    });
    Ok(lines.collect())
}

/// What it has to say when those of these groups are installed.
fn wanted(groups: &[&str]) -> BTreeMap<String, bool> {
    let one = |own: &sluicegate::cluster::Resource| {
        (own.kind.name().to_owned(), !own.is_custom || groups.contains(&own.group))
    };
    RESOURCES.iter().map(one).collect()
}

fn a_gate_is_ready_before_istio_is_installed(_: &Stage) -> Result {
    const ISTIO: &str = "networking.istio.io";
    let plane = ControlPlane::bare(Arc::new(Sandbox::new()?))?;
    // It is ready where this returns.
    let mut gate = Gate::start(&plane, "early")?;
    let found = installed(&gate)?;
    if found != wanted(&[]) {
        return Err(format!("without any CRD the gate says {found:?}").into());
    }
    let custom = RESOURCES.iter().filter(|own| own.is_custom);
    let absent = |kind: &str| gate.said(&["is not installed", &format!("\"kind\":\"{kind}\"")]);
    for own in custom.clone() {
        let times = absent(own.kind.name())?;
        if times != 1 {
            return Err(format!("said {times} times that {:?} is not there", own.kind).into());
        }
    }

    plane.install_istio()?;
    eventually("the gate notices Istio", Duration::from_secs(40), || {
        Ok(installed(&gate)? == wanted(&[ISTIO]))
    })?;
    for own in custom {
        let arrived =
            gate.said(&["is installed now", &format!("\"kind\":\"{}\"", own.kind.name())])?;
        if (absent(own.kind.name())?, arrived) != (1, usize::from(own.group == ISTIO)) {
            return Err(format!("said {arrived} times that {:?} is there", own.kind).into());
        }
    }
    gate.register(&plane, "early")?;
    let app = App::serving(plane.namespace("early", Some("early"))?, &[("v1", 99), ("v2", 1)])?;
    app.apply(&virtual_service(&[("v1", 1), ("v2", 99)]))?.refused(&["canary-step"])?;
    app.must_store("v1=99 v2=1")?;
    match gate.has_ended()? {
        true => Err("the gate has ended".into()),
        false => Ok(()),
    }
}
