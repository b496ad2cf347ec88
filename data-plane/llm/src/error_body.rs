//! An error in the words of the caller's dialect: as an answer body, or as the last event of a stream.
//! Never looks at where the error came from.

mod event;

use bytes::Bytes;
use contract::usage::Dialect;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

pub use event::{failure_event, refusal_event, stream_error_event};

/// What kind of error it is; each dialect has its own word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No or bad credentials.
    Authentication,
    /// Known, but not allowed.
    Permission,
    /// The request itself is at fault.
    InvalidRequest,
    /// No such thing.
    NotFound,
    /// The body is too large.
    TooLarge,
    /// A limit of the caller: rates, concurrency, and money under `limit_type`.
    RateLimit,
    /// Upstreams are all busy, asleep or gone.
    Overloaded,
    /// The upstream did not answer in time.
    Timeout,
    /// Anything else.
    Api,
}

impl ErrorKind {
    /// The kind that a bare status suggests.
    pub fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Authentication,
            403 => Self::Permission,
            404 => Self::NotFound,
            413 => Self::TooLarge,
            402 | 429 => Self::RateLimit,
            408 | 504 | 524 => Self::Timeout,
            503 | 529 => Self::Overloaded,
            400..=499 => Self::InvalidRequest,
            _ => Self::Api,
        }
    }

    fn anthropic(self) -> &'static str {
        match self {
            Self::Authentication => "authentication_error",
            Self::Permission => "permission_error",
            Self::InvalidRequest => "invalid_request_error",
            Self::NotFound => "not_found_error",
            Self::TooLarge => "request_too_large",
            Self::RateLimit => "rate_limit_error",
            Self::Overloaded => "overloaded_error",
            Self::Timeout => "timeout_error",
            Self::Api => "api_error",
        }
    }

    fn openai(self) -> &'static str {
        match self {
            Self::Authentication => "authentication_error",
            Self::Permission => "permission_error",
            Self::InvalidRequest | Self::NotFound | Self::TooLarge => "invalid_request_error",
            Self::RateLimit => "rate_limit_error",
            Self::Overloaded => "service_unavailable_error",
            Self::Timeout => "timeout_error",
            Self::Api => "server_error",
        }
    }

    /// The code when none is given; machines tell errors apart by it.
    fn code(self) -> &'static str {
        match self {
            Self::Authentication => "invalid_api_key",
            Self::Permission => "permission_denied",
            Self::InvalidRequest => "invalid_request",
            Self::NotFound => "not_found",
            Self::TooLarge => "request_too_large",
            Self::RateLimit => "rate_limit_exceeded",
            Self::Overloaded => "service_unavailable",
            Self::Timeout => "timeout",
            Self::Api => "server_error",
        }
    }

    fn gemini(self) -> &'static str {
        match self {
            Self::Authentication => "UNAUTHENTICATED",
            Self::Permission => "PERMISSION_DENIED",
            Self::InvalidRequest | Self::TooLarge => "INVALID_ARGUMENT",
            Self::NotFound => "NOT_FOUND",
            Self::RateLimit => "RESOURCE_EXHAUSTED",
            Self::Overloaded => "UNAVAILABLE",
            Self::Timeout => "DEADLINE_EXCEEDED",
            Self::Api => "INTERNAL",
        }
    }
}

/// Which limit refused a request, and how full it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitInfo {
    /// `rpm`, `usd_5h`, `daily_quota`, `usd_weekly`, `usd_monthly`, `usd_total`, `concurrent_sessions`, …
    pub limit_type: String,
    /// What was used, as a decimal number; never a float.
    pub current: String,
    /// The limit, as a decimal number.
    pub limit: String,
    /// RFC 3339; `None` for a rolling window without a fixed end.
    pub reset_time: Option<String>,
}

/// An error, before it has a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorBody {
    /// HTTP status; Gemini repeats it in the body.
    pub status: u16,
    /// What kind.
    pub kind: ErrorKind,
    /// A machine-readable code, if there is a better one than the kind's.
    pub code: Option<String>,
    /// For people.
    pub message: String,
    /// The limit that was reached.
    pub limit: Option<LimitInfo>,
    /// Seconds after which trying again makes sense; part of an event only, an answer says it in its head.
    pub retry_after: Option<u64>,
}

impl ErrorBody {
    /// An error of a kind, with the kind's own code.
    pub fn new(status: u16, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { status, kind, code: None, message: message.into(), limit: None, retry_after: None }
    }

    /// With another code.
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// With the limit that was reached.
    pub fn with_limit(mut self, limit: LimitInfo) -> Self {
        self.limit = Some(limit);
        self
    }

    fn code(&self) -> &str {
        self.code.as_deref().unwrap_or(self.kind.code())
    }
}

