//! What an answer is: by its label, and by its first bytes where they say otherwise. Pure.

use bytes::Bytes;
use std::collections::VecDeque;

/// How an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Server-sent events.
    Events,
    /// Text whose caller can do nothing with a part of it.
    Document,
    /// Anything else: sound, an image, an archive.
    Other,
}

/// How a line of an event stream begins.
const FIELDS: [&[u8]; 5] = [b"data:", b"event:", b":", b"id:", b"retry:"];

impl Nature {
    /// What `Content-Type` says.
    pub fn labelled(content_type: &str) -> Self {
        let is =
            |name: &str| content_type.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        if is("text/event-stream") {
            Self::Events
        } else if is("text/") || is("application/json") || content_type.to_ascii_lowercase().contains("json")
        {
            Self::Document
        } else {
            Self::Other
        }
    }

    /// What it is, as far as `held` tells; `None`: that is too little to say. `streamed`: events were asked for.
    pub fn seen(self, streamed: bool, held: &VecDeque<Bytes>) -> Option<Self> {
        match held.front() {
            Some(only) if held.len() == 1 => self.of(streamed, only),
            _ => self.of(streamed, &held.iter().flat_map(|data| data.iter().copied()).collect::<Vec<u8>>()),
        }
    }

    fn of(self, streamed: bool, start: &[u8]) -> Option<Self> {
        let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
        match (self, text.first()?) {
            (_, b'{') => Some(Self::Document),
            (Self::Events, b'[' | b'<') => Some(Self::Document),
            (Self::Events, _) => Some(Self::Events),
            _ if !streamed => Some(self),
            _ if FIELDS.iter().any(|field| text.starts_with(field)) => Some(Self::Events),
            _ if FIELDS.iter().any(|field| field.starts_with(text)) => None,
            _ => Some(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_it_begins_like() {
        use Nature::*;
        for (label, streamed, text, expected) in [
            ("text/event-stream", true, "event: x", Some(Events)),
            ("Text/Event-Stream; charset=utf-8", false, "data: {}", Some(Events)),
            ("text/event-stream", true, "\n\n", None),
            ("text/event-stream", true, "\n\n{\"id\":1}", Some(Document)),
            ("text/event-stream", true, "<html>", Some(Document)),
            ("text/plain", true, "data: {}", Some(Events)),
            ("application/json", true, "\u{feff}event: x", Some(Events)),
            ("application/octet-stream", true, ": ping", Some(Events)),
            ("", true, "retry: 1", Some(Events)),
            ("", true, "ev", None),
            ("", true, "every", Some(Other)),
            ("text/plain", false, "data: {}", Some(Document)),
            ("application/octet-stream", false, " {\"id\":1}", Some(Document)),
            ("application/vnd.api+JSON", false, "[]", Some(Document)),
            ("audio/mpeg", true, "ID3", Some(Other)),
            ("audio/mpeg", true, "id", None),
        ] {
            for size in [1, text.len()] {
                let held = text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
                assert_eq!(Nature::labelled(label).seen(streamed, &held), expected, "{label} {text:?}");
            }
        }
    }
}
