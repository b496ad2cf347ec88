//! An error as the last event of a stream, in the form on which the official clients do what they would have done at a
//! status. Two cases: the stream broke after content ([`stream_error_event`]), or nothing but keep-alives went out, so
//! that the event stands for a whole answer ([`failure_event`], [`refusal_event`]).

use super::{ErrorBody, ErrorKind, error_object, message_of};
use bytes::Bytes;
use contract::usage::Dialect;
use serde_json::{Map, Value, json};

/// Codes at which Codex gives up at once, as it does at a status of 4xx. It tries again at every other one.
const CODES_WITHOUT_RETRY: [&str; 5] =
    ["context_length_exceeded", "insufficient_quota", "usage_not_included", "invalid_prompt", "cyber_policy"];

/// The event that ends a stream which has already begun, so that the official clients raise an error
/// instead of taking a part for the whole.
pub fn stream_error_event(dialect: Dialect, error: &ErrorBody) -> Bytes {
    let object = error_object(dialect, error);
    match dialect {
        // Codex ends on `response.failed`; the SDKs raise on any event whose data has an `error`.
        Dialect::Responses => failed(error.code(), &error.message, &object),
        _ => framed(dialect, &object),
    }
}

/// The event instead of an error answer of this proxy, when a keep-alive has already gone out under a 200.
pub fn failure_event(dialect: Dialect, error: &ErrorBody) -> Bytes {
    let again = matches!(
        error.kind,
        ErrorKind::RateLimit | ErrorKind::Overloaded | ErrorKind::Timeout | ErrorKind::Api
    );
    match dialect {
        // Claude Code tries again at `overloaded_error` and at no other type that says the same.
        Dialect::Anthropic if again && error.kind != ErrorKind::RateLimit => {
            let error = ErrorBody { kind: ErrorKind::Overloaded, ..error.clone() };
            framed(dialect, &error_object(dialect, &error))
        }
        // Codex waits for as long as the message says, and at this code only.
        Dialect::Responses if again => {
            let wait = error.retry_after.unwrap_or(1).max(1);
            let message = format!("{}. Please try again in {wait}s.", error.message.trim_end_matches('.'));
            failed("rate_limit_exceeded", &message, &error_object(dialect, error))
        }
        Dialect::Responses => failed(final_code(error.code()), &error.message, &error_object(dialect, error)),
        _ => framed(dialect, &error_object(dialect, error)),
    }
}

/// The event instead of an upstream's refusal of the caller's request, `body` being what the upstream said: its type
/// and code stay.
pub fn refusal_event(dialect: Dialect, status: u16, body: &[u8]) -> Bytes {
    let whole: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let Some(Value::Object(error)) = whole.get("error") else {
        let message = message_of(body).unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
        let message = if message.is_empty() { format!("the upstream answered {status}") } else { message };
        return failure_event(dialect, &ErrorBody::new(status, ErrorKind::of_status(status), message));
    };
    // Written anew: a line end within it would end the line of the event.
    let object = Value::from(error.clone()).to_string();
    match dialect {
        Dialect::Responses => {
            let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
            failed(final_code(text("code")), text("message"), &object)
        }
        _ => framed(dialect, &object),
    }
}

/// A code at which Codex does not try again what would fail again.
fn final_code(code: &str) -> &str {
    if CODES_WITHOUT_RETRY.contains(&code) { code } else { "invalid_prompt" }
}

fn framed(dialect: Dialect, object: &str) -> Bytes {
    Bytes::from(match dialect {
        Dialect::Anthropic => {
            format!("event: error\ndata: {{\"type\":\"error\",\"error\":{object}}}\n\n")
        }
        Dialect::OpenAi | Dialect::Gemini | Dialect::Responses => format!("data: {{\"error\":{object}}}\n\n"),
    })
}

