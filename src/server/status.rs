//! Probes and metrics over plain HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::metrics::Metrics;
use crate::certs::Certificates;

/// What probes and Prometheus ask about.
pub(super) struct Health {
    pub(super) gate: Arc<Gate>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) closing: CancellationToken,
}

/// The paths that the kubelet and Prometheus call.
pub(super) fn router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(async || {
            (StatusCode::NOT_FOUND, "the paths are /healthz, /readyz and /metrics\n")
        })
        .with_state(health)
}

/// Ready means that a review sent now gets a verdict.
async fn ready(State(health): State<Arc<Health>>) -> Response {
    let mut missing = Vec::new();
    if health.closing.is_cancelled() {
        missing.push("shutting down".to_owned());
    }
    if health.certificates.not_after().is_none() {
        missing.push("no serving certificate could be loaded".to_owned());
    }
    missing.extend(
        health.gate.missing().into_iter().map(|kind| format!("{} not listed", kind.name())),
    );
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", ")))
        .into_response()
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    match health.metrics.text(&health.gate.missing(), &health.gate.absent()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot gather metrics");
            (StatusCode::INTERNAL_SERVER_ERROR, "cannot gather metrics\n").into_response()
        }
    }
}
