//! Every answer that this proxy gives by itself, in one table from cause to response.

use super::body::Body;
use crate::store;
use crate::telemetry::metrics::Metrics;
use bytes::Bytes;
use contract::table::{Measure, Scope};
use contract::usage::Dialect;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use llm::error_body::{ErrorBody, ErrorKind, LimitInfo};
use std::time::Duration;

/// Why a request was refused before or instead of an upstream's answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// No credential in any of the four places.
    #[error(
        "no API key was given: send it as `Authorization: Bearer`, `x-api-key`, `x-goog-api-key` or `?key=`"
    )]
    NoCredential,
    /// Several different credentials.
    #[error("several different API keys were given; send one")]
    AmbiguousCredential,
    /// Not in the table.
    #[error("the API key is not valid")]
    UnknownKey,
    /// This address showed too many unknown keys.
    #[error("too many unknown API keys came from your address, try again later")]
    Guessing(Duration),
    /// Switched off.
    #[error("this API key is disabled")]
    KeyDisabled,
    /// Past its time.
    #[error("this API key has expired")]
    KeyExpired,
    /// Its user is switched off.
    #[error("the account of this API key is disabled")]
    UserDisabled,
    /// Its user is past its time.
    #[error("the account of this API key has expired")]
    UserExpired,
    /// This proxy holds no table yet.
    #[error("this proxy has no configuration yet, try again in a moment")]
    NotReady,
    /// The spool is at its bound: what is used could not be accounted for.
    #[error("this proxy cannot record usage at the moment, try again later")]
    SpoolFull,
    /// The spool cannot be written, with the same consequence.
    #[error("this proxy cannot record usage at the moment, try again later")]
    SpoolFailed,
    /// This proxy is about to stop, or over a bound of its own.
    #[error("this proxy is overloaded, try again in a moment")]
    Overloaded,
    /// No such path.
    #[error("there is no {method} {path} here")]
    NoRoute {
        /// Asked for.
        method: String,
        /// Asked for.
        path: String,
    },
    /// A WebSocket.
    #[error(
        "there are no WebSockets here: send the request as an HTTP POST; its answer can be streamed as events"
    )]
    Upgrade,
    /// What an upstream account keeps, where the owner keeps callers from it.
    #[error(
        "files, batches, stored responses and all else that an upstream account keeps are not available here, \
         unless an administrator switches `upstreamResources` on"
    )]
    ResourcesOff,
    /// The same, asked for by a member of the body.
    #[error(
        "`background` must be false: stored responses are not available here, unless an administrator switches \
         `upstreamResources` on"
    )]
    BackgroundOff,
    /// What is not billed, for a caller who is held to money or models.
    #[error(
        "{0} is not available to API keys with a spending limit or a list of allowed models: what an upstream account \
         makes and keeps is counted towards neither"
    )]
    Unaccounted(&'static str),
    /// The body is over the bound.
    #[error("the request body is larger than {limit} bytes")]
    BodyTooLarge {
        /// Bytes.
        limit: u64,
    },
    /// The caller stopped sending.
    #[error("the request body did not arrive in time")]
    BodyTimeout,
    /// The connection broke in the body, or it could not be decompressed.
    #[error("the request body could not be read: {0}")]
    BodyUnreadable(String),
    /// Not JSON, or a member has the wrong type.
    #[error("{0}")]
    BodyInvalid(String),
    /// The caller may not use this model.
    #[error("the model `{0}` is not allowed for this API key")]
    ModelNotAllowed(String),
    /// The caller's program is not allowed.
    #[error("this client is not allowed for this API key")]
    ClientNotAllowed,
    /// A sensitive word.
    #[error("the request contains a word that is not allowed here: {word}")]
    SensitiveWord {
        /// The word or expression of the rule.
        word: String,
        /// How it was compared.
        match_type: &'static str,
    },
    /// A limit is reached.
    #[error("{}", limit_text(.0))]
    Limited(Box<store::Refusal>, StatusCode),
    /// The model has no price, the caller a money limit, and the owner wants such requests refused.
    #[error(
        "the model `{0}` has no price, so it cannot be counted towards the spending limit of this API key: an \
         administrator can price it with the action uploadPriceTable or syncLiteLLMPrices"
    )]
    Unpriced(String),
    /// No provider could serve it.
    #[error("{text}")]
    Unavailable {
        /// `no_available_providers`, `circuit_breaker_open`, `rate_limit_exceeded`, `all_providers_failed`.
        class: &'static str,
        /// For people; the last upstream's message where there was one.
        text: String,
        /// When trying again makes sense.
        retry_after: Option<Duration>,
    },
    /// Every provider answered 404: none knows this model or path.
    #[error("no provider knows this model or path: {0}")]
    UnknownUpstream(String),
    /// A provider's word that ends the request: the caller's own fault, or a call that is not sent twice.
    #[error("the provider refused or failed: {text}")]
    Upstream {
        /// The status that it stands for.
        status: StatusCode,
        /// The upstream's word for it.
        code: Option<String>,
        /// The upstream's text.
        text: String,
    },
    /// A defect of this proxy.
    #[error("this proxy failed while serving the request")]
    Internal,
}

