//! What happens to a gate, and to its replicas, while two hundred writes a second need its verdict.

use std::thread;
use std::time::Duration;

use super::scenarios;
use crate::cluster::Node;
use crate::harness::{Kubectl, Result, eventually};
use crate::helm::{Helm, Version};
use crate::load::Load;
use crate::release::{Release, import_image};

scenarios![
    no_write_is_lost_whatever_happens_to_the_replicas,
    no_write_is_lost_while_certificates_change,
    nobody_is_stopped_by_a_gate_that_is_removed,
];

const SOON: Duration = Duration::from_secs(120);

/// Before and after something is done, so that what comes a little later counts, too.
const MARGIN: Duration = Duration::from_secs(3);

struct Scene<'a> {
    node: &'a Node,
    helm: Helm<'a>,
    release: Release,
}

impl<'a> Scene<'a> {
    fn set(node: &'a Node, version: Version, values: &[&str]) -> Result<Self> {
        import_image(node)?;
        let scene = Self { node, helm: Helm::new(version, node), release: Release::on(node)? };
        scene.install(values)?;
        Ok(scene)
    }

    fn install(&self, values: &[&str]) -> Result {
        self.helm.install(values)?;
        self.release.until_ready(2)?;
        self.release.until_asked()
    }

    fn kubectl(&self) -> &Kubectl {
        &self.release.kubectl
    }

    fn scale(&self, replicas: u32) -> Result {
        let wanted = format!("--replicas={replicas}");
        self.kubectl().run(&["scale", "deployment", "sluicegate", &wanted])?.succeeded()?;
        self.release.until_ready(replicas)
    }

    fn explained(&self, ended: Result) -> Result {
        if ended.is_err() {
            self.node.print_logs();
            eprintln!("{}", self.release.log()?);
        }
        ended
    }
}

fn rest() {
    thread::sleep(MARGIN);
}

fn no_write_is_lost_whatever_happens_to_the_replicas() -> Result {
    let node = Node::start()?;
    let scene = Scene::set(&node, Version::Four, &[])?;
    scene.explained(replicas_come_and_go(&scene))
}

fn replicas_come_and_go(scene: &Scene<'_>) -> Result {
    let mut load = Load::start(scene.node)?;
    let steady = || {
        thread::sleep(Duration::from_secs(10));
        Ok(())
    };
    load.phase("nothing happens", steady)?.nothing_was_lost()?;
    let update = || {
        let before = scene.release.pods()?;
        scene.helm.upgrade(&["--set-string", "podAnnotations.turn=2"])?;
        eventually("all Pods are new", SOON, || {
            Ok(scene.release.pods()?.iter().all(|pod| !before.contains(pod)))
        })?;
        scene.release.until_ready(2)?;
        rest();
        Ok(())
    };
    load.phase("a rolling update", update)?.nothing_was_lost()?;
    load.phase("an eviction", || evict_one(scene))?.nothing_was_lost()?;
    let scaling = || {
        for replicas in [5, 1, 2] {
            scene.scale(replicas)?;
            rest();
        }
        Ok(())
    };
    load.phase("2, 5, 1, 2 replicas", scaling)?.nothing_was_lost()?;
    let crash = || {
        let before = scene.release.restarts()?;
        scene.node.crash(&scene.release.pods()?[0])?;
        eventually("its container was started again", SOON, || {
            Ok(scene.release.restarts()? > before)
        })?;
        scene.release.until_ready(2)?;
        rest();
        Ok(())
    };
    // Whoever was being judged there is not asked about again, by no API server; and that is all.
    let counts = load.phase("a crash of one", crash)?;
    eprintln!("{:?}", counts.complaints);
    counts.nothing_was_wrong()?;
    load.phase("after the crash", steady)?.nothing_was_lost()
}

/// By the API that `kubectl drain` uses, which asks the PodDisruptionBudget.
fn evict_one(scene: &Scene<'_>) -> Result {
    let pod = scene.release.pods()?.swap_remove(0);
    let kubectl = scene.kubectl();
    let eviction = serde_json::json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "name": pod, "namespace": kubectl.namespace },
    });
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", kubectl.namespace);
    kubectl.run_with(&["create", "--raw", &path, "-f", "-"], &eviction.to_string())?.succeeded()?;
    eventually("the evicted Pod is gone", SOON, || Ok(!scene.release.pods()?.contains(&pod)))?;
    scene.release.until_ready(2)?;
    rest();
    Ok(())
}

/// Certificates that are good for seconds instead of months.
const SHORT: [&str; 2] =
    ["--set", "certificates.selfManaged.leafFor=30s,certificates.selfManaged.caFor=90s"];

fn no_write_is_lost_while_certificates_change() -> Result {
    let node = Node::start()?;
    let scene = Scene::set(&node, Version::Four, &SHORT)?;
    scene.explained(certificates_change(&scene))
}

fn certificates_change(scene: &Scene<'_>) -> Result {
    const ROTATIONS: usize = 5;
    let mut load = Load::start(scene.node)?;
    let mut served = vec![scene.release.certificate()?];
    let mut trusted = vec![scene.release.trusted()?];
    let rotations = || {
        eventually("that many certificates have been served", Duration::from_secs(300), || {
            for (seen, now) in [
                (&mut served, scene.release.certificate()),
                (&mut trusted, scene.release.trusted()),
            ] {
                let now = now?;
                if seen.last() != Some(&now) {
                    seen.push(now);
                }
            }
            thread::sleep(Duration::from_millis(500));
            Ok(served.len() > ROTATIONS)
        })?;
        rest();
        Ok(())
    };
    let counts = load.phase("certificates change", rotations)?;
    eprintln!("{} certificates, {} bundles", served.len(), trusted.len());
    counts.nothing_was_lost()
}

fn nobody_is_stopped_by_a_gate_that_is_removed() -> Result {
    let node = Node::start()?;
    let scene = Scene::set(&node, Version::Four, &[])?;
    scene.explained(is_removed_under_load(&scene, "Helm 4 removes it"))?;
    let scene = Scene { helm: Helm::new(Version::Three, &node), ..scene };
    scene.install(&[])?;
    scene.explained(is_removed_under_load(&scene, "Helm 3 removes it"))
}

fn is_removed_under_load(scene: &Scene<'_>, what: &str) -> Result {
    let mut load = Load::start(scene.node)?;
    let removal = || {
        rest();
        scene.helm.uninstall()?;
        rest();
        Ok(())
    };
    let counts = load.phase(what, removal)?;
    counts.nobody_was_stopped()?;
    if counts.refused == 0 || counts.let_through == 0 {
        return Err(format!("it was there before, and not after: {counts:?}").into());
    }
    Ok(())
}
