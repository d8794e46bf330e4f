//! What the chart's hooks do: ask an installed gate, and take it out of the way.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::scenarios;
use crate::harness::{
    App, Authority, ControlPlane, Gate, Registration, Result, Said, Stage, manuals, verb,
    virtual_service,
};

scenarios![
    the_self_test_tells_a_good_gate_from_a_bad_one,
    the_self_test_waits_for_a_gate_that_is_being_installed,
    a_gate_that_is_unregistered_stops_nobody,
];

/// An account that may do what the manual grants to the hooks, for the configuration of this label.
fn hooks(plane: &ControlPlane, label: &str) -> Result<PathBuf> {
    let user = format!("hooks-{label}");
    let role = manuals("ClusterRole").find(|role| role.contains("sluicegate-hooks"));
    let role = role.ok_or("docs/webhook.md shows no role for the hooks")?;
    let role = role.replace("sluicegate-hooks", &user);
    let role = role.replace("[sluicegate]", &format!("[sluicegate-{label}]"));
    plane.admin().run_with(&["create", "-f", "-"], &role)?.succeeded()?;
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": user },
        "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": user },
        "subjects": [{ "apiGroup": group, "kind": "User", "name": user }],
    });
    plane.admin().run_with(&["create", "-f", "-"], &binding.to_string())?.succeeded()?;
    plane.kubeconfig(&user, &user, plane.api_port())
}

fn the_self_test_tells_a_good_gate_from_a_bad_one(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    let warns = json!({ "mode": "Warn" });
    let gate = Gate::start(plane, "tested")?;
    let lenient = Gate::start_with(plane, "tested-lenient", &warns)?;
    gate.registration(plane, "tested").create_documented(plane)?;
    lenient.registration(plane, "tested-lenient").create_documented(plane)?;
    let account = hooks(plane, "tested")?;
    let admin = plane.admin().kubeconfig.clone();
    let file = |name: &str, text: &str| -> Result<String> {
        let path = plane.sandbox().path().join(format!("self-test-{name}.yaml"));
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let warns = file("warns", &warns.to_string())?;
    let unreadable = file("unreadable", "steps: {max: 10}\n")?;
    let test = |kubeconfig: &PathBuf, label: &str, more: &[&str]| -> Result<Said> {
        let name = format!("sluicegate-{label}");
        let usual = ["self-test", "--timeout", "1s", "--webhook-configuration", &name];
        verb(kubeconfig, &[&usual, more].concat())
    };

    let good = test(&account, "tested", &[])?;
    let good = good.with(0, &["trusted, TLSv1_3", "is refused: canary-step", "is admitted"])?;
    // One place for all webhooks of the manual: it is asked about each example once.
    let lines = good.out.lines().filter(|line| line.starts_with("ok    ")).count();
    if lines != 5 {
        return Err(format!("expected five checks:\n{}", good.out).into());
    }
    test(&admin, "tested-lenient", &["--policy", &warns])?.with(0, &["the typo", "admitted"])?;

    let differs = test(&admin, "tested-lenient", &[])?;
    let words = ["FAIL", "is admitted, and policy default refuses it", "1 of 5 checks failed"];
    differs.with(1, &words)?;
    let differs = test(&account, "tested", &["--policy", &warns])?;
    differs.with(1, &["is refused: canary-step", "and policy policy-1 admits it"])?;
    let unread = test(&account, "tested", &["--policy", &unreadable])?;
    unread.with(1, &["unknown field `steps`", "last good one", "1 of 5 checks failed"])?;
    test(&admin, "nowhere", &[])?.with(1, &["there is no ValidatingWebhookConfiguration"])?;
    test(&account, "tested-lenient", &[])?.with(1, &["may not get", "verbs: [get]"])?;

    // Who signed the certificate is not who is trusted; nobody is trusted; nobody is there.
    let authority = Authority::new()?;
    let strange = gate.registration(plane, "tested-strange");
    Registration { trusted: authority.certificate().to_owned(), ..strange }.create(plane)?;
    test(&admin, "tested-strange", &[])?
        .with(1, &["no TLS: invalid peer certificate", "caBundle must hold"])?;
    let unsigned = gate.registration(plane, "tested-unsigned");
    Registration { trusted: String::new(), ..unsigned }.create(plane)?;
    test(&admin, "tested-unsigned", &[])?
        .with(1, &["caBundle is empty", "--certs self-managed"])?;
    let gone = gate.registration(plane, "tested-gone");
    Registration { port: 1, ..gone }.create(plane)?;
    test(&admin, "tested-gone", &[])?
        .with(1, &["no connection to 127.0.0.1:1", "NetworkPolicy"])?;
    let name = ["validatingwebhookconfiguration", "sluicegate-tested"];
    let patch = r#"[{"op": "remove", "path": "/webhooks/0"}]"#;
    let patching = [&["patch"], &name[..], &["--type=json", "-p", patch]].concat();
    plane.admin().run(&patching)?.succeeded()?;
    // What is left still asks about them: the account of a controller.
    test(&account, "tested", &[])?.with(0, &[])?;
    plane.admin().run(&patching)?.succeeded()?;
    let words = ["CREATE of virtualservices", "UPDATE of destinationrules", "docs/webhook.md"];
    test(&account, "tested", &[])?.with(1, &words)?;

    // A Service is found by its address, not by its name; behind this one is nobody.
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "tested", "namespace": "default" },
        "spec": { "ports": [{ "port": 443 }] },
    });
    plane.admin().run_with(&["create", "-f", "-"], &service.to_string())?.succeeded()?;
    let ip = ["get", "service", "tested", "-o", "jsonpath={.spec.clusterIP}"];
    let ip = plane.admin().run(&ip)?.succeeded()?.stdout().to_owned();
    for (port, words) in [
        (443, format!("https://tested.default.svc:443/validate?timeout=3s at {ip}:443")),
        (8443, "has no port 8443; it has 443".to_owned()),
    ] {
        let config = json!([{ "op": "replace", "path": "/webhooks/0/clientConfig", "value": {
            "service": { "name": "tested", "namespace": "default", "path": "/validate", "port": port },
            "caBundle": crate::harness::registration::base64(authority.certificate().as_bytes()),
        }}]);
        let patch = config.to_string();
        let name = [
            "patch",
            "validatingwebhookconfiguration",
            "sluicegate-tested-gone",
            "--type=json",
            "-p",
            &patch,
        ];
        plane.admin().run(&name)?.succeeded()?;
        test(&admin, "tested-gone", &[])?.with(1, &[&words])?;
    }
    Ok(())
}

