//! A text of any length in stretches of a bounded one, escapes decoded. Pure.

/// Longest stretch, in bytes. Nearly all texts are one.
pub const WINDOW: usize = 64 * 1024;
/// What two stretches have in common: whatever is at most that long stands whole in one of them.
pub const OVERLAP: usize = 8 * 1024;

/// A stretch of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window<'w> {
    /// What it says.
    pub text: &'w str,
    /// The text begins with it.
    pub first: bool,
    /// The text ends with it.
    pub last: bool,
}

impl<'w> Window<'w> {
    /// A text that is one.
    pub const fn whole(text: &'w str) -> Self {
        Self { text, first: true, last: true }
    }
}

/// The stretches of one text. Holds one of them at most.
pub struct Windows<'a> {
    /// Not decoded yet.
    rest: &'a [u8],
    escaped: bool,
    held: String,
    begun: bool,
    done: bool,
}

impl<'a> Windows<'a> {
    /// Of the inside of a JSON string token.
    pub(super) fn of_string(inside: &'a [u8]) -> Self {
        let escaped = memchr::memchr(b'\\', inside).is_some();
        Self { rest: inside, escaped, held: String::new(), begun: false, done: false }
    }

    /// Of a text as it is.
    pub fn plain(text: &'a [u8]) -> Self {
        Self { rest: text, escaped: false, held: String::new(), begun: false, done: false }
    }

    /// The next stretch.
    pub fn step(&mut self) -> Option<Window<'_>> {
        if self.done {
            return None;
        }
        let first = !std::mem::replace(&mut self.begun, true);
        if first
            && !self.escaped
            && self.rest.len() <= WINDOW
            && let Ok(text) = std::str::from_utf8(self.rest)
        {
            self.done = true;
            return Some(Window { text, first, last: true });
        }
        if !first {
            let keep = self.held.ceil_char_boundary(self.held.len().saturating_sub(OVERLAP));
            self.held.drain(..keep);
        }
        while self.held.len() < WINDOW && !self.rest.is_empty() {
            self.decode();
        }
        self.done = self.rest.is_empty();
        Some(Window { text: &self.held, first, last: self.done })
    }

    /// Takes a run without escapes, or one escape. What is no text becomes the sign for that.
    fn decode(&mut self) {
        let room = WINDOW.saturating_sub(self.held.len()).max(4);
        let run = if self.escaped {
            memchr::memchr(b'\\', &self.rest[..self.rest.len().min(room)])
                .unwrap_or(self.rest.len().min(room))
        } else {
            self.rest.len().min(room)
        };
        if run == 0 {
            let (letter, length) = escape(self.rest);
            self.held.push(letter);
            self.rest = &self.rest[length..];
            return;
        }
        let (text, more) = self.rest.split_at(run);
        match std::str::from_utf8(text) {
            Ok(text) => {
                self.held.push_str(text);
                self.rest = more;
            }
            Err(error) => {
                let (valid, _) = text.split_at(error.valid_up_to());
                self.held.push_str(std::str::from_utf8(valid).unwrap_or_default());
                let mut used = valid.len();
                match error.error_len() {
                    Some(bad) => {
                        self.held.push(char::REPLACEMENT_CHARACTER);
                        used += bad;
                    }
                    // A letter that goes on behind the run, or is cut there for good.
                    None if used == 0 => {
                        self.held.push(char::REPLACEMENT_CHARACTER);
                        used = 1;
                    }
                    None => {}
                }
                self.rest = &self.rest[used..];
            }
        }
    }
}

/// The letter that an escape stands for, and its length.
fn escape(bytes: &[u8]) -> (char, usize) {
    let simple = |letter| (letter, 2);
    match bytes.get(1) {
        Some(b'n') => simple('\n'),
        Some(b't') => simple('\t'),
        Some(b'r') => simple('\r'),
        Some(b'b') => simple('\u{8}'),
        Some(b'f') => simple('\u{c}'),
        Some(b'u') => coded(bytes),
        Some(byte @ (b'"' | b'\\' | b'/')) => simple(char::from(*byte)),
        _ => (char::REPLACEMENT_CHARACTER, 1),
    }
}

fn coded(bytes: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        let digits =
            std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u32::from_str_radix(digits, 16).ok()
    };
    let Some(high) = unit(0) else { return (char::REPLACEMENT_CHARACTER, 2.min(bytes.len())) };
    if let Some(letter) = char::from_u32(high) {
        return (letter, 6);
    }
    match unit(6).filter(|low| (0xdc00..0xe000).contains(low) && high < 0xdc00) {
        Some(low) => {
            let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
        }
        // Half a letter: what a program cut that counts in halves.
        None => (char::REPLACEMENT_CHARACTER, 6),
    }
}
