//! The members of one object and the elements of one array, in order, as ranges of the text.

use super::{ScanError, Skip, Text};
use std::borrow::Cow;
use std::ops::Range;

/// What a value is, judged by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    String,
    Object,
    Array,
    Number,
    True,
    False,
    Null,
}

/// One member of an object.
#[derive(Clone, Debug)]
pub(crate) struct Member<'a> {
    /// Name, unescaped: a name written with escapes means the same to whoever parses it later.
    pub(crate) name: Cow<'a, [u8]>,
    /// Where the value stands, quotes and brackets included.
    pub(crate) value: Range<usize>,
    pub(crate) kind: Kind,
    /// Objects and arrays directly inside the value, if it is an array.
    pub(crate) items: u32,
}

/// A place in a text, and the tokens that can stand there.
#[derive(Clone, Debug)]
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn blank(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                other => return Some(*other),
            }
        }
        None
    }

    /// The next byte that is not white space must be `byte`.
    fn token(&mut self, byte: u8, expected: &'static str) -> Result<(), ScanError> {
        match self.blank() {
            Some(found) if found == byte => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(ScanError::Unexpected { at: self.at, expected }),
            None => Err(ScanError::Truncated(self.at)),
        }
    }

    /// The range of the string token that starts here, quotes included.
    fn string(&mut self) -> Result<Range<usize>, ScanError> {
        let start = self.at;
        match Text::default().feed(&self.text[start + 1..]) {
            Some(inside) => {
                self.at = start + inside + 2;
                Ok(start..self.at)
            }
            None => Err(ScanError::Truncated(self.text.len())),
        }
    }

    /// The value that starts after white space.
    fn value(&mut self) -> Result<(Range<usize>, Kind, u32), ScanError> {
        let Some(first) = self.blank() else { return Err(ScanError::Truncated(self.at)) };
        let kind = match first {
            b'"' => return self.string().map(|range| (range, Kind::String, 0)),
            b'{' => Kind::Object,
            b'[' => Kind::Array,
            _ => return self.scalar(),
        };
        let mut skip = if kind == Kind::Array { Skip::counting() } else { Skip::default() };
        match skip.feed(&self.text[self.at..]) {
            Some(length) => {
                let start = self.at;
                self.at += length;
                Ok((start..self.at, kind, skip.items()))
            }
            None => Err(ScanError::Truncated(self.text.len())),
        }
    }

    /// A number or a literal.
    fn scalar(&mut self) -> Result<(Range<usize>, Kind, u32), ScanError> {
        let start = self.at;
        let rest = &self.text[start..];
        let length = rest
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'E' | b'+' | b'-' | b'.'))
            .unwrap_or(rest.len());
        let kind = match &rest[..length] {
            b"true" => Kind::True,
            b"false" => Kind::False,
            b"null" => Kind::Null,
            [b'-' | b'0'..=b'9', digits @ ..]
                if digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'e' | b'E' | b'+' | b'-' | b'.')) =>
            {
                Kind::Number
            }
            _ if length == rest.len() => return Err(ScanError::Truncated(self.text.len())),
            _ => return Err(ScanError::Unexpected { at: start, expected: "a value" }),
        };
        self.at = start + length;
        Ok((start..self.at, kind, 0))
    }

    /// After a value: `true` if a comma follows, `false` at the closing bracket.
    fn more(&mut self, close: u8, expected: &'static str) -> Result<bool, ScanError> {
        match self.blank() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            Some(_) => Err(ScanError::Unexpected { at: self.at, expected }),
            None => Err(ScanError::Truncated(self.at)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Before,
    First,
    Later,
    After,
}

/// Reads an object member by member. Ranges are offsets into the text given to `new`.
#[derive(Clone, Debug)]
pub(crate) struct Members<'a> {
    cursor: Cursor<'a>,
    place: Place,
}

impl<'a> Members<'a> {
    /// Expects an object at `text[start..]`, after optional white space.
    pub(crate) fn new(text: &'a [u8], start: usize) -> Self {
        Self { cursor: Cursor { text, at: start }, place: Place::Before }
    }

    /// Offset of the first byte that has not been read: after the object once `next` gave `None`.
    pub(crate) fn at(&self) -> usize {
        self.cursor.at
    }

    /// Passes white space; the byte that follows it.
    pub(crate) fn blank(&mut self) -> Option<u8> {
        self.cursor.blank()
    }

    /// The next member; `None` after the closing bracket.
    pub(crate) fn next(&mut self) -> Result<Option<Member<'a>>, ScanError> {
        if self.place == Place::Before {
            self.cursor.token(b'{', "an object")?;
            self.place = Place::First;
        }
        match self.place {
            Place::First if self.cursor.blank() == Some(b'}') => {
                self.cursor.at += 1;
                self.place = Place::After;
            }
            Place::Later if !self.cursor.more(b'}', "a comma or the end of the object")? => {
                self.place = Place::After;
            }
            _ => {}
        }
        if self.place == Place::After {
            return Ok(None);
        }
        self.place = Place::Later;
        match self.cursor.blank() {
            Some(b'"') => {}
            Some(_) => {
                return Err(ScanError::Unexpected {
                    at: self.cursor.at,
                    expected: "a member name in quotes",
                });
            }
            None => return Err(ScanError::Truncated(self.cursor.at)),
        }
        let name = self.cursor.string()?;
        let at = name.start;
        let name = string_value(self.cursor.text, &name)
            .ok_or(ScanError::Unexpected { at, expected: "a member name" })?;
        self.cursor.token(b':', "a colon")?;
        let (value, kind, items) = self.cursor.value()?;
        Ok(Some(Member { name, value, kind, items }))
    }
}

/// Reads an array element by element.
#[derive(Clone, Debug)]
pub(crate) struct Elements<'a> {
    cursor: Cursor<'a>,
    place: Place,
}

impl<'a> Elements<'a> {
    /// Expects an array at `text[start..]`.
    pub(crate) fn new(text: &'a [u8], start: usize) -> Self {
        Self { cursor: Cursor { text, at: start }, place: Place::Before }
    }

    /// The next element; `None` after the closing bracket, or where the text stops being an array.
    pub(crate) fn next(&mut self) -> Option<(Range<usize>, Kind)> {
        if self.place == Place::Before {
            self.cursor.token(b'[', "an array").ok()?;
            self.place = Place::First;
        }
        let more = match self.place {
            Place::First => self.cursor.blank()? != b']',
            Place::Later => self.cursor.more(b']', "a comma or the end of the array").ok()?,
            _ => false,
        };
        if !more {
            self.place = Place::After;
            return None;
        }
        self.place = Place::Later;
        self.cursor.value().ok().map(|(range, kind, _)| (range, kind))
    }
}

/// What the string token at `range` says; borrowed if it holds no escapes, `None` if they are invalid.
/// Bytes without escapes are not checked to be UTF-8.
pub(crate) fn string_value<'a>(text: &'a [u8], range: &Range<usize>) -> Option<Cow<'a, [u8]>> {
    let token = text.get(range.clone())?;
    let inside = token.get(1..token.len().checked_sub(1)?)?;
    let plain =
        if inside.len() < 32 { !inside.contains(&b'\\') } else { memchr::memchr(b'\\', inside).is_none() };
    if plain {
        return Some(Cow::Borrowed(inside));
    }
    serde_json::from_slice::<String>(token).ok().map(|text| Cow::Owned(text.into_bytes()))
}
