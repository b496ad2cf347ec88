//! Error events of a stream on their way to the caller: without what only admins may read. All other bytes pass as they
//! came, and at once; what begins as an error waits for its end, so that no part of it gets past.

use super::scrub::{self, Known};
use bytes::Bytes;
use memchr::memmem;
use std::borrow::Cow;

/// A longer event is no error that anybody reads.
const LONGEST: usize = 64 * 1024;

/// An event says by then what it is.
const BEGINNING: usize = 256;

/// What is held of an event that is not whole.
#[derive(Debug, Default)]
pub struct Sift {
    held: Vec<u8>,
    /// The event that is not whole is no error: the rest of it passes.
    is_plain: bool,
}

impl Sift {
    /// Whether a piece must be looked at: nearly none must. `failed`: the stream carried an error up to here; `within`:
    /// it ends within an event.
    pub fn wants(&self, failed: bool, within: bool) -> bool {
        failed || within || self.is_plain || !self.held.is_empty()
    }

    /// What of a piece goes out now.
    #[cold]
    pub fn feed(&mut self, piece: Bytes, failed: bool, within: bool, known: impl FnOnce() -> Known) -> Bytes {
        let whole = if self.held.is_empty() {
            piece
        } else {
            let mut whole = std::mem::take(&mut self.held);
            whole.extend_from_slice(&piece);
            Bytes::from(whole)
        };
        let start = if within { last_event(&whole) } else { whole.len() };
        // The event that is not whole now began in this piece, or was looked at before.
        self.is_plain &= within && start == 0;
        let tail = &whole[start..];
        let named = || [&b"error"[..], b"failed"].iter().any(|word| memmem::find(tail, word).is_some());
        let waits = within && !self.is_plain && tail.len() <= LONGEST && (tail.len() < BEGINNING || named());
        let whole = if waits {
            self.held.extend_from_slice(tail);
            whole.slice(..start)
        } else {
            self.is_plain = within;
            whole
        };
        if failed { without(whole, known) } else { whole }
    }

    /// At the end of a stream: what was held, if it may go out.
    pub fn rest(&mut self, known: impl FnOnce() -> Known) -> Option<Bytes> {
        if self.held.is_empty() {
            return None;
        }
        Some(without(std::mem::take(&mut self.held).into(), known))
    }
}

/// Where the last event of a piece begins: behind the last empty line.
fn last_event(piece: &[u8]) -> usize {
    let behind = |line: &[u8]| memmem::rfind(piece, line).map_or(0, |at| at + line.len());
    behind(b"\n\n").max(behind(b"\r\n\r\n")).max(behind(b"\r\r"))
}

/// A piece without what its error events must not tell.
fn without(piece: Bytes, known: impl FnOnce() -> Known) -> Bytes {
    if !is_error(&piece) {
        return piece;
    }
    let known = known();
    let mut clean: Vec<u8> = Vec::with_capacity(piece.len());
    let mut rest = &piece[..];
    while !rest.is_empty() {
        let behind = |line: &[u8]| memmem::find(rest, line).map_or(rest.len(), |at| at + line.len());
        let end = behind(b"\n\n").min(behind(b"\r\n\r\n"));
        let (event, after) = rest.split_at(end);
        let text = String::from_utf8_lossy(event);
        match scrub::for_callers(&text, &known) {
            Cow::Owned(changed) if is_error(event) => clean.extend_from_slice(changed.as_bytes()),
            _ => clean.extend_from_slice(event),
        }
        rest = after;
    }
    if clean == piece { piece } else { clean.into() }
}

/// Whether an event tells of a failure: by its name, its type, or an `error` that is not null. What a model writes has
/// its quotes escaped and is none.
fn is_error(event: &[u8]) -> bool {
    if [&b"event: error"[..], b"event:error", b"response.failed"]
        .iter()
        .any(|name| memmem::find(event, name).is_some())
    {
        return true;
    }
    memmem::find_iter(event, b"\"error\"").any(|at| {
        let after = event[at + 7..].trim_ascii_start();
        match after.strip_prefix(b":") {
            Some(value) => !value.trim_ascii_start().starts_with(b"null"),
            None => {
                let before = event[..at].trim_ascii_end();
                let name = before.strip_suffix(b":").map(<[u8]>::trim_ascii_end).unwrap_or_default();
                name.ends_with(b"\"type\"") || name.ends_with(b"\"object\"")
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use llm::usage::UsageScanner;

    const SECRET: &str = "sk-proj-a1b2c3d4e5f6";

    /// What goes out of a stream that comes in these pieces.
    fn out(pieces: &[&[u8]]) -> Vec<u8> {
        let mut scanner = UsageScanner::new(contract::usage::Dialect::Anthropic, true);
        let mut sift = Sift::default();
        let mut all = Vec::new();
        for piece in pieces {
            scanner.feed(piece);
            let (failed, within) = (scanner.error().is_some(), scanner.is_within_event());
            let piece = Bytes::copy_from_slice(piece);
            let piece = if sift.wants(failed, within) {
                sift.feed(piece, failed, within, Known::default)
            } else {
                piece
            };
            all.extend_from_slice(&piece);
            assert!(memmem::find(&all, SECRET.as_bytes()).is_none(), "{}", String::from_utf8_lossy(&all));
        }
        all.extend(sift.rest(Known::default).unwrap_or_default());
        all
    }

    #[test]
    fn errors_are_cleaned_wherever_the_stream_is_cut() {
        let good = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"an \\\"error\\\" at x.acme.io\"}}\n\n";
        let bad = format!(
            "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"api_error\",\"message\":\"bad key {SECRET} at x.acme.io\"}}}}\n\n"
        );
        let clean = bad.replace(SECRET, "***").replace("x.acme.io", "***");
        let stream = [good, &bad, good].concat();
        let expected = [good, &clean, good].concat();
        for cut in 0..=stream.len() {
            let (first, second) = stream.as_bytes().split_at(cut);
            assert_eq!(String::from_utf8_lossy(&out(&[first, second])), expected, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(String::from_utf8_lossy(&out(&bytes)), expected);
        // An error without its empty line.
        assert_eq!(String::from_utf8_lossy(&out(&[bad.trim_end().as_bytes()])), clean.trim_end());
    }

    #[test]
    fn what_is_no_error() {
        for event in [
            "data: {\"error\":null,\"instructions\":\"x\"}",
            "data: {\"error\" : null}",
            "data: {\"text\":\"{\\\"error\\\":1}\"}",
            "data: {\"list\":[\"error\"]}",
        ] {
            assert!(!is_error(event.as_bytes()), "{event}");
        }
        for event in [
            "event: error",
            "data: {\"error\":{\"message\":\"x\"}}",
            "data: {\"error\" : \"x\"}",
            "data: {\"type\": \"error\"}",
            "data: {\"type\":\"response.failed\"}",
        ] {
            assert!(is_error(event.as_bytes()), "{event}");
        }
    }
}
