//! Certificates that rotate while writes go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::PostParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};
use sluicegate::cluster;

use super::scenarios;
use crate::harness::site::handshake;
use crate::harness::{Result, Site, Stage, text};

scenarios![no_write_and_no_handshake_fails_while_certificates_rotate];

/// Writers at once.
const WRITERS: usize = 8;
/// So many rotations are waited for, and so many of them with another CA.
const ROTATIONS: u64 = 6;
const SWITCHES: usize = 2;
/// What API servers may take; clients here take nearly all of it.
const SETTLE: Duration = Duration::from_secs(1);

/// What was asked, and what was answered otherwise than it should be.
#[derive(Default)]
struct Count {
    admitted: AtomicU64,
    refused: AtomicU64,
    handshakes: AtomicU64,
    over: AtomicBool,
    failures: Mutex<Vec<String>>,
}

impl Count {
    fn failed(&self, what: String) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

fn no_write_and_no_handshake_fails_while_certificates_rotate(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    let site = Site::new(plane, "certs-rotate")?;
    let short = ["--certs-leaf-for", "9s", "--certs-ca-for", "24s", "--certs-settle", "1s"];
    let mut gates = (0..3).map(|own| site.spawn(own, &short)).collect::<Result<Vec<_>>>()?;
    let gates_at = gates.iter().map(|gate| gate.port()).collect::<Vec<_>>();
    let probe = site.register(&gates.iter().collect::<Vec<_>>())?;
    for gate in &mut gates {
        gate.wait()?;
    }
    probe.wait()?;
    // That it is asked says nothing of the API server's own copy of the last change.
    thread::sleep(SETTLE);

    let count = Arc::new(Count::default());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let client = runtime.block_on(cluster::client(Some(&site.kubectl.kubeconfig)))?;
    let writers = (0..WRITERS).map(|number| {
        let (client, count) = (client.clone(), Arc::clone(&count));
        runtime.spawn(write(client, format!("{}-behind", site.name), number, count))
    });
    let writers = writers.collect::<Vec<_>>();
    let began = Instant::now();
    let bundles = Mutex::new(Vec::<(Instant, String)>::new());
    let (rotations, authorities) = thread::scope(|scope| {
        let (bundles, counted) = (&bundles, &count);
        for &port in &gates_at {
            scope.spawn(move || shake_hands(port, bundles, counted));
        }
        let watched = watch(&site, &gates.iter().collect::<Vec<_>>(), bundles, began);
        count.over.store(true, SeqCst);
        watched
    })?;
    for writer in writers {
        runtime.block_on(writer)?;
    }

    let [admitted, refused, handshakes] =
        [&count.admitted, &count.refused, &count.handshakes].map(|own| own.load(SeqCst));
    let failures = count.failures.lock().unwrap_or_else(PoisonError::into_inner);
    eprintln!(
        "certificates: {rotations} rotations in {:?}, {authorities} CAs; {admitted} writes admitted and {refused} refused as they \
         should be, each by 3 gates, and {handshakes} handshakes with clients that are late; {} failed",
        began.elapsed(),
        failures.len(),
    );
    match failures.first() {
        Some(first) => Err(format!("{} failed; the first: {first}", failures.len()).into()),
        None if admitted < 200 || refused < 200 || handshakes < 200 => {
            Err("too little was asked to say anything".into())
        }
        None => Ok(()),
    }
}

/// Notes every bundle until there were enough rotations; how many there were, and how many CAs.
fn watch(
    site: &Site<'_>,
    gates: &[&crate::harness::Gate],
    bundles: &Mutex<Vec<(Instant, String)>>,
    began: Instant,
) -> Result<(u64, usize)> {
    let mut authorities = std::collections::BTreeSet::new();
    loop {
        if let Some(bundle) = site.bundle()? {
            authorities.extend(bundle.split("-----BEGIN ").skip(1).map(str::to_owned));
            let mut all = bundles.lock().unwrap_or_else(PoisonError::into_inner);
            if all.last().is_none_or(|(_, last)| *last != bundle) {
                all.push((Instant::now(), bundle));
            }
        }
        let rotations = Site::sum(gates, "sluicegate_certificate_rotations_total")?;
        let count = authorities.len();
        if rotations >= ROTATIONS && count > SWITCHES {
            return Ok((rotations, count));
        }
        if began.elapsed() > Duration::from_secs(50) {
            return Err(
                format!("{rotations} rotations and {count} CAs in {:?}", began.elapsed()).into()
            );
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Shakes hands again and again, as a client that hears of another bundle nearly as late as it may.
fn shake_hands(port: u16, bundles: &Mutex<Vec<(Instant, String)>>, count: &Count) {
    let late = SETTLE.mul_f64(0.7);
    while !count.over.load(SeqCst) {
        let known = {
            let all = bundles.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter().rev().find(|(since, _)| since.elapsed() >= late).cloned()
        };
        if let Some((_, bundle)) = known {
            match handshake(port, &bundle) {
                Ok(_) => drop(count.handshakes.fetch_add(1, SeqCst)),
                Err(error) => count.failed(format!("a handshake: {}", text(error))),
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Writes what passes and what does not, in turn, and looks whether the gates said so.
async fn write(client: kube::Client, namespace: String, number: usize, count: Arc<Count>) {
    let kind = GroupVersionKind::gvk("networking.istio.io", "v1", "VirtualService");
    let resource = ApiResource::from_gvk_with_plural(&kind, "virtualservices");
    let api = Api::<DynamicObject>::namespaced_with(client, &namespace, &resource);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let object = |route: Value| {
        let spec = json!({ "hosts": ["rotation"], "http": [route] });
        DynamicObject::new(&format!("rotation-{number}"), &resource).data(json!({ "spec": spec }))
    };
    let good =
        object(json!({ "name": "all", "route": [{ "destination": { "host": "rotation" } }] }));
    let broken = object(json!({ "name": "leads-nowhere" }));
    while !count.over.load(SeqCst) {
        match api.create(&params, &good).await {
            Ok(_) => drop(count.admitted.fetch_add(1, SeqCst)),
            Err(error) => count.failed(format!("a good write: {error}")),
        }
        match api.create(&params, &broken).await {
            Ok(_) => count.failed("a broken write was admitted".to_owned()),
            Err(error) if error.to_string().contains("denied the request") => {
                count.refused.fetch_add(1, SeqCst);
            }
            Err(error) => count.failed(format!("a broken write: {error}")),
        }
    }
}
