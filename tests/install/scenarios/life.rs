//! The life of a release: installed with the documented command and nothing else, changed, rolled back, removed, installed again.

use std::time::{Duration, Instant};

use serde_json::json;

use super::scenarios;
use crate::cluster::{App, Node, answered};
use crate::harness::{Answer, Result, eventually, virtual_service};
use crate::helm::{Helm, Version};
use crate::release::{Release, import_image};

scenarios![
    helm_4_installs_changes_and_removes_the_gate,
    helm_3_installs_changes_and_removes_the_gate,
];

/// From the command until the last replica is ready.
const READY: Duration = Duration::from_secs(15);

/// Until the kubelet has brought a ConfigMap into a Pod, and the gate has read it.
const BROUGHT: Duration = Duration::from_secs(150);

const SOON: Duration = Duration::from_secs(60);

fn helm_4_installs_changes_and_removes_the_gate() -> Result {
    lives(Version::Four)
}

fn helm_3_installs_changes_and_removes_the_gate() -> Result {
    lives(Version::Three)
}

fn lives(version: Version) -> Result {
    let node = Node::start()?;
    import_image(&node)?;
    let (helm, release) = (Helm::new(version, &node), Release::on(&node)?);
    let app = App::serving(node.namespace("shop")?, &[("v1", 99), ("v2", 1)])?;
    let life = Life { helm, release, app };
    let ended = life.live();
    if ended.is_err() {
        node.print_logs();
        eprintln!("{}", life.release.log()?);
    }
    ended
}

struct Life<'a> {
    helm: Helm<'a>,
    release: Release,
    app: App,
}

impl Life<'_> {
    fn live(&self) -> Result {
        self.is_installed()?;
        self.tests_itself()?;
        self.takes_another_policy_without_a_restart()?;
        self.keeps_the_last_good_policy()?;
        self.is_rolled_back()?;
        self.is_repaired()?;
        self.is_removed()?;
        // Nothing of the first one is in the way.
        self.is_installed()?;
        self.is_removed()
    }

    fn is_installed(&self) -> Result {
        let began = Instant::now();
        let said = self.helm.install(&[])?;
        self.release.until_ready(2)?;
        let took = began.elapsed();
        eprintln!("installed, and both replicas ready, in {:.1} s", took.as_secs_f64());
        if took > READY {
            return Err(format!("that took {took:?}\n{}", self.release.log()?).into());
        }
        if !said.stdout().contains("helm test sluicegate -n sluicegate-system") {
            return Err(format!("no next command: {said}").into());
        }
        self.release.until_asked()?;
        self.raise(99)?.refused(&[
            "admission webhook \"validate.sluicegate.dev\" denied the request: canary-step: ",
            "reviews/v2 would go from 1 % to 99 % in one write",
        ])?;
        if self.release.restarts()? > 0 {
            return Err(format!("it was started again\n{}", self.release.log()?).into());
        }
        Ok(())
    }

    /// To so many percent, as a dry run.
    fn raise(&self, canary: u32) -> Result<Answer> {
        let split = virtual_service(&[("v1", 100 - canary), ("v2", canary)]);
        answered(|| self.app.kubectl.apply_with(&["--dry-run=server"], &split))
    }

    fn tests_itself(&self) -> Result {
        self.helm.test()?.succeeded()?;
        Ok(())
    }

    fn takes_another_policy_without_a_restart(&self) -> Result {
        self.raise(40)?.succeeded()?;
        let before = self.release.pods()?;
        self.helm.upgrade(&["--set", "policy.step.max=20"])?;
        self.release.hurry()?;
        eventually("the new step is in force", BROUGHT, || {
            Ok(self.raise(40)?.stderr().contains("20 points is the most here"))
        })?;
        if self.release.pods()? != before {
            return Err("the Pods were replaced for it".into());
        }
        self.tests_itself()
    }

    /// Somebody edits what the chart wrote.
    fn keeps_the_last_good_policy(&self) -> Result {
        let change = json!({ "data": { "policy.yaml": "step: {max: many}" } }).to_string();
        let patch = ["patch", "configmap", "sluicegate-policy", "--type=merge", "-p", &change];
        self.release.kubectl.run(&patch)?.succeeded()?;
        self.release.hurry()?;
        eventually("every replica says so", BROUGHT, || {
            Ok(self.release.samples("sluicegate_policy_current")? == [0.0, 0.0])
        })?;
        self.raise(40)?.refused(&["20 points is the most here"])?;
        let answer = self.helm.test()?;
        if answer.is_success() {
            return Err(format!("a policy that nobody can read is no test: {answer}").into());
        }
        Ok(())
    }

    fn is_rolled_back(&self) -> Result {
        self.helm.roll_back(1)?;
        self.release.hurry()?;
        eventually("the first policy is in force again", BROUGHT, || {
            Ok(self.release.samples("sluicegate_policy_current")? == [1.0, 1.0]
                && self.raise(40)?.is_success())
        })?;
        self.raise(99)?.refused(&["canary-step"])?;
        self.tests_itself()
    }

    /// Somebody takes the certificate out of the registration, and removes the Secret.
    fn is_repaired(&self) -> Result {
        let trusted = self.release.trusted()?;
        let change =
            json!([{ "op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": "" }])
                .to_string();
        let patch =
            ["patch", "validatingwebhookconfiguration", "sluicegate", "--type=json", "-p", &change];
        self.release.kubectl.run(&patch)?.succeeded()?;
        eventually("what is trusted is written again", SOON, || {
            Ok(self.release.trusted().is_ok_and(|own| own == trusted))
        })?;
        let before = self.release.certificate()?;
        self.release.kubectl.run(&["delete", "secret", "sluicegate-certs"])?.succeeded()?;
        eventually("another certificate is there and asked for", SOON, || {
            let is_new =
                self.release.certificate().is_ok_and(|own| own != before && !own.is_empty());
            Ok(is_new && self.release.is_asked()?)
        })
    }

    fn is_removed(&self) -> Result {
        self.helm.uninstall()?;
        eventually("nothing is left", SOON, || Ok(self.release.leftovers()?.is_empty())).map_err(
            |error| match self.release.leftovers() {
                Ok(left) => format!("{}: {left:?}", crate::harness::text(error)),
                Err(other) => crate::harness::text(other),
            },
        )?;
        // And nobody is in the way.
        self.raise(99)?.succeeded()?;
        Ok(())
    }
}
