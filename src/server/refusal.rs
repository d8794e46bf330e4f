//! Requests that get no verdict, and what they are told.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::BODY_LIMIT;
use super::admission::AdmissionError;
use super::gate::ConfirmError;
use super::metrics::Outcome;
use crate::world::Kind;

/// Why a request gets no verdict. The text reaches the person behind the API server, so it says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("Sluicegate has no such path; reviews go to POST /validate")]
    NotFound,
    #[error("Sluicegate takes reviews as POST /validate only")]
    Method,
    #[error(transparent)]
    NotAReview(#[from] AdmissionError),
    #[error("the body broke off before its end; send it again")]
    Broken,
    #[error("the body did not arrive within {0:?}; send it again")]
    SlowBody(Duration),
    #[error(
        "the AdmissionReview is larger than {BODY_LIMIT} bytes; no object that fits into etcd needs that: make the object smaller"
    )]
    TooLarge,
    #[error("Sluicegate is judging as many reviews as it may at once; try again")]
    Overload,
    #[error(
        "Sluicegate cannot judge this write yet, because these kinds are not listed: {}; try again in a few seconds. If that lasts, its /readyz and its log say why",
        .0.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
    )]
    Undecided(Vec<Kind>),
    #[error(
        "Sluicegate would refuse this write, but could not confirm that with a live read, and refuses nothing on a guess: {0}; try again"
    )]
    Unconfirmed(#[from] ConfirmError),
    #[error(
        "judging this write failed inside Sluicegate, which is its fault and not the object's; its log says more"
    )]
    Internal,
}

/// `metav1.Status`: what the API server shows where a webhook gives no review.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    kind: &'static str,
    api_version: &'static str,
    metadata: Empty,
    status: &'static str,
    message: String,
    reason: &'static str,
    code: u16,
}

#[derive(Serialize)]
struct Empty {}

impl Refusal {
    /// What it counts as.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Undecided(_) | Self::Unconfirmed(_) | Self::Overload => Outcome::Undecided,
            _ => Outcome::Error,
        }
    }

    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "NotFound"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::NotAReview(_) | Self::Broken => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::SlowBody(_) => (StatusCode::REQUEST_TIMEOUT, "Timeout"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
            // The API server takes each 5xx as "no answer", and the webhook's failurePolicy decides: no second knob here.
            Self::Overload | Self::Undecided(_) | Self::Unconfirmed(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable")
            }
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (code, reason) = self.status();
        let status = Status {
            kind: "Status",
            api_version: "v1",
            metadata: Empty {},
            status: "Failure",
            message: self.to_string(),
            reason,
            code: code.as_u16(),
        };
        let body = serde_json::to_vec(&status).expect("names and text are JSON");
        let mut response =
            (code, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        // client-go asks again by itself where it is told when; a burst passes, an unlisted kind may stay longer than it waits.
        if matches!(self, Self::Overload) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
