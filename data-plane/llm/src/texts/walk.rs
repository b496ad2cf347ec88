//! Token by token through a body. Pure.

use super::base64::{LEAST_UNNAMED, is_file};
use super::name::{self, LONGEST, Mode};
use super::turn;
use super::window::Windows;
use crate::scan::{Text, string_value};

/// As deep as the JSON readers behind us go.
const DEPTH: usize = 128;
/// After so many bytes without a text the caller may see to its other tasks.
const PAUSE: usize = 64 * 1024;
/// No number that anybody reads has more letters.
const SCALAR: usize = 4 * 1024;

/// What was found.
pub enum Found<'a> {
    /// A text.
    Text(Windows<'a>),
    /// Nothing yet, after many bytes.
    Pause,
}

/// The body is no JSON, or deeper than anybody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request body is not valid JSON at byte {0}")]
pub struct Unreadable(pub usize);

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value must come.
    Value,
    /// The first member or element, or the end.
    First,
    /// A comma or the end.
    Next,
    /// A member's name.
    Name,
    Done,
}

/// An object or an array, open.
#[derive(Clone, Copy)]
struct Frame {
    object: bool,
    mode: Mode,
}

/// What the name before a value says of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    /// There is none: an element.
    Not,
    Word,
    File,
    Other,
}

/// The texts of a body, one after the other.
pub struct Texts<'a> {
    body: &'a [u8],
    at: usize,
    vendors: bool,
    state: State,
    frames: Vec<Frame>,
    /// A value's string whose end is looked for: where its inside begins.
    open: Option<(usize, Text)>,
    /// Of the value that comes next.
    mode: Mode,
    named: Named,
}

impl<'a> Texts<'a> {
    /// Of a request's body. `vendors`: also what the vendor of the caller's program put in.
    pub fn new(body: &'a [u8], vendors: bool) -> Self {
        Self {
            body,
            at: 0,
            vendors,
            state: State::Value,
            frames: Vec::with_capacity(16),
            open: None,
            mode: Mode::Body,
            named: Named::Not,
        }
    }

    /// Every string of a JSON text but words of the protocol.
    pub(crate) fn all(text: &'a [u8]) -> Self {
        Self { mode: Mode::Look, ..Self::new(text, true) }
    }

