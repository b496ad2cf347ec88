//! Holds an answer back until it is known to be one.

use super::super::Shared;
use super::super::budget::Room;
use super::super::head::header;
use super::super::meter::Meter;
use super::exchange::{Answer, Exchange};
use super::fault::Fault;
use super::patience::{Late, Patience};
use crate::upstream;
use bytes::Bytes;
use contract::usage::AttemptResult;
use http::response::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use llm::usage::{UsageScanner, fake_success};
use std::collections::VecDeque;

/// Bytes of a document that are held back at most.
const MAX_HELD_BYTES: usize = 10 * 1024 * 1024;
/// Of a document that came in pieces, what is looked at for an error in the guise of a 200.
const MAX_EXAMINED: usize = 32 * 1024;

/// Reads until the answer is known to be one: the first event with content of a stream, the whole of a
/// document (its caller can do nothing with a part, and a cut can still fail over). An error in the guise of
/// a 200 becomes a fault while nothing has been sent.
pub async fn hold(
    exchange: &Exchange<'_>,
    shared: &Shared,
    meter: &mut Meter,
    patience: &mut Patience<'_>,
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
        let frame = match patience.wait(body.frame()).await {
            Err(Late) => return Err(Fault::broken(status, "no content before the timeout")),
            Ok(None) => break,
            Ok(Some(Err(failure))) => return Err(Fault::unreachable(&failure)),
            Ok(Some(Ok(frame))) => frame,
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
        patience.sign();
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
    if exchange.silence.is_broken() && !events {
        // It could be sent no more: what the caller has is the head of a stream.
        return Err(Fault::unfit(status, "a document where a stream was asked for"));
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