fn limit_text(refusal: &store::Refusal) -> String {
    let whose = match refusal.scope {
        Scope::Key(_) => "this API key",
        Scope::User(_) => "this user",
        Scope::Provider(_) => "the provider",
    };
    match refusal.measure {
        Measure::Usd => {
            let usd = |nano: i64| contract::money::NanoUsd(nano).to_usd();
            format!(
                "the spending limit of {whose} ({}) is reached: {} of {} USD",
                refusal.limit_type,
                usd(refusal.current),
                usd(refusal.limit)
            )
        }
        Measure::Requests => {
            format!("the limit of {whose} of {} requests per minute is reached", refusal.limit)
        }
        Measure::Sessions => {
            format!("the limit of {whose} of {} concurrent sessions is reached", refusal.limit)
        }
    }
}

impl Refusal {
    /// A closed set of words: metric label, error code, access log.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoCredential => "missing",
            Self::AmbiguousCredential => "ambiguous",
            Self::UnknownKey => "invalid_api_key",
            Self::Guessing(_) => "blocked",
            Self::KeyDisabled => "key_disabled",
            Self::KeyExpired => "key_expired",
            Self::UserDisabled => "user_disabled",
            Self::UserExpired => "user_expired",
            Self::NotReady => "not_ready",
            Self::SpoolFull => "spool_full",
            Self::SpoolFailed => "spool_failed",
            Self::Overloaded => "body_budget",
            Self::NoRoute { .. } => "not_found",
            Self::Upgrade => "upgrade_required",
            Self::ResourcesOff | Self::BackgroundOff => "upstream_resources_off",
            Self::Unaccounted(_) => "unaccounted_resource",
            Self::BodyTooLarge { .. } => "request_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyUnreadable(_) => "body_unreadable",
            Self::BodyInvalid(_) => "invalid_request",
            Self::ModelNotAllowed(_) => "model_not_allowed",
            Self::ClientNotAllowed => "client_not_allowed",
            Self::SensitiveWord { .. } => "sensitive_word",
            Self::Limited(..) => "rate_limit_exceeded",
            Self::Unpriced(_) => "model_not_priced",
            Self::Unavailable { class, .. } => class,
            Self::UnknownUpstream(_) => "upstream_not_found",
            Self::Upstream { .. } => "upstream_error",
            Self::Internal => "internal",
        }
    }

    /// Counts it where it belongs: as a failed authentication or as a refusal.
    pub fn count(&self, metrics: &Metrics) {
        match self {
            Self::Limited(refusal, _) => metrics.refused(refusal.limit_type),
            _ if self.status() == StatusCode::UNAUTHORIZED => metrics.not_authenticated(self.kind()),
            Self::Guessing(_) => metrics.not_authenticated(self.kind()),
            _ => metrics.refused(self.kind()),
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoCredential
            | Self::AmbiguousCredential
            | Self::UnknownKey
            | Self::KeyDisabled
            | Self::KeyExpired
            | Self::UserDisabled
            | Self::UserExpired => StatusCode::UNAUTHORIZED,
            Self::NotReady
            | Self::SpoolFull
            | Self::SpoolFailed
            | Self::Overloaded
            | Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoRoute { .. } | Self::UnknownUpstream(_) => StatusCode::NOT_FOUND,
            Self::Upgrade => StatusCode::UPGRADE_REQUIRED,
            Self::ResourcesOff | Self::Unaccounted(_) => StatusCode::FORBIDDEN,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Guessing(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyUnreadable(_)
            | Self::BodyInvalid(_)
            | Self::BackgroundOff
            | Self::ModelNotAllowed(_)
            | Self::ClientNotAllowed
            | Self::SensitiveWord { .. } => StatusCode::BAD_REQUEST,
            Self::Limited(_, status) | Self::Upstream { status, .. } => *status,
            Self::Unpriced(_) => StatusCode::PAYMENT_REQUIRED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the caller had shown no known key when it was refused.
    pub fn is_of_stranger(&self) -> bool {
        matches!(
            self,
            Self::NoCredential
                | Self::AmbiguousCredential
                | Self::UnknownKey
                | Self::Guessing(_)
                | Self::NotReady
                | Self::NoRoute { .. }
                // Answered before the credential is looked at.
                | Self::Upgrade
        )
    }

    /// When trying again makes sense.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotReady | Self::Overloaded => Some(Duration::from_secs(1)),
            // Long enough for a balancer to see that this proxy is not ready.
            Self::SpoolFull | Self::SpoolFailed => Some(Duration::from_secs(5)),
            Self::Guessing(left) => Some(*left),
            Self::Limited(refusal, _) => refusal.retry_after,
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The error in its dialect-independent form.
    pub fn error_body(&self) -> ErrorBody {
        let limit = match self {
            Self::Limited(refusal, _) => Some(limit_info(refusal)),
            _ => None,
        };
        let status = self.status().as_u16();
        let kind = match self {
            Self::ModelNotAllowed(_) | Self::ClientNotAllowed | Self::Unpriced(_) => {
                ErrorKind::InvalidRequest
            }
            _ => ErrorKind::of_status(status),
        };
        let retry_after = self.retry_after().map(whole_seconds);
        ErrorBody {
            status,
            kind,
            code: Some(match self {
                Self::Upstream { code: Some(code), .. } => code.clone(),
                _ => self.kind().to_owned(),
            }),
            message: self.to_string(),
            limit,
            retry_after,
        }
    }

    /// The event instead of the response, to a caller who has a head already.
    pub fn event(&self, dialect: Dialect) -> Response<Body> {
        Response::new(Body::whole(llm::error_body::failure_event(dialect, &self.error_body())))
    }

    /// The whole response in the caller's dialect.
    pub fn response(&self, dialect: Dialect) -> Response<Body> {
        let mut response = json(self.status(), llm::error_body::render(dialect, &self.error_body()));
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        }
        if matches!(self, Self::Upgrade) {
            // As RFC 9110 wants it: what to speak instead. Codex goes by the status.
            headers.insert(UPGRADE, HeaderValue::from_static("HTTP/1.1"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        if let Self::Limited(refusal, _) = self {
            insert(headers, "x-ratelimit-limit", &amounts(refusal).1);
            insert(headers, "x-ratelimit-remaining", &remaining(refusal));
            if let Some(reset) = refusal.reset_ms {
                headers.insert("x-ratelimit-reset", HeaderValue::from(reset.div_euclid(1000)));
            }
        }
        response
    }
}

/// Rounded up: a client that waits that long is never refused for the same window.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

fn amounts(refusal: &store::Refusal) -> (String, String) {
    match refusal.measure {
        Measure::Usd => {
            let usd = |nano| contract::money::NanoUsd(nano).to_usd().to_string();
            (usd(refusal.current), usd(refusal.limit))
        }
        _ => (refusal.current.to_string(), refusal.limit.to_string()),
    }
}

fn remaining(refusal: &store::Refusal) -> String {
    let left = (refusal.limit - refusal.current).max(0);
    match refusal.measure {
        Measure::Usd => contract::money::NanoUsd(left).to_usd().to_string(),
        _ => left.to_string(),
    }
}

fn limit_info(refusal: &store::Refusal) -> LimitInfo {
    let (current, limit) = amounts(refusal);
    let reset_time = refusal
        .reset_ms
        .and_then(chrono::DateTime::from_timestamp_millis)
        .map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
    LimitInfo { limit_type: refusal.limit_type.to_owned(), current, limit, reset_time }
}

fn insert(headers: &mut http::HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A JSON response with a known length.
pub fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_before_the_credential_is_looked_at_makes_nobody_known() {
        let nowhere = Refusal::NoRoute { method: "GET".to_owned(), path: "/nowhere".to_owned() };
        for refusal in
            [Refusal::NoCredential, Refusal::UnknownKey, Refusal::NotReady, Refusal::Upgrade, nowhere]
        {
            assert!(refusal.is_of_stranger(), "{refusal:?}");
        }
        assert!(!Refusal::KeyDisabled.is_of_stranger());
    }
}
