//! Picks top-level members out of a JSON object that comes in pieces, and forgets everything else:
//! memory is bounded by what is picked, however long the answer is and wherever in it a member stands.

use super::{Skip, Text};

/// A picked value longer than this is not kept.
pub(crate) const PICK_LIMIT: usize = 64 * 1024;
/// Names longer than this are none that anyone asks for.
const NAME_LIMIT: usize = 64;

#[derive(Clone, Copy, Debug)]
enum State {
    Before,
    NameOrEnd,
    Name(Text),
    Colon,
    Value,
    String(Text),
    Container(Skip),
    Scalar,
    CommaOrEnd,
    Done,
    Broken,
}

/// The push form of [`Members`](super::Members).
#[derive(Debug)]
pub(crate) struct Picker {
    state: State,
    wanted: &'static [&'static str],
    picked: Vec<Option<Vec<u8>>>,
    name: Vec<u8>,
    /// Index in `wanted` of the member whose value is being read.
    current: Option<usize>,
    /// Names of the members whose length is added up.
    measured_names: &'static [&'static str],
    measuring: bool,
    measured: u64,
}

impl Picker {
    /// Keeps the values of `wanted` and adds up the lengths of the values of `measured`.
    pub(crate) fn new(wanted: &'static [&'static str], measured: &'static [&'static str]) -> Self {
        Self {
            state: State::Before,
            wanted,
            picked: vec![None; wanted.len()],
            name: Vec::new(),
            current: None,
            measured_names: measured,
            measuring: false,
            measured: 0,
        }
    }

    /// The text of a wanted value, if it came whole and was not too long; the last one wins.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        let index = self.wanted.iter().position(|wanted| *wanted == name)?;
        if self.current == Some(index) {
            return None;
        }
        self.picked[index].as_deref()
    }

    /// Whether the object was read to its end.
    pub(crate) fn done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether what came is no JSON object.
    pub(crate) fn broken(&self) -> bool {
        matches!(self.state, State::Broken)
    }

    /// Bytes in the values of the measured members.
    pub(crate) fn measured(&self) -> u64 {
        self.measured
    }

    /// Feeds the next piece.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = self.step(bytes);
            bytes = &bytes[used..];
        }
    }

    /// One token, or a part of one; how many bytes it took (at least one).
    fn step(&mut self, bytes: &[u8]) -> usize {
        match &mut self.state {
            State::Done | State::Broken => bytes.len(),
            State::Name(text) => {
                let end = text.feed(bytes);
                let used = end.map_or(bytes.len(), |at| at + 1);
                if self.name.len() <= NAME_LIMIT {
                    self.name.extend_from_slice(&bytes[..used.min(NAME_LIMIT + 1)]);
                }
                if end.is_some() {
                    self.state = State::Colon;
                }
                used
            }
            State::String(text) => {
                let end = text.feed(bytes).map(|at| at + 1);
                self.value_bytes(bytes, end)
            }
            State::Container(skip) => {
                let end = skip.feed(bytes);
                self.value_bytes(bytes, end)
            }
            State::Scalar => {
                let end =
                    bytes.iter().position(|b| !b.is_ascii_alphanumeric() && !matches!(b, b'+' | b'-' | b'.'));
                match end {
                    // The byte that ends a scalar is not a part of it.
                    Some(0) => {
                        self.end_value();
                        self.token(bytes[0])
                    }
                    end => self.value_bytes(bytes, end),
                }
            }
            _ => self.token(bytes[0]),
        }
    }

    /// One byte between values.
    fn token(&mut self, byte: u8) -> usize {
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return 1;
        }
        self.state = match (self.state, byte) {
            (State::Before, b'{') => State::NameOrEnd,
            (State::NameOrEnd, b'"') => {
                self.name.clear();
                self.name.push(b'"');
                State::Name(Text::default())
            }
            (State::NameOrEnd | State::CommaOrEnd, b'}') => State::Done,
            (State::CommaOrEnd, b',') => State::NameOrEnd,
            (State::Colon, b':') => State::Value,
            (State::Value, first) => return self.start_value(first),
            _ => State::Broken,
        };
        1
    }

    fn start_value(&mut self, first: u8) -> usize {
        let whole = 0..self.name.len();
        let name = super::string_value(&self.name, &whole).unwrap_or_default();
        self.current = self.wanted.iter().position(|wanted| wanted.as_bytes() == &*name);
        self.measuring = self.measured_names.iter().any(|measured| measured.as_bytes() == &*name);
        if let Some(index) = self.current {
            self.picked[index] = Some(Vec::new());
        }
        let mut skip = Skip::default();
        self.state = match first {
            b'"' => State::String(Text::default()),
            b'{' | b'[' => {
                skip.feed(&[first]);
                State::Container(skip)
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => State::Scalar,
            _ => State::Broken,
        };
        self.keep(&[first]);
        1
    }

    /// Bytes of a value, which ends after `end` of them if that is known.
    fn value_bytes(&mut self, bytes: &[u8], end: Option<usize>) -> usize {
        let used = end.unwrap_or(bytes.len());
        self.keep(&bytes[..used]);
        if end.is_some() {
            self.end_value();
        }
        used
    }

    fn end_value(&mut self) {
        self.current = None;
        self.measuring = false;
        self.state = State::CommaOrEnd;
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.measuring {
            self.measured += bytes.len() as u64;
        }
        let Some(index) = self.current else { return };
        if let Some(kept) = &mut self.picked[index] {
            if kept.len() + bytes.len() > PICK_LIMIT {
                self.picked[index] = None;
            } else {
                kept.extend_from_slice(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = r#" { "id":"a\"}", "content":[{"usage":{"x":9}},"]}\\"], "us\u0061ge" : {"a":[1,{}]},
        "n":-1.5e3,"model":"m","ok":true }"#;

    fn pick(pieces: &[&[u8]]) -> Picker {
        let mut picker = Picker::new(&["usage", "model", "n", "absent"], &["content"]);
        for piece in pieces {
            picker.feed(piece);
        }
        picker
    }

    fn check(picker: &Picker) {
        assert!(picker.done() && !picker.broken());
        assert_eq!(picker.get("usage"), Some(&br#"{"a":[1,{}]}"#[..]));
        assert_eq!(picker.get("model"), Some(&b"\"m\""[..]));
        assert_eq!(picker.get("n"), Some(&b"-1.5e3"[..]));
        assert_eq!(picker.get("absent"), None);
        assert_eq!(picker.measured(), r#"[{"usage":{"x":9}},"]}\\"]"#.len() as u64);
    }

    #[test]
    fn picks_the_same_wherever_the_text_is_cut() {
        for cut in 0..=TEXT.len() {
            check(&pick(&[&TEXT.as_bytes()[..cut], &TEXT.as_bytes()[cut..]]));
        }
        check(&pick(&TEXT.as_bytes().chunks(1).collect::<Vec<_>>()));
    }

    #[test]
    fn keeps_nothing_that_is_too_long_or_unfinished() {
        let long = format!(r#"{{"usage":"{}","model":"m"}}"#, "x".repeat(PICK_LIMIT));
        let picker = pick(&[long.as_bytes()]);
        assert_eq!((picker.get("usage"), picker.get("model")), (None, Some(&b"\"m\""[..])));
        let picker = pick(&[br#"{"model":"m","usage":{"a":1"#]);
        assert_eq!((picker.get("usage"), picker.done()), (None, false));
    }

    #[test]
    fn says_what_is_no_object() {
        for text in ["<html>", "[1]", "{]", r#"{"a" 1}"#, r#"{"a":}"#, "{,}"] {
            assert!(pick(&[text.as_bytes()]).broken(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut picker = pick(&[&bytes]);
            picker.feed(b"}");
        }
    }
}
