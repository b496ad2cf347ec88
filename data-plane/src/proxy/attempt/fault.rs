//! Why an attempt gave no answer. Whose fault that is, and what to do next, says the table in `health::fault`.

use super::super::head::header;
use super::super::scrub::{self, Known};
use super::exchange::{Answer, Exchange};
use crate::clock::system_time;
use crate::health::Verdict;
use crate::health::fault::{Broken, Case, Judgement, Place, Then, Whose, judge, judge_broken};
use crate::table::Upstream;
use crate::upstream::{self, Failure, FailureClass, Stage};
use bytes::Bytes;
use contract::usage::{AttemptResult, Dialect};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::response::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use llm::error_body::{ErrorBody, ErrorKind};
use llm::usage::{FakeSuccess, StreamError, fake_success};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;

/// Of an answer that refuses, what is read before it is judged.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;
/// Of an upstream's error message, what is kept for the decision trail.
const MAX_DETAIL_CHARS: usize = 300;
/// The longest sleep that an upstream can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);
/// Anthropic's limits, each with a header that says what is left and one that says when it is whole again.
const ANTHROPIC_LIMITS: [&str; 4] = ["requests", "tokens", "input-tokens", "output-tokens"];

/// Why an attempt gave no answer.
pub struct Fault {
    /// Whose fault, what the provider's health hears, and what to do.
    pub judged: Judgement,
    /// Line of the trail.
    pub result: AttemptResult,
    /// The upstream's status.
    pub status: Option<u16>,
    /// The upstream's word for it.
    pub code: Option<String>,
    /// Without secrets.
    pub detail: String,
}

impl Fault {
    /// What came is no answer.
    pub fn broken(exchange: &Exchange<'_>, status: Option<u16>, detail: impl Into<String>) -> Self {
        let judged = judge_broken(Broken::Answer, exchange.route.kind, exchange.is_repeatable());
        Self { judged, result: AttemptResult::Failed, status, code: None, detail: detail.into() }
    }

    /// An error in the guise of a good status.
    pub fn disguised(exchange: &Exchange<'_>, place: Place, status: u16, fake: &FakeSuccess) -> Self {
        let error = match fake {
            FakeSuccess::Error(error) => Some(error),
            FakeSuccess::Empty | FakeSuccess::Html => None,
        };
        Self::of(&exchange.case(place, status, error, fake.reason()))
    }

    /// The first event of a stream is an error.
    pub fn first_event(exchange: &Exchange<'_>, status: u16, error: &StreamError) -> Self {
        Self::of(&exchange.case(Place::FirstEvent, status, Some(error), &error.message))
    }

    /// No answer came, for want of a connection or on it.
    pub fn unreachable(exchange: &Exchange<'_>, failure: &Failure) -> Self {
        let judged = judge_broken(broken(failure.class), exchange.route.kind, exchange.is_repeatable());
        let result = AttemptResult::SystemError;
        Self { judged, result, status: None, code: None, detail: failure.to_string() }
    }

    /// Whether the answer that it was found in is the caller's.
    pub fn is_callers(&self) -> bool {
        self.judged.whose == Whose::Caller && self.judged.then == Then::Return
    }

    /// This proxy has no memory for the body as the provider must get it.
    pub fn crowded(exchange: &Exchange<'_>) -> Self {
        let mut fault =
            Self::broken(exchange, None, "this proxy has no room for another copy of the request");
        fault.judged = Judgement { verdict: Verdict::Neutral, then: Then::Next, ..fault.judged };
        Self { result: AttemptResult::SystemError, ..fault }
    }

    /// Short, and without what looks like a credential, which an upstream may quote.
    pub fn without(self, up: &Upstream) -> Self {
        Self { detail: brief(&self.detail, up), ..self }
    }

    fn of(case: &Case<'_>) -> Self {
        let judged = judge(case);
        let code = case.error.and_then(|error| error.code.clone().or_else(|| error.kind.clone()));
        let message = case.error.map(|error| error.message.as_str()).filter(|message| !message.is_empty());
        let unknown = judged.meant == 404
            || (judged.whose == Whose::Model
                && (code.as_deref() == Some("model_not_found") || case.text.contains("access to model")));
        let result = if unknown { AttemptResult::NotFound } else { AttemptResult::Failed };
        let detail = message.unwrap_or(case.text).to_owned();
        Self { judged, result, status: Some(case.status), code, detail }
    }
}

