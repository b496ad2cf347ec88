//! Why an attempt gave no answer, whose fault that is, and what to do next.

use super::super::head::header;
use super::exchange::Answer;
use crate::clock;
use crate::health::Verdict;
use crate::table::Upstream;
use crate::upstream::{self, Failure};
use bytes::Bytes;
use contract::usage::AttemptResult;
use http::response::Parts;
use http_body_util::BodyExt;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;

/// Of a refusal that goes to the caller, what is searched for the provider's credential.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;
/// Of an upstream's error answer, what is read for the decision trail.
const MAX_ERROR_BYTES: usize = 16 * 1024;
/// Of that, what is kept.
const MAX_DETAIL_CHARS: usize = 300;
/// The longest sleep that a `Retry-After` can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// What to do after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The same provider again, up to its attempts.
    Again,
    /// The next provider.
    Next,
}

/// Why an attempt gave no answer.
pub struct Fault {
    /// What the provider's health hears.
    pub verdict: Verdict,
    /// What to do.
    pub then: Then,
    /// Line of the trail.
    pub result: AttemptResult,
    /// The upstream's status.
    pub status: Option<u16>,
    /// Without secrets.
    pub detail: String,
}

impl Fault {
    /// The provider broke the exchange.
    pub fn broken(status: Option<u16>, detail: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Failure,
            then: Then::Again,
            result: AttemptResult::Failed,
            status,
            detail: detail.into(),
        }
    }

    /// A good answer that this caller cannot be given.
    pub fn unfit(status: Option<u16>, detail: &str) -> Self {
        Self { verdict: Verdict::Neutral, then: Then::Next, ..Self::broken(status, detail) }
    }

    /// An error in the guise of a 200; `meant` is the status that it would have had outside.
    pub fn disguised(status: Option<u16>, meant: u16, text: &str) -> Self {
        let (verdict, then) = blame(meant, None);
        Self { verdict, then, ..Self::broken(status, text) }
    }

    /// No answer came, for want of a connection or on it.
    pub fn unreachable(failure: &Failure) -> Self {
        let fault = Self { result: AttemptResult::SystemError, ..Self::broken(None, failure.to_string()) };
        if failure.retry {
            return fault;
        }
        // It could not even be formed: a caller's odd path must not put providers to sleep.
        Self { verdict: Verdict::Neutral, then: Then::Next, ..fault }
    }

    /// Short, and without the provider's credential, which an upstream may quote.
    pub fn without(self, up: &Upstream) -> Self {
        Self { detail: brief(&self.detail, up), ..self }
    }
}

/// The upstream's own words for the caller's fault, without the provider's credential: some upstreams quote
/// the request that they refuse.
pub async fn refusal(up: &Upstream, mut head: Parts, mut body: upstream::Body) -> Answer {
    let text = beginning(&mut body, MAX_REFUSAL_BYTES).await;
    let secret = up.secret.expose();
    let quoted = !secret.is_empty() && memchr::memmem::find(&text, secret.as_bytes()).is_some();
    let text = if quoted {
        head.headers.remove(http::header::CONTENT_LENGTH);
        String::from_utf8_lossy(&text).replace(secret, "***").into()
    } else {
        Bytes::from(text)
    };
    let held = if text.is_empty() { VecDeque::new() } else { VecDeque::from([text]) };
    Answer {
        head,
        held,
        share: None,
        body,
        events: false,
        usage_asked: false,
        result: AttemptResult::ClientError,
    }
}

/// The first bytes of an error answer. One that dawdles is not worth waiting for; what came is enough.
async fn beginning(body: &mut upstream::Body, most: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            text.extend_from_slice(&data);
            if text.len() >= most {
                break;
            }
        }
    };
    let _ = timeout(Duration::from_secs(2), read).await;
    text
}

/// A status that another provider, or another try, may not give.
pub async fn fault(up: &Upstream, status: u16, head: &Parts, body: upstream::Body) -> Fault {
    let retry_after =
        header(&head.headers, "retry-after").and_then(|value| wait(value, clock::system_time()));
    let detail = detail(body, up).await;
    // OpenAI says 403 for a model that this account does not have; that is no refused credential.
    let no_model =
        status == 403 && (detail.contains("model_not_found") || detail.contains("access to model"));
    let status_of_blame = if no_model { 404 } else { status };
    let (verdict, then) = blame(status_of_blame, retry_after);
    let result = if status_of_blame == 404 { AttemptResult::NotFound } else { AttemptResult::Failed };
    Fault { verdict, then, result, status: Some(status), detail }
}

/// A `Retry-After`: seconds, or a date.
fn wait(value: &str, now: SystemTime) -> Option<Duration> {
    let seconds = || value.parse().ok().map(Duration::from_secs);
    let until = || Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default());
    Some(seconds().or_else(until)?.min(MAX_RETRY_AFTER))
}

/// What a status says of the provider, and what to do after it.
fn blame(status: u16, retry_after: Option<Duration>) -> (Verdict, Then) {
    match status {
        429 => (Verdict::RateLimited { retry_after }, Then::Next),
        401..=403 => (Verdict::CredentialRefused, Then::Next),
        404 => (Verdict::Neutral, Then::Next),
        _ => (Verdict::Failure, Then::Again),
    }
}

/// The start of an upstream's error message, without its credential.
async fn detail(mut body: upstream::Body, up: &Upstream) -> String {
    let text = beginning(&mut body, MAX_ERROR_BYTES).await;
    let message = llm::error_body::message_of(&text);
    let message = message.unwrap_or_else(|| String::from_utf8_lossy(&text).into_owned());
    brief(&message, up)
}

/// The start of a text, without the provider's credential.
fn brief(text: &str, up: &Upstream) -> String {
    let secret = up.secret.expose();
    let hidden = if secret.is_empty() { text.to_owned() } else { text.replace(secret, "***") };
    hidden.chars().take(MAX_DETAIL_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_seconds_or_by_date() {
        let now = httpdate::parse_http_date("Sat, 21 Nov 2026 06:00:00 GMT").expect("date");
        for (value, expected) in [
            ("7", Some(7)),
            ("0", Some(0)),
            ("86400", Some(600)),
            ("Sat, 21 Nov 2026 06:00:30 GMT", Some(30)),
            ("Sat, 21 Nov 2026 05:00:00 GMT", Some(0)),
            ("Sun, 22 Nov 2026 06:00:00 GMT", Some(600)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(wait(value, now), expected.map(Duration::from_secs), "{value}");
        }
    }
}
