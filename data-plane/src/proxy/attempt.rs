//! One attempt at one provider: URL, credentials, model → upstream → an answer that is worth relaying, or a
//! fault that says what to do next. Nothing has gone to the caller yet.

use super::Proxy;
use super::caller::header;
use crate::health::Verdict;
use crate::table::Upstream;
use crate::telemetry::trace;
use crate::upstream::{self, Failure};
use bytes::Bytes;
use contract::usage::AttemptResult;
use http::response::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use llm::request::{Ask, Edits};
use llm::usage::{UsageScanner, fake_success};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Events that are held back at most while waiting for the first one with content.
const MAX_HELD_FRAMES: usize = 64;
/// Bytes that are held back at most.
const MAX_HELD_BYTES: usize = 10 * 1024 * 1024;
/// Of an upstream's error answer, what is read for the decision trail.
const MAX_ERROR_BYTES: usize = 16 * 1024;
/// Of that, what is kept.
const MAX_DETAIL_CHARS: usize = 300;
/// The longest sleep that a `Retry-After` can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// What is sent, whoever gets it.
pub struct Exchange<'a> {
    /// The caller's head.
    pub head: &'a http::request::Parts,
    /// How the path is treated.
    pub route: &'a llm::dialect::Route<'a>,
    /// The caller's body, decompressed.
    pub body: &'a Bytes,
    /// Its members, if it is JSON.
    pub ask: Option<&'a Ask<'a>>,
    /// Whether usage must be asked for, because the caller did not.
    pub inject_usage: bool,
}

/// An answer that may go to the caller.
pub struct Answer {
    /// Status and headers.
    pub head: Parts,
    /// Frames read so far, already scanned.
    pub held: VecDeque<Bytes>,
    /// The rest.
    pub body: upstream::Body,
    /// Has seen the held frames.
    pub scanner: UsageScanner,
    /// Whether it is an event stream.
    pub events: bool,
    /// `Success` for a 2xx, `ClientError` for the caller's own fault.
    pub result: AttemptResult,
}

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
    fn broken(status: Option<u16>, detail: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Failure,
            then: Then::Again,
            result: AttemptResult::Failed,
            status,
            detail: detail.into(),
        }
    }

    /// An error in the guise of a 200; `meant` is the status that it would have had outside.
    fn disguised(status: Option<u16>, meant: u16, text: &str) -> Self {
        let (verdict, then) = blame(meant, None);
        Self {
            verdict,
            then,
            ..Self::broken(status, text.chars().take(MAX_DETAIL_CHARS).collect::<String>())
        }
    }

    fn unreachable(failure: &Failure) -> Self {
        Self { result: AttemptResult::SystemError, ..Self::broken(None, failure.to_string()) }
    }
}

impl Proxy {
    /// One attempt. Cancel-safe: dropping it closes the upstream connection.
    pub(super) async fn attempt(
        &self,
        exchange: &Exchange<'_>,
        up: &Upstream,
        model: &str,
        span: &tracing::Span,
    ) -> Result<Answer, Fault> {
        let body = self.outbound(exchange, model);
        let mut request = upstream::request(up, exchange.route, exchange.head, body)
            .map_err(|failure| Fault::unreachable(&failure))?;
        trace::inject(span, request.headers_mut());
        let streamed = exchange.ask.is_some_and(|ask| ask.stream);
        let limit = self.head_timeout(up, streamed);
        let deadline = Instant::now() + limit;
        let response =
            self.client.send(up, request, limit).await.map_err(|failure| Fault::unreachable(&failure))?;
        let (head, mut body) = response.into_parts();
        body.set_idle_timeout(self.idle_timeout(up));
        match head.status.as_u16() {
            200..=299 => timeout_at(deadline, hold(exchange, head, body))
                .await
                .unwrap_or_else(|_| Err(Fault::broken(Some(200), "no content before the timeout"))),
            // The caller's fault: the answer is the caller's, whoever would be asked.
            400 | 405..=407 | 409..=428 | 430..=499 => Ok(Answer::refusal(exchange, head, body)),
            status => Err(Box::pin(fault(up, status, &head, body)).await),
        }
    }

    fn outbound(&self, exchange: &Exchange<'_>, model: &str) -> Bytes {
        match exchange.ask {
            Some(ask) if exchange.inject_usage => {
                let edits = Edits { model: Some(model), include_usage: true };
                llm::request::edit(exchange.body, ask, edits)
            }
            Some(ask) => llm::request::with_model(exchange.body, ask, model),
            None => exchange.body.clone(),
        }
    }

