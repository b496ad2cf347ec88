//! Anthropic Messages streams: `message_start`, content blocks, `message_delta`, `message_stop`.

use super::{Seen, StreamError};
use crate::scan::{Fields, text_len};
use crate::sse::Event;
use contract::usage::Dialect;

/// Members of a delta that hold generated text.
const TEXT: &[&[u8]] = &[b"text", b"thinking", b"partial_json"];

pub(super) fn event(seen: &mut Seen, event: &Event<'_>) {
    let [kind, delta, block, message, usage, error] =
        Fields::of(event.data, [b"type", b"delta", b"content_block", b"message", b"usage", b"error"]);
    let kind = kind.and_then(|kind| kind.str()).or(event.event).unwrap_or_default();
    match kind {
        "content_block_delta" => {
            seen.content = true;
            seen.text_bytes += delta.map_or(0, |delta| text_len(delta.text, TEXT));
        }
        "content_block_start" => {
            let Some(block) = block else { return };
            let [kind] = Fields::of(block.text, [b"type"]);
            let length = text_len(block.text, TEXT);
            seen.text_bytes += length;
            // Text and thinking start empty; a tool's block already names the tool.
            let starts_empty = kind.is_some_and(|kind| matches!(kind.str(), Some("text" | "thinking")));
            seen.content |= length > 0 || !starts_empty;
        }
        "message_start" => {
            let Some(message) = message else { return };
            let [model, usage] = Fields::of(message.text, [b"model", b"usage"]);
            seen.model = model.and_then(|model| model.owned()).or(seen.model.take());
            report(seen, usage, false);
        }
        "message_delta" => {
            let stop = delta.and_then(|delta| {
                let [reason] = Fields::of(delta.text, [b"stop_reason"]);
                reason.and_then(|reason| reason.str().map(|_| ()))
            });
            // An answer without content is an answer if it says why it stopped.
            seen.content |= stop.is_some();
            report(seen, usage, true);
        }
        "message_stop" => seen.ended = true,
        "error" => {
            let error = error.and_then(|error| StreamError::from_value(&error.json()));
            seen.fail(error.unwrap_or_default());
        }
        _ => {}
    }
}

fn report(seen: &mut Seen, usage: Option<crate::scan::Field<'_>>, last: bool) {
    if let Some(usage) = usage {
        seen.usage.report(Dialect::Anthropic, &usage.json(), last);
        seen.service_tier = seen.usage.service_tier();
    }
}
