//! Anthropic Messages streams: `message_start`, content blocks, `message_delta`, `message_stop`.

use super::{Seen, StreamError};
use crate::scan::{Fields, text_len};
use crate::sse::Event;
use contract::usage::Dialect;

/// Members of a delta that hold generated text.
const TEXT: &[&[u8]] = &[b"text", b"thinking", b"partial_json"];

pub(super) fn event(seen: &mut Seen, event: &Event<'_>) {
    if let Some(bytes) = usual_delta(event.data) {
        seen.content = true;
        seen.text_bytes += bytes;
        return;
    }
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

/// The length of the text in a delta that is written as Anthropic writes them: nearly all events are, and the
/// general way costs twenty times as much. `None` sends an event the general way.
fn usual_delta(data: &[u8]) -> Option<u64> {
    let rest = data.strip_prefix(br#"{"type":"content_block_delta","index":"#)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = rest[digits..].strip_prefix(br#","delta":{"type":""#)?;
    let text = rest
        .strip_prefix(br#"text_delta","text":""#)
        .or_else(|| rest.strip_prefix(br#"input_json_delta","partial_json":""#))
        .or_else(|| rest.strip_prefix(br#"thinking_delta","thinking":""#))?
        .strip_suffix(br#""}}"#)?;
    // With no quote in between, and none that is escaped at the end, the string ends where the event does.
    let plain = digits > 0 && text.last() != Some(&b'\\') && memchr::memchr(b'"', text).is_none();
    plain.then_some(text.len() as u64)
}

fn report(seen: &mut Seen, usage: Option<crate::scan::Field<'_>>, last: bool) {
    if let Some(usage) = usage {
        seen.usage.report(Dialect::Anthropic, &usage.json(), last);
        seen.service_tier = seen.usage.service_tier();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_sees_what_the_long_way_sees() {
        let texts =
            ["", "Hello", "a\\nb", "caf\u{e9}", "say \\\"x\\\"", "ends in \\\\", "\\", "\"", "}}\"}}"];
        let forms = [
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"@"}}"#,
            r#"{"type":"content_block_delta","index":12,"delta":{"type":"input_json_delta","partial_json":"@"}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"thinking_delta","thinking":"@"}}"#,
            r#"{"type":"content_block_delta","index":,"delta":{"type":"text_delta","text":"@"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"@"},"x":"y"}}"#,
            r#"{"delta":{"text":"@","type":"text_delta"},"index":0,"type":"content_block_delta"}"#,
        ];
        let mut short = 0;
        for (form, text) in forms.iter().flat_map(|form| texts.iter().map(move |text| (form, text))) {
            let data = form.replace('@', text);
            let [delta] = Fields::of(data.as_bytes(), [b"delta"]);
            let long = delta.map_or(0, |delta| text_len(delta.text, TEXT));
            if let Some(found) = usual_delta(data.as_bytes()) {
                assert_eq!(found, long, "{data}");
                short += 1;
            }
        }
        assert_eq!(
            short,
            3 * 4,
            "the first three forms, with the texts without quotes and final backslashes"
        );
    }
}
