use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use hyper::StatusCode;
use sluicegate::certs::Certificates;
use sluicegate::certs::files::TlsDir;
use sluicegate::certs::self_signed::SelfSigned;
use sluicegate::policy::Policies;
use sluicegate::rules;
use sluicegate::server::Gate;
use tempfile::TempDir;

use crate::harness::{blank, config, start_all, typo};

fn run(directory: &Path, command: &str) {
    let output = Command::new("sh").args(["-ec", command]).current_dir(directory).output();
    let output = output.expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}; these tests need openssl");
}

/// What `certs/dev.sh` makes, in a directory of its own.
fn development() -> TempDir {
    let root = TempDir::new().expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs/dev.sh");
    fs::copy(script, root.path().join("dev.sh")).expect("certs/dev.sh");
    run(root.path(), "sh dev.sh");
    root
}

#[tokio::test]
async fn the_development_certificate_is_served_and_trusted() {
    let root = development();
    let out = root.path().join("out");
    let mut names = fs::read_dir(&out)
        .expect("out")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect::<Vec<_>>();
    names.sort();
    assert_eq!(names, ["ca.crt", "tls.crt", "tls.key"], "and no key of the CA");

    let certificates = Arc::new(Certificates::default());
    TlsDir::new(&out).refresh(&certificates).await.expect("a good pair");
    let ca_pem = fs::read_to_string(out.join("ca.crt")).expect("a CA");
    let trusted = SelfSigned { ca_pem, chain_pem: String::new(), key_pem: String::new() };
    let gate = Gate::new(Policies::new(Vec::new(), rules::ALL), blank());
    let server = start_all(config(), gate, certificates, &[&trusted]).await;
    assert_eq!(server.client.review(typo()).await.code, StatusCode::OK);
}

#[tokio::test]
async fn every_usual_kind_of_key_is_taken() {
    let root = TempDir::new().expect("a directory");
    let issue = "openssl req -x509 -new -key tls.key -days 1 -subj /CN=x -out tls.crt";
    let rsa = "openssl genrsa -traditional -out tls.key 2048";
    let p256 = "openssl ecparam -name prime256v1 -genkey -noout -out tls.key";
    let p384 = "openssl ecparam -name secp384r1 -genkey -noout -out tls.key";
    let pkcs8 = "openssl pkcs8 -topk8 -nocrypt -in tls.key -out 8 && mv 8 tls.key";
    for (make, label) in [
        (rsa.to_owned(), "BEGIN RSA PRIVATE KEY"),
        (format!("{rsa} && {pkcs8}"), "BEGIN PRIVATE KEY"),
        (p256.to_owned(), "BEGIN EC PRIVATE KEY"),
        (format!("{p256} && {pkcs8}"), "BEGIN PRIVATE KEY"),
        (p384.to_owned(), "BEGIN EC PRIVATE KEY"),
        ("openssl genpkey -algorithm ed25519 -out tls.key".to_owned(), "BEGIN PRIVATE KEY"),
    ] {
        run(root.path(), &format!("{make} && {issue}"));
        let key = fs::read_to_string(root.path().join("tls.key")).expect("a key");
        assert!(key.contains(label), "{make}");
        let certificates = Certificates::default();
        let result = TlsDir::new(root.path()).refresh(&certificates).await;
        result.unwrap_or_else(|error| panic!("{make}: {error}"));
        assert!(certificates.server_config().is_some());
    }
}

#[tokio::test]
async fn a_directory_without_files_is_told_what_it_must_hold() {
    let root = TempDir::new().expect("a directory");
    let refreshed = TlsDir::new(root.path()).refresh(&Certificates::default()).await;
    let text = refreshed.expect_err("nothing is there").to_string();
    assert!(text.contains("tls.crt and tls.key"), "{text}");
}
