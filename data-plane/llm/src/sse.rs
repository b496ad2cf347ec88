//! Server-sent events out of pieces of any size. Looks at the bytes that pass and keeps only what an
//! unfinished event needs; an event that lies whole in one piece is not copied.

mod hold_back;
mod keep_alive;

pub use hold_back::{HoldBack, is_usage_only_chunk};
pub use keep_alive::{FrameEnd, keep_alive};

/// The largest unfinished event that is kept, unless the caller says otherwise. Responses streams echo the
/// whole request in one event and images come as one, so this is generous.
pub const EVENT_LIMIT: usize = 16 * 1024 * 1024;

/// One event. The data lines of an event are joined by `\n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event:` field, if there was one that is UTF-8.
    pub event: Option<&'a str>,
    /// The `data:` field.
    pub data: &'a [u8],
}

/// An event was longer than the limit. It was passed over; the parser goes on with the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {limit} bytes")]
pub struct TooLong {
    /// The limit, in bytes.
    pub limit: usize,
}

/// Buffer that an idle stream keeps.
const KEPT: usize = 4 * 1024;

const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// The push parser.
#[derive(Debug)]
pub struct Parser {
    /// The unfinished line.
    line: Vec<u8>,
    /// Finished data lines of the unfinished event, each followed by `\n`.
    data: Vec<u8>,
    name: Option<String>,
    /// How many bytes of a byte-order mark have been seen; 4 when its place is past.
    mark: u8,
    /// The last byte was a `\r`: a `\n` that follows belongs to it.
    after_cr: bool,
    /// The current event is too long.
    dropping: bool,
    limit: usize,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new(EVENT_LIMIT)
    }
}

/// What has been read of the current event and still lies in the current piece.
#[derive(Default)]
struct Pending<'a> {
    name: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
}

impl Parser {
    /// A parser that keeps at most `limit` bytes of an unfinished event.
    pub fn new(limit: usize) -> Self {
        Self {
            line: Vec::new(),
            data: Vec::new(),
            name: None,
            mark: 0,
            after_cr: false,
            dropping: false,
            limit,
        }
    }

    /// Feeds a piece; `on_event` is called for every event that ends in it. The whole piece is read even
    /// if one of its events is too long.
    pub fn feed(&mut self, piece: &[u8], mut on_event: impl FnMut(Event<'_>)) -> Result<(), TooLong> {
        let mut rest = self.after_mark(piece);
        let mut pending = Pending::default();
        let mut dropped = false;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            if self.line.is_empty() {
                self.line(line, &mut pending, &mut on_event);
            } else {
                self.straddling_line(line, &mut pending, &mut on_event);
            }
            rest = match (rest[end], after) {
                (b'\r', []) => {
                    self.after_cr = true;
                    after
                }
                (b'\r', [b'\n', after @ ..]) => after,
                _ => after,
            };
        }
        dropped |= self.keep(rest, pending);
        if dropped { Err(TooLong { limit: self.limit }) } else { Ok(()) }
    }

    /// The stream ended: gives an event that lacks only its blank line, which upstreams do forget.
    pub fn finish(&mut self, mut on_event: impl FnMut(Event<'_>)) {
        let mut pending = Pending::default();
        if !self.line.is_empty() {
            self.straddling_line(b"", &mut pending, &mut on_event);
        }
        self.dispatch(&mut pending, &mut on_event);
    }

    /// Passes over the rest of the unfinished event, and forgets what is held of it.
    pub fn pass_over(&mut self) {
        self.dropping = true;
        self.data = Vec::new();
        self.line = if self.line.is_empty() { Vec::new() } else { vec![b':'] };
    }

    /// Whether an event has begun and not ended.
    pub fn is_within_event(&self) -> bool {
        !self.line.is_empty() || !self.data.is_empty() || self.name.is_some()
    }

    /// Bytes held for the unfinished event.
    pub fn held(&self) -> usize {
        self.line.len() + self.data.len()
    }

    fn after_mark<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let mut rest = piece;
        while self.mark < 3 {
            let Some((first, after)) = rest.split_first() else { return rest };
            if *first != MARK[usize::from(self.mark)] {
                // No mark after all: what looked like the start of one is text.
                self.line.extend_from_slice(&MARK[..usize::from(self.mark)]);
                break;
            }
            self.mark += 1;
            rest = after;
        }
        self.mark = 4;
        rest
    }

    fn line<'a>(&mut self, line: &'a [u8], pending: &mut Pending<'a>, on_event: &mut impl FnMut(Event<'_>)) {
        if line.is_empty() {
            self.dispatch(pending, on_event);
        } else if let Some(value) = field(line, b"data") {
            if let Some(earlier) = pending.data.replace(value) {
                self.add_data(earlier);
            }
        } else if let Some(value) = field(line, b"event") {
            pending.name = Some(value);
        }
        // Comments, `id`, `retry` and unknown fields say nothing to us.
    }

    /// A line that began in an earlier piece.
    #[cold]
    fn straddling_line(
        &mut self,
        end: &[u8],
        pending: &mut Pending<'_>,
        on_event: &mut impl FnMut(Event<'_>),
    ) {
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(end);
        self.take(std::mem::take(pending));
        let mut own = Pending::default();
        self.line(&line, &mut own, on_event);
        self.take(own);
        line.clear();
        self.line = line;
    }

    /// The end of an event.
    fn dispatch(&mut self, pending: &mut Pending<'_>, on_event: &mut impl FnMut(Event<'_>)) {
        let Pending { name, data } = std::mem::take(pending);
        let name = name.map_or(self.name.as_deref(), |name| std::str::from_utf8(name).ok());
        match data {
            _ if self.dropping => {}
            Some(data) if self.data.is_empty() => on_event(Event { event: name, data }),
            Some(data) => {
                self.data.extend_from_slice(data);
                on_event(Event { event: name, data: &self.data });
            }
            // Every line in `data` is followed by a line feed of which the last is not meant.
            None => {
                if let Some((_, data)) = self.data.split_last() {
                    on_event(Event { event: name, data });
                }
            }
        }
        self.dropping = false;
        self.name = None;
        for buffer in [&mut self.data, &mut self.line] {
            buffer.clear();
            // One large event must not cost memory for the rest of a long stream.
            buffer.shrink_to(KEPT);
        }
    }

    fn add_data(&mut self, line: &[u8]) {
        self.data.extend_from_slice(line);
        self.data.push(b'\n');
    }

    fn take(&mut self, pending: Pending<'_>) {
        if let Some(data) = pending.data {
            self.add_data(data);
        }
        if let Some(name) = pending.name {
            self.name = std::str::from_utf8(name).ok().map(str::to_owned);
        }
    }

    /// Keeps what is unfinished at the end of a piece; `true` if that is too long.
    fn keep(&mut self, line: &[u8], pending: Pending<'_>) -> bool {
        let length = self.held() + line.len() + pending.data.map_or(0, <[u8]>::len);
        if self.dropping || length > self.limit {
            let first = !self.dropping;
            self.dropping = true;
            self.data = Vec::new();
            // One byte stands for the line: whether it is empty is all that still counts.
            let unfinished = !self.line.is_empty() || !line.is_empty();
            self.line = if unfinished { vec![b':'] } else { Vec::new() };
            return first;
        }
        self.take(pending);
        self.line.extend_from_slice(line);
        false
    }
}

/// The value of a line `name: value`, without the one space that may stand before it.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    match line.strip_prefix(name)? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
