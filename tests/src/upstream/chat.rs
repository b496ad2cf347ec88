//! OpenAI Chat Completions in words: the completion, the chunk sequence, errors; and the OpenAI error body. Pure.

use bytes::Bytes;
use serde_json::{Value, json};

use super::plan::{Counts, Plan, bare_event};

/// The completion of a plain answer.
pub(super) fn body(plan: &Plan) -> Value {
    let mut message =
        json!({"role": "assistant", "content": plan.text(), "refusal": null, "annotations": []});
    if let Some(call) = &plan.call {
        let function = json!({"name": call.name, "arguments": call.pieces.concat()});
        message["content"] = Value::Null;
        message["tool_calls"] =
            json!([{"id": format!("call_{}", call.id), "type": "function", "function": function}]);
    }
    let choice =
        json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason(plan)});
    let mut completion = head(plan, "chat.completion");
    completion["choices"] = json!([choice]);
    if !plan.no_usage {
        completion["usage"] = usage(plan.counts);
    }
    completion
}

/// The chunks of a stream; with usage in a last chunk of its own when the caller asked for it.
pub(super) fn events(plan: &Plan, include_usage: bool) -> Vec<Bytes> {
    let include_usage = include_usage && !plan.no_usage;
    let mut events = Vec::with_capacity(plan.deltas.len() + 5);
    let base = head(plan, "chat.completion.chunk");
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = base.clone();
        chunk["choices"] = choices;
        if include_usage {
            chunk["usage"] = usage;
        }
        bare_event(&chunk)
    };
    let mut push = |delta: Value, finish: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        events.push(chunk(json!([choice]), Value::Null));
    };
    if let Some(call) = &plan.call {
        let function = json!({"name": call.name, "arguments": ""});
        let first =
            json!({"index": 0, "id": format!("call_{}", call.id), "type": "function", "function": function});
        push(json!({"role": "assistant", "content": null, "tool_calls": [first], "refusal": null}), None);
        for piece in &call.pieces {
            push(json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}), None);
        }
    } else {
        push(json!({"role": "assistant", "content": "", "refusal": null}), None);
        for text in &plan.deltas {
            push(json!({"content": text}), None);
        }
    }
    push(json!({}), Some(finish_reason(plan)));
    if include_usage {
        events.push(chunk(json!([]), usage(plan.counts)));
    }
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    events
}

/// An error in a stream.
pub(super) fn error_event() -> Bytes {
    bare_event(&error(503, "The server is currently overloaded."))
}

/// The body of an OpenAI error answer.
pub(super) fn error(status: u16, message: &str) -> Value {
    let (kind, code) = match status {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        402 => ("insufficient_quota", Some("insufficient_quota")),
        403 => ("invalid_request_error", Some("unsupported_country_region_territory")),
        404 => ("invalid_request_error", Some("model_not_found")),
        429 => ("requests", Some("rate_limit_exceeded")),
        503 => ("server_error", Some("server_is_overloaded")),
        500..=599 => ("server_error", None),
        _ => ("invalid_request_error", None),
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

fn finish_reason(plan: &Plan) -> &'static str {
    if plan.call.is_some() { "tool_calls" } else { "stop" }
}

fn head(plan: &Plan, object: &str) -> Value {
    json!({
        "id": format!("chatcmpl-{}", plan.id),
        "object": object,
        "created": plan.created,
        "model": plan.model,
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
        "choices": [],
    })
}

/// Prompt tokens include what was read from the cache and written to it here.
fn usage(counts: Counts) -> Value {
    let cache_write = counts.cache_write + counts.cache_write_1h;
    let prompt = counts.input + counts.cache_read + cache_write;
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": counts.output,
        "total_tokens": prompt + counts.output,
        "prompt_tokens_details": {"cached_tokens": counts.cache_read, "cache_write_tokens": cache_write,
            "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    })
}
