//! What the real delivery controllers have in common: an account that may do everything, and a log that says what was refused.

use std::time::Duration;

use serde_json::json;

use super::process::Process;
use super::{ControlPlane, Kubectl, Result, eventually, text};

/// Lets an account do what it wants: what it may do is not the question here. More than once is no error.
pub(super) fn let_do_everything(plane: &ControlPlane, name: &str, account: &str) -> Result {
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": { "name": name },
        "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "apiGroup": group, "kind": "User", "name": account }],
    });
    plane.admin().apply(&binding)?.succeeded()?;
    Ok(())
}

/// Waits until `ask` answers `wanted`; what it said last, and the end of the log, are in the error.
pub(super) fn until(
    process: &Process,
    wanted: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<String>,
) -> Result {
    let mut last = String::new();
    let waited = eventually(wanted, limit, || {
        last = ask()?;
        Ok(last == wanted)
    });
    waited.map_err(|error| format!("{}, but {last}\n{}", text(error), process.tail()).into())
}

/// The controller met no webhook that said no.
pub(super) fn was_never_refused(process: &Process) -> Result {
    match process.log()?.lines().find(|line| line.contains("denied the request")) {
        Some(line) => Err(format!("the controller was refused: {line}").into()),
        None => Ok(()),
    }
}

/// What a person does who takes the weights of the first route for hers.
pub(super) fn weigh(
    kubectl: &Kubectl,
    name: &str,
    stable: u32,
    canary: u32,
) -> Result<super::Answer> {
    let change = json!([
        { "op": "replace", "path": "/spec/http/0/route/0/weight", "value": stable },
        { "op": "replace", "path": "/spec/http/0/route/1/weight", "value": canary },
    ]);
    let kind = "virtualservices.v1.networking.istio.io";
    kubectl.run(&["patch", kind, name, "--type=json", "-p", &change.to_string()])
}
