//! Holds an answer back until it is known to be one.

use super::super::Shared;
use super::super::budget::Room;
use super::super::head::header;
use super::super::meter::Meter;
use super::super::scrub;
use super::exchange::{Answer, Exchange};
use super::fault::Fault;
use super::nature::Nature;
use super::patience::{Late, Patience};
use crate::clock::Instant;
use crate::health::fault::Place;
use crate::upstream;
use bytes::Bytes;
use contract::usage::AttemptResult;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderValue, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use llm::usage::{FakeSuccess, UsageScanner, fake_success};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::pin::pin;

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
    (mut head, mut body): (Parts, upstream::Body),
) -> Result<Answer, Fault> {
    let status = head.status.as_u16();
    let content_type = header(&head.headers, "content-type").unwrap_or_default();
    let label = Nature::labelled(content_type);
    let metered = exchange.route.kind.is_metered();
    let config = &shared.config;
    let mut room = Room::new(&shared.budget, config.body_budget_bytes);
    let mut nature = None;
    let mut held = VecDeque::new();
    let mut bytes = 0;
    while !(body.is_end_stream() && bytes > 0) {
        let frame = match patience.wait(pin!(body.frame())).await {
            Err(Late) => return Err(Fault::broken(exchange, Some(status), "no content before the timeout")),
            Ok(None) => break,
            Ok(Some(Err(failure))) => return Err(Fault::unreachable(exchange, &failure)),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        bytes += data.len();
        let has_room = room.take(data.len());
        held.push_back(data);
        let fresh = nature.is_none();
        let Some(known) = nature.or_else(|| recognise(exchange, label, &held)) else {
            if bytes >= config.stream_gate_bytes || !has_room {
                break;
            }
            patience.sign();
            continue;
        };
        nature = Some(known);
        let scanner = match meter.scanner() {
            Some(scanner) => {
                held.back().into_iter().for_each(|data| scanner.feed(data));
                scanner
            }
            None => begun(exchange, meter, known, &held),
        };
        let events = known == Nature::Events;
        // The rest of an object may tell more; a web page, or what is no document, is known by its beginning.
        if metered
            && fresh
            && !events
            && !starts_object(&held)
            && let Some(fake) = fake_success(Some(content_type), &start_of(&held))
            && !is_silence(exchange, label, &fake)
        {
            return Err(Fault::disguised(exchange, Place::Document, status, &fake));
        }
        if let Some(error) = scanner.leading_error().filter(|_| events) {
            let fault = Fault::first_event(exchange, status, error);
            if fault.is_callers() {
                // The caller's fault in an event instead of a status: it is the caller's to see.
                let share = room.into_share();
                let result = AttemptResult::ClientError;
                return Ok(Answer { head, held, share, body, events, usage_asked: false, result });
            }
            return Err(fault);
        }
        let gate = || scanner.first_content() || scanner.events() >= config.stream_gate_events as u64;
        let bound = if events { config.stream_gate_bytes } else { MAX_HELD_BYTES };
        if (if events { gate() } else { known == Nature::Other }) || bytes >= bound || !has_room {
            break;
        }
        patience.sign();
        meter.heard(Instant::now());
    }
    if bytes == 0 && metered && !is_silence(exchange, label, &FakeSuccess::Empty) {
        return Err(Fault::broken(exchange, Some(status), "empty answer"));
    }
    let known = nature.unwrap_or(label);
    let scanner = match meter.scanner() {
        Some(scanner) => scanner,
        None => begun(exchange, meter, known, &held),
    };
    let ended = body.is_end_stream();
    if metered && let Some(fault) = complaint(exchange, known, scanner, &held, (&head, ended)) {
        if let Some(meant) = StatusCode::from_u16(fault.judged.meant).ok().filter(|_| fault.is_callers()) {
            // In the upstream's words, under the status that they stand for: no client takes it for an answer.
            head.status = meant;
            scrubbed(&mut head, &mut held, meter);
            let (share, result) = (room.into_share(), AttemptResult::ClientError);
            return Ok(Answer { head, held, share, body, events: false, usage_asked: false, result });
        }
        return Err(fault);
    }
    let events = known == Nature::Events;
    if events && label != Nature::Events {
        // Some clients of streams insist on the label.
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    }
    let share = room.into_share();
    Ok(Answer { head, held, share, body, events, usage_asked: false, result: AttemptResult::Success })
}

/// What an answer is, if what is held of it tells. What nobody is billed for is what it says it is.
fn recognise(exchange: &Exchange<'_>, label: Nature, held: &VecDeque<Bytes>) -> Option<Nature> {
    if !exchange.route.kind.is_metered() {
        return Some(label);
    }
    label.seen(exchange.is_streamed(), held)
}

/// The scanner of an answer of which it is known now what it is.
fn begun<'m>(
    exchange: &Exchange<'_>,
    meter: &'m mut Meter,
    known: Nature,
    held: &VecDeque<Bytes>,
) -> &'m mut UsageScanner {
    let scanner = meter.answering(UsageScanner::new(exchange.route.dialect, known == Nature::Events));
    held.iter().for_each(|data| scanner.feed(data));
    scanner
}

/// What is wrong with a good answer that is held as far as it can be.
fn complaint(
    exchange: &Exchange<'_>,
    known: Nature,
    scanner: &UsageScanner,
    held: &VecDeque<Bytes>,
    (head, ended): (&Parts, bool),
) -> Option<Fault> {
    let status = head.status.as_u16();
    match known {
        Nature::Document => {
            let content_type = header(&head.headers, "content-type");
            if scanner.may_be_fake()
                && let Some(fake) = fake_success(content_type, &start_of(held))
                && !is_silence(exchange, known, &fake)
            {
                return Some(Fault::disguised(exchange, Place::Document, status, &fake));
            }
            let is_blank = || held.iter().all(|data| data.trim_ascii().is_empty());
            let whole = scanner.ended() || exchange.route.answers_plain_text() && is_blank();
            let cut = ended && !whole;
            cut.then(|| Fault::broken(exchange, Some(status), "the answer ended before its end"))
        }
        Nature::Events => {
            let empty = ended && !scanner.first_content() && !scanner.ended();
            empty.then(|| Fault::broken(exchange, Some(status), "the stream ended before its first content"))
        }
        Nature::Other => None,
    }
}

/// Whether nothing, in plain text, is the answer: what was to be written down was silent.
fn is_silence(exchange: &Exchange<'_>, nature: Nature, fake: &FakeSuccess) -> bool {
    *fake == FakeSuccess::Empty && nature != Nature::Events && exchange.route.answers_plain_text()
}

/// Takes out of an error what is for admins only. A document that did not come whole is told in part.
#[cold]
fn scrubbed(head: &mut Parts, held: &mut VecDeque<Bytes>, meter: &Meter) {
    let text = held.iter().flatten().copied().collect::<Vec<u8>>();
    if let Cow::Owned(clean) = scrub::for_callers(&String::from_utf8_lossy(&text), &meter.known()) {
        *held = VecDeque::from([Bytes::from(clean)]);
        head.headers.remove(CONTENT_LENGTH);
    }
}

fn starts_object(held: &VecDeque<Bytes>) -> bool {
    held.front().is_some_and(|first| first.trim_ascii_start().starts_with(b"{"))
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
