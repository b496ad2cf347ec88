//! What an answer says about itself while it passes: usage, errors, its first content, its end.
//!
//! Reads a view of the bytes; keeps an unfinished event, or the few members of a JSON answer that matter,
//! and nothing else. Parses in full only the usage and error objects.

mod anthropic;
mod chat;
mod failure;
mod fake;
mod gemini;
mod responses;
mod tokens;

use crate::estimate;
use crate::scan::Picker;
use crate::sse::{Event, Parser};
use contract::usage::{Dialect, TokenCounts, UsageSource};
pub use failure::StreamError;
pub use fake::{FakeSuccess, fake_success};
use tokens::Reported;

/// What is known of an answer when it is over, or broken off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Tokens as far as they were reported; partial if `reported` is false.
    pub tokens: TokenCounts,
    /// The upstream reported input and output in full.
    pub reported: bool,
    /// The model that the answer names.
    pub response_model: Option<String>,
    /// Bytes of generated text, reasoning and tool arguments; what an estimate of the output rests on.
    pub output_bytes_seen: u64,
    /// The protocol's end came, or the JSON text is complete; see [`UsageScanner::ended`].
    pub complete: bool,
    /// The tier that served it.
    pub service_tier: Option<String>,
    /// Whether it was served in fast mode, which costs a multiple; `None`: not said.
    pub fast: Option<bool>,
    /// The error that the answer carried, wherever in it.
    pub error: Option<StreamError>,
    /// Whether cache writes were reported by how long they are kept; else all count as kept for five minutes.
    pub lifetimes: bool,
    input_known: bool,
    output_known: bool,
}

impl Usage {
    /// The tokens to bill: what was reported, and an estimate for what was not. The input is the caller's estimate,
    /// the output is estimated from what was streamed.
    pub fn or_estimated(&self, input: impl FnOnce() -> TokenCounts) -> (TokenCounts, UsageSource) {
        if self.reported {
            return (self.tokens, UsageSource::Reported);
        }
        let mut tokens = self.tokens;
        if !self.input_known {
            let input = input();
            tokens.input = input.input;
            tokens.cache_read = input.cache_read;
            tokens.cache_write_5m = input.cache_write_5m;
            tokens.cache_write_1h = input.cache_write_1h;
        }
        if !self.output_known {
            tokens.output = tokens.output.max(estimate::tokens(self.output_bytes_seen));
        }
        (tokens, UsageSource::Estimated)
    }
}

/// What the events of a stream, or the members of an answer, have said so far.
#[derive(Debug, Default)]
struct Seen {
    usage: Reported,
    model: Option<String>,
    service_tier: Option<String>,
    text_bytes: u64,
    content: bool,
    ended: bool,
    terminal: bool,
    error: Option<StreamError>,
    error_leads: bool,
    events: u64,
}

impl Seen {
    fn fail(&mut self, error: StreamError) {
        if self.error.is_none() {
            self.error_leads = !self.content;
            self.error = Some(error);
        }
    }
}

#[derive(Debug)]
enum Input {
    Stream(Parser),
    Json(Picker),
}

/// Follows one answer. Feed it every byte that goes to the caller, in any pieces.
#[derive(Debug)]
pub struct UsageScanner {
    dialect: Dialect,
    input: Input,
    seen: Seen,
    any_bytes: bool,
    /// An event was passed over: what it said, the end of the answer perhaps, is not known.
    blind: bool,
}

impl UsageScanner {
    /// For an answer in the upstream's dialect; `streamed` if it comes as server-sent events.
    pub fn new(dialect: Dialect, streamed: bool) -> Self {
        let input = if streamed { Input::Stream(Parser::default()) } else { Input::Json(picker(dialect)) };
        Self { dialect, input, seen: Seen::default(), any_bytes: false, blind: false }
    }

