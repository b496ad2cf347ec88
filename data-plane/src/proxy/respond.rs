//! Heads of answers: the few paths answered here, and what of an upstream's head goes to the caller.

use super::attempt::Answer;
use super::body::Body;
use super::leave::{Readers, Relay};
use super::meter::Meter;
use super::relay::{Start, Stream};
use super::silence::Beat;
use super::withheld;
use crate::config::{Config, QuotaStatus};
use bytes::Bytes;
use contract::table::Measure;
use contract::usage::{AttemptResult, Outcome};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Extensions, Method, Response, StatusCode};
use llm::error_body::{ErrorBody, ErrorKind};
use llm::sse::HoldBack;
use std::rc::Rc;

/// Names the record of a request, for people who look one up.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-switchyard-request-id");

/// Marks an answer to somebody who showed no known key.
#[derive(Clone, Copy)]
struct Stranger;

/// `answer`, to somebody who showed no known key.
pub fn to_stranger(mut answer: Response<Body>) -> Response<Body> {
    answer.extensions_mut().insert(Stranger);
    answer
}

/// Whether an answer went to somebody who showed no known key.
pub fn is_stranger(answer: &Extensions) -> bool {
    answer.get::<Stranger>().is_some()
}

/// Paths that need no credential: the reachability probe of Claude Code, and a ping.
pub fn local(head: &Parts) -> Option<Response<Body>> {
    let read = head.method == Method::GET || head.method == Method::HEAD;
    match head.uri.path() {
        "/" if read => Some(Response::new(Body::whole(Bytes::new()))),
        "/v1/_ping" if read => {
            let mut response = Response::new(Body::whole(Bytes::from_static(b"pong")));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            Some(response)
        }
        _ => None,
    }
}

/// What a caller is told whose head could not be read, in the protocol that its path speaks.
pub fn head_refused(status: u16, head: &[u8]) -> (&'static str, Bytes) {
    let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let path = path.split(|byte| *byte == b'?').next().and_then(|path| std::str::from_utf8(path).ok());
    let dialect = llm::dialect::unrecognised(path.unwrap_or_default(), &|_| None);
    let (code, text) = match status {
        431 => ("headers_too_large", "the headers of the request are too large or too many"),
        414 => ("uri_too_long", "the path of the request is too long"),
        _ => ("invalid_request", "the request is not HTTP/1.1"),
    };
    let error = ErrorBody::new(status, ErrorKind::of_status(status), text).with_code(code);
    ("application/json", llm::error_body::render(dialect, &error))
}

/// 429 for rates and sessions; for money what `QUOTA_STATUS` says.
pub fn limit_status(config: &Config, measure: Measure) -> StatusCode {
    match measure {
        Measure::Usd => match config.quota_status {
            QuotaStatus::PaymentRequired => StatusCode::PAYMENT_REQUIRED,
            QuotaStatus::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        },
        Measure::Requests | Measure::Sessions => StatusCode::TOO_MANY_REQUESTS,
    }
}

/// The upstream's answer as the caller gets it; the body takes the meter along.
pub fn relay(answer: Answer, meter: Box<Meter>, readers: &Rc<Readers>) -> Response<Body> {
    let Answer { mut head, held, share, body, events, usage_asked, result } = answer;
    withheld::strip(&mut head.headers);
    // Ours, not the upstream's: it decides how the end of the body is told.
    head.version = http::Version::HTTP_11;
    let length = head.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let filter = (usage_asked && events).then(HoldBack::default);
    if events {
        // A keep-alive, an error event or a chunk that is left out changes it.
        head.headers.remove(header::CONTENT_LENGTH);
    }
    if let Ok(id) = HeaderValue::from_str(&meter.opening().id.to_string()) {
        head.headers.insert(REQUEST_ID, id);
    }
    let dialect = meter.opening().dialect;
    let keep_alive = meter.keep_alive();
    let outcome = if result == AttemptResult::ClientError { Outcome::Rejected } else { Outcome::Completed };
    let start = Start {
        held,
        share,
        upstream: body,
        meter,
        events: events.then_some(dialect),
        length: length.filter(|_| !events),
        filter,
        keep_alive: keep_alive.filter(|_| events),
        status: head.status.as_u16(),
        outcome,
    };
    let stream = Box::new(Stream::new(start));
    Response::from_parts(head, Body::Stream(Relay::new(stream, Rc::clone(readers))))
}

/// The head of a stream whose answer is not known yet. No cache and no buffer in between shall keep the keep-alives.
pub fn early(beat: Beat, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    if let Ok(id) = HeaderValue::from_str(&beat.id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

/// An answer that is no stream, to a caller who has the head of one already: an upstream's refusal as an event; what was
/// generated can be sent no more, but is paid for, and the caller is told how to get it.
pub fn document_late(answer: Answer, mut meter: Box<Meter>) -> Response<Body> {
    let dialect = meter.opening().dialect;
    let status = answer.head.status.as_u16();
    if answer.result == AttemptResult::Success {
        let text =
            "the provider answers with a document where a stream was asked for: ask again without `stream`";
        let error = ErrorBody::new(400, ErrorKind::InvalidRequest, text).with_code("no_stream");
        let event = llm::error_body::failure_event(dialect, &error);
        meter.sent(event.len());
        meter.finish(Outcome::Completed, status, Some(text.to_owned()));
        return Response::new(Body::whole(event));
    }
    let text = Vec::from(answer.held).concat();
    let event = llm::error_body::refusal_event(dialect, status, &text);
    meter.sent(event.len());
    meter.finish(Outcome::Rejected, status, None);
    Response::new(Body::whole(event))
}
