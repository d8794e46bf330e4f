use std::time::{Duration, Instant};

use hyper::StatusCode;
use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};
use sluicegate::server::{Config, Timeouts};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{SOON, config, request, review_over, start, timeouts, typo};

const SHORT: Duration = Duration::from_millis(300);

/// How long it takes until the other side closes.
async fn closed_after(mut stream: impl AsyncRead + Unpin) -> Duration {
    let started = Instant::now();
    let mut buffer = [0; 4096];
    loop {
        match tokio::time::timeout(SOON, stream.read(&mut buffer)).await.expect("closed in time") {
            Ok(0) | Err(_) => return started.elapsed(),
            Ok(_) => {}
        }
    }
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken() {
    let server = start(config()).await;
    for (version, want) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        for alpn in [&[][..], &["http/1.1"], &["h2"]] {
            let stream = server.client.connect(alpn, &[version]).await.expect("a connection");
            let (_, session) = stream.get_ref();
            assert_eq!(session.protocol_version(), Some(want));
            assert_eq!(session.alpn_protocol(), alpn.first().map(|name| name.as_bytes()));
        }
    }
}

#[tokio::test]
async fn http2_is_spoken() {
    let server = start(config()).await;
    let mut sender = server.client.http2().await;
    for _ in 0..3 {
        let request = request("POST", "https://localhost/validate", typo());
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.version(), hyper::Version::HTTP_2);
    }
}

#[tokio::test]
async fn whoever_says_nothing_is_hung_up_on() {
    let timeouts = Timeouts { handshake: SHORT, first_request: SHORT, ..timeouts() };
    let server = start(Config { timeouts, ..config() }).await;

    let tcp = TcpStream::connect(server.address).await.expect("a connection");
    let took = closed_after(tcp).await;
    assert!(took >= SHORT / 2 && took < SOON, "no handshake: {took:?}");

    for alpn in ["http/1.1", "h2"] {
        let stream = server.client.connect(&[alpn], rustls::ALL_VERSIONS).await.expect("TLS");
        let took = closed_after(stream).await;
        assert!(took >= SHORT / 2 && took < SOON, "no request over {alpn}: {took:?}");
    }

    let mut stream = server.client.tls().await;
    stream.write_all(b"POST /validate HTTP/1.1\r\nHost: lo").await.expect("half a head");
    let took = closed_after(stream).await;
    assert!(took >= SHORT / 2 && took < SOON, "half a head: {took:?}");
}

#[tokio::test]
async fn a_connection_may_idle_longer_than_its_first_request_may_take() {
    let idle = SHORT * 5;
    let timeouts = Timeouts { handshake: SHORT, first_request: SHORT, idle, ..timeouts() };
    let server = start(Config { timeouts, ..config() }).await;
    let mut connection = server.client.http1().await;
    for _ in 0..3 {
        let answer = review_over(&mut connection, typo()).await.expect("the same connection");
        assert_eq!(answer.code, StatusCode::OK);
        assert!(!answer.headers.contains_key("connection"));
        tokio::time::sleep(SHORT * 2).await;
    }
    tokio::time::sleep(idle * 2).await;
    assert!(connection.is_closed(), "idle for ever");
}

#[test]
fn a_connection_idles_longer_than_an_api_server_keeps_it() {
    // Whoever closes first must not be this side: a review that is on its way would be lost.
    assert!(timeouts().idle >= Duration::from_secs(120));
}

#[tokio::test]
async fn an_idle_http2_connection_ends() {
    let timeouts = Timeouts { idle: SHORT, ..timeouts() };
    let server = start(Config { timeouts, ..config() }).await;
    let mut sender = server.client.http2().await;
    let request = request("POST", "https://localhost/validate", typo());
    assert_eq!(sender.send_request(request).await.expect("an answer").status(), StatusCode::OK);
    let deadline = Instant::now() + SOON;
    while !sender.is_closed() {
        assert!(Instant::now() < deadline, "idle for ever");
        tokio::time::sleep(SHORT / 10).await;
    }
}

#[tokio::test]
async fn an_old_connection_ends_with_an_answer() {
    let timeouts = Timeouts { connection_age: SHORT, ..timeouts() };
    let server = start(Config { timeouts, ..config() }).await;
    let mut connection = server.client.http1().await;
    let young = review_over(&mut connection, typo()).await.expect("an answer");
    assert!(!young.headers.contains_key("connection"));
    tokio::time::sleep(SHORT * 2).await;
    let old = review_over(&mut connection, typo()).await.expect("an answer");
    assert_eq!(old.code, StatusCode::OK);
    assert_eq!(old.headers["connection"], "close");
}
