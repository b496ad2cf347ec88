//! OpenAI Responses in words: the response object and its event sequence. Pure.

use bytes::Bytes;
use serde_json::{Value, json};

use super::plan::{Call, Plan, named_event};

/// Events of a stream, numbered as they are pushed.
#[derive(Default)]
struct Events {
    frames: Vec<Bytes>,
}

impl Events {
    fn push(&mut self, kind: &str, mut data: Value) {
        data["type"] = kind.into();
        data["sequence_number"] = self.frames.len().into();
        self.frames.push(named_event(kind, &data));
    }
}

/// The response of a plain answer.
pub(super) fn body(plan: &Plan, tools: &Value) -> Value {
    let item = match &plan.call {
        Some(call) => function_item(call, "completed", &call.pieces.concat()),
        None => message_item(plan, "completed", &json!([part(&plan.text())])),
    };
    completed(plan, tools, item)
}

/// The events of a stream.
pub(super) fn events(plan: &Plan, tools: &Value) -> Vec<Bytes> {
    let mut events = Events::default();
    let begun = response(plan, tools, "in_progress");
    events.push("response.created", json!({"response": begun}));
    events.push("response.in_progress", json!({"response": begun}));
    let item = match &plan.call {
        Some(call) => function_events(&mut events, call),
        None => text_events(&mut events, plan),
    };
    events.push("response.completed", json!({"response": completed(plan, tools, item)}));
    events.frames
}

/// An error in a stream.
pub(super) fn error_event() -> Bytes {
    let message = "Our servers are currently overloaded. Please try again later.";
    named_event(
        "error",
        &json!({"type": "error", "code": "server_is_overloaded", "message": message, "param": null, "sequence_number": 0}),
    )
}

fn text_events(events: &mut Events, plan: &Plan) -> Value {
    let id = format!("msg_{}", plan.id);
    let text = plan.text();
    events.push(
        "response.output_item.added",
        json!({"output_index": 0, "item": message_item(plan, "in_progress", &json!([]))}),
    );
    events.push(
        "response.content_part.added",
        json!({"item_id": id, "output_index": 0, "content_index": 0, "part": part("")}),
    );
    for delta in &plan.deltas {
        events.push(
            "response.output_text.delta",
            json!({"item_id": id, "output_index": 0, "content_index": 0, "delta": delta, "logprobs": []}),
        );
    }
    events.push(
        "response.output_text.done",
        json!({"item_id": id, "output_index": 0, "content_index": 0, "text": text, "logprobs": []}),
    );
    events.push(
        "response.content_part.done",
        json!({"item_id": id, "output_index": 0, "content_index": 0, "part": part(&text)}),
    );
    let item = message_item(plan, "completed", &json!([part(&text)]));
    events.push("response.output_item.done", json!({"output_index": 0, "item": item}));
    item
}

fn function_events(events: &mut Events, call: &Call) -> Value {
    let id = format!("fc_{}", call.id);
    let started = function_item(call, "in_progress", "");
    events.push("response.output_item.added", json!({"output_index": 0, "item": started}));
    for piece in &call.pieces {
        events.push(
            "response.function_call_arguments.delta",
            json!({"item_id": id, "output_index": 0, "delta": piece}),
        );
    }
    let arguments = call.pieces.concat();
    events.push(
        "response.function_call_arguments.done",
        json!({"item_id": id, "output_index": 0, "name": call.name, "arguments": arguments}),
    );
    let item = function_item(call, "completed", &arguments);
    events.push("response.output_item.done", json!({"output_index": 0, "item": item}));
    item
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn message_item(plan: &Plan, status: &str, content: &Value) -> Value {
    let id = format!("msg_{}", plan.id);
    json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
}

fn function_item(call: &Call, status: &str, arguments: &str) -> Value {
    json!({"id": format!("fc_{}", call.id), "type": "function_call", "status": status, "name": call.name,
        "call_id": format!("call_{}", call.id), "arguments": arguments})
}

fn completed(plan: &Plan, tools: &Value, item: Value) -> Value {
    let mut response = response(plan, tools, "completed");
    response["output"] = json!([item]);
    if !plan.no_usage {
        response["usage"] = usage(plan);
    }
    response
}

fn response(plan: &Plan, tools: &Value, status: &str) -> Value {
    json!({
        "id": format!("resp_{}", plan.id),
        "object": "response",
        "created_at": plan.created,
        "status": status,
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": null,
        "max_output_tokens": null,
        "metadata": {},
        "model": plan.model,
        "output": [],
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null},
        "service_tier": "default",
        "store": false,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": tools,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": null,
        "user": null,
    })
}

/// Input tokens include what was read from the cache and written to it here.
fn usage(plan: &Plan) -> Value {
    let counts = plan.counts;
    let cache_write = counts.cache_write + counts.cache_write_1h;
    let input = counts.input + counts.cache_read + cache_write;
    json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": counts.cache_read, "cache_write_tokens": cache_write},
        "output_tokens": counts.output,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": input + counts.output,
    })
}
