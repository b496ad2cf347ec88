//! What is said in a request, out of its body: the turns, in the form of their protocol.

use serde_json::{Value, json};

/// The turns of a body of any protocol; `None` if there are none.
pub fn of_body(body: &[u8]) -> Option<Vec<Value>> {
    let mut body: Value = serde_json::from_slice(body).ok()?;
    ["messages", "input", "contents"].into_iter().find_map(|name| match body.get_mut(name)?.take() {
        Value::Array(turns) => Some(turns.into_iter().map(turn).collect()),
        Value::String(text) => Some(vec![json!({"role": "user", "content": text})]),
        _ => None,
    })
}

/// A turn is an object; what is only a text is somebody's.
fn turn(turn: Value) -> Value {
    if turn.is_object() { turn } else { json!({"role": "user", "content": turn}) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_every_protocol() {
        let user = json!([{"role": "user", "content": "hi"}]);
        for body in [
            json!({"model": "m", "messages": user, "tools": []}),
            json!({"input": user}),
            json!({"input": "hi"}),
            json!({"input": ["hi"]}),
        ] {
            assert_eq!(of_body(body.to_string().as_bytes()).map(Value::from), Some(user.clone()), "{body}");
        }
        let parts = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
        assert_eq!(of_body(parts.to_string().as_bytes()).map(|turns| turns.len()), Some(1));
        for body in ["{}", "[]", "x", r#"{"messages":5}"#] {
            assert_eq!(of_body(body.as_bytes()), None, "{body}");
        }
    }
}
