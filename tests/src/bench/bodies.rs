//! The bodies that are sent and answered: Anthropic Messages, of the sizes and shapes of real clients.

use serde_json::{Value, json};

/// A model that the bundled price table knows.
pub const MODEL: &str = "claude-haiku-4-5";
/// Makes the body of a request: session, whether to stream.
pub type Body = fn(&str, bool) -> Vec<u8>;
/// Both sizes, by name.
pub const BODIES: [(&str, Body); 2] = [("1 KB", small), ("76 KB", large)];
/// Events of one stream.
pub const EVENTS: usize = 50;

/// A request of about 1 KB.
pub fn small(session: &str, stream: bool) -> Vec<u8> {
    body(&words(790), None, session, stream)
}

/// A first turn of Claude Code: 76 KB, `model` first, `metadata` at byte 44,000, `stream` last.
pub fn large(session: &str, stream: bool) -> Vec<u8> {
    body(&words(37_700), Some((6_000, 31_000)), session, stream)
}

/// Written by hand, because the order of the members is the point.
fn body(text: &str, system_and_tools: Option<(usize, usize)>, session: &str, stream: bool) -> Vec<u8> {
    let user = format!("user_0123456789abcdef_account_bench_session_{session}");
    let messages = json!([{"role": "user", "content": [{"type": "text", "text": text}]}]);
    let mut out = format!("{{\"model\":\"{MODEL}\",\"messages\":{messages}");
    if let Some((system, _)) = system_and_tools {
        out += &format!(",\"system\":{}", json!([{"type": "text", "text": words(system)}]));
    }
    out += &format!(",\"metadata\":{}", json!({"user_id": user}));
    if let Some((_, tools)) = system_and_tools {
        let each = tools / 24;
        let list: Vec<Value> = (0..24).map(|at| tool(at, each)).collect();
        out += &format!(",\"tools\":{}", Value::from(list));
    }
    out += &format!(",\"max_tokens\":1024,\"stream\":{stream}}}");
    out.into_bytes()
}

fn tool(at: usize, size: usize) -> Value {
    let schema = json!({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]});
    json!({"name": format!("tool_{at}"), "description": words(size.saturating_sub(150)), "input_schema": schema})
}

/// Text with what JSON must escape in it, as code in prompts has.
fn words(size: usize) -> String {
    "Read the file \"src/main.rs\" and say what it does.\n".chars().cycle().take(size * 24 / 25).collect()
}

/// A whole answer of about 0.6 KB.
pub fn answer() -> Vec<u8> {
    let text = "It parses its arguments, opens the file and prints every line that matches. ".repeat(4);
    let body = json!({
        "id": "msg_01BenchBenchBenchBench", "type": "message", "role": "assistant", "model": MODEL,
        "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {
            "input_tokens": 210, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 80
        },
    });
    body.to_string().into_bytes()
}

/// The events of one stream of [`EVENTS`] events, with their members in the order of the real ones.
pub fn events() -> Vec<Vec<u8>> {
    let message = format!(
        r#"{{"type":"message_start","message":{{"model":"{MODEL}","id":"msg_01BenchBenchBenchBench","type":"message","role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":210,"output_tokens":1}}}}}}"#
    );
    let block = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
    let end = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":80}}"#;
    let mut all = vec![event("message_start", &message), event("content_block_start", block)];
    all.extend((0..EVENTS - 5).map(|_| delta()));
    all.push(event("content_block_stop", r#"{"type":"content_block_stop","index":0}"#));
    all.push(event("message_delta", end));
    all.push(event("message_stop", r#"{"type":"message_stop"}"#));
    all
}

/// One event of text.
pub fn delta() -> Vec<u8> {
    let text = r#"{"type":"text_delta","text":" and prints every line\n"}"#;
    event("content_block_delta", &format!(r#"{{"type":"content_block_delta","index":0,"delta":{text}}}"#))
}

fn event(name: &str, data: &str) -> Vec<u8> {
    format!("event: {name}\ndata: {data}\n\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_order_are_those_of_real_clients() {
        let (small, large) = (small("s1", false), large("s1", true));
        assert!((950..1100).contains(&small.len()), "{}", small.len());
        assert!((74_000..78_000).contains(&large.len()), "{}", large.len());
        let text = String::from_utf8(large).unwrap();
        let metadata = text.find("\"metadata\"").unwrap();
        assert!((42_000..46_000).contains(&metadata), "{metadata}");
        assert!(text.starts_with("{\"model\"") && text.ends_with("\"stream\":true}"));
        let parsed: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["tools"].as_array().map(Vec::len), Some(24));
        assert!((550..700).contains(&answer().len()), "{}", answer().len());
        assert_eq!(events().len(), EVENTS);
        for event in events() {
            let data = String::from_utf8(event).unwrap();
            let data = data.split_once("data: ").unwrap().1;
            assert!(serde_json::from_str::<Value>(data).is_ok(), "{data}");
        }
    }
}
