//! Sensitive words: every text that the user wrote is compared with the owner's rules.
//!
//! Only where an owner has rules is the body parsed at all.

use super::refuse::Refusal;
use crate::table::{Hit, WordSet};
use serde_json::Value;

/// Looks through `body`; the first hit refuses the request.
pub fn screen(words: &WordSet, body: &[u8]) -> Result<(), Refusal> {
    let body = match serde_json::from_slice::<Value>(body) {
        Ok(body) => body,
        // Another reader may make sense of what this one cannot read: it must not pass unseen.
        Err(error) if body.trim_ascii_start().starts_with(b"{") => {
            return Err(Refusal::BodyInvalid(format!("the request body is not valid JSON: {error}")));
        }
        // What is not JSON has no texts that a rule could be meant for.
        Err(_) => return Ok(()),
    };
    match texts(&body).find_map(|text| words.find(text)) {
        None => Ok(()),
        Some(Hit { word, match_type, .. }) => {
            Err(Refusal::SensitiveWord { word, match_type: match_type.as_str() })
        }
    }
}

/// System prompt, user turns with their tool results, Responses input, plain prompts. Assistant turns are
/// the model's words.
fn texts(body: &Value) -> impl Iterator<Item = &str> {
    let whole = ["system", "instructions", "prompt"].into_iter().filter_map(|name| body.get(name));
    let turns =
        ["messages", "input", "contents"].into_iter().filter_map(|name| body.get(name)).flat_map(|turns| {
            let list = turns.as_array().map(Vec::as_slice).unwrap_or_default().iter();
            let users = list.filter(|turn| !matches!(turn["role"].as_str(), Some("assistant" | "model")));
            users.chain(turns.is_string().then_some(turns))
        });
    whole.chain(turns).flat_map(strings)
}

/// All strings below a value that hold text; names of roles, types and models are not text.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(strings).collect(),
        Value::Object(members) => members
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "role" | "type" | "id" | "data" | "media_type"))
            .flat_map(|(_, value)| strings(value))
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn looks_at_what_the_user_wrote() {
        let body = json!({
            "model": "m", "system": [{"type": "text", "text": "s"}],
            "messages": [
                {"role": "user", "content": "u"},
                {"role": "assistant", "content": "a"},
                {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "t"}]}]},
            ],
        });
        assert_eq!(texts(&body).collect::<Vec<_>>(), ["s", "u", "t"]);
        assert_eq!(texts(&json!({"input": "i"})).collect::<Vec<_>>(), ["i"]);
    }
}
