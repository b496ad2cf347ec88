//! The few things a gateway must see in a request body, found in one pass, and the edits that leave
//! every other byte as it was. Depends on `scan` only; never builds a tree of the body.
//!
//! A name given twice: the last one counts, as for the parsers behind us; an edit of the model changes
//! all of them, so that no upstream can be told another model than the one that was checked.

mod edit;
mod force;
mod multipart;

use crate::scan::{Kind, Member, Members, ScanError, string_value};
use crate::texts::{Found, Texts, folded};
pub use edit::{Edits, edit, with_include_usage, with_model};
pub use force::{Force, MIN_THINKING};
pub use multipart::{Form, FormError, is_form, parse_form};
use std::borrow::Cow;
use std::ops::Range;

/// No request names that many models.
const MOST_MODELS: usize = 64;

/// What a body asks for, as far as a gateway needs to know. Ranges are offsets into that body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ask<'a> {
    /// The model name, unescaped.
    pub model: Option<Cow<'a, str>>,
    /// Whether a stream is asked for.
    pub stream: bool,
    /// The largest of `max_tokens`, `max_completion_tokens` and `max_output_tokens`.
    pub max_output: Option<u64>,
    /// The request's label says something else than JSON. Not known from the body; whoever reads the label sets it.
    pub mislabelled: bool,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
    /// `background`, in whatever case: an answer that is stored and read later.
    pub background: bool,
    /// Whether `speed` is `fast`.
    pub fast: bool,
    /// `service_tier`.
    pub service_tier: Option<Cow<'a, str>>,
    /// Objects in `messages`, `input` or `contents`; 1 if it is a string.
    pub messages_count: u32,
    /// `prompt_cache_key`.
    pub prompt_cache_key: Option<Cow<'a, str>>,
    /// `previous_response_id`.
    pub previous_response_id: Option<Cow<'a, str>>,
    /// `metadata.user_id`.
    pub user_id: Option<Cow<'a, str>>,
    /// `metadata.session_id`.
    pub session_id: Option<Cow<'a, str>>,
    /// Tokens of every `model` member, quotes included; the last one is what `model` says.
    model_tokens: Tokens,
    /// Values that name further models, to be tried where the first one fails.
    others: Vec<Range<usize>>,
    stream_options: Option<(Range<usize>, Kind)>,
    messages: Option<(Range<usize>, Kind)>,
    prompt: Option<(Range<usize>, Kind)>,
    /// Present if the body is a form: then there is no JSON in it to edit.
    form: Option<Box<Form>>,
    /// Offset after the opening bracket, and whether the object has no members.
    inside: usize,
    empty: bool,
    body_len: usize,
}

/// The last range, and the earlier ones, of which there are none in an honest request.
#[derive(Clone, Debug, Default, PartialEq)]
struct Tokens {
    last: Option<Range<usize>>,
    earlier: Vec<Range<usize>>,
}

impl Ask<'_> {
    /// Where the model's JSON string stands, quotes included.
    pub fn model_token(&self) -> Option<Range<usize>> {
        self.model_tokens.last.clone()
    }

    /// Whether the body names models besides `model`.
    pub fn has_other_models(&self) -> bool {
        !self.others.is_empty()
    }

    /// The models that the body names besides `model`, for an upstream to fall back to: every string in `models` and the
    /// like, whatever form the upstream gives them. `body` is what this was read from.
    pub fn other_models(&self, body: &[u8]) -> Result<Vec<String>, ParseError> {
        let mut models = Vec::new();
        for range in &self.others {
            let offset = range.start;
            let wrong = |expected| ParseError::Member { name: "models", expected, offset };
            let mut texts = Texts::all(&body[range.clone()]);
            while let Some(found) = texts.step().map_err(|_| wrong("valid JSON"))? {
                let Found::Text(mut windows) = found else { continue };
                let name = windows.step().filter(|window| window.last).ok_or(wrong("a list of names"))?;
                models.push(name.text.to_owned());
                if models.len() > MOST_MODELS {
                    return Err(wrong("shorter"));
                }
            }
        }
        Ok(models)
    }

    /// Where `stream_options` stands, if it is there.
    pub fn stream_options(&self) -> Option<Range<usize>> {
        self.stream_options.as_ref().map(|(range, _)| range.clone())
    }

    /// Where the conversation stands (`messages`, `input` or `contents`), if it is there.
    pub fn messages(&self) -> Option<Range<usize>> {
        self.messages.as_ref().map(|(range, _)| range.clone())
    }

    /// What is only known of forms.
    pub fn form(&self) -> Option<&Form> {
        self.form.as_deref()
    }

    /// The body's size, files of a form counted for as much text as they are input.
    pub fn input_bytes(&self) -> u64 {
        self.form.as_ref().map_or(self.body_len as u64, |form| form.input_bytes())
    }

    /// The conversation and whether it is one string: `messages`, else `prompt`.
    pub(crate) fn conversation(&self) -> Option<(Range<usize>, bool)> {
        let (range, kind) = self.messages.as_ref().or(self.prompt.as_ref())?;
        matches!(kind, Kind::String | Kind::Array).then(|| (range.clone(), *kind == Kind::String))
    }
}

