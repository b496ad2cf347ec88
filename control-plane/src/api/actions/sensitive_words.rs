//! Words that a request must not hold. Every change is on all proxies within the push; what they refuse is
//! recorded like any other request.

pub mod create_sensitive_word;
pub mod delete_sensitive_word;
pub mod get_cache_stats;
pub mod list_sensitive_words;
pub mod refresh_cache;
mod stats;
pub mod update_sensitive_word;
mod view;

use crate::rules::{Code, Field, Refusal};

/// Kinds of words, as the table names them.
const MATCH_TYPES: [&str; 3] = ["contains", "exact", "regex"];
/// Longest word, in characters.
const WORD_MAX: usize = 255;
/// Longest note on a word.
const DESCRIPTION_MAX: usize = 500;
/// Most words of an owner: they are one section of the table.
const WORDS_MAX: i64 = 10_000;
/// Compiled size of one expression, as the proxies bound it.
const REGEX_MAX: usize = 1 << 20;

fn word(field: &Field) -> Result<Option<String>, Refusal> {
    match field.text(WORD_MAX)? {
        None => Ok(None),
        Some(Some(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(Code::WordEmpty.into()),
    }
}

fn match_type(field: &Field) -> Result<Option<&'static str>, Refusal> {
    match field.text(WORD_MAX)? {
        None => Ok(None),
        Some(text) => {
            let known = MATCH_TYPES.into_iter().find(|known| Some(*known) == text.as_deref());
            known.map(Some).ok_or_else(|| Code::WordMatchType.into())
        }
    }
}

/// Whether every proxy can use the word. The engine takes linear time, so no pattern is catastrophic.
fn usable(match_type: &str, word: &str) -> Result<(), Refusal> {
    let compiles =
        || regex::RegexBuilder::new(word).case_insensitive(true).size_limit(REGEX_MAX).build().is_ok();
    match match_type != "regex" || compiles() {
        true => Ok(()),
        false => Err(Code::WordRegex.into()),
    }
}