impl<'a> Exchange<'a> {
    /// Whether it may be sent again although it may have been carried out: what is generated costs money twice at
    /// worst, but a creation would exist twice.
    pub fn is_repeatable(&self) -> bool {
        self.route.repeatable
    }

    fn case<'c>(&self, place: Place, status: u16, error: Option<&'c StreamError>, text: &'c str) -> Case<'c>
    where
        'a: 'c,
    {
        let (kind, repeatable, request) = (self.route.kind, self.is_repeatable(), self.body);
        Case { kind, repeatable, place, status, error, text, retry_after: None, request }
    }
}

/// What a failure means for the request.
fn broken(class: FailureClass) -> Broken {
    match class {
        FailureClass::Request => Broken::Unformed,
        FailureClass::Local(_) => Broken::Local,
        FailureClass::Dns
        | FailureClass::NoResolver
        | FailureClass::Connect
        | FailureClass::Unreachable
        | FailureClass::Tls
        | FailureClass::Timeout(Stage::Connect) => Broken::Unsent,
        FailureClass::Timeout(_)
        | FailureClass::Reset
        | FailureClass::Incomplete
        | FailureClass::Protocol => Broken::Sent,
    }
}

/// An answer whose status refuses: the caller's own fault goes to the caller in the upstream's words, byte
/// for byte where nothing in them is for admins only; everything else is a fault. What cannot be read as a whole is told
/// in our words.
pub async fn refused(
    exchange: &Exchange<'_>,
    up: &Upstream,
    (mut head, mut body): (Parts, upstream::Body),
    patience: Duration,
) -> Result<Answer, Fault> {
    let (text, whole) = beginning(&mut body, MAX_REFUSAL_BYTES, patience).await;
    let error = match fake_success(None, &text) {
        Some(FakeSuccess::Error(error)) => Some(error),
        _ => None,
    };
    let status = head.status.as_u16();
    let spoken = String::from_utf8_lossy(&text);
    let message = llm::error_body::message_of(&text);
    let case = Case {
        retry_after: retry_after(&head.headers, system_time()),
        ..exchange.case(Place::Status, status, error.as_ref(), message.as_deref().unwrap_or(&spoken))
    };
    let fault = Fault::of(&case);
    if !fault.is_callers() {
        return Err(fault.without(up));
    }
    let known = Known::of(up);
    let changed = if whole && !head.headers.contains_key(CONTENT_ENCODING) {
        match scrub::for_callers(&spoken, &known) {
            Cow::Owned(changed) => Some(changed.into()),
            Cow::Borrowed(_) => None,
        }
    } else {
        Some(in_our_words(&mut head, exchange.route.dialect, &text, &known))
    };
    if changed.is_some() {
        head.headers.remove(CONTENT_LENGTH);
    }
    // Of one that was not read to its end nothing more is relayed.
    let body = if whole { body } else { upstream::Body::Cut };
    let text = changed.unwrap_or_else(|| Bytes::from(text));
    let held = if text.is_empty() { VecDeque::new() } else { VecDeque::from([text]) };
    let result = AttemptResult::ClientError;
    Ok(Answer { head, held, share: None, body, events: false, usage_asked: false, result })
}

/// A refusal that is compressed, too long, or does not come to its end.
fn in_our_words(head: &mut Parts, dialect: Dialect, text: &[u8], known: &Known) -> Bytes {
    let status = head.status.as_u16();
    let message = llm::error_body::message_of(text).unwrap_or_default();
    let message: String = message.trim().chars().take(MAX_DETAIL_CHARS).collect();
    let message = scrub::for_callers(&message, known);
    let message = if message.is_empty() { "the upstream refused the request" } else { &message };
    head.headers.remove(CONTENT_ENCODING);
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let error = ErrorBody::new(status, ErrorKind::of_status(status), message);
    llm::error_body::render(dialect, &error)
}

/// The first bytes of an error answer, and whether they are all of it. One that dawdles is not worth waiting for; what
/// came is enough.
async fn beginning(body: &mut upstream::Body, most: usize, patience: Duration) -> (Vec<u8>, bool) {
    let mut text = Vec::new();
    let read = async {
        while text.len() < most {
            match body.frame().await {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => text.extend_from_slice(&frame.into_data().unwrap_or_default()),
            }
        }
        body.is_end_stream()
    };
    let whole = timeout(patience, read).await.unwrap_or(false);
    (text, whole)
}

