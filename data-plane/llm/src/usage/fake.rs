//! Answers with status 200 that are none: nothing, a web page, an error object.

use super::StreamError;
use crate::scan::{Kind, Members};

/// What a good status concealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FakeSuccess {
    /// No body.
    Empty,
    /// A web page, of a proxy or a login in between.
    Html,
    /// An error object.
    Error(StreamError),
}

impl FakeSuccess {
    /// The status that it stands for.
    pub fn status(&self) -> u16 {
        match self {
            Self::Empty | Self::Html => 502,
            Self::Error(error) => error.status(),
        }
    }

    /// A short text for the decision trail.
    pub fn reason(&self) -> &str {
        match self {
            Self::Empty => "empty answer",
            Self::Html => "a web page instead of an answer",
            Self::Error(error) if error.message.is_empty() => "an error object in a good answer",
            Self::Error(error) => &error.message,
        }
    }
}

/// Judges the start of a 200's body, or all of it. An error member counts only if it lies whole in
/// `first_bytes`, so give it as much as is held back anyway; event streams are never judged here.
pub fn fake_success(content_type: Option<&str>, first_bytes: &[u8]) -> Option<FakeSuccess> {
    let text = first_bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first_bytes).trim_ascii_start();
    match text.first() {
        None => Some(FakeSuccess::Empty),
        Some(b'<') => is_html(content_type, text).then_some(FakeSuccess::Html),
        Some(b'{') => error_object(text).map(FakeSuccess::Error),
        Some(_) => None,
    }
}

fn is_html(content_type: Option<&str>, text: &[u8]) -> bool {
    let said = content_type
        .is_some_and(|kind| kind.get(..9).is_some_and(|start| start.eq_ignore_ascii_case("text/html")));
    let starts = |tag: &[u8]| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
    said || [&b"<!doctype html"[..], b"<html", b"<head", b"<body", b"<center>"].into_iter().any(starts)
}

/// The error of `{"error": …}`, `{"type":"error", …}` and `{"object":"error", …}`.
fn error_object(text: &[u8]) -> Option<StreamError> {
    let mut members = Members::new(text, 0);
    let mut marked = false;
    while let Ok(Some(member)) = members.next() {
        let value = &text[member.value];
        match &*member.name {
            b"error" if matches!(member.kind, Kind::Object | Kind::String) => {
                let error =
                    serde_json::from_slice(value).ok().and_then(|error| StreamError::from_value(&error));
                if error.is_some() {
                    return error;
                }
            }
            b"type" | b"object" => marked |= value == b"\"error\"",
            _ => {}
        }
    }
    marked.then(|| {
        serde_json::from_slice(text).ok().and_then(|all| StreamError::from_value(&all)).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_fakes_from_answers() {
        let error = |kind: Option<&str>, message: &str| {
            let kind = kind.map(str::to_owned);
            Some(FakeSuccess::Error(StreamError { kind, code: None, message: message.to_owned() }))
        };
        for (content_type, body, expected) in [
            ("application/json", "", Some(FakeSuccess::Empty)),
            ("application/json", " \r\n", Some(FakeSuccess::Empty)),
            ("text/html; charset=utf-8", "<p>no</p>", Some(FakeSuccess::Html)),
            ("", "\u{feff}\n<!DOCTYPE HTML><html>", Some(FakeSuccess::Html)),
            ("application/json", "<html>", Some(FakeSuccess::Html)),
            ("text/html", r#"{"id":"m","content":[]}"#, None),
            (
                "application/json",
                r#"{"error":{"type":"overloaded_error","message":"busy"}}"#,
                error(Some("overloaded_error"), "busy"),
            ),
            (
                "text/event-stream",
                r#" {"type":"error","error":{"type":"api_error","message":"x"}}"#,
                error(Some("api_error"), "x"),
            ),
            ("application/json", r#"{"error":"boom"}"#, error(None, "boom")),
            ("application/json", r#"{"object":"error","message":"m"}"#, error(None, "m")),
            ("application/json", r#"{"error":null,"id":"resp_1"}"#, None),
            ("application/json", r#"{"choices":[{"error":"no"}]}"#, None),
            ("application/json", r#"{"id":"msg_1","content":[{"type":"tex"#, None),
            ("text/event-stream", "event: message_start\n", None),
            ("audio/mpeg", "ID3", None),
        ] {
            assert_eq!(fake_success(Some(content_type), body.as_bytes()), expected, "{body}");
        }
        assert_eq!(fake_success(None, b"").map(|fake| fake.status()), Some(502));
    }
}
