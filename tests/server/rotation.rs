use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sluicegate::certs::Certificates;
use sluicegate::certs::files::TlsDir;
use sluicegate::certs::self_signed::SelfSigned;
use sluicegate::policy::Policies;
use sluicegate::rules;
use sluicegate::server::Gate;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    Client, Running, SOON, blank, config, harmless, pair, probe, review_over, start_all,
};

const POLL: Duration = Duration::from_millis(20);

/// A Secret as the kubelet mounts it: each version in a directory of its own, and a symlink that is swapped.
struct Mount {
    root: TempDir,
    version: usize,
}

impl Mount {
    fn new(chain: &str, key: &str) -> Self {
        let mut mount = Self { root: TempDir::new().expect("a directory"), version: 0 };
        mount.put(chain, key);
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), mount.path().join(name)).expect("a link");
        }
        mount
    }

    fn path(&self) -> PathBuf {
        self.root.path().to_owned()
    }

    /// Puts a new version in place of the old one.
    fn put(&mut self, chain: &str, key: &str) {
        let old = self.path().join(format!("..version_{}", self.version));
        self.swap(chain, key);
        if old.exists() {
            fs::remove_dir_all(old).expect("the old version goes");
        }
    }

    /// Puts a new version beside the old one.
    fn swap(&mut self, chain: &str, key: &str) {
        self.version += 1;
        let name = format!("..version_{}", self.version);
        let new = self.path().join(&name);
        fs::create_dir(&new).expect("a directory");
        fs::write(new.join("tls.crt"), chain).expect("a file");
        fs::write(new.join("tls.key"), key).expect("a file");
        symlink(&name, self.path().join("..data_tmp")).expect("a link");
        fs::rename(self.path().join("..data_tmp"), self.path().join("..data")).expect("a swap");
    }
}

/// A server that follows `mount`, and the token that stops the following.
async fn follow(mount: &Mount, trusted: &[&SelfSigned]) -> (Running, CancellationToken) {
    let certificates = Arc::new(Certificates::default());
    let mut files = TlsDir::new(mount.path());
    assert!(files.refresh(&certificates).await.expect("a good pair"));
    assert!(!files.refresh(&certificates).await.expect("the same pair"));
    let stop = CancellationToken::new();
    tokio::spawn(files.follow(POLL, Arc::clone(&certificates), stop.clone()));
    let gate = Gate::new(Policies::new(Vec::new(), rules::ALL), blank());
    (start_all(config(), gate, certificates, trusted).await, stop)
}

/// The leaf that a new connection gets.
async fn leaf(client: &Client) -> CertificateDer<'static> {
    let stream = client.tls().await;
    let chain = stream.get_ref().1.peer_certificates().expect("a chain");
    chain[0].clone().into_owned()
}

fn leaf_of(pair: &SelfSigned) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.chain_pem.as_bytes()).expect("PEM")
}

async fn until_served(client: &Client, pair: &SelfSigned) {
    let deadline = Instant::now() + SOON;
    while leaf(client).await != leaf_of(pair) {
        assert!(Instant::now() < deadline, "the new certificate is never served");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_rotations_under_load_cost_no_request() {
    let pairs = [pair(), pair(), pair(), pair()];
    let trusted = pairs.each_ref();
    let mut mount = Mount::new(&pairs[0].chain_pem, &pairs[0].key_pem);
    let (server, stop) = follow(&mount, &trusted).await;
    until_served(&server.client, &pairs[0]).await;

    let answered = Arc::new(AtomicUsize::new(0));
    let done = CancellationToken::new();
    let load = (0..4).map(|worker| {
        let (client, answered, done) = (server.client.clone(), Arc::clone(&answered), done.clone());
        tokio::spawn(async move {
            let mut connection = client.http1().await;
            while !done.is_cancelled() {
                // Half of them keep their connection over all rotations, the other half open a new one each time.
                if worker % 2 == 0 {
                    connection = client.http1().await;
                }
                let answer = review_over(&mut connection, harmless()).await.expect("an answer");
                assert_eq!(answer.code, StatusCode::OK);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let load = load.collect::<Vec<_>>();
    for next in &pairs[1..] {
        let before = answered.load(Ordering::Relaxed);
        mount.put(&next.chain_pem, &next.key_pem);
        until_served(&server.client, next).await;
        let deadline = Instant::now() + SOON;
        while answered.load(Ordering::Relaxed) < before + 20 {
            assert!(Instant::now() < deadline, "the load has stopped");
            tokio::time::sleep(POLL).await;
        }
    }
    done.cancel();
    for worker in load {
        worker.await.expect("no request failed");
    }
    assert_eq!(server.certificates.failures(), 0, "each swap was seen whole");
    stop.cancel();
}

#[tokio::test]
async fn a_broken_pair_leaves_the_last_good_one() {
    let (good, other, next) = (pair(), pair(), pair());
    let mut mount = Mount::new(&good.chain_pem, &good.key_pem);
    let (server, _stop) = follow(&mount, &[&good, &other, &next]).await;
    for (chain, key) in [
        (other.chain_pem.as_str(), good.key_pem.as_str()),
        ("", ""),
        ("no PEM at all", other.key_pem.as_str()),
    ] {
        let before = server.certificates.failures();
        mount.put(chain, key);
        let deadline = Instant::now() + SOON;
        while server.certificates.failures() == before {
            assert!(Instant::now() < deadline, "a broken pair is not noticed");
            tokio::time::sleep(POLL).await;
        }
        assert_eq!(leaf(&server.client).await, leaf_of(&good));
        assert_eq!(probe(server.status, "/readyz").await.code, StatusCode::OK);
    }
    let metrics = probe(server.status, "/metrics").await.text();
    let zero = "sluicegate_certificate_reload_failures_total 0";
    assert!(!metrics.contains(zero), "{metrics}");
    mount.put(&next.chain_pem, &next.key_pem);
    until_served(&server.client, &next).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_between_the_two_files_is_seen_whole() {
    let pairs = [pair(), pair()];
    let mut mount = Mount::new(&pairs[0].chain_pem, &pairs[0].key_pem);
    let mut files = TlsDir::new(mount.path());
    let swaps = tokio::task::spawn_blocking(move || {
        for pair in pairs.iter().cycle().take(400) {
            mount.swap(&pair.chain_pem, &pair.key_pem);
        }
        // Kept to the end, or its files would go while they are read.
        mount
    });
    let certificates = Certificates::default();
    let mut replaced = 0;
    while !swaps.is_finished() {
        let is_new = files.refresh(&certificates).await.expect("a certificate and its own key");
        replaced += usize::from(is_new);
    }
    assert!(replaced > 1, "there was nothing to see");
}
