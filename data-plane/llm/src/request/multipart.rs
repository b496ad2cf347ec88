//! `multipart/form-data` bodies (image edits, transcriptions): the few fields that a gateway must see, read in place,
//! wherever their parts stand. Files are passed over, never copied.
//!
//! Strict, because the upstream reads the same bytes with a reader of its own: what two readers could take for
//! different fields is refused, also where a lenient one would find a way.

mod part;

use super::{Ask, Tokens};
use memchr::memmem::Finder;
use part::{Part, boundary};
use std::borrow::Cow;
use std::ops::Range;

/// Parts of one form.
const MAX_PARTS: usize = 256;
/// Headers of one part, with their line ends.
const MAX_HEADERS: usize = 8 * 1024;
/// Bytes of a file that are taken for as much input as one byte of text: a minute of compressed speech or an image of a
/// megabyte are about a thousand tokens.
const FILE_BYTES_PER_TEXT_BYTE: u64 = 256;

/// Why a form cannot be taken. The text is meant for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// `Content-Type` names no boundary, or one that is no boundary.
    #[error("the Content-Type of a form must name its boundary once, of 1 to 70 characters")]
    Boundary,
    /// It ends too early.
    #[error("the form ends at byte {0}, before its last boundary")]
    Truncated(usize),
    /// Something else stands where a part or its end is needed.
    #[error("the form is not valid: expected {expected} at byte {offset}")]
    Malformed {
        /// Of the byte that does not fit.
        offset: usize,
        /// What would have fitted.
        expected: &'static str,
    },
    /// More than a form may have.
    #[error("the form has more than {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// A field that counts is given twice.
    #[error("the form field `{0}` is given twice")]
    Twice(&'static str),
    /// A field that counts (`text`: any that is no file) is written in a way that readers differ about.
    #[error("the form field `{name}` must be {expected}")]
    Field {
        /// Its name.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// What is only known of forms. Ranges are offsets into the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// Value of `size`.
    pub size: Option<Range<usize>>,
    /// Value of `n`.
    pub n: Option<Range<usize>>,
    /// Values of `prompt` and of all other fields that are not for files and not named here: what people wrote.
    pub texts: Vec<Range<usize>>,
    /// Bytes of all files.
    pub file_bytes: u64,
}

impl Form {
    /// The body's size in bytes of text that would be as much input.
    pub(super) fn input_bytes(&self) -> u64 {
        let texts: usize = self.texts.iter().map(Range::len).sum();
        texts as u64 + self.file_bytes / FILE_BYTES_PER_TEXT_BYTE
    }
}

/// Whether a `Content-Type` says that the body is a form.
pub fn is_form(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("multipart/form-data")
}

/// Reads a form once. `content_type` is the whole header value.
pub fn parse_form<'a>(content_type: &str, body: &'a [u8]) -> Result<Ask<'a>, FormError> {
    let mut parts = Parts::new(&boundary(content_type)?, body)?;
    let mut seen = Seen::default();
    let mut ask = Ask { body_len: body.len(), messages_count: 0, ..Ask::default() };
    while let Some(part) = parts.next()? {
        seen.part(&mut ask, body, &part)?;
    }
    ask.form = Some(Box::new(seen.form));
    Ok(ask)
}

/// Walks over the parts.
struct Parts<'a> {
    body: &'a [u8],
    delimiter: Finder<'static>,
    /// After the last delimiter.
    at: usize,
    count: usize,
}

impl<'a> Parts<'a> {
    fn new(boundary: &str, body: &'a [u8]) -> Result<Self, FormError> {
        let delimiter = Finder::new(&["--", boundary].concat()).into_owned();
        // Some clients begin with the line end that belongs to every other delimiter.
        let start = if body.starts_with(b"\r\n") { 2 } else { 0 };
        if !body[start..].starts_with(delimiter.needle()) {
            return Err(FormError::Malformed { offset: start, expected: "the boundary" });
        }
        let at = start + delimiter.needle().len();
        Ok(Self { body, delimiter, at, count: 0 })
    }

