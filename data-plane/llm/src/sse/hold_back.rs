//! Keeps the usage chunk that we asked for from a caller who did not.

use crate::scan::{Elements, Kind, Members};
use bytes::Bytes;

/// Whether an event's data is the extra last chunk of a Chat Completions stream with
/// `include_usage`: no choices, only usage.
pub fn is_usage_only_chunk(data: &[u8]) -> bool {
    if memchr::memmem::find(data, b"\"usage\"").is_none() {
        return false;
    }
    let mut members = Members::new(data, 0);
    let (mut no_choices, mut usage) = (false, false);
    while let Ok(Some(member)) = members.next() {
        match &*member.name {
            b"choices" => {
                no_choices = member.kind == Kind::Array
                    && Elements::new(&data[..member.value.end], member.value.start).next().is_none();
            }
            b"usage" => usage = member.kind == Kind::Object,
            _ => {}
        }
    }
    no_choices && usage
}

/// Passes a Chat Completions stream on, piece by piece, without its usage-only chunk.
///
/// Only an event that may still become that chunk is held until it is complete: all others pass at once,
/// however they are cut. At most [`HoldBack::LIMIT`] bytes are held.
#[derive(Debug, Default)]
pub struct HoldBack {
    /// The start of the current event, while it may be the chunk.
    held: Vec<u8>,
    /// The current event is none to drop: it passes up to its blank line.
    passing: bool,
    /// Bytes of the current line so far are none, and the line before ended.
    line_empty: bool,
    dropped: bool,
}

impl HoldBack {
    /// An event longer than this is no usage chunk.
    pub const LIMIT: usize = 8 * 1024;

    /// What of `piece`, and of what was held before, may go to the caller now.
    pub fn feed(&mut self, piece: &Bytes) -> Vec<Bytes> {
        let mut out = Vec::new();
        let mut start = 0;
        while start < piece.len() {
            let end = self.event_end(&piece[start..]).map(|end| start + end);
            let part = piece.slice(start..end.unwrap_or(piece.len()));
            start += part.len();
            self.part(part, end.is_some(), &mut out);
        }
        out
    }

    /// What is still held when the stream ends.
    pub fn finish(&mut self) -> Option<Bytes> {
        let held = std::mem::take(&mut self.held);
        let drop = held.is_empty() || is_usage_event(&held);
        self.dropped |= drop && !held.is_empty();
        (!drop).then(|| Bytes::from(held))
    }

    /// Whether a usage-only chunk was kept back.
    pub fn dropped(&self) -> bool {
        self.dropped
    }

    /// A part of one event, the last one if `ended`.
    fn part(&mut self, part: Bytes, ended: bool, out: &mut Vec<Bytes>) {
        if self.passing {
            self.passing = !ended;
            out.push(part);
        } else if ended && self.held.is_empty() {
            if is_usage_event(&part) {
                self.dropped = true;
            } else {
                out.push(part);
            }
        } else {
            self.held.extend_from_slice(&part);
            let drop = ended && is_usage_event(&self.held);
            self.dropped |= drop;
            if drop {
                self.held.clear();
            } else if ended || !may_be_usage(&self.held) {
                self.passing = !ended;
                out.push(Bytes::from(std::mem::take(&mut self.held)));
            }
        }
    }

    /// Where the event ends: after its blank line. `\r` alone ends no line in any known chat stream.
    fn event_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let Some(feed) = memchr::memchr(b'\n', &bytes[at..]) else {
                self.line_empty &= bytes[at..].iter().all(|b| *b == b'\r');
                return None;
            };
            let blank = self.line_empty && bytes[at..at + feed].iter().all(|b| *b == b'\r');
            at += feed + 1;
            self.line_empty = true;
            if blank {
                return Some(at);
            }
        }
        None
    }
}

fn data_of(event: &[u8]) -> Option<&[u8]> {
    event.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"data:"))
}

fn is_usage_event(event: &[u8]) -> bool {
    event.len() <= HoldBack::LIMIT && data_of(event).is_some_and(is_usage_only_chunk)
}

/// An unfinished event stays a candidate until a choice is seen in it or it is too long.
fn may_be_usage(start: &[u8]) -> bool {
    const CHOICES: &[u8] = b"\"choices\":";
    if start.len() > HoldBack::LIMIT {
        return false;
    }
    let Some(at) = memchr::memmem::find(start, CHOICES) else { return true };
    let value = start[at + CHOICES.len()..].trim_ascii_start();
    let inside = value.strip_prefix(b"[").map(<[u8]>::trim_ascii_start);
    match inside {
        Some(inside) => inside.first().is_none_or(|b| *b == b']'),
        None => value.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: &str =
        r#"data: {"id":"c","choices":[{"index":0,"delta":{"content":"\"choices\":[]"}}],"usage":null}"#;
    const USAGE: &str = r#"data: {"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    const FILTER: &str = r#"data: {"id":"","choices":[],"prompt_filter_results":[]}"#;

    #[test]
    fn knows_the_chunk() {
        assert!(is_usage_only_chunk(&USAGE.as_bytes()[5..]));
        for other in [CHUNK, FILTER, "data: [DONE]"] {
            assert!(!is_usage_only_chunk(&other.as_bytes()[5..]), "{other}");
        }
    }

    #[test]
    fn drops_just_that_chunk_wherever_the_stream_is_cut() {
        for end in ["\n\n", "\r\n\r\n"] {
            let stream = [FILTER, CHUNK, ": ping", CHUNK, USAGE, "data: [DONE]", ""].join(end);
            let expected = [FILTER, CHUNK, ": ping", CHUNK, "data: [DONE]", ""].join(end);
            for first in 0..stream.len() {
                let second = (first + 7).min(stream.len());
                let mut filter = HoldBack::default();
                let mut got = Vec::new();
                for piece in [&stream[..first], &stream[first..second], &stream[second..]] {
                    filter
                        .feed(&Bytes::copy_from_slice(piece.as_bytes()))
                        .iter()
                        .for_each(|b| got.extend_from_slice(b));
                }
                filter.finish().iter().for_each(|b| got.extend_from_slice(b));
                assert_eq!(String::from_utf8(got).unwrap(), expected, "cut at {first}");
                assert!(filter.dropped());
            }
        }
    }

    #[test]
    fn a_stream_without_its_last_blank_line() {
        let mut filter = HoldBack::default();
        assert!(filter.feed(&Bytes::from_static(USAGE.as_bytes())).is_empty());
        assert_eq!(filter.finish(), None);
        let mut filter = HoldBack::default();
        filter.feed(&Bytes::from_static(b"data: [DO"));
        assert_eq!(filter.finish().as_deref(), Some(&b"data: [DO"[..]));
    }

    #[test]
    fn other_events_pass_before_they_are_complete() {
        let mut filter = HoldBack::default();
        let start = Bytes::from_static(br#"data: {"choices":[{"index":0,"#);
        assert_eq!(filter.feed(&start).concat(), start);
    }
}
