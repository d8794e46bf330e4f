//! AdmissionReview in and out: what the API server asks, as a [`Review`], and a [`Verdict`](crate::policy::Verdict) in its
//! words.
//!
//! The only place that builds a response. Nothing is allowed unless a verdict says so.

mod answer;
mod ask;
mod text;

pub use answer::{respond, respond_without_object};
pub use ask::parse;

use crate::policy::Review;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// What the API server asks.
#[derive(Debug)]
pub struct Asked {
    /// What the answer must repeat.
    pub uid: String,
    /// The operation, as the API server spells it.
    pub operation: &'static str,
    /// What is to be judged; `None` where the write has no object.
    pub review: Option<Review>,
    /// Something to tell whatever the verdict is.
    pub note: Option<String>,
}

/// Why a body is no review that can be answered with a verdict.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmissionError {
    /// Not JSON, or a field of a type that no API server sends.
    #[error("the body is no {API_VERSION} {KIND} in JSON: {0}")]
    Shape(String),
    /// JSON of another kind or version.
    #[error(
        "the body is {found}; this webhook answers {API_VERSION} {KIND} only: set admissionReviewVersions: [v1] in the ValidatingWebhookConfiguration"
    )]
    Version {
        /// `apiVersion` and `kind` as sent.
        found: String,
    },
    /// Nothing is asked.
    #[error("the {KIND} has no request; an API server always sends one")]
    NoRequest,
    /// A field without which nothing can be answered.
    #[error("request.{0} is missing; an API server always sends it")]
    Missing(&'static str),
    /// An operation that writes no object.
    #[error(
        "request.operation is {found:?}; this webhook judges CREATE, UPDATE and DELETE: send it no others"
    )]
    Operation {
        /// As sent.
        found: String,
    },
}

#[cfg(test)]
mod tests;