    fn next(&mut self) -> Result<Option<Part<'a>>, FormError> {
        let rest = &self.body[self.at..];
        if let Some(end) = rest.strip_prefix(b"--") {
            let offset = self.at + 2;
            let only_blank = end.iter().all(|byte| matches!(byte, b'\r' | b'\n' | b' ' | b'\t'));
            let wrong = FormError::Malformed { offset, expected: "nothing after the last boundary" };
            return if only_blank { Ok(None) } else { Err(wrong) };
        }
        let Some(rest) = rest.strip_prefix(b"\r\n") else {
            let expected = "a line end or -- after the boundary";
            return Err(FormError::Malformed { offset: self.at, expected });
        };
        self.count += 1;
        if self.count > MAX_PARTS {
            return Err(FormError::TooMany { what: "parts", most: MAX_PARTS });
        }
        let start = self.at + 2;
        let window = &rest[..rest.len().min(MAX_HEADERS)];
        let length = match memchr::memmem::find(window, b"\r\n\r\n") {
            Some(length) => length,
            None if window.len() < rest.len() => {
                return Err(FormError::TooMany { what: "bytes of headers in one part", most: MAX_HEADERS });
            }
            None => return Err(FormError::Truncated(self.body.len())),
        };
        let content = start + length + 4;
        let end = self.end_of(content)?;
        let part = Part::new(&self.body[start..start + length], start, content..end)?;
        self.at = end + 2 + self.delimiter.needle().len();
        Ok(Some(part))
    }

    /// Where the content that begins at `start` ends: before a line end and a delimiter.
    fn end_of(&self, start: usize) -> Result<usize, FormError> {
        for found in self.delimiter.find_iter(&self.body[start..]) {
            let at = start + found;
            let before = &self.body[start..at];
            if before.ends_with(b"\r\n") {
                return Ok(at - 2);
            }
            // A bare line end before it is a delimiter to some readers; so is one right after the headers.
            if before.is_empty() || before.ends_with(b"\n") || before.ends_with(b"\r") {
                return Err(FormError::Malformed { offset: at, expected: "a line end before the boundary" });
            }
        }
        Err(FormError::Truncated(self.body.len()))
    }
}

/// What the parts have said so far.
#[derive(Default)]
struct Seen {
    form: Form,
    stream: bool,
}

impl Seen {
    fn part<'a>(&mut self, ask: &mut Ask<'a>, body: &'a [u8], part: &Part<'_>) -> Result<(), FormError> {
        let range = part.content.clone();
        let twice = |is_twice, name| if is_twice { Err(FormError::Twice(name)) } else { Ok(()) };
        match part.name {
            "model" => {
                twice(ask.model_tokens.last.is_some(), "model")?;
                ask.model = Some(Cow::Borrowed(line(body, part, "model")?));
                ask.model_tokens = Tokens { last: Some(range), earlier: Vec::new() };
            }
            "stream" => {
                twice(std::mem::replace(&mut self.stream, true), "stream")?;
                ask.stream = flag(line(body, part, "stream")?)?;
            }
            "size" => {
                line(body, part, "size")?;
                twice(self.form.size.replace(range).is_some(), "size")?;
            }
            "n" => {
                line(body, part, "n")?;
                twice(self.form.n.replace(range).is_some(), "n")?;
            }
            "prompt" => {
                part.plain("prompt")?;
                ask.messages_count = 1;
                self.form.texts.push(range);
            }
            other => {
                refuse_likeness(other)?;
                // A name of a file makes no file of a text: some readers take it for text all the same.
                if part.file && takes_file(other) {
                    self.form.file_bytes += range.len() as u64;
                } else {
                    part.plain("text")?;
                    self.form.texts.push(range);
                }
            }
        }
        Ok(())
    }
}

/// Whether a field is one for files, by its name.
fn takes_file(name: &str) -> bool {
    const WORDS: &[&str] = &["image", "mask", "file", "audio", "video", "reference", "document"];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

/// Names that some reader takes for `model`: in another case, with blanks, as the beginning of a list.
fn refuse_likeness(name: &str) -> Result<(), FormError> {
    let stem = name.split('[').next().unwrap_or_default().trim();
    if stem.eq_ignore_ascii_case("model") {
        return Err(FormError::Field { name: "model", expected: "named `model`" });
    }
    if super::names_models(stem.as_bytes()) {
        return Err(FormError::Field { name: "model", expected: "the only one that names a model" });
    }
    Ok(())
}

/// A field of one line.
fn line<'a>(body: &'a [u8], part: &Part<'_>, name: &'static str) -> Result<&'a str, FormError> {
    part.plain(name)?;
    let text = std::str::from_utf8(&body[part.content.clone()]).ok();
    let text = text.filter(|text| *text == text.trim() && !text.contains(char::is_control));
    text.ok_or(FormError::Field { name, expected: "one line of text without blanks around it" })
}

fn flag(text: &str) -> Result<bool, FormError> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" | "yes" => Ok(true),
        "false" | "0" | "off" | "no" | "" => Ok(false),
        _ => Err(FormError::Field { name: "stream", expected: "true or false" }),
    }
}

#[cfg(test)]
mod tests;
