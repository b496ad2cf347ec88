//! How a word is shown.

use crate::db::words::Word;
use crate::rules::time::iso;
use serde::Serialize;

/// A sensitive word.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WordView {
    id: i64,
    #[schema(example = "secret-project")]
    word: String,
    /// `contains`, `exact` or `regex`.
    #[schema(example = "contains")]
    match_type: String,
    description: Option<String>,
    is_enabled: bool,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

impl From<Word> for WordView {
    fn from(row: Word) -> Self {
        Self {
            id: row.id,
            word: row.word,
            match_type: row.match_type,
            description: row.description,
            is_enabled: row.enabled,
            created_at: iso(row.created_at),
            updated_at: iso(row.updated_at),
        }
    }
}
