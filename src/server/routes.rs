//! The path of the webhook: a body in, an answer out, within limits.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tower_http::catch_panic::CatchPanicLayer;

use super::BODY_LIMIT;
use super::admission::{self, Asked};
use super::gate::{Gate, Judged};
use super::journal;
use super::metrics::{Metrics, Outcome};
use super::refusal::Refusal;
use crate::policy::Review;

/// What a review needs.
pub(super) struct App {
    pub(super) gate: Arc<Gate>,
    pub(super) metrics: Arc<Metrics>,
    /// One for each review that may be read or judged at once.
    pub(super) slots: Semaphore,
    pub(super) body_timeout: Duration,
}

/// The paths that the API server calls.
pub(super) fn router(app: Arc<App>) -> Router {
    let metrics = Arc::clone(&app.metrics);
    let on_panic = move |panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(panic = text.unwrap_or("no text"), "judging a write panicked");
        metrics.reviewed(Outcome::Error, Duration::ZERO);
        Refusal::Internal.into_response()
    };
    Router::new()
        .route("/validate", post(validate))
        .method_not_allowed_fallback(async || Refusal::Method)
        .fallback(async || Refusal::NotFound)
        .layer(CatchPanicLayer::custom(on_panic))
        .with_state(app)
}

async fn validate(State(app): State<Arc<App>>, request: Request) -> Response {
    let started = Instant::now();
    let (outcome, response) = match answer(&app, request.into_body()).await {
        Ok((outcome, body)) => {
            (outcome, ([(header::CONTENT_TYPE, "application/json")], body).into_response())
        }
        Err(refusal) => (refusal.outcome(), refusal.into_response()),
    };
    app.metrics.reviewed(outcome, started.elapsed());
    response
}

async fn answer(app: &App, body: Body) -> Result<(Outcome, Vec<u8>), Refusal> {
    let (_slot, asked) = asked(app, body).await.inspect_err(journal::unread)?;
    let Asked { operation, review: Some(review), .. } = &asked else {
        return Ok((Outcome::Error, admission::respond_without_object(&asked)));
    };
    let judged = judged(app, review).await;
    let judged =
        judged.inspect_err(|refusal| journal::without_verdict(review, operation, refusal))?;
    app.metrics.found(&judged.verdict);
    journal::record(review, operation, &judged);
    Ok((Outcome::of(&judged.verdict), admission::respond(&asked, &judged.verdict)))
}

/// What is to be judged, and the slot in which that is done.
async fn asked(app: &App, body: Body) -> Result<(SemaphorePermit<'_>, Asked), Refusal> {
    // Taken before the body is read: it bounds the memory that bodies take, too.
    let Ok(slot) = app.slots.try_acquire() else {
        app.metrics.overloaded();
        return Err(Refusal::Overload);
    };
    let body = tokio::time::timeout(app.body_timeout, read(body))
        .await
        .unwrap_or(Err(Refusal::SlowBody(app.body_timeout)))?;
    Ok((slot, admission::parse(&body)?))
}

async fn judged(app: &App, review: &Review) -> Result<Judged, Refusal> {
    let judged = app.gate.review(review, &app.metrics).await?;
    if judged.verdict.is_decided() {
        Ok(judged)
    } else {
        Err(Refusal::Undecided(judged.verdict.missing))
    }
}

/// Reads a body up to the limit. What is a little larger is read to its end and thrown away: closing a connection while
/// the other side still writes would lose the answer that says why.
async fn read(mut body: Body) -> Result<Bytes, Refusal> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(BODY_LIMIT).min(BODY_LIMIT);
    let mut first = Bytes::new();
    let mut rest = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::Broken)?.into_data() else { continue };
        length += data.len();
        if length > 2 * BODY_LIMIT {
            break;
        }
        if length > BODY_LIMIT {
            rest = Vec::new();
        } else if length == data.len() {
            // Most reviews are one frame: no copy.
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve_exact(announced);
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    match length {
        length if length > BODY_LIMIT => Err(Refusal::TooLarge),
        _ if rest.is_empty() => Ok(first),
        _ => Ok(rest.into()),
    }
}
