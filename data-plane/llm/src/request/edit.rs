//! Edits as splices: the bytes around them are copied as they are, in one allocation.

use super::Ask;
use super::force::{self, Force};
use crate::scan::{Kind, Members};
use bytes::Bytes;
use std::borrow::Cow;
use std::ops::Range;

/// What to change in a body on its way to an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edits<'a> {
    /// Put this model in the place of the one asked for.
    pub model: Option<&'a str>,
    /// Have the upstream report usage at the end of a Chat Completions stream.
    pub include_usage: bool,
    /// What holds whatever the caller said.
    pub forced: &'a [Force],
}

/// `body` with another model name; the same `Bytes` if it already is that one.
pub fn with_model(body: &Bytes, ask: &Ask<'_>, model: &str) -> Bytes {
    edit(body, ask, Edits { model: Some(model), ..Edits::default() })
}

/// `body` with `stream_options.include_usage` set; the same `Bytes` if it is set already.
pub fn with_include_usage(body: &Bytes, ask: &Ask<'_>) -> Bytes {
    edit(body, ask, Edits { include_usage: true, ..Edits::default() })
}

/// All edits at once. `ask` must come from this `body`; a body of another length is returned as it is.
pub fn edit(body: &Bytes, ask: &Ask<'_>, edits: Edits<'_>) -> Bytes {
    debug_assert_eq!(ask.body_len, body.len(), "the ask was read from another body");
    if ask.body_len != body.len() {
        return body.clone();
    }
    let mut splices: Vec<Splice> = Vec::new();
    let mut added: Vec<String> = Vec::new();
    if let Some(model) = edits.model {
        model_splices(ask, model, &mut splices);
    }
    if ask.form.is_some() {
        return apply(body, splices);
    }
    if edits.include_usage && !ask.include_usage {
        usage_splice(body, ask, &mut splices, &mut added);
    }
    if !edits.forced.is_empty() {
        force::splices(body, edits.forced, &mut splices, &mut added);
    }
    if !added.is_empty() {
        let mut members = added.join(",");
        if !ask.empty {
            members.push(',');
        }
        splices.push((ask.inside..ask.inside, Cow::Owned(members.into_bytes())));
    }
    apply(body, splices)
}

/// Bytes to put in the place of a range; an empty range inserts.
pub(super) type Splice = (Range<usize>, Cow<'static, [u8]>);

fn model_splices(ask: &Ask<'_>, model: &str, splices: &mut Vec<Splice>) {
    let Some(last) = &ask.model_tokens.last else { return };
    // A null stays: the upstream's default is meant.
    if ask.model.is_none() {
        return;
    }
    if ask.model.as_deref() == Some(model) && ask.model_tokens.earlier.is_empty() {
        return;
    }
    let token = match ask.form {
        Some(_) => model.chars().filter(|c| !c.is_control()).collect::<String>().into_bytes(),
        None => serde_json::Value::from(model).to_string().into_bytes(),
    };
    for earlier in &ask.model_tokens.earlier {
        splices.push((earlier.clone(), Cow::Owned(token.clone())));
    }
    splices.push((last.clone(), Cow::Owned(token)));
}

const OPTION: &[u8] = br#""include_usage":true"#;
const OPTIONS: &str = r#"{"include_usage":true}"#;

fn usage_splice(body: &Bytes, ask: &Ask<'_>, splices: &mut Vec<Splice>, added: &mut Vec<String>) {
    let Some((range, kind)) = &ask.stream_options else {
        added.push(format!("\"stream_options\":{OPTIONS}"));
        return;
    };
    match kind {
        Kind::Null => splices.push((range.clone(), Cow::Borrowed(OPTIONS.as_bytes()))),
        Kind::Object => splices.push(option_splice(&body[..range.end], range.start)),
        // Not ours to repair: the upstream will say what is wrong with it.
        _ => {}
    }
}

fn option_splice(text: &[u8], start: usize) -> Splice {
    let mut members = Members::new(text, start);
    let (mut found, mut empty) = (None, true);
    while let Ok(Some(member)) = members.next() {
        empty = false;
        if &*member.name == b"include_usage" {
            found = Some(member.value);
        }
    }
    match found {
        Some(value) => (value, Cow::Borrowed(b"true")),
        None if empty => (start + 1..start + 1, Cow::Borrowed(OPTION)),
        None => (start + 1..start + 1, Cow::Owned([OPTION, b","].concat())),
    }
}

fn apply(body: &Bytes, mut splices: Vec<Splice>) -> Bytes {
    if splices.is_empty() {
        return body.clone();
    }
    splices.sort_by_key(|(range, _)| range.start);
    let added: usize = splices.iter().map(|(_, new)| new.len()).sum();
    let mut edited = Vec::with_capacity(body.len() + added);
    let mut copied = 0;
    for (range, new) in splices {
        edited.extend_from_slice(&body[copied..range.start]);
        edited.extend_from_slice(&new);
        copied = range.end;
    }
    edited.extend_from_slice(&body[copied..]);
    Bytes::from(edited)
}
