//! Certificates that the gates look after themselves.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::scenarios;
use crate::harness::site::{SECRET, handshake};
use crate::harness::{Gate, Result, Site, Stage, eventually};

scenarios![
    a_fresh_install_makes_its_own_certificates,
    the_ca_bundle_is_put_back_and_nothing_else_is_touched,
    a_configuration_that_is_gone_is_waited_for_and_never_made,
    replicas_that_start_at_once_agree_on_one_secret,
    a_holder_that_dies_in_the_middle_of_a_rotation,
    without_permission_it_says_which_and_goes_on,
];

const SOON: Duration = Duration::from_secs(20);
const CONFIGURATION: &str = "validatingwebhookconfiguration";

fn a_fresh_install_makes_its_own_certificates(stage: &Stage) -> Result {
    let site = Site::new(stage.plane()?, "certs-fresh")?;
    let started = Instant::now();
    let mut gate = site.spawn(0, &[])?;
    let probe = site.register(&[&gate])?;
    gate.wait()?;
    eprintln!("certificates: ready {:?} after the start of an empty namespace", started.elapsed());
    // A typo is refused, and nobody has made a certificate.
    probe.wait()?;
    eprintln!("certificates: a typo is refused {:?} after that start", started.elapsed());

    let keys = [
        "get",
        "secret",
        SECRET,
        "-o",
        "go-template={{.type}}{{range $key, $_ := .data}} {{$key}}{{end}}",
    ];
    let keys = site.kubectl.run(&keys)?.succeeded()?.stdout().to_owned();
    must_be(keys.as_str(), "kubernetes.io/tls ca.crt ca.key tls.crt tls.key")?;
    let log = gate.log()?;
    if log.contains("PRIVATE KEY") {
        return Err("a key is in the log".into());
    }
    must_be(&gate.metric("sluicegate_certificate_rotations_total")?, &0)?;
    must_be(&gate.metric("sluicegate_certificate_issue_failures_total")?, &0)?;
    let (leaf, ca) = (
        gate.metric("sluicegate_certificate_expiry_timestamp_seconds")?,
        gate.metric("sluicegate_ca_expiry_timestamp_seconds")?,
    );
    must_be(&((ca - leaf) / 86_400), &640)?;

    // A replica that comes later serves the same one.
    let mut second = site.spawn(1, &[])?;
    second.wait()?;
    let bundle = site.bundle()?.ok_or("no caBundle")?;
    must_be(&handshake(gate.port(), &bundle)?, &handshake(second.port(), &bundle)?)
}

fn the_ca_bundle_is_put_back_and_nothing_else_is_touched(stage: &Stage) -> Result {
    let site = Site::new(stage.plane()?, "certs-bundle")?;
    let mut gate = site.spawn(0, &[])?;
    let other = site.spawn(1, &[])?;
    // As Helm 4 does it, and kubectl apply --server-side.
    let configuration = site.configuration(&[&gate, &other]);
    let server_side = |own: &Value| {
        let flags = ["apply", "--server-side", "--field-manager=helm", "-f", "-"];
        site.kubectl.run_with(&flags, &own.to_string())
    };
    server_side(&configuration)?.succeeded()?;
    gate.wait()?;
    let is_set = || Ok(site.bundle()?.is_some());
    eventually("caBundle is set", SOON, is_set)?;
    let bundle = site.bundle()?;
    let managers = managers(&site.stored()?);
    let own = managers.iter().find(|(name, _)| name == "sluicegate-certs");
    let fields = own.map(|(_, fields)| fields.clone()).ok_or("no field manager of its own")?;
    must_be(&fields, &BTreeSet::from(["f:webhooks.f:clientConfig.f:caBundle".to_owned()]))?;

    // Applied again without caBundle, by the server and by the client, it stays.
    server_side(&configuration)?.succeeded()?;
    must_be(&site.bundle()?, &bundle)?;
    site.kubectl.apply(&configuration)?.succeeded()?;
    site.kubectl.apply(&configuration)?.succeeded()?;
    must_be(&site.bundle()?, &bundle)?;
    let repairs = || Site::sum(&[&gate, &other], "sluicegate_ca_bundle_repairs_total");
    must_be(&repairs()?, &0)?;

    // Taken away, or replaced, it comes back.
    let remove = r#"[{"op": "remove", "path": "/webhooks/1/clientConfig/caBundle"}]"#;
    let patch = ["patch", CONFIGURATION, &site.name, "--type=json", "-p", remove];
    for (number, how) in ["patch", "replace"].into_iter().enumerate() {
        let began = Instant::now();
        match how {
            "patch" => site.kubectl.run(&patch)?,
            _ => site.kubectl.run_with(&["replace", "-f", "-"], &configuration.to_string())?,
        }
        .succeeded()?;
        eventually("caBundle is put back", SOON, || Ok(site.bundle()? == bundle))?;
        eprintln!("certificates: caBundle is back {:?} after a {how}", began.elapsed());
        eventually("the repair is counted", SOON, || Ok(repairs()? == number as u64 + 1))?;
    }

    // A webhook that an upgrade leaves out goes, although its caBundle is the gate's, and a new one is trusted.
    let mut fewer = configuration.clone();
    fewer["webhooks"].as_array_mut().ok_or("webhooks")?.truncate(1);
    site.kubectl.run(&["delete", CONFIGURATION, &site.name])?.succeeded()?;
    server_side(&configuration)?.succeeded()?;
    eventually("caBundle is set", SOON, is_set)?;
    server_side(&fewer)?.succeeded()?;
    must_be(&site.stored()?["webhooks"].as_array().map(Vec::len), &Some(1))?;
    server_side(&configuration)?.succeeded()?;
    eventually("caBundle is set on the new one", SOON, || Ok(site.bundle()? == bundle))?;
    must_be(&repairs()?, &2)
}

