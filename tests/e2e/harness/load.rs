//! Writes and handshakes without a pause, and what became of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::Api;
use kube::api::PostParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};
use sluicegate::cluster;
use tokio::runtime::Runtime;

use super::site::handshake;
use super::{Gate, Result, Site, text};

/// Writers at once.
const WRITERS: usize = 8;

/// Writers, and a client for each gate that hears of another bundle late.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
    writers: Vec<tokio::task::JoinHandle<()>>,
    runtime: Runtime,
}

#[derive(Default)]
struct Shared {
    admitted: AtomicU64,
    refused: AtomicU64,
    handshakes: AtomicU64,
    over: AtomicBool,
    failures: Mutex<Vec<String>>,
    /// Every bundle, and since when it is the one.
    bundles: Mutex<Vec<(Instant, String)>>,
}

impl Load {
    /// Begins; clients hear of another bundle so much later.
    pub(crate) fn start(site: &Site<'_>, gates: &[&Gate], late: Duration) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(cluster::client(Some(&site.kubectl.kubeconfig)))?;
        runtime.spawn(look(client.clone(), site.name.clone(), Arc::clone(&shared)));
        let writers = (0..WRITERS).map(|number| {
            let namespace = format!("{}-behind", site.name);
            runtime.spawn(write(client.clone(), namespace, number, Arc::clone(&shared)))
        });
        let writers = writers.collect();
        let clients = gates.iter().map(|gate| {
            let (port, shared) = (gate.port(), Arc::clone(&shared));
            thread::spawn(move || shake_hands(port, late, &shared))
        });
        let clients = clients.collect();
        Ok(Self { shared, clients, writers, runtime })
    }

    /// The bundles that there have been until now, in their order.
    pub(crate) fn bundles(&self) -> Vec<String> {
        locked(&self.shared.bundles).iter().map(|(_, bundle)| bundle.clone()).collect()
    }

    /// Ends, says how much there was, and fails where anything did, or where there was too little to say anything.
    pub(crate) fn finish(mut self) -> Result<String> {
        self.shared.over.store(true, SeqCst);
        for client in self.clients.drain(..) {
            client.join().map_err(|_| "a client panicked")?;
        }
        for writer in self.writers.drain(..) {
            self.runtime.block_on(writer)?;
        }
        let own = &self.shared;
        let [admitted, refused, handshakes] =
            [&own.admitted, &own.refused, &own.handshakes].map(|count| count.load(SeqCst));
        let failures = locked(&own.failures);
        let said = format!(
            "{admitted} writes admitted and {refused} refused as they should be, {handshakes} handshakes with clients that are \
             late; {} failed",
            failures.len()
        );
        match failures.first() {
            Some(first) => Err(format!("{said}; the first: {first}").into()),
            None if [admitted, refused, handshakes].iter().any(|&count| count < 100) => {
                Err(format!("too little to say anything: {said}").into())
            }
            None => Ok(said),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.over.store(true, SeqCst);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn failed(&self, what: String) {
        locked(&self.failures).push(what);
    }
}

/// Looks which bundle is the one now, more often than anybody could who has to start a program for it: clients are to be as late as
/// they are told, and no later.
async fn look(client: kube::Client, name: String, shared: Arc<Shared>) {
    let api = Api::<ValidatingWebhookConfiguration>::all(client);
    while !shared.over.load(SeqCst) {
        if let Ok(found) = api.get(&name).await {
            let webhooks = found.webhooks.into_iter().flatten();
            let mut bundles = webhooks.map(|own| own.client_config.ca_bundle.unwrap_or_default().0);
            let first = bundles.next().unwrap_or_default();
            let bundle = String::from_utf8_lossy(&first).into_owned();
            let mut all = locked(&shared.bundles);
            let is_new = all.last().is_none_or(|(_, last)| *last != bundle);
            if is_new && !bundle.is_empty() && bundles.all(|other| other == first) {
                all.push((Instant::now(), bundle));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn shake_hands(port: u16, late: Duration, shared: &Shared) {
    while !shared.over.load(SeqCst) {
        let known = {
            let all = locked(&shared.bundles);
            all.iter().rev().find(|(since, _)| since.elapsed() >= late).cloned()
        };
        if let Some((_, bundle)) = known {
            match handshake(port, &bundle) {
                Ok(_) => drop(shared.handshakes.fetch_add(1, SeqCst)),
                Err(error) => shared.failed(format!("a handshake: {}", text(error))),
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Writes what passes and what does not, in turn, and looks whether the gates said so.
async fn write(client: kube::Client, namespace: String, number: usize, shared: Arc<Shared>) {
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
    while !shared.over.load(SeqCst) {
        match api.create(&params, &good).await {
            Ok(_) => drop(shared.admitted.fetch_add(1, SeqCst)),
            Err(error) => shared.failed(format!("a good write: {error}")),
        }
        match api.create(&params, &broken).await {
            Ok(_) => shared.failed("a broken write was admitted".to_owned()),
            Err(error) if error.to_string().contains("denied the request") => {
                shared.refused.fetch_add(1, SeqCst);
            }
            Err(error) => shared.failed(format!("a broken write: {error}")),
        }
    }
}