    /// Feeds the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        self.any_bytes |= !piece.is_empty();
        let (dialect, seen) = (self.dialect, &mut self.seen);
        match &mut self.input {
            // An event beyond the limit is an image or the like, not usage: passing over it is right.
            Input::Stream(parser) => {
                self.blind |= parser.feed(piece, |event| event_of(dialect, seen, event)).is_err();
            }
            Input::Json(picker) => picker.feed(piece),
        }
    }

    /// Whether anything worth sending has come: generated content, or the regular end of an answer
    /// without any. Until then a failure can still be hidden from the caller. A JSON answer counts from
    /// its first byte: see [`fake_success`] for those.
    pub fn first_content(&self) -> bool {
        match self.input {
            Input::Stream(_) => self.seen.content,
            Input::Json(_) => self.any_bytes,
        }
    }

    /// Whether any byte has come.
    pub fn saw_anything(&self) -> bool {
        self.any_bytes
    }

    /// The error that came before any content.
    pub fn leading_error(&self) -> Option<&StreamError> {
        self.seen.error.as_ref().filter(|_| self.seen.error_leads)
    }

    /// The error that the stream carried, wherever in it.
    pub fn error(&self) -> Option<&StreamError> {
        self.seen.error.as_ref()
    }

    /// Whether what came may be an error in the guise of a good answer; [`fake_success`] tells. Streams tell
    /// theirs by [`UsageScanner::leading_error`].
    pub fn may_be_fake(&self) -> bool {
        let Input::Json(picker) = &self.input else { return false };
        let marked = |name| picker.get(name) == Some(b"\"error\"");
        let error = picker.get("error").is_some_and(|error| error != b"null");
        picker.broken() || error || marked("type") || marked("object")
    }

    /// Whether the end marker of the protocol has come. Of an answer that is no JSON object only the
    /// transport knows the end: it counts as ended. So does a stream of which an event was passed over.
    pub fn ended(&self) -> bool {
        match &self.input {
            Input::Stream(_) => self.seen.ended || self.blind,
            Input::Json(picker) => picker.done() || picker.broken(),
        }
    }

    /// Whether nothing can follow: the last event of the protocol, not merely a regular end such as a
    /// `finish_reason`, after which usage and `[DONE]` still come.
    pub fn terminal(&self) -> bool {
        match &self.input {
            Input::Stream(_) => self.seen.terminal,
            Input::Json(picker) => picker.done(),
        }
    }

    /// The tier that serves it, as far as known.
    pub fn service_tier(&self) -> Option<&str> {
        self.seen.service_tier.as_deref()
    }

    /// Whether an event has begun and not ended.
    pub fn is_within_event(&self) -> bool {
        matches!(&self.input, Input::Stream(parser) if parser.is_within_event())
    }

    /// Bytes held for an unfinished event.
    pub fn held(&self) -> usize {
        match &self.input {
            Input::Stream(parser) => parser.held(),
            Input::Json(_) => 0,
        }
    }

    /// There is no room for the unfinished event: it is passed over, and what it says is not known.
    pub fn pass_over(&mut self) {
        if let Input::Stream(parser) = &mut self.input {
            parser.pass_over();
            self.blind = true;
        }
    }

    /// How many events have come.
    pub fn events(&self) -> u64 {
        self.seen.events
    }

    /// Bytes of generated text so far.
    pub fn output_bytes_seen(&self) -> u64 {
        match &self.input {
            Input::Stream(_) => self.seen.text_bytes,
            Input::Json(picker) => picker.measured(),
        }
    }

    /// The answer is over, or broken off.
    pub fn finish(mut self) -> Usage {
        let (dialect, seen) = (self.dialect, &mut self.seen);
        match &mut self.input {
            Input::Stream(parser) => parser.finish(|event| event_of(dialect, seen, event)),
            Input::Json(picker) => whole_answer(dialect, seen, picker),
        }
        let (complete, output_bytes_seen) = (self.ended(), self.output_bytes_seen());
        let seen = self.seen;
        let (input_known, output_known) = seen.usage.known();
        Usage {
            tokens: seen.usage.counts(),
            lifetimes: seen.usage.lifetimes(),
            fast: seen.usage.fast(),
            reported: input_known && output_known,
            response_model: seen.model,
            output_bytes_seen,
            complete,
            service_tier: seen.service_tier,
            error: seen.error,
            input_known,
            output_known,
        }
    }
}

fn event_of(dialect: Dialect, seen: &mut Seen, event: Event<'_>) {
    seen.events += 1;
    match dialect {
        Dialect::Anthropic => anthropic::event(seen, &event),
        Dialect::OpenAi => chat::event(seen, &event),
        Dialect::Responses => responses::event(seen, &event),
        Dialect::Gemini => gemini::event(seen, &event),
    }
    // Only chat has a regular end that more events follow; it sets the flag itself, at `[DONE]`.
    seen.terminal |= seen.ended && matches!(dialect, Dialect::Anthropic | Dialect::Responses);
}

/// The members of a JSON answer that are kept, and those that hold generated text.
fn picker(dialect: Dialect) -> Picker {
    match dialect {
        Dialect::Gemini => Picker::new(&["usageMetadata", "modelVersion", "error"], &["candidates"]),
        _ => Picker::new(
            &["usage", "model", "service_tier", "error", "type", "object"],
            &["content", "choices", "output", "text"],
        ),
    }
}

fn whole_answer(dialect: Dialect, seen: &mut Seen, picker: &Picker) {
    let object = |name: &str| picker.get(name).and_then(|text| serde_json::from_slice(text).ok());
    let string = |name: &str| picker.get(name).and_then(|text| serde_json::from_slice::<String>(text).ok());
    let (usage, model) = match dialect {
        Dialect::Gemini => ("usageMetadata", "modelVersion"),
        _ => ("usage", "model"),
    };
    if let Some(usage) = object(usage) {
        seen.usage.report(dialect, &usage, true);
    }
    seen.model = string(model);
    seen.service_tier = string("service_tier").or(seen.usage.service_tier());
    if let Some(error) = object("error").and_then(|error| StreamError::from_value(&error)) {
        seen.content = picker.measured() > 0;
        seen.fail(error);
    }
}

#[cfg(test)]
mod tests;