fn a_configuration_that_is_gone_is_waited_for_and_never_made(stage: &Stage) -> Result {
    let site = Site::new(stage.plane()?, "certs-gone")?;
    let mut gate = site.spawn(0, &[])?;
    gate.wait()?;
    thread::sleep(Duration::from_secs(2));
    let is_there = || site.kubectl.exists(CONFIGURATION, &site.name);
    if is_there()? {
        return Err("the gate made a configuration".into());
    }
    site.register(&[&gate])?.wait()?;
    for _ in 0..3 {
        // Right after a change that the gate wants to put right.
        let configuration = site.configuration(&[&gate]).to_string();
        site.kubectl.run_with(&["replace", "-f", "-"], &configuration)?.succeeded()?;
        site.kubectl.run(&["delete", CONFIGURATION, &site.name])?.succeeded()?;
        thread::sleep(Duration::from_secs(2));
        if is_there()? {
            return Err("the gate made the configuration again".into());
        }
        site.kubectl.run_with(&["create", "-f", "-"], &configuration)?.succeeded()?;
        eventually("caBundle is set", SOON, || Ok(site.bundle()?.is_some()))?;
    }
    let log = gate.log()?;
    must_be(&log.matches("there is no such ValidatingWebhookConfiguration").count(), &4)?;
    must_be(&gate.metric("sluicegate_certificate_issue_failures_total")?, &0)
}

fn replicas_that_start_at_once_agree_on_one_secret(stage: &Stage) -> Result {
    let site = Site::new(stage.plane()?, "certs-three")?;
    let mut gates = (0..3).map(|own| site.spawn(own, &[])).collect::<Result<Vec<_>>>()?;
    let all = gates.iter().collect::<Vec<_>>();
    let probe = site.register(&all)?;
    for gate in &mut gates {
        gate.wait()?;
    }
    probe.wait()?;
    let bundle = site.bundle()?.ok_or("no caBundle")?;
    must_be(&bundle.matches("BEGIN").count(), &1)?;
    let leaves = gates.iter().map(|gate| handshake(gate.port(), &bundle));
    must_be(&leaves.collect::<Result<BTreeSet<_>>>()?.len(), &1)?;
    // One of them wrote it, and nobody has written since.
    let made =
        gates.iter().map(|gate| Ok(gate.log()?.matches("a CA and a certificate made").count()));
    must_be(&made.collect::<Result<Vec<_>>>()?.iter().sum::<usize>(), &1)
}

