//! Which conversation a request belongs to, so that its turns stay with one provider and its prompt cache.
//!
//! What the caller says counts; otherwise the beginning of the conversation, which later turns repeat,
//! is its fingerprint.

use crate::request::Ask;
use crate::scan::{Elements, Kind, Members, Text};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt::Write;

/// Longer ids are replaced by their hash.
pub const LONGEST_ID: usize = 256;
/// Of each message at most this much text goes into a fingerprint: enough to tell conversations apart.
const FINGERPRINT_TEXT: usize = 4 * 1024;
/// The fingerprint ends with the first message of the user, or after this many.
const FINGERPRINT_MESSAGES: usize = 3;

/// Headers that carry a session id, the most specific first. In lower case.
pub const HEADERS: [&str; 4] = ["x-claude-code-session-id", "session-id", "session_id", "x-session-id"];

/// A conversation's id: visible ASCII, at most 256 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    text: String,
    derived: bool,
}

impl SessionId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is a fingerprint, and not the caller's word.
    pub fn is_derived(&self) -> bool {
        self.derived
    }

    /// The id as an owned string.
    pub fn into_string(self) -> String {
        self.text
    }

    /// An id that a caller gave; `None` if it is empty.
    fn said(id: &str) -> Option<Self> {
        let id = id.trim();
        let fine = id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_graphic());
        let text = if fine { id.to_owned() } else { hex(&Sha256::digest(id), 16) };
        (!id.is_empty()).then_some(Self { text, derived: false })
    }
}

/// The session of a request: from headers, from the body, else from the conversation's beginning together
/// with the key. `headers` are the values of [`HEADERS`]. `None` if the request holds no conversation.
pub fn session_id(
    ask: &Ask<'_>,
    headers: [Option<&str>; HEADERS.len()],
    body: &[u8],
    key_id: i64,
) -> Option<SessionId> {
    headers
        .into_iter()
        .find_map(|value| SessionId::said(value?))
        .or_else(|| SessionId::said(&in_user_id(ask.user_id.as_deref()?)?))
        .or_else(|| SessionId::said(ask.session_id.as_deref()?))
        .or_else(|| SessionId::said(ask.prompt_cache_key.as_deref()?))
        .or_else(|| SessionId::said(ask.previous_response_id.as_deref().filter(|id| is_response_id(id))?))
        .or_else(|| fingerprint(ask, body, key_id))
}

/// `metadata.user_id` of Claude clients: a JSON object as text, or a name that ends in `_session_<uuid>`.
fn in_user_id(user_id: &str) -> Option<Cow<'_, str>> {
    if user_id.trim_start().starts_with('{') {
        let mut members = Members::new(user_id.as_bytes(), 0);
        while let Ok(Some(member)) = members.next() {
            if &*member.name == b"session_id" && member.kind == Kind::String {
                let id = crate::scan::string_value(user_id.as_bytes(), &member.value)?;
                return String::from_utf8(id.into_owned()).ok().map(Cow::Owned);
            }
        }
        return None;
    }
    let (_, id) = user_id.rsplit_once("_session_")?;
    Some(Cow::Borrowed(id))
}

/// Short ones are no ids that anybody made to be unique.
fn is_response_id(id: &str) -> bool {
    (21..=256).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte))
}

/// 16 hex digits over the key and the text of the messages up to the first one of the user, whose role
/// and text each later turn repeats. Markers such as `cache_control`, which wander from turn to turn, do
/// not enter it.
fn fingerprint(ask: &Ask<'_>, body: &[u8], key_id: i64) -> Option<SessionId> {
    let (range, one_string) = ask.conversation()?;
    let mut hash = Sha256::new();
    hash.update(key_id.to_le_bytes());
    let conversation = &body.get(..range.end)?[range.start..];
    let mut hashed = 0;
    if one_string {
        hashed += update(&mut hash, &conversation[1..conversation.len() - 1], FINGERPRINT_TEXT);
    } else {
        let mut elements = Elements::new(conversation, 0);
        for _ in 0..FINGERPRINT_MESSAGES {
            let Some((element, kind)) = elements.next() else { break };
            let message = &conversation[element];
            hashed += match kind {
                Kind::Object => texts(message, &mut hash),
                _ => update(&mut hash, message, FINGERPRINT_TEXT),
            };
            if kind == Kind::Object && role_is_user(message) {
                break;
            }
        }
    }
    (hashed > 0).then(|| SessionId { text: hex(&hash.finalize(), 8), derived: true })
}

fn role_is_user(message: &[u8]) -> bool {
    let mut members = Members::new(message, 0);
    while let Ok(Some(member)) = members.next() {
        if &*member.name == b"role" {
            return &message[member.value] == b"\"user\"";
        }
    }
    false
}