fn failed(code: &str, message: &str, object: &str) -> Bytes {
    let failed = json!({
        "object": "response",
        "status": "failed",
        "error": {"code": code, "message": message},
        "output": [],
    });
    format!(
        "event: response.failed\ndata: {{\"type\":\"response.failed\",\"response\":{failed},\"error\":{object}}}\n\n"
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(errors: &[ErrorBody], form: fn(Dialect, &ErrorBody) -> Bytes) -> String {
        let lines = errors.iter().flat_map(|error| {
            Dialect::ALL.iter().map(|dialect| String::from_utf8(form(*dialect, error).to_vec()).unwrap())
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn last_events_in_each_dialect() {
        insta::assert_snapshot!(every(&[ErrorBody::new(502, ErrorKind::Api, "cut\noff")], stream_error_event), @r###"
        event: error
        data: {"type":"error","error":{"type":"api_error","message":"cut\noff","code":"server_error"}}


        data: {"error":{"message":"cut\noff","type":"server_error","param":null,"code":"server_error"}}


        event: response.failed
        data: {"type":"response.failed","response":{"error":{"code":"server_error","message":"cut\noff"},"object":"response","output":[],"status":"failed"},"error":{"message":"cut\noff","type":"server_error","param":null,"code":"server_error"}}


        data: {"error":{"code":502,"message":"cut\noff","status":"INTERNAL"}}
        "###);
    }

    #[test]
    fn what_a_later_try_may_cure_says_so_to_each_client() {
        let busy = ErrorBody {
            retry_after: Some(7),
            ..ErrorBody::new(503, ErrorKind::Overloaded, "Nobody serves it.")
                .with_code("all_providers_failed")
        };
        let late = ErrorBody::new(500, ErrorKind::Api, "Broken");
        let limit = ErrorBody::new(429, ErrorKind::RateLimit, "Too many");
        insta::assert_snapshot!(every(&[busy, late, limit], failure_event), @r###"
        event: error
        data: {"type":"error","error":{"type":"overloaded_error","message":"Nobody serves it.","code":"all_providers_failed"}}


        data: {"error":{"message":"Nobody serves it.","type":"service_unavailable_error","param":null,"code":"all_providers_failed"}}


        event: response.failed
        data: {"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"Nobody serves it. Please try again in 7s."},"object":"response","output":[],"status":"failed"},"error":{"message":"Nobody serves it.","type":"service_unavailable_error","param":null,"code":"all_providers_failed"}}


        data: {"error":{"code":503,"message":"Nobody serves it.","status":"UNAVAILABLE"}}


        event: error
        data: {"type":"error","error":{"type":"overloaded_error","message":"Broken","code":"service_unavailable"}}


        data: {"error":{"message":"Broken","type":"server_error","param":null,"code":"server_error"}}


        event: response.failed
        data: {"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"Broken. Please try again in 1s."},"object":"response","output":[],"status":"failed"},"error":{"message":"Broken","type":"server_error","param":null,"code":"server_error"}}


        data: {"error":{"code":500,"message":"Broken","status":"INTERNAL"}}


        event: error
        data: {"type":"error","error":{"type":"rate_limit_error","message":"Too many","code":"rate_limit_exceeded"}}


        data: {"error":{"message":"Too many","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}


        event: response.failed
        data: {"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"Too many. Please try again in 1s."},"object":"response","output":[],"status":"failed"},"error":{"message":"Too many","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}


        data: {"error":{"code":429,"message":"Too many","status":"RESOURCE_EXHAUSTED"}}
        "###);
    }

    #[test]
    fn what_nothing_cures_is_final() {
        insta::assert_snapshot!(every(&[ErrorBody::new(404, ErrorKind::NotFound, "No model")], failure_event), @r###"
        event: error
        data: {"type":"error","error":{"type":"not_found_error","message":"No model","code":"not_found"}}


        data: {"error":{"message":"No model","type":"invalid_request_error","param":null,"code":"not_found"}}


        event: response.failed
        data: {"type":"response.failed","response":{"error":{"code":"invalid_prompt","message":"No model"},"object":"response","output":[],"status":"failed"},"error":{"message":"No model","type":"invalid_request_error","param":null,"code":"not_found"}}


        data: {"error":{"code":404,"message":"No model","status":"NOT_FOUND"}}
        "###);
    }

    #[test]
    fn an_upstreams_refusal_keeps_its_type_and_code() {
        let pretty = "{\n  \"type\": \"error\",\n  \"error\": {\"type\": \"invalid_request_error\", \"message\": \"too\\nlong\"}\n}";
        let coded = r#"{"error":{"message":"m","type":"invalid_request_error","param":"input","code":"context_length_exceeded"}}"#;
        let text = [
            (Dialect::Anthropic, 400, pretty),
            (Dialect::OpenAi, 400, coded),
            (Dialect::Responses, 400, coded),
            (
                Dialect::Responses,
                400,
                r#"{"error":{"message":"m","type":"invalid_request_error","code":"unsupported_value"}}"#,
            ),
            (Dialect::Gemini, 400, r#"{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}"#),
            (Dialect::OpenAi, 422, r#"{"detail":"not so"}"#),
            (Dialect::Anthropic, 413, ""),
        ];
        let text = text.map(|(dialect, status, body)| {
            String::from_utf8(refusal_event(dialect, status, body.as_bytes()).to_vec()).unwrap()
        });
        insta::assert_snapshot!(text.concat(), @r###"
        event: error
        data: {"type":"error","error":{"message":"too\nlong","type":"invalid_request_error"}}

        data: {"error":{"code":"context_length_exceeded","message":"m","param":"input","type":"invalid_request_error"}}

        event: response.failed
        data: {"type":"response.failed","response":{"error":{"code":"context_length_exceeded","message":"m"},"object":"response","output":[],"status":"failed"},"error":{"code":"context_length_exceeded","message":"m","param":"input","type":"invalid_request_error"}}

        event: response.failed
        data: {"type":"response.failed","response":{"error":{"code":"invalid_prompt","message":"m"},"object":"response","output":[],"status":"failed"},"error":{"code":"unsupported_value","message":"m","type":"invalid_request_error"}}

        data: {"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}

        data: {"error":{"message":"not so","type":"invalid_request_error","param":null,"code":"invalid_request"}}

        event: error
        data: {"type":"error","error":{"type":"request_too_large","message":"the upstream answered 413","code":"request_too_large"}}
        "###);
    }
}