/// Why a body cannot be taken. The text is meant for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Empty, or a JSON text that is not an object.
    #[error("the request body must be a JSON object")]
    NotAnObject,
    /// The text ends too early.
    #[error("the request body is not valid JSON: it ends at byte {offset}, before its end")]
    Truncated {
        /// Length of the body, or where a token is missing.
        offset: usize,
    },
    /// Something else stands where a token is needed.
    #[error("the request body is not valid JSON: expected {expected} at byte {offset}")]
    Malformed {
        /// Of the byte that does not fit.
        offset: usize,
        /// What would have fitted.
        expected: &'static str,
    },
    /// A member that we need is of the wrong type.
    #[error("{name} must be {expected} (at byte {offset} of the request body)")]
    Member {
        /// Its name.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
        /// Where its value starts.
        offset: usize,
    },
}

impl ParseError {
    /// The byte at which reading stopped.
    pub fn offset(&self) -> usize {
        match self {
            Self::NotAnObject => 0,
            Self::Truncated { offset } | Self::Malformed { offset, .. } | Self::Member { offset, .. } => {
                *offset
            }
        }
    }
}

impl From<ScanError> for ParseError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Truncated(offset) => Self::Truncated { offset },
            ScanError::Unexpected { at, expected } => Self::Malformed { offset: at, expected },
        }
    }
}

/// Reads a JSON request body once.
pub fn parse(body: &[u8]) -> Result<Ask<'_>, ParseError> {
    let mut members = Members::new(body, 0);
    if members.blank() != Some(b'{') {
        return Err(ParseError::NotAnObject);
    }
    let inside = members.at() + 1;
    let mut ask = Ask { inside, body_len: body.len(), empty: true, ..Ask::default() };
    while let Some(member) = members.next()? {
        ask.empty = false;
        ask.member(body, member)?;
    }
    match members.blank() {
        None => Ok(ask),
        Some(_) => Err(ParseError::Malformed { offset: members.at(), expected: "nothing after the object" }),
    }
}