fn the_self_test_waits_for_a_gate_that_is_being_installed(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    let gate = Gate::start(plane, "installing")?;
    let account = hooks(plane, "installing")?;
    let begun = Instant::now();
    thread::scope(|scope| {
        let name = "sluicegate-installing";
        let arguments = ["self-test", "--timeout", "60s", "--webhook-configuration", name];
        let testing = scope.spawn(move || verb(&account, &arguments));
        thread::sleep(Duration::from_secs(2));
        gate.registration(plane, "installing").create_documented(plane)?;
        let said = testing.join().map_err(|_| "the self-test panicked")??;
        said.with(0, &["not yet: ValidatingWebhookConfiguration", "All 5 checks passed"])
    })?;
    match begun.elapsed() {
        took if took < Duration::from_secs(30) => Ok(()),
        took => Err(format!("went on for {took:?} after all was well").into()),
    }
}

fn a_gate_that_is_unregistered_stops_nobody(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    let mut gate = Gate::start(plane, "leaving")?;
    gate.register(plane, "leaving")?;
    let account = hooks(plane, "leaving")?;
    let stranger = plane.kubeconfig("stranger", "stranger", plane.api_port())?;
    let app = App::serving(plane.namespace("leaving", Some("leaving"))?, &[("v1", 99), ("v2", 1)])?;
    let leave = |kubeconfig: &PathBuf| {
        let name = "sluicegate-leaving";
        verb(kubeconfig, &["unregister", "--webhook-configuration", name, "--settle", "2s"])
    };

    let words =
        ["may not delete", "resources: [validatingwebhookconfigurations]", "verbs: [delete]"];
    leave(&stranger)?.with(1, &words)?;
    app.apply(&virtual_service(&[("v1", 1), ("v2", 99)]))?.refused(&["canary-step"])?;

    let begun = Instant::now();
    leave(&account)?.with(0, &["sluicegate-leaving deleted", "Waited 2s"])?;
    if begun.elapsed() < Duration::from_secs(2) {
        return Err("did not wait for the API servers".into());
    }
    gate.kill()?;
    app.apply(&virtual_service(&[("v1", 95), ("v2", 5)]))?.succeeded()?;
    leave(&account)?.with(0, &["nothing to do"])?;
    Ok(())
}
