//! Looking into JSON without parsing it: members of an object, elements of an array, and a fast way
//! over everything else. Nothing here allocates for a value that nobody asked for.
//!
//! Strict about what decides where a value ends (quotes, escapes, brackets, commas at the level that
//! is read) and about nothing else: whether a skipped value is valid JSON is the upstream's to judge.

mod block;
mod fields;
mod members;
mod pick;
mod skip;

pub(crate) use fields::{Field, Fields, text_len};
pub(crate) use members::{Elements, Kind, Member, Members, string_value};
pub(crate) use pick::Picker;
pub(crate) use skip::{Skip, Text};

/// Why a scan stopped, with the byte offset at which it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScanError {
    /// The text ends inside a value.
    #[error("the text ends at byte {0}, before its end")]
    Truncated(usize),
    /// Something else stands where a token is needed.
    #[error("expected {expected} at byte {at}")]
    Unexpected {
        /// Offset of the byte that does not fit.
        at: usize,
        /// What would have fitted.
        expected: &'static str,
    },
}
