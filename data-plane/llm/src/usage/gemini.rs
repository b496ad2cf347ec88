//! Gemini streams (`alt=sse`): every event is a whole answer with the next parts and running totals.

use super::{Seen, StreamError};
use crate::scan::{Elements, Fields, Kind, text_len};
use crate::sse::Event;
use contract::usage::Dialect;

pub(super) fn event(seen: &mut Seen, event: &Event<'_>) {
    let [candidates, usage, model, error] =
        Fields::of(event.data, [b"candidates", b"usageMetadata", b"modelVersion", b"error"]);
    if let Some(error) = error.and_then(|error| StreamError::from_value(&error.json())) {
        seen.fail(error);
    }
    if seen.model.is_none() {
        seen.model = model.and_then(|model| model.owned());
    }
    if let Some(usage) = usage {
        seen.usage.report(Dialect::Gemini, &usage.json(), true);
    }
    let Some(candidates) = candidates.filter(|candidates| candidates.kind == Kind::Array) else { return };
    let mut elements = Elements::new(candidates.text, 0);
    while let Some((range, _)) = elements.next() {
        let [content, finish] = Fields::of(&candidates.text[range], [b"content", b"finishReason"]);
        let parts = content.and_then(|content| {
            let [parts] = Fields::of(content.text, [b"parts"]);
            parts
        });
        if let Some(parts) = parts.filter(|parts| parts.kind == Kind::Array) {
            each_part(seen, parts.text);
        }
        if finish.is_some_and(|finish| finish.kind == Kind::String) {
            (seen.content, seen.ended) = (true, true);
        }
    }
}

fn each_part(seen: &mut Seen, parts: &[u8]) {
    let mut elements = Elements::new(parts, 0);
    while let Some((range, _)) = elements.next() {
        let part = &parts[range];
        let [text, call] = Fields::of(part, [b"text", b"functionCall"]);
        let length = text_len(part, &[b"text"]) + call.map_or(0, |call| call.text.len() as u64);
        seen.text_bytes += length;
        // Inline data and code are content too; an empty text is none.
        seen.content |= length > 0 || text.is_none();
    }
}
