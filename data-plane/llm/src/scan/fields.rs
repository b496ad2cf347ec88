//! Members by name: what the readers of events are written in.

use super::{Kind, Members, string_value};
use std::borrow::Cow;

/// The value of a member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    /// The JSON text, quotes and brackets included.
    pub(crate) text: &'a [u8],
    pub(crate) kind: Kind,
}

impl<'a> Field<'a> {
    /// The string, if it is one without escapes.
    pub(crate) fn str(&self) -> Option<&'a str> {
        match (self.kind, string_value(self.text, &(0..self.text.len()))) {
            (Kind::String, Some(Cow::Borrowed(bytes))) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The string, or the number as text.
    pub(crate) fn owned(&self) -> Option<String> {
        match self.kind {
            Kind::String => {
                String::from_utf8(string_value(self.text, &(0..self.text.len()))?.into_owned()).ok()
            }
            Kind::Number => String::from_utf8(self.text.to_vec()).ok(),
            _ => None,
        }
    }

    /// The value as a tree; null if it is no JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(self.text).unwrap_or_default()
    }
}

/// Finds members of an object.
pub(crate) struct Fields;

impl Fields {
    /// The values under `names` in the object `text`; the last one if a name stands twice. What cannot be
    /// read is not there.
    pub(crate) fn of<'a, const N: usize>(text: &'a [u8], names: [&[u8]; N]) -> [Option<Field<'a>>; N] {
        let mut fields = [None; N];
        let mut members = Members::new(text, 0);
        while let Ok(Some(member)) = members.next() {
            if let Some(index) = names.iter().position(|name| **name == *member.name) {
                fields[index] = Some(Field { text: &text[member.value], kind: member.kind });
            }
        }
        fields
    }
}

/// Length of the strings, as written, that stand directly in the object `text` under `names`.
pub(crate) fn text_len(text: &[u8], names: &[&[u8]]) -> u64 {
    let mut length = 0;
    let mut members = Members::new(text, 0);
    while let Ok(Some(member)) = members.next() {
        if member.kind == Kind::String && names.iter().any(|name| **name == *member.name) {
            length += member.value.len() as u64 - 2;
        }
    }
    length
}