fn a_holder_that_dies_in_the_middle_of_a_rotation(stage: &Stage) -> Result {
    let site = Site::new(stage.plane()?, "certs-holder")?;
    let mut gates =
        (0..2).map(|own| site.spawn(own, &["--certs-settle", "6s"])).collect::<Result<Vec<_>>>()?;
    let probe = site.register(&gates.iter().collect::<Vec<_>>())?;
    for gate in &mut gates {
        gate.wait()?;
    }
    probe.wait()?;
    let before = site.secret("tls.crt")?;
    // Without the key of its CA the next one is due.
    let remove = r#"{"data": {"ca.key": null}}"#;
    site.kubectl.run(&["patch", "secret", SECRET, "-p", remove])?.succeeded()?;
    eventually("the next CA is there", SOON, || Ok(site.secret("next-ca.key")?.is_some()))?;
    let is_holder = |gate: &Gate| {
        Ok::<_, libtest_mimic::Failed>(gate.log()?.contains("looks after the certificates"))
    };
    let holder = if is_holder(&gates[0])? { 0 } else { 1 };
    let mut dead = gates.remove(holder);
    dead.kill()?;
    let alone = site.configuration(&[&gates[0]]).to_string();
    // The others answer; the one that is gone is no longer asked, as a Service would see to it.
    site.kubectl
        .run_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &alone)?
        .succeeded()?;
    must_be(&site.secret("tls.crt")?, &before)?;
    let mut writes = 0;
    eventually("another one goes on", Duration::from_secs(40), || {
        writes += 1;
        if site.bundle()?.is_some() && !probe.is_asked()? {
            return Err("a write was not judged".into());
        }
        Ok(site.secret("tls.crt")? != before)
    })?;
    must_be(&site.secret("next-ca.key")?, &None)?;
    let bundle = site.bundle()?.ok_or("no caBundle")?;
    must_be(&bundle.matches("BEGIN").count(), &2)?;
    handshake(gates[0].port(), &bundle)?;
    must_be(&gates[0].metric("sluicegate_certificate_rotations_total")?, &1)?;
    eprintln!(
        "certificates: {writes} writes while the holder was dead in the middle of a rotation, none failed"
    );
    Ok(())
}

fn without_permission_it_says_which_and_goes_on(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    let site = Site::new(plane, "certs-forbidden")?;
    let mut gate = site.spawn_as("stranger", 0, &["--certs-settle", "1s"])?;
    let says = |gate: &Gate, what: &str| -> Result {
        eventually(what, SOON, || Ok(gate.log()?.contains(what)))
    };
    says(&gate, "get, list and watch on secret sluicegate-certs (Role in certs-forbidden)")?;
    says(
        &gate,
        "create on leases, and get and update on lease sluicegate-certs (Role in certs-forbidden)",
    )?;
    says(
        &gate,
        "get, list, watch and patch on validatingwebhookconfiguration certs-forbidden (ClusterRole)",
    )?;
    must_be(&gate.is_ready(), &false)?;

    // Allowed to, it goes on by itself.
    let bind = |kind: &str, name: &str, role: &str, on: &[&str]| -> Result {
        let role = format!("--{role}=sluicegate");
        let create = [&["create", kind, name, role.as_str(), "--user=stranger"], on].concat();
        site.kubectl.run(&create)?.succeeded()?;
        Ok(())
    };
    bind("rolebinding", "stranger", "role", &[])?;
    bind("clusterrolebinding", "stranger-reads", "clusterrole", &[])?;
    gate.wait()?;
    let probe = site.register(&[&gate])?;
    thread::sleep(Duration::from_secs(2));
    must_be(&site.bundle()?, &None)?;
    site.allow_configuration("stranger")?;
    probe.wait()?;

    // No longer allowed to, it serves on; a Secret that is gone is missed, and said.
    site.kubectl.run(&["delete", "rolebinding", "stranger"])?.succeeded()?;
    let before = gate.metric("sluicegate_certificate_issue_failures_total")?;
    site.kubectl.run(&["delete", "secret", SECRET])?.succeeded()?;
    eventually("what cannot be done is counted", SOON, || {
        Ok(gate.metric("sluicegate_certificate_issue_failures_total")? > before)
    })?;
    must_be(&(gate.is_ready(), probe.is_asked()?), &(true, true))
}

/// Who owns which fields, without the names of the webhooks.
fn managers(stored: &Value) -> Vec<(String, BTreeSet<String>)> {
    fn leaves(fields: &Value, path: &[&str], into: &mut BTreeSet<String>) {
        match fields.as_object().filter(|own| !own.is_empty()) {
            None => drop(into.insert(path.join("."))),
            Some(own) => {
                for (key, inner) in own {
                    let step = (!key.starts_with("k:")).then_some(key.as_str());
                    leaves(inner, &[path, step.as_slice()].concat(), into);
                }
            }
        }
    }
    let managed = stored["metadata"]["managedFields"].as_array().into_iter().flatten();
    managed
        .map(|own| {
            let mut fields = BTreeSet::new();
            leaves(&own["fieldsV1"], &[], &mut fields);
            (own["manager"].as_str().unwrap_or_default().to_owned(), fields)
        })
        .collect()
}

fn must_be<T: PartialEq + std::fmt::Debug + ?Sized>(own: &T, expected: &T) -> Result {
    if own == expected {
        return Ok(());
    }
    Err(format!("expected {expected:?}, got {own:?}").into())
}
