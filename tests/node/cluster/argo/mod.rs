//! The real Argo Rollouts on a node, under the name and with the permissions that its manifests give it.

mod demo;
mod manifests;

use std::time::Duration;

pub(crate) use self::demo::Demo;
pub(crate) use self::manifests::{Mode, Plan};
use super::Node;
use super::image::Image;
use crate::harness::process::Process;
use crate::harness::{Result, eventually, programs};

const START: Duration = Duration::from_secs(120);

const NAMESPACE: &str = "argo-rollouts";

/// One controller for all namespaces of a node, as its manifests install it.
pub(crate) struct Argo {
    process: Process,
}

impl Argo {
    pub(crate) const ACCOUNT: &str = "system:serviceaccount:argo-rollouts:argo-rollouts";

    /// Its kinds alone. More than once is no error.
    pub(crate) fn install_kinds(node: &Node) -> Result {
        let admin = node.admin();
        let kinds = [
            "rollout",
            "analysis-run",
            "analysis-template",
            "cluster-analysis-template",
            "experiment",
        ];
        for kind in kinds {
            let file = programs::find(&format!("{kind}-crd.yaml"))?.display().to_string();
            // Too large for the annotation of a client-side apply.
            admin.run(&["apply", "--server-side", "-f", &file])?.succeeded()?;
        }
        eventually("serving Rollouts", START, || {
            let kinds = "rollouts.v1alpha1.argoproj.io,experiments.v1alpha1.argoproj.io";
            Ok(admin.run(&["get", kinds])?.is_success())
        })
    }

    pub(crate) fn start(node: &Node) -> Result<Self> {
        Self::install_kinds(node)?;
        for revision in 1..=manifests::REVISIONS {
            let (name, program) = (manifests::image(revision), programs::find("pod")?);
            node.import_image(&Image { name: &name, program: &program, arguments: &[] })?;
        }
        let home = node.namespace(NAMESPACE)?;
        home.run(&["create", "serviceaccount", "argo-rollouts"])?.succeeded()?;
        let role = programs::find("argo-rollouts-clusterrole.yaml")?.display().to_string();
        home.run(&["create", "-f", &role])?.succeeded()?;
        let account = format!("--serviceaccount={NAMESPACE}:argo-rollouts");
        let bind = ["create", "clusterrolebinding", "argo-rollouts", "--clusterrole=argo-rollouts"];
        home.run(&[&bind[..], &[&account]].concat())?.succeeded()?;

        let kubeconfig = node.kubeconfig_for(NAMESPACE, "argo-rollouts")?;
        let mut command = node.program("rollouts-controller")?;
        command.arg(format!("--kubeconfig={}", kubeconfig.display())).args([
            "--leader-elect=false",
            "--healthzPort=18080",
            "--metricsPort=18090",
        ]);
        let process = node.spawn("argo-rollouts", &mut command)?;
        Ok(Self { process })
    }

    /// The end of what it says.
    pub(crate) fn tail(&self) -> String {
        self.process.tail()
    }
}
