//! Responses streams: `response.*` events, each with its name in `type`.

use super::{Seen, StreamError};
use crate::scan::{Field, Fields, Kind};
use crate::sse::Event;
use contract::usage::Dialect;

pub(super) fn event(seen: &mut Seen, event: &Event<'_>) {
    let [kind, delta, item, response, error] =
        Fields::of(event.data, [b"type", b"delta", b"item", b"response", b"error"]);
    let kind = kind.and_then(|kind| kind.str()).or(event.event).unwrap_or_default();
    match kind {
        "response.created" | "response.in_progress" | "response.queued" => {
            // These echo the whole request, each of them: once is enough.
            if seen.model.is_none() {
                answer(seen, response);
            }
        }
        "response.completed" | "response.incomplete" | "response.done" => {
            answer(seen, response);
            (seen.content, seen.ended) = (true, true);
        }
        "response.failed" | "response.cancelled" => {
            let error = answer(seen, response).or_else(|| StreamError::from_value(&error?.json()));
            seen.fail(error.unwrap_or_default());
            seen.ended = true;
        }
        "error" => {
            // The error stands in a member of its own, or in the event itself.
            let inner = error.and_then(|error| StreamError::from_value(&error.json()));
            seen.fail(inner.unwrap_or_else(|| flat(event.data)));
        }
        "response.output_item.added" => {
            // Messages and reasoning start empty; a call already names its function.
            let starts_empty = item.is_none_or(|item| {
                let [kind] = Fields::of(item.text, [b"type"]);
                kind.is_none_or(|kind| matches!(kind.str(), Some("message" | "reasoning")))
            });
            seen.content |= !starts_empty;
        }
        _ if kind.ends_with(".delta") => {
            seen.content = true;
            let text = delta.filter(|delta| delta.kind == Kind::String);
            seen.text_bytes += text.map_or(0, |text| text.text.len().saturating_sub(2) as u64);
        }
        _ if kind.ends_with(".done") || kind.ends_with(".partial_image") => seen.content = true,
        _ => {
            if let Some(error) = error.and_then(|error| StreamError::from_value(&error.json())) {
                seen.fail(error);
            }
        }
    }
}

/// What the response object says; its error, if it has one.
fn answer(seen: &mut Seen, response: Option<Field<'_>>) -> Option<StreamError> {
    let [model, tier, usage, error] =
        Fields::of(response?.text, [b"model", b"service_tier", b"usage", b"error"]);
    seen.model = model.and_then(|model| model.owned()).or(seen.model.take());
    seen.service_tier = tier.and_then(|tier| tier.owned()).or(seen.service_tier.take());
    if let Some(usage) = usage.filter(|usage| usage.kind == Kind::Object) {
        seen.usage.report(Dialect::Responses, &usage.json(), true);
    }
    StreamError::from_value(&error?.json())
}

/// `{"type":"error","code":…,"message":…}`: here `type` says nothing.
fn flat(data: &[u8]) -> StreamError {
    let [code, message] = Fields::of(data, [b"code", b"message"]);
    StreamError {
        kind: None,
        code: code.and_then(|code| code.owned()),
        message: message.and_then(|message| message.owned()).unwrap_or_default(),
    }
}
