//! Workloads without a node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Kubectl, Result};

/// Says of every Deployment and ReplicaSet of a namespace that all of it runs: nobody else here would.
pub(super) struct Workloads {
    ends: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Workloads {
    pub(super) fn start(kubectl: Kubectl) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let own = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            while !own.load(Ordering::Relaxed) {
                // The next turn tries again, and the scenario says what it waits for in vain.
                let _ = roll_out(&kubectl);
                thread::sleep(Duration::from_millis(500));
            }
        });
        Self { ends, thread: Mutex::new(Some(thread)) }
    }
}

impl Drop for Workloads {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

fn roll_out(kubectl: &Kubectl) -> Result {
    let all = kubectl.run(&["get", "deployments,replicasets", "-o", "json"])?.succeeded()?;
    let all: Value = serde_json::from_str(all.stdout())?;
    for own in all["items"].as_array().into_iter().flatten() {
        let (generation, replicas) = (&own["metadata"]["generation"], &own["spec"]["replicas"]);
        let told = &own["status"];
        let is_told = told["observedGeneration"] == *generation
            && told["availableReplicas"].as_u64().unwrap_or(0) == replicas.as_u64().unwrap_or(0);
        if is_told {
            continue;
        }
        let mut status = json!({
            "observedGeneration": generation, "replicas": replicas, "readyReplicas": replicas,
            "availableReplicas": replicas,
        });
        let of_kind = match own["kind"].as_str() {
            Some("Deployment") => "updatedReplicas",
            _ => "fullyLabeledReplicas",
        };
        status[of_kind] = replicas.clone();
        let text = |at: &Value| at.as_str().unwrap_or_default().to_lowercase();
        let name = format!("{}/{}", text(&own["kind"]), text(&own["metadata"]["name"]));
        let change = json!({ "status": status }).to_string();
        let patch = ["patch", &name, "--subresource=status", "--type=merge", "-p", &change];
        kubectl.run(&patch)?.succeeded()?;
    }
    Ok(())
}
