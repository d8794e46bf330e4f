//! A whole cluster with one real node, in namespaces of its own: several at once, and nothing is left of it.
//!
//! ```text
//! let node = Node::start()?;                        // ready, with Istio's kinds
//! let shop = node.namespace("shop")?;               // kubectl there
//! node.import_image(&Image { .. })?;                // imagePullPolicy: Never
//! let gate = node.deploy_gate(2)?;                  // registered as the manual says, and asked
//! let config = node.kubeconfig_for("istio-system", "flagger")?;
//! let flagger = node.spawn("flagger", node.program("flagger")?.arg("-kubeconfig").arg(config))?;
//! node.audit().denials()?;
//! ```

mod agents;
mod app;
mod argo;
mod audit;
mod flagger;
mod freshness;
mod gate;
// Those of a release say more of themselves.
#[allow(dead_code)]
#[path = "../../image/oci.rs"]
mod image;
mod namespaces;
mod permission;
mod plane;
mod recording;
mod runtime;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use self::agents::Agents;
pub(crate) use self::agents::NODE;
pub(crate) use self::app::App;
pub(crate) use self::argo::{Argo, Demo, Mode, Plan};
pub(crate) use self::audit::{Audit, Write};
pub(crate) use self::flagger::{Flagger, Podinfo, weights};
pub(crate) use self::freshness::built;
pub(crate) use self::gate::Gate;
pub(crate) use self::image::Image;
pub(crate) use self::namespaces::Namespaces;
pub(crate) use self::permission::unless_a_node_can_be_held;
use self::plane::Plane;
pub(crate) use self::recording::Recording;
use self::runtime::Runtime;
use crate::harness::control_plane::{install_crds, write_kubeconfig_with};
use crate::harness::process::{Process, in_network};
use crate::harness::sandbox::Sandbox;
use crate::harness::{Answer, Authority, Kubectl, Result, eventually, programs};

/// Generous, because a busy machine is no failure; in practice a few seconds.
const START: Duration = Duration::from_secs(120);

/// A cluster with one node. Dropping it ends all of it.
pub(crate) struct Node {
    // Dropped in this order: whoever needs another, or would start it again, goes first. The Pods end with the namespaces, and an
    // API server would wait for what they watch.
    _agents: Agents,
    runtime: Runtime,
    namespaces: Namespaces,
    plane: Plane,
    authority: Authority,
    sandbox: Arc<Sandbox>,
}

impl Node {
    /// A node that takes Pods, with Istio's kinds, the images of [`App`] and nothing else.
    pub(crate) fn start() -> Result<Self> {
        let sandbox = Arc::new(Sandbox::new()?);
        let authority = Authority::new()?;
        let namespaces = Namespaces::new(&sandbox)?;
        let runtime = Runtime::start(&sandbox, &namespaces)?;
        let plane = Plane::start(&sandbox, &authority, &namespaces)?;
        let agents = Agents::start(&sandbox, &authority, &namespaces)?;
        let node = Self { _agents: agents, runtime, plane, namespaces, authority, sandbox };
        node.import_image(&App::image(&programs::find("pod")?))?;
        install_crds(node.admin(), &programs::find("istio-crds.yaml")?)?;
        eventually("the node is ready", START, || {
            let ready = ["wait", "node", NODE, "--for=condition=Ready", "--timeout=60s"];
            Ok(node.admin().run(&ready)?.is_success())
        })?;
        Ok(node)
    }

    pub(crate) fn admin(&self) -> &Kubectl {
        &self.plane.admin
    }

    pub(crate) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    /// The administrator's kubectl in a namespace.
    pub(crate) fn kubectl(&self, namespace: &str) -> Kubectl {
        Kubectl { namespace: namespace.to_owned(), ..self.admin().clone() }
    }

    /// A new namespace that Pods can be made in.
    pub(crate) fn namespace(&self, name: &str) -> Result<Kubectl> {
        self.admin().run(&["create", "namespace", name])?.succeeded()?;
        let kubectl = self.kubectl(name);
        eventually("the account of Pods is there", START, || {
            kubectl.exists("serviceaccount", "default")
        })?;
        Ok(kubectl)
    }

    /// A kubeconfig with a token of this service account, which has to exist: the API server knows its user by its real name.
    pub(crate) fn kubeconfig_for(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let command = ["create", "token", account, "--duration=24h"];
        let token = self.kubectl(namespace).run(&command)?.succeeded()?;
        let user = json!({ "token": token.stdout().trim() });
        let name = format!("{namespace}-{account}");
        write_kubeconfig_with(&self.sandbox, &name, &user, plane::PORT)
    }

    /// A program of the platform, in the node's network: loopback is the node's, Pods and Services can be reached.
    pub(crate) fn program(&self, name: &str) -> Result<Command> {
        Ok(in_network(&self.namespaces.network(), &programs::find(name)?))
    }

    /// Starts a command, most often of [`Self::program`]; it ends with what this returns. Its log is in the folder of the run.
    pub(crate) fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        Process::spawn(&self.sandbox, name, command)
    }

    /// Lets Pods use an image, with `imagePullPolicy: Never`.
    pub(crate) fn import_image(&self, image: &Image<'_>) -> Result {
        self.runtime.import(&self.namespaces, image)
    }

    /// Ends what runs in a Pod, without notice, as a crash does. The kubelet starts it again.
    #[allow(dead_code, reason = "only the chart's tests, which share this, crash a single Pod")]
    pub(crate) fn crash(&self, pod: &str) -> Result {
        self.runtime.crash(&self.namespaces, pod)
    }

    /// The same for an OCI archive; what it holds says how it is called.
    #[allow(
        dead_code,
        reason = "only the chart's tests, which share this, run what `make image` built"
    )]
    pub(crate) fn import_archive(&self, archive: &Path) -> Result {
        self.runtime.import_archive(&self.namespaces, archive)
    }

    /// The gate with this many replicas, registered as the manual says.
    pub(crate) fn deploy_gate(&self, replicas: u32) -> Result<Gate> {
        Gate::deploy(self, replicas)
    }

    /// Who wrote what.
    pub(crate) fn audit(&self) -> Audit {
        Audit::new(&self.sandbox)
    }

    /// What its programs said, and its Pods where they can still be asked.
    pub(crate) fn print_logs(&self) {
        self.sandbox.print_logs("");
        for command in [
            &["get", "pods", "--all-namespaces", "-o", "wide"][..],
            &["get", "events", "--all-namespaces", "--field-selector=type!=Normal"],
        ] {
            if let Ok(answer) = self.admin().run(command) {
                eprintln!("{answer}");
            }
        }
    }
}

/// What a person writes who tries again where nobody answered for the gate.
pub(crate) fn answered(write: impl Fn() -> Result<Answer>) -> Result<Answer> {
    let deadline = Instant::now() + START;
    loop {
        let answer = write()?;
        let is_missed = answer.stderr().contains("failed calling webhook");
        if !is_missed || Instant::now() > deadline {
            return Ok(answer);
        }
        thread::sleep(Duration::from_millis(200));
    }
}
