//! Answers: the envelope around data, with the generation of a write.

use super::Failure;
use super::audit::Written;
use actix_web::body::BoxBody;
use actix_web::http::header::HeaderName;
use actix_web::{HttpRequest, HttpResponse, Responder};
use contract::ids::Generation;
use serde::Serialize;

/// The header that carries the generation of a write.
pub const GENERATION: HeaderName = HeaderName::from_static("x-switchyard-generation");

/// What a handler answers.
pub type Reply<T> = Result<Answer<T>, Failure>;

/// `{ok: true, data, generation?}`.
#[derive(Debug)]
pub struct Answer<T> {
    data: T,
    generation: Option<Generation>,
}

/// `{ok: true, generation?}`: done, and there is nothing to show.
#[derive(Debug, Default)]
pub struct Done {
    generation: Option<Generation>,
}

impl<T> Answer<T> {
    /// The result of reading.
    pub fn read(data: T) -> Self {
        Self { data, generation: None }
    }

    /// The result of a change.
    pub fn written(data: T, written: Written) -> Self {
        Self { data, generation: Some(written.publish()) }
    }
}

impl Done {
    /// A change.
    pub fn written(written: Written) -> Self {
        Self { generation: Some(written.publish()) }
    }
}

/// The body of a success.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Envelope<T> {
    /// Always true.
    ok: bool,
    /// The result.
    data: T,
    /// The generation that carries the change, when something was written: every proxy that acts on it, or
    /// on a later one, acts on this change.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
}

/// The body of a success without a result.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Bare {
    /// Always true.
    ok: bool,
    /// The generation that carries the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
}

impl<T: Serialize> Responder for Answer<T> {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        let generation = self.generation;
        respond(&Envelope { ok: true, data: self.data, generation: generation.map(|g| g.0) }, generation)
    }
}

impl Responder for Done {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        respond(&Bare { ok: true, generation: self.generation.map(|g| g.0) }, self.generation)
    }
}

fn respond(body: &impl Serialize, generation: Option<Generation>) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if let Some(generation) = generation {
        response.insert_header((GENERATION, generation.0));
    }
    response.json(body)
}

/// The answers that every action may give besides its own; for the documentation.
#[derive(Debug, utoipa::IntoResponses)]
pub enum Failures {
    /// The request is not valid, or a rule forbids the change.
    #[response(status = 400)]
    Invalid(super::error::Problem),
    /// Not logged in.
    #[response(status = 401)]
    Unauthorized(super::error::Problem),
    /// No permission.
    #[response(status = 403)]
    Forbidden(super::error::Problem),
    /// The body is larger than `MAX_BODY_BYTES`.
    #[response(status = 413)]
    TooLarge(super::error::Problem),
    /// Too many requests at once; `Retry-After` says when to try again.
    #[response(status = 429)]
    TooMany(super::error::Problem),
    /// Internal error.
    #[response(status = 500)]
    Internal(super::error::Problem),
    /// The database cannot be reached; `Retry-After` says when to try again.
    #[response(status = 503)]
    Unavailable(super::error::Problem),
}
