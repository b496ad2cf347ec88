//! An error that came inside an answer with a good status.

use serde_json::Value;

/// An upstream's error object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamError {
    /// `type` of the error, or Gemini's `status`.
    pub kind: Option<String>,
    /// `code`, whether a word or a number.
    pub code: Option<String>,
    /// For people; may be empty.
    pub message: String,
}

/// Words in an upstream's type or code, and the status that it would have had outside of a stream.
const STATUSES: &[(&str, u16)] = &[
    ("rate_limit", 429),
    ("quota", 429),
    ("exhausted", 429),
    ("too_many", 429),
    ("overloaded", 529),
    ("unavailable", 503),
    ("authentication", 401),
    ("unauthorized", 401),
    ("unauthenticated", 401),
    ("api_key", 401),
    ("billing", 402),
    ("balance", 402),
    ("permission", 403),
    ("forbidden", 403),
    ("not_found", 404),
    ("too_large", 413),
    ("timeout", 504),
    ("deadline", 504),
    ("invalid_prompt", 400),
    ("invalid_request", 400),
    ("invalid_argument", 400),
    ("context_length", 400),
    ("content_policy", 400),
    ("content_filter", 400),
];

impl StreamError {
    /// From the value of an `error` member; `None` if that says there is no error.
    pub(crate) fn from_value(error: &Value) -> Option<Self> {
        match error {
            Value::String(text) if !text.is_empty() => {
                Some(Self { message: text.clone(), ..Self::default() })
            }
            Value::Object(members) if !members.is_empty() => {
                let text = |name: &str| match members.get(name) {
                    Some(Value::String(text)) => Some(text.clone()),
                    Some(Value::Number(number)) => Some(number.to_string()),
                    _ => None,
                };
                Some(Self {
                    kind: text("type").or_else(|| text("status")),
                    code: text("code"),
                    message: text("message").unwrap_or_default(),
                })
            }
            _ => None,
        }
    }

    /// The HTTP status that this error would have had; 502 if nothing tells.
    pub fn status(&self) -> u16 {
        let numeric = self.code.as_deref().and_then(|code| code.parse().ok());
        if let Some(status) = numeric.filter(|status| (400..600).contains(status)) {
            return status;
        }
        let words = [&self.code, &self.kind].map(|word| word.as_deref().unwrap_or("").to_ascii_lowercase());
        let known = |word: &String| STATUSES.iter().find(|(part, _)| word.contains(part)).map(|(_, s)| *s);
        words.iter().find_map(known).unwrap_or(502)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn infers_the_status() {
        for (error, status) in [
            (json!({"type": "overloaded_error", "message": "Overloaded"}), 529),
            (json!({"type": "rate_limit_error"}), 429),
            (json!({"code": 503, "message": "x"}), 503),
            (json!({"code": "429"}), 429),
            (json!({"type": "invalid_request_error", "code": "context_length_exceeded"}), 400),
            (json!({"type": "invalid_request_error", "code": "invalid_api_key"}), 401),
            (json!({"code": 8, "status": "RESOURCE_EXHAUSTED"}), 429),
            (json!({"type": "api_error"}), 502),
            (json!("boom"), 502),
        ] {
            assert_eq!(StreamError::from_value(&error).unwrap().status(), status, "{error}");
        }
        for none in [json!(null), json!(""), json!({}), json!(false)] {
            assert_eq!(StreamError::from_value(&none), None);
        }
    }
}
