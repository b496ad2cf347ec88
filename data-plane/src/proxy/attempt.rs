//! One attempt at one provider: URL, credentials, model → upstream → an answer that is worth relaying, or a
//! fault that says what to do next. Nothing has gone to the caller yet.

use super::budget::{Room, Share};
use super::caller::header;
use super::force;
use super::meter::Meter;
use super::{Proxy, Shared};
use crate::health::Verdict;
use crate::table::Upstream;
use crate::telemetry::trace;
use crate::upstream::{self, Failure};
use bytes::Bytes;
use contract::table::CacheTtl;
use contract::usage::AttemptResult;
use http::HeaderMap;
use http::response::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use llm::request::{Ask, Edits};
use llm::usage::{UsageScanner, fake_success};
use std::collections::VecDeque;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, timeout, timeout_at};

/// Bytes of a document that are held back at most.
const MAX_HELD_BYTES: usize = 10 * 1024 * 1024;
/// Of a document that came in pieces, what is looked at for an error in the guise of a 200.
const MAX_EXAMINED: usize = 32 * 1024;
/// Of a refusal that goes to the caller, what is searched for the provider's credential.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;
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
    /// How long the caller's key wants to be kept what is cached.
    pub cache_ttl: Option<CacheTtl>,
}

/// Who gets it.
pub struct Target<'a> {
    /// The provider.
    pub up: &'a Upstream,
    /// The model that it is asked for.
    pub model: &'a str,
    /// The attempt's span.
    pub span: &'a tracing::Span,
}

/// An answer that may go to the caller; the meter's scanner has seen what is held of it.
pub struct Answer {
    /// Status and headers.
    pub head: Parts,
    /// Frames read so far, already scanned.
    pub held: VecDeque<Bytes>,
    /// The room that they take, if it is much.
    pub share: Option<Share>,
    /// The rest.
    pub body: upstream::Body,
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
        Self { verdict, then, ..Self::broken(status, text) }
    }

    fn unreachable(failure: &Failure) -> Self {
        let fault = Self { result: AttemptResult::SystemError, ..Self::broken(None, failure.to_string()) };
        if failure.retry {
            return fault;
        }
        // It could not even be formed: a caller's odd path must not put providers to sleep.
        Self { verdict: Verdict::Neutral, then: Then::Next, ..fault }
    }

    /// Short, and without the provider's credential, which an upstream may quote.
    fn without(self, up: &Upstream) -> Self {
        Self { detail: brief(&self.detail, up), ..self }
    }
}