    fn head_timeout(&self, up: &Upstream, streamed: bool) -> Duration {
        let config = &self.shared.config;
        let (own, default) = if streamed {
            (up.row.first_byte_timeout, config.first_byte_timeout)
        } else {
            (up.row.total_timeout, config.total_timeout)
        };
        if own.is_zero() { default } else { own }
    }

    fn idle_timeout(&self, up: &Upstream) -> Duration {
        if up.row.idle_timeout.is_zero() { self.shared.config.idle_timeout } else { up.row.idle_timeout }
    }
}

impl Answer {
    fn refusal(exchange: &Exchange<'_>, head: Parts, body: upstream::Body) -> Self {
        let scanner = UsageScanner::new(exchange.route.dialect, false);
        Self { head, held: VecDeque::new(), body, scanner, events: false, result: AttemptResult::ClientError }
    }
}

/// Reads until the answer is known to be one: the first event with content of a stream, the whole of a
/// document (its caller can do nothing with a part, and a cut can still fail over). An error in the guise of
/// a 200 becomes a fault while nothing has been sent.
async fn hold(exchange: &Exchange<'_>, head: Parts, mut body: upstream::Body) -> Result<Answer, Fault> {
    let status = Some(head.status.as_u16());
    let content_type = header(&head.headers, "content-type").unwrap_or_default();
    let events = content_type.starts_with("text/event-stream");
    let document = content_type.contains("json") || content_type.starts_with("text/");
    let metered = exchange.route.kind.is_metered();
    let mut scanner = UsageScanner::new(exchange.route.dialect, events);
    let mut held = VecDeque::new();
    let mut bytes = 0;
    while !(body.is_end_stream() && bytes > 0) {
        let frame = match body.frame().await {
            None => break,
            Some(Err(failure)) => return Err(Fault::unreachable(&failure)),
            Some(Ok(frame)) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        scanner.feed(&data);
        bytes += data.len();
        held.push_back(data);
        if metered
            && !events
            && held.len() == 1
            && let Some(fake) = held.front().and_then(|first| fake_success(Some(content_type), first))
        {
            return Err(Fault::disguised(status, fake.status(), fake.reason()));
        }
        if let Some(error) = scanner.leading_error().filter(|_| events) {
            if error.status() == 400 {
                // The caller's fault in an event instead of a status: it is the caller's to see.
                return Ok(Answer { head, held, body, scanner, events, result: AttemptResult::ClientError });
            }
            return Err(Fault::disguised(status, error.status(), &error.message));
        }
        let known = if events { scanner.first_content() || held.len() >= MAX_HELD_FRAMES } else { !document };
        if known || bytes >= MAX_HELD_BYTES {
            break;
        }
    }
    if bytes == 0 && metered {
        return Err(Fault::broken(status, "empty answer"));
    }
    if events && metered && body.is_end_stream() && !scanner.first_content() && !scanner.ended() {
        return Err(Fault::broken(status, "the stream ended before its first content"));
    }
    Ok(Answer { head, held, body, scanner, events, result: AttemptResult::Success })
}

/// A status that another provider, or another try, may not give.
async fn fault(up: &Upstream, status: u16, head: &Parts, body: upstream::Body) -> Fault {
    let retry_after = header(&head.headers, "retry-after")
        .and_then(|value| value.parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    let (verdict, then) = blame(status, retry_after);
    let result = if status == 404 { AttemptResult::NotFound } else { AttemptResult::Failed };
    Fault { verdict, then, result, status: Some(status), detail: detail(body, up).await }
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
async fn detail(body: upstream::Body, up: &Upstream) -> String {
    let mut text = Vec::new();
    let mut body = body;
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            text.extend_from_slice(&data);
            if text.len() >= MAX_ERROR_BYTES {
                break;
            }
        }
    };
    // An error answer that dawdles is not worth waiting for; what came is enough.
    let _ = timeout(Duration::from_secs(2), read).await;
    let message = llm::error_body::message_of(&text);
    let message = message.unwrap_or_else(|| String::from_utf8_lossy(&text).into_owned());
    message.replace(up.secret.expose(), "***").chars().take(MAX_DETAIL_CHARS).collect()
}
