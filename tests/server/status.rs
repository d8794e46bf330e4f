use std::sync::Arc;

use hyper::StatusCode;
use sluicegate::certs::Certificates;
use sluicegate::policy::Policies;
use sluicegate::rules;
use sluicegate::server::Gate;
use sluicegate::world::Kind;

use crate::harness::{blank, config, harmless, pair, probe, start, start_all, typo};

#[tokio::test]
async fn every_series_is_there_before_anything_happened() {
    let server = start(config()).await;
    let answer = probe(server.status, "/metrics").await;
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let metrics = answer.text();
    let mut want = ["allow", "warn", "deny", "undecided", "error"]
        .map(|verdict| format!("sluicegate_reviews_total{{verdict=\"{verdict}\"}} 0"))
        .to_vec();
    for rule in rules::ALL {
        for action in ["deny", "warn", "audit"] {
            want.push(format!(
                "sluicegate_findings_total{{action=\"{action}\",rule=\"{}\"}} 0",
                rule.id
            ));
        }
    }
    want.extend(
        [
            "sluicegate_review_duration_seconds_bucket{le=\"0.0001\"} 0",
            "sluicegate_review_duration_seconds_bucket{le=\"3\"} 0",
            "sluicegate_live_reads_total{result=\"ok\"} 0",
            "sluicegate_live_reads_total{result=\"error\"} 0",
            "sluicegate_live_reads_total{result=\"timeout\"} 0",
            "sluicegate_overload_total 0",
            "sluicegate_certificate_reload_failures_total 0",
        ]
        .map(str::to_owned),
    );
    want.extend(
        Kind::ALL.map(|kind| format!("sluicegate_kind_listed{{kind=\"{}\"}} 1", kind.name())),
    );
    for line in want {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    assert!(metrics.contains("process_resident_memory_bytes "), "{metrics}");
    let expiry = server.certificates.not_after().expect("a certificate");
    assert!(metrics.contains(&format!("sluicegate_certificate_expiry_timestamp_seconds {expiry}")));
}

#[tokio::test]
async fn what_happens_is_counted() {
    let server = start(config()).await;
    server.client.review(typo()).await;
    server.client.review(harmless()).await;
    server.client.review("{}").await;
    let metrics = probe(server.status, "/metrics").await.text();
    for line in [
        "sluicegate_reviews_total{verdict=\"deny\"} 1",
        "sluicegate_reviews_total{verdict=\"allow\"} 1",
        "sluicegate_reviews_total{verdict=\"error\"} 1",
        "sluicegate_findings_total{action=\"deny\",rule=\"canary-step\"} 1",
        "sluicegate_review_duration_seconds_count 3",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn ready_needs_a_certificate() {
    let certificates = Arc::new(Certificates::default());
    let gate = Gate::new(Policies::new(Vec::new(), rules::ALL), blank());
    let pair = pair();
    let server = start_all(config(), gate, certificates, &[&pair]).await;
    assert_eq!(probe(server.status, "/healthz").await.code, StatusCode::OK);
    assert_eq!(probe(server.status, "/other").await.code, StatusCode::NOT_FOUND);
    let ready = probe(server.status, "/readyz").await;
    assert_eq!(ready.code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.text().contains("no serving certificate"), "{}", ready.text());
    assert!(server.client.try_http1().await.is_err());

    let (chain, key) = (pair.chain_pem.as_bytes(), pair.key_pem.as_bytes());
    server.certificates.replace(chain, key).expect("a good pair");
    assert_eq!(probe(server.status, "/readyz").await.code, StatusCode::OK);
    assert_eq!(server.client.review(typo()).await.code, StatusCode::OK);
}
