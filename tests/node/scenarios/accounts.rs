//! Programs that run beside the node, under the names of their accounts.

use std::time::Duration;

use super::scenarios;
use crate::Stage;
use crate::cluster::App;
use crate::harness::{Kubectl, Result, eventually, virtual_service};

scenarios![a_controller_is_known_by_its_account, a_program_reaches_the_api_server_of_its_node];

const SOON: Duration = Duration::from_secs(30);

fn a_controller_is_known_by_its_account(stage: &Stage) -> Result {
    let node = &stage.running()?.node;
    let app = App::serving(node.namespace("accounts")?, &[("v1", 99), ("v2", 1)])?;
    // Nobody else runs under this one.
    let system = node.namespace("flagger-system")?;
    system.run(&["create", "serviceaccount", "flagger"])?.succeeded()?;
    let binding = ["create", "clusterrolebinding", "flagger-system", "--clusterrole=cluster-admin"];
    let account = "--serviceaccount=flagger-system:flagger";
    system.run(&[&binding[..], &[account]].concat())?.succeeded()?;

    let kubeconfig = node.kubeconfig_for("flagger-system", "flagger")?;
    let flagger = Kubectl { kubeconfig, ..app.kubectl.clone() };
    // Nothing says that it drives this one, so it is judged like everybody, by the entry for controllers.
    let swapped = virtual_service(&[("v1", 1), ("v2", 99)]);
    // Where there is no verdict in time, that entry lets it pass.
    let mut refused = Err("not tried".into());
    eventually("the swapped weights get a verdict", SOON, || {
        let words = ["\"controllers.sluicegate.dev\" denied the request: canary-step: "];
        refused = flagger.apply_with(&["--dry-run=server"], &swapped)?.refused(&words).map(drop);
        Ok(refused.is_ok())
    })
    .or(refused)?;
    flagger.apply(&virtual_service(&[("v1", 95), ("v2", 5)]))?.succeeded()?;

    eventually("both writes are in the audit log", SOON, || {
        let writes = node.audit().writes_of("system:serviceaccount:flagger-system:flagger")?;
        let [.., refused, stored] = &writes[..] else { return Ok(false) };
        let verdict = "controllers.sluicegate.dev/verdict";
        Ok(refused.is_dry_run
            && refused.code == 403
            && refused.annotations[verdict] == "deny"
            && !stored.is_dry_run
            && stored.code == 200
            && stored.annotations[verdict] == "allow"
            && stored.response["spec"]["http"][0]["route"][1]["weight"] == 5
            && refused.time < stored.time)
    })
}

fn a_program_reaches_the_api_server_of_its_node(stage: &Stage) -> Result {
    let node = &stage.running()?.node;
    let mut command = node.program("kubectl")?;
    command.args(["proxy", "--port=8901"]).env("KUBECONFIG", &node.admin().kubeconfig);
    let mut proxy = node.spawn("kubectl-proxy", &mut command)?;
    proxy.wait_until(SOON, || true)?;
    eventually("it serves", SOON, || Ok(proxy.log()?.contains("Starting to serve")))
}
