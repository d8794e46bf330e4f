use std::time::{Duration, Instant};

use hyper::StatusCode;
use sluicegate::server::{Config, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{SOON, config, harmless, probe, review_over, start, timeouts, typo};

const DELAY: Duration = Duration::from_millis(800);

#[tokio::test]
async fn it_leaves_in_order() {
    let server = start(Config { shutdown_delay: DELAY, ..config() }).await;
    let (mut used, mut idle) = (server.client.http1().await, server.client.http1().await);
    for connection in [&mut used, &mut idle] {
        let answer = review_over(connection, typo()).await.expect("an answer");
        assert!(!answer.headers.contains_key("connection"));
    }
    let mut late = server.client.tls().await;
    assert_eq!(probe(server.status, "/readyz").await.code, StatusCode::OK);

    let started = Instant::now();
    server.shutdown.cancel();
    let ready = probe(server.status, "/readyz").await;
    assert_eq!(ready.code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.text().contains("shutting down"), "{}", ready.text());
    assert_eq!(probe(server.status, "/healthz").await.code, StatusCode::OK);

    // An API server that has not heard of it yet: over an open connection, and over a new one.
    let over_open = review_over(&mut used, typo()).await.expect("an answer");
    let over_new = server.client.review(typo()).await;
    assert!(started.elapsed() < DELAY, "the machine is too slow for this test");
    for answer in [over_open, over_new] {
        assert_eq!(answer.code, StatusCode::OK);
        assert_eq!(answer.headers["connection"], "close");
    }
    // A request that is on its way when the delay ends.
    let body = harmless();
    let head = format!(
        "POST /validate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    late.write_all(head.as_bytes()).await.expect("a head");
    late.write_all(&body[..10]).await.expect("a piece");
    late.flush().await.expect("sent");

    tokio::time::sleep(DELAY.saturating_sub(started.elapsed()) + DELAY / 2).await;
    assert!(idle.is_closed(), "an idle connection stays open");
    assert!(TcpStream::connect(server.address).await.is_err(), "still accepting");
    assert!(!server.task.is_finished(), "left in the middle of a request");
    late.write_all(&body[10..]).await.expect("the rest");
    let mut answer = String::new();
    late.read_to_string(&mut answer).await.expect("an answer, and then the end");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"allowed\":true"), "{answer}");
    tokio::time::timeout(SOON, server.task).await.expect("ends").expect("without a panic");
}

#[tokio::test]
async fn it_does_not_wait_for_ever() {
    let timeouts = Timeouts { drain: Duration::from_millis(300), ..timeouts() };
    let server = start(Config { timeouts, shutdown_delay: Duration::ZERO, ..config() }).await;
    let mut stuck = server.client.tls().await;
    stuck
        .write_all(b"POST /validate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        .await
        .expect("sent");
    stuck.flush().await.expect("sent");
    // A review behind it has been read for certain.
    assert_eq!(server.client.review(typo()).await.code, StatusCode::OK);
    server.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), server.task)
        .await
        .expect("ends")
        .expect("no panic");
}

#[tokio::test]
async fn http2_is_told_to_go_away() {
    let server = start(Config { shutdown_delay: Duration::ZERO, ..config() }).await;
    let mut sender = server.client.http2().await;
    let request = crate::harness::request("POST", "https://localhost/validate", typo());
    assert_eq!(sender.send_request(request).await.expect("an answer").status(), StatusCode::OK);
    server.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), server.task)
        .await
        .expect("ends")
        .expect("no panic");
    assert!(sender.is_closed());
}