/// Hashes the strings that stand under `text` or `content`, at any depth; how many bytes that were.
fn texts(message: &[u8], hash: &mut Sha256) -> usize {
    let (mut at, mut hashed, mut wanted) = (0, 0, false);
    while let Some(quote) = memchr::memchr(b'"', &message[at..]) {
        let start = at + quote + 1;
        let Some(length) = Text::default().feed(&message[start..]) else { break };
        let string = &message[start..start + length];
        at = start + length + 1;
        let is_name = message[at..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
        if is_name {
            wanted = matches!(string, b"text" | b"content");
        } else if std::mem::take(&mut wanted) {
            hashed += update(hash, string, FINGERPRINT_TEXT - hashed);
            if hashed >= FINGERPRINT_TEXT {
                break;
            }
        }
    }
    hashed
}

/// Hashes a piece of text, at most `limit` bytes of it, so that neighbouring pieces do not run together.
fn update(hash: &mut Sha256, text: &[u8], limit: usize) -> usize {
    let text = &text[..text.len().min(limit)];
    hash.update(text);
    hash.update([0]);
    text.len()
}

fn hex(bytes: &[u8], count: usize) -> String {
    bytes.iter().take(count).fold(String::with_capacity(2 * count), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::parse;

    const UUID: &str = "0b1c2d3e-0000-4000-8000-000000000001";

    fn session(headers: &[(&str, &str)], body: &str, key: i64) -> Option<SessionId> {
        let value = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        session_id(&parse(body.as_bytes()).unwrap(), HEADERS.map(value), body.as_bytes(), key)
    }

    fn said(headers: &[(&str, &str)], body: &str) -> String {
        let session = session(headers, body, 1).unwrap();
        assert!(!session.is_derived());
        session.into_string()
    }

    fn derived(body: &str, key: i64) -> String {
        let session = session(&[], body, key).unwrap();
        assert!(session.is_derived() && session.as_str().len() == 16);
        session.into_string()
    }

    #[test]
    fn takes_the_callers_word_in_order() {
        let body =
            r#"{"metadata":{"user_id":"u_session_old","session_id":"meta"},"prompt_cache_key":"cache"}"#;
        assert_eq!(said(&[("x-claude-code-session-id", "a"), ("session_id", "b")], body), "a");
        assert_eq!(said(&[("x-session-id", "c"), ("session-id", " ")], body), "c");
        assert_eq!(said(&[], body), "old");
        for (body, id) in [
            (r#"{"metadata":{"user_id":"{\"device_id\":\"d\",\"session_id\":\"ID\"}"}}"#, UUID),
            (r#"{"metadata":{"user_id":"user_1_account__session_ID"}}"#, UUID),
            (r#"{"metadata":{"user_id":"someone","session_id":"meta"}}"#, "meta"),
            (r#"{"metadata":{"user_id":"{broken"},"prompt_cache_key":"cache"}"#, "cache"),
            (r#"{"previous_response_id":"resp_0123456789abcdefgh"}"#, "resp_0123456789abcdefgh"),
        ] {
            assert_eq!(said(&[], &body.replace("ID", UUID)), id);
        }
    }

    #[test]
    fn ids_that_are_no_ids_are_hashed_or_passed_over() {
        let long = said(&[("session-id", &"x".repeat(257))], "{}");
        assert_eq!(long.len(), 32);
        assert_eq!(said(&[], r#"{"prompt_cache_key":"a\u0000b"}"#).len(), 32);
        assert_eq!(session(&[("session-id", "")], "{}", 1), None);
        assert_eq!(session(&[], r#"{"previous_response_id":"resp_short"}"#, 1), None);
        assert_eq!(session(&[], r#"{"previous_response_id":"resp_01234567890123456 78"}"#, 1), None);
        assert_eq!(session(&[], r#"{"messages":[]}"#, 1), None);
        assert_eq!(session(&[], r#"{"messages":5}"#, 1), None);
    }

    #[test]
    fn later_turns_have_the_fingerprint_of_the_first() {
        let first = r#"{"messages":[{"role":"system","content":"be kind"},
            {"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]}]}"#;
        let later = r#"{"messages":[{"content":"be kind","role":"system"},{"role":"user","content":[{"type":"text","text":"hi"}]},
            {"role":"assistant","content":"hello"},{"role":"user","content":"more"}]}"#;
        assert_eq!(derived(first, 1), derived(later, 1));
        assert_ne!(derived(first, 1), derived(first, 2), "scoped per key");
        assert_ne!(derived(first, 1), derived(&first.replace("\"hi\"", "\"ho\""), 1));
        assert_ne!(derived(first, 1), derived(&first.replace("be kind", "be brief"), 1));
    }

    #[test]
    fn fingerprints_every_form_of_conversation() {
        let bodies = [
            r#"{"input":"hi"}"#,
            r#"{"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"hi there"}]}]}"#,
            r#"{"prompt":"once"}"#,
            r#"{"messages":[{"role":"user","content":"hi you"}]}"#,
            r#"{"contents":[{"role":"user","parts":[{"text":"hi all"}]}]}"#,
            r#"{"input":["a","b"]}"#,
        ];
        let ids: std::collections::BTreeSet<String> = bodies.iter().map(|body| derived(body, 1)).collect();
        assert_eq!(ids.len(), bodies.len());
        let long = |tail: &str| format!(r#"{{"input":"{}{tail}"}}"#, "x".repeat(FINGERPRINT_TEXT));
        assert_eq!(derived(&long("a"), 1), derived(&long("b"), 1), "bounded");
    }
}
