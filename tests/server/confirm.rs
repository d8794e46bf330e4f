use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use hyper::StatusCode;
use sluicegate::istio::FieldPath;
use sluicegate::policy::{Action, Basis, Finding, Reference, Verdict};
use sluicegate::server::{ConfirmError, StaticWorld, WorldSource};
use sluicegate::world::{Kind, Mesh, World};

use crate::harness::{config, harmless, probe, start_with, typo};

/// How a live read goes.
#[derive(Clone, Copy)]
enum Read {
    FindsIt,
    FindsNothing,
    Fails,
    Hangs,
    /// Finds what was missing, and that the next thing is missing.
    FindsTheNext,
    /// Finds one thing after the other, and always another one is missing.
    FindsNoEnd,
    /// Two things are missing, and what the first one costs is more than a review may.
    FindsTheCheaper,
}

/// A world in which a reference is missing until it is read.
struct Stale {
    read: Read,
    reads: AtomicUsize,
}

fn service(name: &str) -> Reference {
    Reference::Service { namespace: "shop".to_owned(), name: name.to_owned() }
}

fn missing(names: &[&str]) -> Verdict {
    let finding = |(at, name): (usize, &&str)| Finding {
        rule: "destination-exists",
        action: Action::Deny,
        path: FieldPath::spec().index(at),
        message: format!("no Service {name}"),
        rests_on: vec![service(name)],
    };
    Verdict::of(Basis::Rules, names.iter().enumerate().map(finding).collect())
}

const ALL: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];

impl WorldSource for Stale {
    fn judge(&self, _: &dyn Fn(&World) -> Verdict) -> Verdict {
        match (self.read, self.reads.load(Ordering::SeqCst)) {
            (Read::FindsIt, 1) | (Read::FindsTheNext, 2) => Verdict::allow(Basis::Rules),
            (Read::FindsTheNext, 1) => missing(&["second"]),
            (Read::FindsNoEnd, reads) => missing(&[ALL[reads]]),
            (Read::FindsTheCheaper, _) => missing(&["dear", "first"]),
            _ => missing(&["first"]),
        }
    }

    fn cost(&self, references: &[Reference]) -> usize {
        if references == [service("dear")] { 4 } else { 1 }
    }

    fn confirm<'a>(
        &'a self,
        references: &'a [Reference],
    ) -> BoxFuture<'a, Result<(), ConfirmError>> {
        let before = self.reads.fetch_add(1, Ordering::SeqCst);
        assert_eq!(references, [service(ALL[before])]);
        match self.read {
            Read::Fails => Box::pin(async {
                Err(ConfirmError::Unreadable("Service shop/first: connection refused".into()))
            }),
            Read::Hangs => Box::pin(std::future::pending()),
            _ => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn missing(&self) -> Vec<Kind> {
        Vec::new()
    }
}

#[tokio::test]
async fn nobody_is_refused_on_a_stale_answer() {
    for (read, code, allowed, result, reads) in [
        (Read::FindsIt, 200, Some(true), "ok", 1),
        (Read::FindsTheNext, 200, Some(true), "ok", 2),
        (Read::FindsNothing, 200, Some(false), "ok", 1),
        (Read::FindsNoEnd, 503, None, "ok", 3),
        (Read::FindsTheCheaper, 200, Some(false), "ok", 1),
        (Read::Fails, 503, None, "error", 1),
        (Read::Hangs, 503, None, "timeout", 1),
    ] {
        let world = Arc::new(Stale { read, reads: AtomicUsize::new(0) });
        let server = start_with(config(), Arc::clone(&world) as Arc<dyn WorldSource>).await;
        let answer = server.client.review(typo()).await;
        assert_eq!(answer.code.as_u16(), code, "{}", answer.text());
        assert_eq!(answer.json()["response"]["allowed"].as_bool(), allowed, "{}", answer.text());
        assert_eq!(world.reads.load(Ordering::SeqCst), reads);
        if code == 503 {
            let status = answer.json();
            assert_eq!(
                (&status["kind"], &status["reason"]),
                (&"Status".into(), &"ServiceUnavailable".into())
            );
            let message = status["message"].as_str().expect("a message");
            assert!(message.contains("try again"), "{message}");
        }
        let metrics = probe(server.status, "/metrics").await.text();
        let line = format!("sluicegate_live_reads_total{{result=\"{result}\"}} {reads}");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn what_cannot_be_judged_yet_is_asked_for_again() {
    let world = Arc::new(StaticWorld(World::new(Mesh::default())));
    let server = start_with(config(), world).await;
    let answer = server.client.review(typo()).await;
    assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    let status = answer.json();
    assert_eq!(status["apiVersion"], "v1");
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["status"], "Failure");
    assert_eq!(status["code"], 503);
    assert_eq!(status["reason"], "ServiceUnavailable");
    let message = status["message"].as_str().expect("a message");
    assert!(message.contains("EndpointSlice") && message.contains("try again"), "{message}");

    let ready = probe(server.status, "/readyz").await;
    assert_eq!(ready.code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.text().contains("EndpointSlice not listed"), "{}", ready.text());
    let metrics = probe(server.status, "/metrics").await.text();
    assert!(metrics.contains("sluicegate_reviews_total{verdict=\"undecided\"} 1"), "{metrics}");
    assert!(metrics.contains("sluicegate_kind_listed{kind=\"Pod\"} 0"), "{metrics}");

    // A lowering needs no world.
    let answer = server.client.review(harmless()).await;
    assert_eq!(answer.json()["response"]["allowed"], true, "{}", answer.text());
}

/// Panics at the first write and judges the second.
struct Fragile(AtomicUsize);

impl WorldSource for Fragile {
    fn judge(&self, _: &dyn Fn(&World) -> Verdict) -> Verdict {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "secret of the house");
        Verdict::allow(Basis::Rules)
    }

    fn cost(&self, references: &[Reference]) -> usize {
        references.len()
    }

    fn confirm<'a>(&'a self, _: &'a [Reference]) -> BoxFuture<'a, Result<(), ConfirmError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn missing(&self) -> Vec<Kind> {
        Vec::new()
    }
}

#[tokio::test]
async fn a_panic_is_answered_and_the_server_goes_on() {
    let server = start_with(config(), Arc::new(Fragile(AtomicUsize::new(0)))).await;
    let mut connection = server.client.http1().await;
    let answer = crate::harness::review_over(&mut connection, typo()).await.expect("an answer");
    assert_eq!(answer.code, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.json()["reason"], "InternalError");
    assert!(!answer.text().contains("secret"), "{}", answer.text());
    let answer = crate::harness::review_over(&mut connection, typo()).await.expect("an answer");
    assert_eq!(answer.json()["response"]["allowed"], true);
    let metrics = probe(server.status, "/metrics").await.text();
    assert!(metrics.contains("sluicegate_reviews_total{verdict=\"error\"} 1"), "{metrics}");
}
