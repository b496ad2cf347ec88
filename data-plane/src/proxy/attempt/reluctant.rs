//! Whether an upstream refuses the one member that this proxy puts into callers' requests. Pure.
//!
//! Refusals quote what callers wrote, and what a server said that a caller had the upstream fetch something from. So only
//! the error's own pointer counts, or a message of which the beginning names the member: there nothing quoted stands.

use serde_json::Value;

/// The member.
const OURS: &str = "stream_options";
/// How messages begin that name a member next; small letters, without quotes.
const BEGINNINGS: &[&str] = &[
    "unrecognized request argument supplied: ",
    "unrecognized request arguments supplied: ",
    "unknown parameter: ",
    "unsupported parameter: ",
    "unknown field: ",
    "unknown field ",
    "json: unknown field ",
    "property ",
    "extra inputs are not permitted, field: ",
    "additional properties are not allowed (",
    "[{type: extra_forbidden, loc: (body, ",
];
/// How messages go on that begin with the member.
const ENDINGS: &[&str] = &[": extra inputs are not permitted", " is not supported", " is not allowed"];

/// Whether the answer's own words are that it does not take the member.
pub fn is_refused(answer: &[u8]) -> bool {
    let Ok(answer) = serde_json::from_slice::<Value>(answer) else { return false };
    let error = answer.get("error").unwrap_or(&answer);
    let text = |name: &str| error.get(name).and_then(Value::as_str);
    if text("param").is_some_and(is_ours) {
        return true;
    }
    let points = |detail: &Value| {
        let mut path = detail["loc"].as_array().into_iter().flatten().filter_map(Value::as_str);
        path.find(|step| *step != "body") == Some(OURS)
    };
    let details = error.get("detail").and_then(Value::as_array).into_iter().flatten();
    details.into_iter().any(points)
        || text("message").or(text("detail")).or(error.as_str()).is_some_and(begins_with_it)
}

/// The member itself, or something in it.
fn is_ours(path: &str) -> bool {
    path.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn begins_with_it(message: &str) -> bool {
    let start = message.trim_start().chars().filter(|c| !matches!(c, '\'' | '"' | '`'));
    let start: String = start.take(100).collect::<String>().to_lowercase();
    let after = |text: &str| {
        let rest = text.strip_prefix(OURS)?;
        (!rest.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/')))
            .then(|| rest.to_owned())
    };
    BEGINNINGS.iter().filter_map(|beginning| start.strip_prefix(beginning)).any(|rest| after(rest).is_some())
        || after(&start).is_some_and(|rest| ENDINGS.iter().any(|ending| rest.starts_with(ending)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_points_at_the_member_refuses_it() {
        let message = |text: &str| json!({ "error": { "message": text, "type": "invalid_request_error" } });
        let param = |text: &str| json!({ "error": { "message": "no", "param": text } });
        let loc =
            |path: Value| json!({ "detail": [{ "type": "extra_forbidden", "loc": path, "msg": "no" }] });
        for (answer, refused) in [
            (param("stream_options"), true),
            (param("stream_options.include_usage"), true),
            (param("messages[0].stream_options"), false),
            (param("stream_options_of_mine"), false),
            (loc(json!(["body", "stream_options"])), true),
            (loc(json!(["body", "stream_options", "include_usage"])), true),
            (loc(json!(["body", "metadata", "stream_options"])), false),
            (message("Unrecognized request argument supplied: stream_options"), true),
            (message("Unknown parameter: 'stream_options'."), true),
            (message("property 'stream_options' is unsupported"), true),
            (message("Additional properties are not allowed ('stream_options' was unexpected)"), true),
            (message("[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options'), 'msg': 'no'}]"), true),
            (message("stream_options: Extra inputs are not permitted"), true),
            (json!({ "detail": "`stream_options` is not supported" }), true),
            // What a caller can have quoted.
            (message("Failed to download https://a.example/stream_options.png"), false),
            (message("Unknown parameter: 'x', while fetching stream_options"), false),
            (message("Unknown parameter: 'stream_options_of_mine'."), false),
            (message("stream_options/x is no model"), false),
            (message("no server at stream_options: include_usage"), false),
            (json!("include_usage"), false),
            (json!({ "error": { "message": "no", "url": "stream_options" } }), false),
        ] {
            assert_eq!(is_refused(answer.to_string().as_bytes()), refused, "{answer}");
        }
        assert!(!is_refused(b"stream_options"));
    }
}
