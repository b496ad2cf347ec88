//! Answers as real upstreams give them, in parts between which a script can pause.

use super::reply::Reply;
use contract::table::ProviderKind;
use contract::usage::Dialect;
use serde_json::{Value, json};

/// Events by name and data.
pub type Events = Vec<(&'static str, String)>;

/// What an answer reports to have used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub input: u64,
    pub output: u64,
}

/// The path on which a dialect speaks.
pub fn path(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Anthropic => "/v1/messages",
        Dialect::Responses => "/v1/responses",
        _ => "/v1/chat/completions",
    }
}

/// A provider that speaks it.
pub fn kind(dialect: Dialect) -> ProviderKind {
    match dialect {
        Dialect::Anthropic => ProviderKind::Claude,
        Dialect::Responses => ProviderKind::Codex,
        _ => ProviderKind::OpenAiCompatible,
    }
}

/// A request for `model` in that dialect.
pub fn request(dialect: Dialect, model: &str, stream: bool) -> Value {
    let turn = json!([{ "role": "user", "content": "hello" }]);
    match dialect {
        Dialect::Responses => json!({ "model": model, "stream": stream, "input": turn }),
        _ => json!({ "model": model, "stream": stream, "max_tokens": 64, "messages": turn }),
    }
}

/// A whole answer as a document.
pub fn document(dialect: Dialect, used: Used) -> Reply {
    let Used { input, output } = used;
    let usage = json!({ "input_tokens": input, "output_tokens": output });
    let body = match dialect {
        Dialect::Anthropic => json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
            "content": [{ "type": "text", "text": "hi" }], "stop_reason": "end_turn", "usage": usage,
        }),
        Dialect::Responses => json!({
            "id": "resp_1", "object": "response", "status": "completed", "model": "m",
            "output": [{ "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "hi" }] }],
            "usage": usage,
        }),
        _ => json!({
            "id": "c1", "object": "chat.completion", "model": "m",
            "choices": [{ "index": 0, "message": { "role": "assistant", "content": "hi" }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output },
        }),
    };
    Reply::json(200, body)
}

/// What a stream begins with: no content yet.
pub fn opening(dialect: Dialect, used: Used) -> Events {
    match dialect {
        Dialect::Anthropic => vec![(
            "message_start",
            json!({ "type": "message_start", "message": {
                "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
                "usage": { "input_tokens": used.input, "output_tokens": 1 },
            }})
            .to_string(),
        )],
        Dialect::Responses => vec![(
            "response.created",
            json!({ "type": "response.created", "response": { "id": "resp_1", "status": "in_progress", "model": "m" }})
                .to_string(),
        )],
        _ => vec![("", chunk(&json!({ "role": "assistant" }), &Value::Null))],
    }
}

/// A piece of content.
pub fn content(dialect: Dialect, text: &str) -> Events {
    match dialect {
        Dialect::Anthropic => vec![(
            "content_block_delta",
            json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text }})
                .to_string(),
        )],
        Dialect::Responses => vec![(
            "response.output_text.delta",
            json!({ "type": "response.output_text.delta", "delta": text }).to_string(),
        )],
        _ => vec![("", chunk(&json!({ "content": text }), &Value::Null))],
    }
}

/// How a stream ends that is complete.
pub fn closing(dialect: Dialect, used: Used) -> Events {
    let Used { input, output } = used;
    match dialect {
        Dialect::Anthropic => vec![
            (
                "message_delta",
                json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" },
                    "usage": { "output_tokens": output }})
                .to_string(),
            ),
            ("message_stop", json!({ "type": "message_stop" }).to_string()),
        ],
        Dialect::Responses => vec![(
            "response.completed",
            json!({ "type": "response.completed", "response": {
                "id": "resp_1", "status": "completed", "model": "m",
                "usage": { "input_tokens": input, "output_tokens": output },
            }})
            .to_string(),
        )],
        _ => {
            let usage = json!({ "prompt_tokens": input, "completion_tokens": output,
                "total_tokens": input + output });
            let last = json!({ "id": "c1", "object": "chat.completion.chunk", "model": "m",
                "choices": [], "usage": usage });
            vec![("", chunk(&json!({}), &json!("stop"))), ("", last.to_string()), ("", "[DONE]".to_owned())]
        }
    }
}

fn chunk(delta: &Value, reason: &Value) -> String {
    json!({ "id": "c1", "object": "chat.completion.chunk", "model": "m",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": reason }]})
    .to_string()
}

/// A whole answer as a stream.
pub fn stream(dialect: Dialect, used: Used) -> Reply {
    Reply::events().all(opening(dialect, used)).all(content(dialect, "hi")).all(closing(dialect, used)).end()
}

/// An error as an event of the stream.
pub fn error_event(dialect: Dialect, kind: &str, message: &str) -> Events {
    let error = json!({ "type": kind, "code": kind, "message": message });
    match dialect {
        Dialect::Responses => vec![(
            "response.failed",
            json!({ "type": "response.failed", "response": { "id": "resp_1", "status": "failed", "error": error }})
                .to_string(),
        )],
        Dialect::Anthropic => vec![("error", json!({ "type": "error", "error": error }).to_string())],
        _ => vec![("", json!({ "error": error }).to_string())],
    }
}