    /// Bytes read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next text; `None` at the end of the body.
    pub fn step(&mut self) -> Result<Option<Found<'a>>, Unreadable> {
        let pause = self.at.saturating_add(PAUSE);
        loop {
            if self.at >= pause {
                return Ok(Some(Found::Pause));
            }
            if self.open.is_some() {
                if let Some(text) = self.rest_of_string(pause)? {
                    return Ok(Some(Found::Text(text)));
                }
                continue;
            }
            let Some(byte) = self.blank(pause) else {
                if self.at >= pause {
                    continue;
                }
                return if self.state == State::Done { Ok(None) } else { Err(Unreadable(self.at)) };
            };
            match (self.state, byte) {
                (State::Value, _) => self.value(byte)?,
                (State::First, b'}' | b']') | (State::Next, b'}' | b']') => self.close(byte)?,
                (State::First, _) => self.state = self.inside(),
                (State::Next, b',') => {
                    self.at += 1;
                    self.state = self.inside();
                }
                (State::Name, b'"') => self.name()?,
                _ => return Err(Unreadable(self.at)),
            }
        }
    }

    /// Passes white space, up to `until`; the byte that follows it.
    fn blank(&mut self, until: usize) -> Option<u8> {
        while self.at < until {
            match self.body.get(self.at)? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                other => return Some(*other),
            }
        }
        None
    }

    /// What comes in the open frame.
    fn inside(&mut self) -> State {
        match self.frames.last() {
            Some(Frame { object: true, .. }) => State::Name,
            Some(frame) => {
                (self.mode, self.named) = (of_element(frame.mode), Named::Not);
                State::Value
            }
            None => State::Done,
        }
    }

    /// Goes on in a value's string, up to `pause`.
    fn rest_of_string(&mut self, pause: usize) -> Result<Option<Windows<'a>>, Unreadable> {
        let Some((start, text)) = &mut self.open else { return Ok(None) };
        let piece = &self.body[self.at..self.body.len().min(pause)];
        match text.feed(piece) {
            Some(length) => {
                let inside = &self.body[*start..self.at + length];
                self.at += length + 1;
                self.open = None;
                self.after();
                Ok(self.is_text(inside).then(|| Windows::of_string(inside)))
            }
            None if self.at + piece.len() == self.body.len() => Err(Unreadable(self.body.len())),
            None => {
                self.at += piece.len();
                Ok(None)
            }
        }
    }

    fn name(&mut self) -> Result<(), Unreadable> {
        let start = self.at;
        let length = Text::default().feed(&self.body[start + 1..]).ok_or(Unreadable(self.body.len()))?;
        self.at = start + length + 2;
        let name = (length <= 6 * LONGEST).then(|| string_value(self.body, &(start..self.at))).flatten();
        let name = name.as_deref().and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
        self.named = if name::is_word(name) {
            Named::Word
        } else if name::may_be_file(name) {
            Named::File
        } else {
            Named::Other
        };
        self.mode = match self.frames.last().map_or(Mode::Look, |frame| frame.mode) {
            Mode::Body => name::of_body(name, self.vendors),
            // The body of a batch's request; next to it stand its path and its id.
            Mode::Request if matches!(name, "params" | "body") => Mode::Body,
            Mode::Mute => Mode::Mute,
            _ => Mode::Look,
        };
        if self.blank(usize::MAX) != Some(b':') {
            return Err(Unreadable(self.at));
        }
        self.at += 1;
        self.state = State::Value;
        Ok(())
    }

    fn value(&mut self, first: u8) -> Result<(), Unreadable> {
        match first {
            b'"' => {
                self.at += 1;
                self.open = Some((self.at, Text::default()));
                Ok(())
            }
            b'{' | b'[' => self.enter(first == b'{'),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => self.scalar(),
            _ => Err(Unreadable(self.at)),
        }
    }

    fn is_text(&self, inside: &[u8]) -> bool {
        if self.mode == Mode::Mute || inside.is_empty() {
            return false;
        }
        match self.named {
            Named::Word => false,
            Named::File => !is_file(inside, 0),
            Named::Not => !is_file(inside, LEAST_UNNAMED),
            Named::Other => true,
        }
    }

    fn enter(&mut self, object: bool) -> Result<(), Unreadable> {
        if self.frames.len() == DEPTH {
            return Err(Unreadable(self.at));
        }
        let mode = match (self.mode, object) {
            // Only the whole body is one, or the parameters of a batch's request.
            (Mode::Body, false) | (Mode::Requests, true) => Mode::Look,
            (Mode::Turns, true) if self.named == Named::Not => turn::mode(self.body, self.at, self.vendors),
            // One item where a list belongs.
            (Mode::Turns, true) => Mode::Look,
            (mode, _) => mode,
        };
        self.frames.push(Frame { object, mode });
        self.at += 1;
        self.state = State::First;
        Ok(())
    }

    fn close(&mut self, byte: u8) -> Result<(), Unreadable> {
        match self.frames.pop() {
            Some(frame) if frame.object == (byte == b'}') => {
                self.at += 1;
                self.after();
                Ok(())
            }
            _ => Err(Unreadable(self.at)),
        }
    }

    fn scalar(&mut self) -> Result<(), Unreadable> {
        let rest = &self.body[self.at..self.body.len().min(self.at + SCALAR)];
        let length = rest
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'E' | b'+' | b'-' | b'.'))
            .unwrap_or(rest.len());
        let word = &rest[..length];
        let number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'e' | b'E' | b'+' | b'-' | b'.');
        if !matches!(word, b"true" | b"false" | b"null") && !word.iter().all(number) {
            return Err(Unreadable(self.at));
        }
        self.at += length;
        self.after();
        Ok(())
    }

    /// After a value.
    fn after(&mut self) {
        self.state = if self.frames.is_empty() { State::Done } else { State::Next };
    }
}

/// How the elements of an array are read.
fn of_element(array: Mode) -> Mode {
    match array {
        Mode::Requests => Mode::Request,
        Mode::Body | Mode::Request => Mode::Look,
        mode => mode,
    }
}
