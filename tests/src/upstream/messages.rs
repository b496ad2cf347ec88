//! Anthropic Messages in words: the message, the event sequence, errors. Pure.

use bytes::Bytes;
use serde_json::{Value, json};

use super::plan::{Plan, named_event};

/// The message of a plain answer.
pub(super) fn body(plan: &Plan) -> Value {
    let mut content = vec![json!({"type": "text", "text": plan.text()})];
    if let Some(call) = &plan.call {
        let id = format!("toolu_{}", call.id);
        content.push(json!({"type": "tool_use", "id": id, "name": call.name, "input": call.arguments}));
    }
    let mut message = head(plan, plan.counts.output);
    message["content"] = content.into();
    message["stop_reason"] = stop_reason(plan).into();
    message
}

/// The events of a stream.
pub(super) fn events(plan: &Plan) -> Vec<Bytes> {
    let mut events = Vec::with_capacity(plan.deltas.len() + 8);
    let mut push = |data: Value| {
        let name = data["type"].as_str().unwrap_or_default();
        events.push(named_event(name, &data));
    };
    push(json!({"type": "message_start", "message": head(plan, 1)}));
    push(json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}));
    push(json!({"type": "ping"}));
    for text in &plan.deltas {
        let delta = json!({"type": "text_delta", "text": text});
        push(json!({"type": "content_block_delta", "index": 0, "delta": delta}));
    }
    push(json!({"type": "content_block_stop", "index": 0}));
    if let Some(call) = &plan.call {
        let block =
            json!({"type": "tool_use", "id": format!("toolu_{}", call.id), "name": call.name, "input": {}});
        push(json!({"type": "content_block_start", "index": 1, "content_block": block}));
        for piece in &call.pieces {
            let delta = json!({"type": "input_json_delta", "partial_json": piece});
            push(json!({"type": "content_block_delta", "index": 1, "delta": delta}));
        }
        push(json!({"type": "content_block_stop", "index": 1}));
    }
    let delta = json!({"stop_reason": stop_reason(plan), "stop_sequence": null});
    let mut last = json!({"type": "message_delta", "delta": delta});
    if !plan.no_usage {
        // Counted from the start of the message, like everything in message_start.
        last["usage"] = usage(plan, plan.counts.output);
    }
    push(last);
    push(json!({"type": "message_stop"}));
    events
}

/// An error event in a stream.
pub(super) fn error_event() -> Bytes {
    let error = json!({"type": "overloaded_error", "message": "Overloaded"});
    named_event("error", &json!({"type": "error", "error": error}))
}

/// The body of an error answer.
pub(super) fn error(status: u16, message: &str, request_id: &str) -> Value {
    let kind = match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500..=599 => "api_error",
        _ => "invalid_request_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id})
}

fn stop_reason(plan: &Plan) -> &'static str {
    if plan.call.is_some() { "tool_use" } else { "end_turn" }
}

/// The message without content, as `message_start` has it.
fn head(plan: &Plan, output: u64) -> Value {
    let mut message = json!({
        "id": format!("msg_{}", plan.id),
        "type": "message",
        "role": "assistant",
        "model": plan.model,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
    });
    if !plan.no_usage {
        message["usage"] = usage(plan, output);
        message["usage"]["service_tier"] = "standard".into();
    }
    message
}

fn usage(plan: &Plan, output: u64) -> Value {
    let counts = plan.counts;
    json!({
        "input_tokens": counts.input,
        "cache_creation_input_tokens": counts.cache_write + counts.cache_write_1h,
        "cache_read_input_tokens": counts.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": counts.cache_write,
            "ephemeral_1h_input_tokens": counts.cache_write_1h,
        },
        "output_tokens": output,
    })
}
