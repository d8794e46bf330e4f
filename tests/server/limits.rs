use std::time::{Duration, Instant};

use hyper::StatusCode;
use sluicegate::server::{BODY_LIMIT, Config, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::{Running, SOON, config, harmless, probe, start, timeouts, typo};

fn padded(length: usize) -> Vec<u8> {
    let mut body = typo();
    body.resize(length, b' ');
    body
}

#[tokio::test]
async fn seven_mebibytes_are_read_and_one_byte_more_is_not() {
    let server = start(config()).await;
    let answer = server.client.review(padded(BODY_LIMIT)).await;
    assert_eq!(answer.code, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.json()["response"]["allowed"], false);
    for length in [BODY_LIMIT + 1, BODY_LIMIT + (1 << 20)] {
        let answer = server.client.review(padded(length)).await;
        assert_eq!(answer.code, StatusCode::PAYLOAD_TOO_LARGE, "{length}: {}", answer.text());
        assert!(answer.text().contains("7340032 bytes"), "{}", answer.text());
    }
}

/// A review whose last byte is still to come.
async fn unfinished(server: &Running) -> (TlsStream<TcpStream>, u8) {
    let mut body = harmless();
    let head = format!(
        "POST /validate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let last = body.pop().expect("a body");
    let mut stream = server.client.tls().await;
    stream.write_all(head.as_bytes()).await.expect("a head");
    stream.write_all(&body).await.expect("most of a body");
    stream.flush().await.expect("sent");
    (stream, last)
}

async fn answer_of(stream: &mut TlsStream<TcpStream>) -> String {
    let mut buffer = vec![0; 16 << 10];
    let read = tokio::time::timeout(SOON, stream.read(&mut buffer)).await.expect("an answer");
    String::from_utf8_lossy(&buffer[..read.expect("an answer")]).into_owned()
}

#[tokio::test]
async fn one_review_too_many_is_turned_away_at_once() {
    let server = start(Config { max_in_flight: 1, ..config() }).await;
    let (mut first, last) = unfinished(&server).await;
    // The slot is taken as soon as the head was read; wait until it is.
    let deadline = Instant::now() + SOON;
    let refused = loop {
        let started = Instant::now();
        let answer = server.client.review(typo()).await;
        if answer.code != StatusCode::OK || Instant::now() > deadline {
            assert!(started.elapsed() < Duration::from_secs(2), "turned away late");
            break answer;
        }
    };
    assert_eq!(refused.code, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.text());
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.text().contains("try again"), "{}", refused.text());
    let metrics = probe(server.status, "/metrics").await.text();
    assert!(metrics.contains("sluicegate_overload_total 1"), "{metrics}");

    first.write_all(&[last]).await.expect("the last byte");
    assert!(answer_of(&mut first).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(server.client.review(typo()).await.code, StatusCode::OK, "the slot is free again");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let timeouts = Timeouts { body: Duration::from_millis(200), ..timeouts() };
    let server = start(Config { timeouts, ..config() }).await;
    let (mut stream, _) = unfinished(&server).await;
    let answer = answer_of(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("did not arrive within 200ms"), "{answer}");
}

#[tokio::test]
async fn one_connection_too_many_is_turned_away() {
    let server = start(Config { max_connections: 1, ..config() }).await;
    let mut first = server.client.http1().await;
    assert!(server.client.try_http1().await.is_err(), "a second connection was served");
    let answer = crate::harness::review_over(&mut first, typo()).await.expect("an answer");
    assert_eq!(answer.code, StatusCode::OK);
    drop(first);
    let deadline = Instant::now() + SOON;
    while server.client.try_http1().await.is_err() {
        assert!(Instant::now() < deadline, "the first connection's place was never free again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