impl Proxy {
    /// One attempt. Cancel-safe: dropping it closes the upstream connection.
    pub(super) async fn attempt(
        &self,
        exchange: &Exchange<'_>,
        meter: &mut Meter,
        target: Target<'_>,
    ) -> Result<Answer, Fault> {
        let Target { up, model, span } = target;
        let body = outbound(exchange, up, model);
        let mut ours = HeaderMap::new();
        trace::inject(span, &mut ours);
        force::flags(up, exchange, model, &mut ours);
        let request = upstream::request(up, exchange.route, exchange.head, body, &ours)
            .map_err(|failure| Fault::unreachable(&failure))?;
        let streamed = exchange.ask.is_some_and(|ask| ask.stream);
        let limit = self.head_timeout(up, streamed);
        // Zero: no limit.
        let deadline = Instant::now().checked_add(limit).filter(|_| !limit.is_zero());
        let response =
            self.client.send(up, request, limit).await.map_err(|failure| Fault::unreachable(&failure))?;
        let (head, mut body) = response.into_parts();
        body.set_idle_timeout(self.idle_timeout(up));
        match head.status.as_u16() {
            200..=299 => {
                let held = hold(exchange, &self.shared, meter, (head, body));
                let answer = match deadline {
                    Some(deadline) => timeout_at(deadline, held)
                        .await
                        .unwrap_or_else(|_| Err(Fault::broken(Some(200), "no content before the timeout"))),
                    None => held.await,
                };
                answer.map_err(|fault| fault.without(up))
            }
            // The caller's fault: the answer is the caller's, whoever would be asked.
            400 | 405..=407 | 409..=428 | 430..=499 => Ok(Box::pin(refusal(up, head, body)).await),
            status => Err(Box::pin(fault(up, status, &head, body)).await),
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

/// The body as this provider gets it.
fn outbound(exchange: &Exchange<'_>, up: &Upstream, model: &str) -> Bytes {
    let Some(ask) = exchange.ask else { return exchange.body.clone() };
    let forced = force::members(up, exchange.route.kind, exchange.cache_ttl, ask, model);
    let edits = Edits { model: Some(model), include_usage: exchange.inject_usage, forced: &forced };
    llm::request::edit(exchange.body, ask, edits)
}

/// The upstream's own words for the caller's fault, without the provider's credential: some upstreams quote
/// the request that they refuse.
async fn refusal(up: &Upstream, mut head: Parts, mut body: upstream::Body) -> Answer {
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
    Answer { head, held, share: None, body, events: false, result: AttemptResult::ClientError }
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

/// Reads until the answer is known to be one: the first event with content of a stream, the whole of a
/// document (its caller can do nothing with a part, and a cut can still fail over). An error in the guise of
/// a 200 becomes a fault while nothing has been sent.
async fn hold(
    exchange: &Exchange<'_>,
    shared: &Shared,
    meter: &mut Meter,
    (head, mut body): (Parts, upstream::Body),
) -> Result<Answer, Fault> {
    let status = Some(head.status.as_u16());
    let content_type = header(&head.headers, "content-type").unwrap_or_default();
    let events = content_type.starts_with("text/event-stream");
    let document = content_type.contains("json") || content_type.starts_with("text/");
    let metered = exchange.route.kind.is_metered();
    let config = &shared.config;
    let bound = if events { config.stream_gate_bytes } else { MAX_HELD_BYTES };
    let mut room = Room::new(&shared.budget, config.body_budget_bytes);
    let scanner = meter.answering(UsageScanner::new(exchange.route.dialect, events));
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
        let has_room = room.take(data.len());
        held.push_back(data);
        // The rest of a document may tell more; a web page, or what is no document, is known by its beginning.
        if metered
            && !events
            && held.len() == 1
            && let Some(first) = held.front()
            && !(document && first.trim_ascii_start().starts_with(b"{"))
            && let Some(fake) = fake_success(Some(content_type), first)
        {
            return Err(Fault::disguised(status, fake.status(), fake.reason()));
        }
        if let Some(error) = scanner.leading_error().filter(|_| events) {
            if error.status() == 400 {
                // The caller's fault in an event instead of a status: it is the caller's to see.
                let share = room.into_share();
                return Ok(Answer { head, held, share, body, events, result: AttemptResult::ClientError });
            }
            return Err(Fault::disguised(status, error.status(), &error.message));
        }
        let gate = || scanner.first_content() || scanner.events() >= config.stream_gate_events as u64;
        let known = if events { gate() } else { !document };
        if known || bytes >= bound || !has_room {
            break;
        }
    }
    if bytes == 0 && metered {
        return Err(Fault::broken(status, "empty answer"));
    }
    if metered && !events && document {
        if scanner.may_be_fake()
            && let Some(fake) = fake_success(Some(content_type), &start_of(&held))
        {
            return Err(Fault::disguised(status, fake.status(), fake.reason()));
        }
        if body.is_end_stream() && !scanner.ended() {
            return Err(Fault::broken(status, "the answer ended before its end"));
        }
    }
    if events && metered && body.is_end_stream() && !scanner.first_content() && !scanner.ended() {
        return Err(Fault::broken(status, "the stream ended before its first content"));
    }
    let share = room.into_share();
    Ok(Answer { head, held, share, body, events, result: AttemptResult::Success })
}

/// The first bytes of a document that came in pieces.
fn start_of(held: &VecDeque<Bytes>) -> Vec<u8> {
    let mut start = Vec::new();
    for data in held {
        let left = MAX_EXAMINED - start.len();
        start.extend_from_slice(&data[..data.len().min(left)]);
    }
    start
}

/// A status that another provider, or another try, may not give.
async fn fault(up: &Upstream, status: u16, head: &Parts, body: upstream::Body) -> Fault {
    let retry_after = header(&head.headers, "retry-after").and_then(|value| wait(value, SystemTime::now()));
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
