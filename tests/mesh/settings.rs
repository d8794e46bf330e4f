//! Meshes that are told something else than Istio's defaults.

use sluicegate::world::Mesh;

use crate::court::Court;
use crate::harness::Result;
use crate::platform::{OUTSIDE, PART, Running};
use crate::{fixed, generated};

/// How many generated worlds each of them judges.
const GENERATED: u64 = 40;

/// Every setting differs from its default in one of them, but for one: several clusters cannot be had here.
fn meshes() -> Vec<Mesh> {
    let private = || vec![".".to_owned()];
    let selectors = [PART, "kubernetes.io/metadata.name in (ingress, elsewhere)"];
    let selectors = selectors.map(|text| text.parse().expect("a label selector"));
    vec![
        Mesh {
            domain: "example.internal".to_owned(),
            root_namespace: "beta".to_owned(),
            default_virtual_service_export_to: private(),
            default_destination_rule_export_to: private(),
            cluster: "north".to_owned(),
            ..Mesh::default()
        },
        Mesh {
            revision: "other".to_owned(),
            default_service_export_to: private(),
            has_enhanced_merge: false,
            discovery_selectors: selectors.into(),
            ..Mesh::default()
        },
    ]
}

/// The mesh with one of its settings at its default, for each setting that is not. A new setting does not get past here unseen.
fn without_one(mesh: &Mesh) -> Vec<(&'static str, Mesh)> {
    let Mesh {
        domain,
        root_namespace,
        revision,
        default_virtual_service_export_to,
        default_destination_rule_export_to,
        default_service_export_to,
        cluster,
        has_enhanced_merge,
        discovery_selectors,
        is_multi_cluster,
    } = Mesh::default();
    let own = || mesh.clone();
    let all = [
        ("domain", Mesh { domain, ..own() }),
        ("rootNamespace", Mesh { root_namespace, ..own() }),
        ("revision", Mesh { revision, ..own() }),
        ("defaultVirtualServiceExportTo", Mesh { default_virtual_service_export_to, ..own() }),
        ("defaultDestinationRuleExportTo", Mesh { default_destination_rule_export_to, ..own() }),
        ("defaultServiceExportTo", Mesh { default_service_export_to, ..own() }),
        ("CLUSTER_ID", Mesh { cluster, ..own() }),
        ("ENABLE_ENHANCED_DESTINATIONRULE_MERGE", Mesh { has_enhanced_merge, ..own() }),
        ("discoverySelectors", Mesh { discovery_selectors, ..own() }),
        ("several clusters", Mesh { is_multi_cluster, ..own() }),
    ];
    all.into_iter().filter(|(_, changed)| changed != mesh).collect()
}

/// One after the other: each has a control plane of its own, because its namespaces are.
pub(crate) fn agree_with_istio() -> Result {
    let meshes = meshes();
    let changed = meshes.iter().flat_map(without_one).count();
    assert_eq!(changed, 9, "every setting is tried once");
    for mesh in &meshes {
        let running = Running::start_with(mesh)?;
        let judged = judge(&running).and_then(|()| generated::agree(&running, GENERATED));
        if let Err(error) = judged {
            running.plane.sandbox().print_logs("istiod");
            let reason = error.message().unwrap_or("failed");
            return Err(format!("{mesh:?}\n{reason}").into());
        }
    }
    Ok(())
}

/// The fixed worlds; and each setting is one that some of them tell from its default.
fn judge(running: &Running) -> Result {
    let (names, worlds) = fixed::worlds()?;
    // Those with Sidecars would have to stand alone, one after the other; no setting changes what a Sidecar means.
    let open = names.into_iter().zip(worlds).filter(|(_, world)| !world.is_fenced());
    let (names, worlds): (Vec<_>, Vec<_>) = open.unzip();
    let mesh = &running.istiod.mesh;
    let worlds = worlds.iter().map(|world| world.in_domain(&mesh.domain)).collect::<Vec<_>>();
    let court = Court::of(running)?;
    let session = court.open(&worlds)?;
    fixed::report(&names, &court.hear(&session, &[])?)?;
    let unnoticed = court.unnoticed(&session, &without_one(mesh))?;
    if !unnoticed.is_empty() {
        return Err(format!("no world tells these from their defaults: {unnoticed:?}").into());
    }
    if !mesh.discovery_selectors.is_empty() {
        // What was there all the time is read as soon as its namespace has the label, and no longer than it has.
        for is_set in [true, false] {
            let label = running.api.label(OUTSIDE, PART, is_set);
            let namespace = running.runtime.block_on(label)?;
            fixed::report(&names, &court.hear(&session, &[namespace])?)?;
        }
    }
    court.close(&session.round)
}