/// How long an upstream asks to be left alone, by the most exact of its headers.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let millis = || seconds(header(headers, "retry-after-ms")?, 1e-3);
    let named = || wait(header(headers, "retry-after")?, now);
    let whole = || {
        let resets = ANTHROPIC_LIMITS.iter().filter_map(|limit| {
            let left = header(headers, &format!("anthropic-ratelimit-{limit}-remaining"));
            let at = header(headers, &format!("anthropic-ratelimit-{limit}-reset"))?;
            let at = chrono::DateTime::parse_from_rfc3339(at).ok()?;
            left.is_none_or(|left| left == "0")
                .then(|| SystemTime::from(at).duration_since(now).unwrap_or_default())
        });
        resets.max()
    };
    let unified = || {
        let at = header(headers, "anthropic-ratelimit-unified-reset")?.parse().ok()?;
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at))?;
        Some(at.duration_since(now).unwrap_or_default())
    };
    Some(millis().or_else(named).or_else(whole).or_else(unified)?.min(MAX_RETRY_AFTER))
}

/// A `Retry-After`: seconds, whole or not, or a date.
fn wait(value: &str, now: SystemTime) -> Option<Duration> {
    let until = || Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default());
    seconds(value, 1.0).or_else(until)
}

fn seconds(value: &str, unit: f64) -> Option<Duration> {
    let value: f64 = value.trim().parse().ok()?;
    // Beyond the longest sleep all are the same; `NaN` is none.
    (value >= 0.0).then(|| Duration::from_secs_f64((value * unit).min(MAX_RETRY_AFTER.as_secs_f64())))
}

/// The start of a text, without what looks like a credential.
fn brief(text: &str, up: &Upstream) -> String {
    scrub::for_admins(text, &Known::of(up)).chars().take(MAX_DETAIL_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_wait_is_told_in_many_ways() {
        let now = httpdate::parse_http_date("Sat, 21 Nov 2026 06:00:00 GMT").expect("date");
        let at = "anthropic-ratelimit-tokens-reset";
        for (lines, expected) in [
            (&[("retry-after", "7")][..], Some(7_000)),
            (&[("retry-after", "0")], Some(0)),
            (&[("retry-after", "1.5")], Some(1_500)),
            (&[("retry-after", "86400")], Some(600_000)),
            (&[("retry-after", "1e300")], Some(600_000)),
            (&[("retry-after", "Sat, 21 Nov 2026 06:00:30 GMT")], Some(30_000)),
            (&[("retry-after", "Sat, 21 Nov 2026 05:00:00 GMT")], Some(0)),
            (&[("retry-after", "Sun, 22 Nov 2026 06:00:00 GMT")], Some(600_000)),
            (&[("retry-after", "soon")], None),
            (&[("retry-after", "-1")], None),
            (&[("retry-after", "NaN")], None),
            (&[("retry-after", "")], None),
            (&[("retry-after-ms", "250"), ("retry-after", "1")], Some(250)),
            (&[("retry-after-ms", "x"), ("retry-after", "1")], Some(1_000)),
            (&[(at, "2026-11-21T06:00:12Z")], Some(12_000)),
            (&[("anthropic-ratelimit-tokens-remaining", "9"), (at, "2026-11-21T06:00:12Z")], None),
            (
                &[
                    ("anthropic-ratelimit-requests-remaining", "0"),
                    ("anthropic-ratelimit-requests-reset", "2026-11-21T06:00:05Z"),
                    ("anthropic-ratelimit-tokens-remaining", "0"),
                    (at, "2026-11-21T06:00:12Z"),
                ],
                Some(12_000),
            ),
            (&[("anthropic-ratelimit-unified-reset", "1795240809")], Some(9_000)),
        ] {
            let mut headers = HeaderMap::new();
            lines.iter().for_each(|(name, value)| {
                headers.insert(*name, HeaderValue::from_static(value));
            });
            let expected = expected.map(Duration::from_millis);
            assert_eq!(retry_after(&headers, now), expected, "{lines:?}");
        }
    }
}
