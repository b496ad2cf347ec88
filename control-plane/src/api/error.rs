//! Every failure of the admin APIs: from the errors below to a status, a code and a text in the caller's
//! language. The only place where library errors become answers.
//!
//! Causes go to the log, once, with the request's id; the caller sees none of them.

use super::auth::Caller;
use crate::db;
use crate::rules::{Code, Language, Refusal};
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpResponse, ResponseError};
use contract::seal::SealError;
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// The header under which an answer names its request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a request has no result.
#[derive(Debug)]
pub struct Failure {
    refusal: Refusal,
    retry_after: Option<u64>,
    cause: Option<Cause>,
}

impl Failure {
    /// The same with a `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// A failure that is nobody's fault but ours.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self { refusal: Code::Internal.into(), retry_after: None, cause: Some(cause.into()) }
    }

    /// The reason.
    pub fn code(&self) -> Code {
        self.refusal.code
    }

    /// For errors that did not come from a handler of ours.
    fn from_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Code::Unauthorized.into(),
            StatusCode::FORBIDDEN => Code::PermissionDenied.into(),
            status if status.is_client_error() => Code::BodyUnreadable.into(),
            _ => Self::internal("an error without a cause"),
        }
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn respond(&self, language: Language) -> HttpResponse {
        let mut response = HttpResponse::build(self.status());
        if let Some(seconds) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if let (Code::Method, Some(allow)) = (self.refusal.code, self.param("allow")) {
            response.insert_header((header::ALLOW, allow));
        }
        response.json(Problem::of(&self.refusal, language))
    }

    fn param(&self, name: &str) -> Option<&str> {
        self.refusal.params.iter().find(|(known, _)| *known == name)?.1.as_str()
    }
}

/// The body of every failure.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"ok": false, "error": "rpm must be between 0 and 1000000", "errorCode": "INVALID_RANGE",
    "errorParams": {"field": "rpm", "min": 0, "max": 1000000}}))]
pub struct Problem {
    /// Always false.
    ok: bool,
    /// For people, in Chinese or English by `Accept-Language`.
    error: String,
    /// For programs.
    error_code: &'static str,
    /// What the text speaks of.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Option<Object>)]
    error_params: Map<String, Value>,
}

impl Problem {
    fn of(refusal: &Refusal, language: Language) -> Self {
        let params = refusal.params.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Self {
            ok: false,
            error: refusal.text(language),
            error_code: refusal.code.as_str(),
            error_params: params.collect(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.refusal.text(Language::English))
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    fn error_response(&self) -> HttpResponse {
        self.respond(Language::English)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, retry_after: None, cause: None }
    }
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Refusal::new(code).into()
    }
}

impl From<db::Error> for Failure {
    fn from(error: db::Error) -> Self {
        match error.is_unavailable() {
            true => Self { cause: Some(error.into()), ..Self::from(Code::Unavailable) }.retry_after(1),
            false => Self::internal(error),
        }
    }
}

impl From<diesel::result::Error> for Failure {
    fn from(error: diesel::result::Error) -> Self {
        db::Error::from(error).into()
    }
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        Self::internal(error)
    }
}

/// The language that a request asks for.
pub fn language(headers: &header::HeaderMap) -> Language {
    let wanted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    wanted.map(Language::from_header).unwrap_or_default()
}

/// Around everything under `/api`: failures get their envelope, their language and their line in the log.
pub async fn envelope(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let began = Instant::now();
    let language = language(request.headers());
    let id = uuid::Uuid::now_v7();
    request.extensions_mut().insert(RequestId(id));
    // Probes and link checkers ask with HEAD: what GET answers, of which the server sends only the head.
    let method = request.method().clone();
    if method == Method::HEAD {
        request.head_mut().method = Method::GET;
    }
    let response = next.call(request).await?;
    let replaced = response.response().error().map(|error| rendered(error, language, id));
    let mut response = match replaced {
        None => response.map_into_boxed_body(),
        Some(mut failure) => {
            let request = response.request().clone();
            // Cookies that a login guard or logout sets on the way stay.
            for value in response.headers().get_all(header::SET_COOKIE) {
                failure.headers_mut().append(header::SET_COOKIE, value.clone());
            }
            ServiceResponse::new(request, failure)
        }
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    // Files of the documentation may be kept, answers never.
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    log(&response, &method, id, began);
    Ok(response)
}

/// The access record: one line per request, without query, body and credentials.
fn log(response: &ServiceResponse<BoxBody>, method: &Method, id: uuid::Uuid, began: Instant) {
    let request = response.request();
    let caller = request.extensions().get::<Arc<Caller>>().cloned();
    tracing::info!(
        request_id = %id,
        %method,
        path = request.path(),
        status = response.status().as_u16(),
        duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        user_id = caller.as_ref().map(|caller| caller.id),
        client_ip = caller.as_ref().and_then(|caller| caller.client_ip.as_deref()),
        "served an admin request"
    );
}

/// The id of a request, in its extensions.
#[derive(Clone, Copy, Debug)]
pub struct RequestId(pub uuid::Uuid);

fn rendered(error: &actix_web::Error, language: Language, id: uuid::Uuid) -> HttpResponse {
    let foreign;
    let failure = match error.as_error::<Failure>() {
        Some(failure) => failure,
        None => {
            foreign = Failure::from_status(error.as_response_error().status_code());
            &foreign
        }
    };
    if failure.status().is_server_error() {
        tracing::error!(request_id = %id, code = failure.code().as_str(), cause = %chain(failure), "request failed");
    }
    match failure.code() {
        Code::Internal => {
            Failure::from(Refusal::new(Code::Internal).with("requestId", id.to_string())).respond(language)
        }
        _ => failure.respond(language),
    }
}

/// The causes, outermost first. Texts of Postgres may quote values, so of its errors only the message and the
/// constraint are taken.
fn chain(failure: &Failure) -> String {
    let mut texts = Vec::new();
    let mut next = std::error::Error::source(failure);
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    texts.join(": ")
}
