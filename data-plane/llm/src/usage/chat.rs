//! Chat Completions streams, and the other OpenAI streams that end in `[DONE]` or name their events in
//! `type` (legacy completions, images, transcription).

use super::{Seen, StreamError};
use crate::scan::{Elements, Field, Fields, Kind, Members, text_len};
use crate::sse::Event;
use contract::usage::Dialect;

/// Members of a delta that hold generated text at their first level. Where an upstream says its reasoning
/// twice, under both names, the estimate counts it twice.
const TEXT: &[&[u8]] = &[b"content", b"reasoning_content", b"reasoning", b"refusal"];
/// Members of a function call that are generated.
const CALL: &[&[u8]] = &[b"name", b"arguments"];

pub(super) fn event(seen: &mut Seen, event: &Event<'_>) {
    if event.data.trim_ascii() == b"[DONE]" {
        (seen.ended, seen.terminal) = (true, true);
        return;
    }
    let [model, choices, usage, error, tier, kind] =
        Fields::of(event.data, [b"model", b"choices", b"usage", b"error", b"service_tier", b"type"]);
    if let Some(error) = error.and_then(|error| StreamError::from_value(&error.json())) {
        seen.fail(error);
    } else if event.event == Some("error") {
        seen.fail(StreamError::default());
    }
    if seen.model.is_none() {
        seen.model = model.and_then(|model| model.owned()).filter(|model| !model.is_empty());
    }
    // Every chunk names the tier; it is copied when it changes.
    if let Some(tier) =
        tier.and_then(|tier| tier.str()).filter(|tier| seen.service_tier.as_deref() != Some(tier))
    {
        seen.service_tier = Some(tier.to_owned());
    }
    report(seen, usage);
    match choices {
        Some(choices) => each_choice(seen, choices.text),
        None => {
            if let Some(kind) = kind.and_then(|kind| kind.str()) {
                named(seen, kind, event.data);
            }
        }
    }
}

fn each_choice(seen: &mut Seen, choices: &[u8]) {
    let mut elements = Elements::new(choices, 0);
    while let Some((range, _)) = elements.next() {
        let [delta, text, finish, usage] =
            Fields::of(&choices[range], [b"delta", b"text", b"finish_reason", b"usage"]);
        if let Some(delta) = delta {
            each_member(seen, delta.text);
        }
        let text = text.filter(|text| text.kind == Kind::String);
        if let Some(length) = text.map(|text| text.text.len().saturating_sub(2) as u64) {
            seen.content |= length > 0;
            seen.text_bytes += length;
        }
        if finish.is_some_and(|finish| finish.kind == Kind::String) {
            (seen.content, seen.ended) = (true, true);
        }
        // Moonshot reports inside the last choice.
        report(seen, usage);
    }
}

/// One pass over a delta: anything but a role and empty values is content.
fn each_member(seen: &mut Seen, delta: &[u8]) {
    let mut members = Members::new(delta, 0);
    while let Ok(Some(member)) = members.next() {
        let value = &delta[member.value];
        if member.kind == Kind::Null || matches!(value, b"\"\"" | b"[]" | b"{}") || &*member.name == b"role" {
            continue;
        }
        seen.content = true;
        seen.text_bytes += match (&*member.name, member.kind) {
            (name, Kind::String) if TEXT.contains(&name) => value.len() as u64 - 2,
            (b"tool_calls", Kind::Array) => calls_len(value),
            (b"function_call", Kind::Object) => text_len(value, CALL),
            _ => 0,
        };
    }
}

/// Length of the names and arguments of tool calls.
fn calls_len(calls: &[u8]) -> u64 {
    let (mut elements, mut length) = (Elements::new(calls, 0), 0);
    while let Some((range, _)) = elements.next() {
        let [function] = Fields::of(&calls[range], [b"function"]);
        length += function.map_or(0, |function| text_len(function.text, CALL));
    }
    length
}

/// Events of image and transcription streams.
fn named(seen: &mut Seen, kind: &str, data: &[u8]) {
    if kind == "error" {
        let error = serde_json::from_slice(data).ok().and_then(|event| StreamError::from_value(&event));
        seen.fail(error.unwrap_or_default());
        return;
    }
    seen.content = true;
    seen.text_bytes += text_len(data, &[b"delta"]);
    seen.ended |= kind.ends_with(".done") || kind.ends_with(".completed");
}

fn report(seen: &mut Seen, usage: Option<Field<'_>>) {
    if let Some(usage) = usage.filter(|usage| usage.kind == Kind::Object) {
        seen.usage.report(Dialect::OpenAi, &usage.json(), true);
    }
}
