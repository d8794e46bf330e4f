//! Certificates that rotate, or break, while writes go on.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::scenarios;
use crate::harness::site::SECRET;
use crate::harness::{Gate, Load, Result, Site, Stage, eventually};

scenarios![
    no_write_and_no_handshake_fails_while_certificates_rotate,
    a_secret_that_is_deleted_or_broken_costs_no_handshake,
];

/// So many rotations are waited for, and so many of them with another CA.
const ROTATIONS: u64 = 6;
const SWITCHES: usize = 2;

/// How late clients hear of another bundle, besides the time that it takes to ask for it: less than the two seconds to settle.
const LATE: Duration = Duration::from_millis(700);

/// Gates that are asked.
fn start(site: &Site<'_>, count: usize, arguments: &[&str]) -> Result<Vec<Gate>> {
    let gates = (0..count).map(|number| site.spawn(number, arguments));
    let mut gates = gates.collect::<Result<Vec<_>>>()?;
    let probe = site.register(&gates.iter().collect::<Vec<_>>())?;
    for gate in &mut gates {
        gate.wait()?;
    }
    probe.wait()?;
    // That one webhook is asked says nothing of the others' bundles in the API server's own copy.
    thread::sleep(Duration::from_secs(1));
    Ok(gates)
}

fn no_write_and_no_handshake_fails_while_certificates_rotate(stage: &Stage) -> Result {
    let site = Site::new(stage.plane()?, "certs-rotate")?;
    let short = ["--certs-leaf-for", "9s", "--certs-ca-for", "24s", "--certs-settle", "2s"];
    let gates = start(&site, 3, &short)?;
    let gates = gates.iter().collect::<Vec<_>>();
    let load = Load::start(&site, &gates, LATE)?;
    let began = Instant::now();
    let mut signers = BTreeSet::new();
    loop {
        // The one that signs comes first.
        let first = |bundle: String| bundle.split("-----END").next().map(str::to_owned);
        signers.extend(load.bundles().into_iter().filter_map(first));
        let rotations = Site::sum(&gates, "sluicegate_certificate_rotations_total")?;
        if rotations >= ROTATIONS && signers.len() > SWITCHES {
            let (took, said) = (began.elapsed(), load.finish()?);
            eprintln!(
                "certificates: {rotations} rotations of 3 gates in {took:?}, {} CAs signed; {said}",
                signers.len()
            );
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(55) {
            let count = signers.len();
            return Err(
                format!("{rotations} rotations and {count} CAs only; {}", load.finish()?).into()
            );
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn a_secret_that_is_deleted_or_broken_costs_no_handshake(stage: &Stage) -> Result {
    let site = Site::new(stage.plane()?, "certs-broken")?;
    let gates = start(&site, 2, &["--certs-settle", "2s"])?;
    let load = Load::start(&site, &gates.iter().collect::<Vec<_>>(), LATE)?;
    let garbage = |key: &str| json!({ "stringData": { key: "garbage" } }).to_string();
    for how in ["deleted", "ca.key", "tls.crt", "tls.key", "ca.crt"] {
        let before = site.secret("tls.crt")?;
        match how {
            "deleted" => site.kubectl.run(&["delete", "secret", SECRET])?,
            key => site.kubectl.run(&["patch", "secret", SECRET, "-p", &garbage(key)])?,
        }
        .succeeded()?;
        eventually(&format!("{how}: it is mended"), Duration::from_secs(20), || {
            let is_pem = |key: &str| {
                Ok::<_, libtest_mimic::Failed>(
                    site.secret(key)?.is_some_and(|text| text.contains("BEGIN")),
                )
            };
            // A broken leaf comes back as it was; the key of a CA never does.
            let is_other = site.secret("tls.crt")? != before;
            Ok(is_other != how.starts_with("tls")
                && is_pem("tls.key")?
                && is_pem("ca.key")?
                && site.secret("next-ca.key")?.is_none())
        })?;
    }
    eprintln!("certificates: a Secret that broke in five ways: {}", load.finish()?);

    // A CA whose key is known to others leaves at once where a person says so.
    let now = json!({ "stringData": { "retire-after": "2020-01-01T00:00:00Z" } }).to_string();
    site.kubectl.run(&["patch", "secret", SECRET, "-p", &now])?.succeeded()?;
    eventually("only one CA is trusted", Duration::from_secs(20), || {
        Ok(site.bundle()?.is_some_and(|own| own.matches("BEGIN").count() == 1))
    })
}