impl<'a> Ask<'a> {
    fn member(&mut self, body: &'a [u8], member: Member<'a>) -> Result<(), ParseError> {
        let name: &[u8] = &member.name;
        match name {
            b"model" => {
                let model = match member.kind {
                    Kind::Null => None,
                    _ => Some(text(body, &member).ok_or(wrong("model", "a string", &member))?),
                };
                // Of a name and a null some readers take the one, some the other.
                if self.model_tokens.last.is_some() && self.model.is_none() != model.is_none() {
                    return Err(wrong("model", "given once", &member));
                }
                self.model = model;
                let previous = self.model_tokens.last.replace(member.value);
                self.model_tokens.earlier.extend(previous);
            }
            b"stream" => {
                self.stream = match member.kind {
                    Kind::True => true,
                    Kind::False | Kind::Null => false,
                    _ => return Err(wrong("stream", "true or false", &member)),
                }
            }
            b"max_tokens" | b"max_completion_tokens" | b"max_output_tokens" => {
                self.max_output = self.max_output.max(whole(body, &member));
            }
            b"stream_options" => self.read_stream_options(body, &member),
            b"service_tier" => self.service_tier = text(body, &member),
            b"speed" => self.fast = text(body, &member).as_deref() == Some("fast"),
            b"metadata" => self.read_metadata(body, &member),
            b"prompt_cache_key" => self.prompt_cache_key = text(body, &member),
            b"previous_response_id" => self.previous_response_id = text(body, &member),
            b"messages" | b"input" | b"contents" => {
                self.messages_count = if member.kind == Kind::String { 1 } else { member.items };
                self.messages = Some((member.value, member.kind));
            }
            b"prompt" => self.prompt = Some((member.value, member.kind)),
            _ if names_models(name) => self.others.push(member.value),
            _ if is_background(name) => {
                self.background |= !matches!(member.kind, Kind::False | Kind::Null);
            }
            // Some upstreams take it for `model`, which is what was checked and is billed.
            _ if name.eq_ignore_ascii_case(b"model") => {
                return Err(wrong("model", "written in lower case", &member));
            }
            _ => {}
        }
        Ok(())
    }

    fn read_stream_options(&mut self, body: &'a [u8], member: &Member<'a>) {
        self.include_usage = false;
        self.stream_options = Some((member.value.clone(), member.kind));
        let mut members = inner(body, member);
        while let Some(Ok(Some(option))) = members.as_mut().map(Members::next) {
            if &*option.name == b"include_usage" {
                self.include_usage = option.kind == Kind::True;
            }
        }
    }

    fn read_metadata(&mut self, body: &'a [u8], member: &Member<'a>) {
        (self.user_id, self.session_id) = (None, None);
        let mut members = inner(body, member);
        while let Some(Ok(Some(hint))) = members.as_mut().map(Members::next) {
            match &*hint.name {
                b"user_id" => self.user_id = text(body, &hint),
                b"session_id" => self.session_id = text(body, &hint),
                _ => {}
            }
        }
    }
}

/// Whether some reader takes a member for `background`: one folds the Kelvin sign, too.
fn is_background(name: &[u8]) -> bool {
    match name.len() {
        10 => name.eq_ignore_ascii_case(b"background"),
        12 => std::str::from_utf8(name).is_ok_and(|name| folded(name) == "background"),
        _ => false,
    }
}

/// Whether a member names models to fall back to (OpenRouter, LiteLLM), in whatever case.
fn names_models(name: &[u8]) -> bool {
    let is = |text: &str| std::str::from_utf8(name).is_ok_and(|name| folded(name) == text);
    match name.len() {
        6..=7 => is("models"),
        9..=13 => is("fallbacks"),
        24..=32 => is("context_window_fallbacks") || is("content_policy_fallbacks"),
        _ => false,
    }
}

/// The members of a member that is an object. What is wrong inside it is the upstream's to say.
fn inner<'a>(body: &'a [u8], member: &Member<'a>) -> Option<Members<'a>> {
    (member.kind == Kind::Object).then(|| Members::new(&body[..member.value.end], member.value.start))
}

fn wrong(name: &'static str, expected: &'static str, member: &Member<'_>) -> ParseError {
    ParseError::Member { name, expected, offset: member.value.start }
}

fn text<'a>(body: &'a [u8], member: &Member<'a>) -> Option<Cow<'a, str>> {
    if member.kind != Kind::String {
        return None;
    }
    match string_value(body, &member.value)? {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

/// A number that counts something: whole and not negative, though `1e3` and `5.0` say it too.
fn whole(body: &[u8], member: &Member<'_>) -> Option<u64> {
    if member.kind != Kind::Number {
        return None;
    }
    let number: serde_json::Number = serde_json::from_slice(&body[member.value.clone()]).ok()?;
    // A float beyond the range of u64 saturates, which is what a ceiling wants.
    number.as_u64().or_else(|| number.as_f64().filter(|n| *n >= 0.0).map(|n| n as u64))
}

#[cfg(test)]
mod tests;
