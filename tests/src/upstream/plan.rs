//! What is said and what it cost, before a dialect puts it into words: text deltas, a tool call, token counts. Pure
//! but for the random ids.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::answer::Answer;
use super::ask::{Ask, Tool};

/// Words with which an answer is filled up to the wanted number of deltas.
const FILLER: [&str; 8] = ["lorem ", "ipsum ", "dolor ", "sit ", "amet ", "and ", "so ", "on "];
/// Characters of the prompt that the answer repeats.
const ECHO: usize = 60;
/// Bytes of a body that make one input token.
const BYTES_PER_TOKEN: usize = 4;
/// Characters of tool arguments in one delta.
const ARGUMENT_PIECE: usize = 10;

/// Token counts to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// Outside the cache.
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) cache_read: u64,
    pub(super) cache_write: u64,
    pub(super) cache_write_1h: u64,
    pub(super) reasoning: u64,
}

/// A function call in the answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: Value,
    /// The arguments as text, in deltas.
    pub(super) pieces: Vec<String>,
}

/// One planned answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// Without the dialect's prefix.
    pub(super) id: String,
    pub(super) model: String,
    pub(super) deltas: Vec<String>,
    pub(super) call: Option<Call>,
    pub(super) counts: Counts,
    pub(super) no_usage: bool,
    /// Seconds since 1970.
    pub(super) created: i64,
}

impl Plan {
    /// Plans the answer to a request.
    pub(super) fn new(ask: &Ask, answer: &Answer, credential_tail: &str) -> Self {
        let text = answer.text.clone().unwrap_or_else(|| greeting(ask, credential_tail));
        let mut deltas: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
        if let Some(wanted) = answer.events {
            deltas.truncate(wanted);
            let missing = wanted - deltas.len();
            deltas.extend(FILLER.iter().cycle().take(missing).map(|word| (*word).to_owned()));
        }
        let call = ask.tool.as_ref().map(Call::of);
        let said = deltas.len() + call.as_ref().map_or(0, |call| call.pieces.len());
        Self {
            id: Uuid::new_v4().simple().to_string(),
            model: ask.model.clone(),
            counts: counts(ask.body_bytes, said, answer),
            no_usage: answer.no_usage,
            created: chrono::Utc::now().timestamp(),
            deltas,
            call,
        }
    }

    /// The whole text.
    pub(super) fn text(&self) -> String {
        self.deltas.concat()
    }
}

impl Call {
    fn of(tool: &Tool) -> Self {
        let arguments = arguments(&tool.schema);
        let text: Vec<char> = arguments.to_string().chars().collect();
        Self {
            id: Uuid::new_v4().simple().to_string()[..24].to_owned(),
            name: tool.name.clone(),
            pieces: text.chunks(ARGUMENT_PIECE).map(|piece| piece.iter().collect()).collect(),
            arguments,
        }
    }
}

fn greeting(ask: &Ask, credential_tail: &str) -> String {
    let mut echo: String = ask.prompt.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = echo.char_indices().nth(ECHO) {
        echo.truncate(end);
        echo.push('…');
    }
    let model = &ask.model;
    format!(
        "Hello from the demo upstream: model {model}, credential …{credential_tail}. You said: \"{echo}\"."
    )
}

fn counts(body_bytes: usize, said: usize, answer: &Answer) -> Counts {
    let as_count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let tokens = answer.tokens;
    Counts {
        input: tokens.input.unwrap_or_else(|| as_count(input_tokens(body_bytes))),
        output: tokens.output.unwrap_or_else(|| as_count(said)),
        cache_read: tokens.cache_read.unwrap_or(0),
        cache_write: tokens.cache_write.unwrap_or(0),
        cache_write_1h: tokens.cache_write_1h.unwrap_or(0),
        reasoning: tokens.reasoning.unwrap_or(0),
    }
}

/// Plausible input tokens of a body.
pub(super) fn input_tokens(body_bytes: usize) -> usize {
    (body_bytes / BYTES_PER_TOKEN).max(1)
}

/// A value for every required argument, or for all of them when none is required.
fn arguments(schema: &Value) -> Value {
    let nothing = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&nothing);
    let required: Vec<&str> = schema["required"].as_array().map_or_else(
        || properties.keys().map(String::as_str).collect(),
        |names| names.iter().filter_map(Value::as_str).collect(),
    );
    required
        .into_iter()
        .map(|name| (name.to_owned(), example(&properties.get(name).cloned().unwrap_or_default())))
        .collect()
}

fn example(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => arguments(schema),
        _ => json!("demo"),
    }
}

/// One server-sent event with a name.
pub(super) fn named_event(name: &str, data: &Value) -> bytes::Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// One server-sent event without a name.
pub(super) fn bare_event(data: &Value) -> bytes::Bytes {
    format!("data: {data}\n\n").into()
}