/// The body of an error answer.
pub fn render(dialect: Dialect, error: &ErrorBody) -> Bytes {
    let object = error_object(dialect, error);
    Bytes::from(match dialect {
        Dialect::Anthropic => format!(r#"{{"type":"error","error":{object}}}"#),
        Dialect::OpenAi | Dialect::Responses | Dialect::Gemini => format!(r#"{{"error":{object}}}"#),
    })
}

/// The inner object, in which limits have the same members in every dialect.
fn error_object(dialect: Dialect, error: &ErrorBody) -> String {
    let mut members: Vec<(&str, String)> = Vec::new();
    let message = Value::from(error.message.as_str()).to_string();
    let quoted = |text: &str| Value::from(text).to_string();
    match dialect {
        Dialect::Anthropic => {
            members.push(("type", quoted(error.kind.anthropic())));
            members.push(("message", message));
            members.push(("code", quoted(error.code())));
        }
        Dialect::OpenAi | Dialect::Responses => {
            members.push(("message", message));
            members.push(("type", quoted(error.kind.openai())));
            members.push(("param", "null".to_owned()));
            members.push(("code", quoted(error.code())));
        }
        Dialect::Gemini => {
            members.push(("code", error.status.to_string()));
            members.push(("message", message));
            members.push(("status", quoted(error.kind.gemini())));
        }
    }
    if let Some(limit) = &error.limit {
        members.push(("limit_type", quoted(&limit.limit_type)));
        members.push(("current", number(&limit.current)));
        members.push(("limit", number(&limit.limit)));
        members.push(("reset_time", limit.reset_time.as_deref().map_or("null".to_owned(), quoted)));
    }
    let members: Vec<String> =
        members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// Decimal text as a JSON number, digit by digit; as a string if it is none.
fn number(text: &str) -> String {
    let is_number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && serde_json::from_str::<&RawValue>(text).is_ok();
    if is_number { text.to_owned() } else { Value::from(text).to_string() }
}

/// The message in an upstream's error body; `None` if there is none.
pub fn message_of(body: &[u8]) -> Option<String> {
    let object: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let error = object.get("error").filter(|error| !error.is_null());
    let text = match error {
        Some(Value::String(text)) => Some(text.as_str()),
        Some(Value::Object(error)) => error.get("message").and_then(Value::as_str),
        _ => ["message", "detail", "msg"].iter().find_map(|name| object.get(*name)?.as_str()),
    };
    text.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> ErrorBody {
        ErrorBody::new(402, ErrorKind::RateLimit, "Daily \"quota\" reached").with_limit(LimitInfo {
            limit_type: "daily_quota".to_owned(),
            current: "10.000000000000000001".to_owned(),
            limit: "10".to_owned(),
            reset_time: Some("2026-11-22T00:00:00Z".to_owned()),
        })
    }

    fn every(errors: &[ErrorBody], form: fn(Dialect, &ErrorBody) -> Bytes) -> String {
        let lines = errors.iter().flat_map(|error| {
            Dialect::ALL.iter().map(|dialect| String::from_utf8(form(*dialect, error).to_vec()).unwrap())
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn bodies_in_each_dialect() {
        let errors = [
            ErrorBody::new(401, ErrorKind::Authentication, "Unknown key."),
            ErrorBody::new(503, ErrorKind::Overloaded, "No provider").with_code("circuit_breaker_open"),
            limit(),
        ];
        let text = every(&errors, render);
        assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
        insta::assert_snapshot!(text, @r###"
        {"type":"error","error":{"type":"authentication_error","message":"Unknown key.","code":"invalid_api_key"}}
        {"error":{"message":"Unknown key.","type":"authentication_error","param":null,"code":"invalid_api_key"}}
        {"error":{"message":"Unknown key.","type":"authentication_error","param":null,"code":"invalid_api_key"}}
        {"error":{"code":401,"message":"Unknown key.","status":"UNAUTHENTICATED"}}
        {"type":"error","error":{"type":"overloaded_error","message":"No provider","code":"circuit_breaker_open"}}
        {"error":{"message":"No provider","type":"service_unavailable_error","param":null,"code":"circuit_breaker_open"}}
        {"error":{"message":"No provider","type":"service_unavailable_error","param":null,"code":"circuit_breaker_open"}}
        {"error":{"code":503,"message":"No provider","status":"UNAVAILABLE"}}
        {"type":"error","error":{"type":"rate_limit_error","message":"Daily \"quota\" reached","code":"rate_limit_exceeded","limit_type":"daily_quota","current":10.000000000000000001,"limit":10,"reset_time":"2026-11-22T00:00:00Z"}}
        {"error":{"message":"Daily \"quota\" reached","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded","limit_type":"daily_quota","current":10.000000000000000001,"limit":10,"reset_time":"2026-11-22T00:00:00Z"}}
        {"error":{"message":"Daily \"quota\" reached","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded","limit_type":"daily_quota","current":10.000000000000000001,"limit":10,"reset_time":"2026-11-22T00:00:00Z"}}
        {"error":{"code":402,"message":"Daily \"quota\" reached","status":"RESOURCE_EXHAUSTED","limit_type":"daily_quota","current":10.000000000000000001,"limit":10,"reset_time":"2026-11-22T00:00:00Z"}}
        "###);
    }

    #[test]
    fn numbers_stay_exact_or_become_text() {
        for (text, expected) in
            [("0.10", "0.10"), ("-1", "-1"), ("", "\"\""), ("1,5", "\"1,5\""), ("null", "\"null\"")]
        {
            assert_eq!(number(text), expected);
        }
    }

    #[test]
    fn statuses_have_a_kind() {
        for (status, kind) in [
            (400, ErrorKind::InvalidRequest),
            (402, ErrorKind::RateLimit),
            (413, ErrorKind::TooLarge),
            (500, ErrorKind::Api),
            (503, ErrorKind::Overloaded),
        ] {
            assert_eq!(ErrorKind::of_status(status), kind);
        }
    }

    #[test]
    fn reads_an_upstream_message() {
        for (body, message) in [
            (r#"{"type":"error","error":{"type":"x","message":"a"}}"#, Some("a")),
            (r#"{"error":"b"}"#, Some("b")),
            (r#"{"detail":"c"}"#, Some("c")),
            (r#"{"error":null}"#, None),
            ("<html>", None),
        ] {
            assert_eq!(message_of(body.as_bytes()).as_deref(), message);
        }
    }
}
