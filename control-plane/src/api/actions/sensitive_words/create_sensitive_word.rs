//! A new word.

use super::view::WordView;
use super::{DESCRIPTION_MAX, WORDS_MAX, match_type, usable, word};
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::audit::Write;
use crate::api::auth::Admin;
use crate::api::{Answer, Ask, Failure, State};
use crate::db::words::{self, New};
use crate::rules::form::form;
use crate::rules::{Code, Refusal};
use actix_web::post;
use actix_web::web::Data;
use diesel_async::AsyncConnection;
use serde_json::json;

form! {
    /// A new word; upper and lower case are the same.
    #[schema(example = json!({"word": "secret-project", "matchType": "contains", "description": "do not leak"}))]
    pub struct CreateSensitiveWord {
        /// The text, or for `regex` the expression.
        word: String = ["word"] {min_length = 1, max_length = 255, example = "secret-project"},
        /// `contains`: anywhere; `exact`: a whole text; `regex`: a regular expression without look-around.
        match_type: String = ["matchType"] {pattern = "^(contains|exact|regex)$", example = "contains"},
        /// For people.
        description: Option<String> = ["description"] {max_length = 500},
    }
}

/// Create a sensitive word (admin)
///
/// Holds on every proxy as soon as the change has reached it.
#[utoipa::path(tag = "sensitive-words", operation_id = "createSensitiveWordAction",
    request_body = CreateSensitiveWord, responses(
    (status = 200, description = "The new word", body = Envelope<WordView>), Failures))]
#[post("/actions/sensitive-words/createSensitiveWordAction")]
pub async fn create_sensitive_word(
    admin: Admin,
    state: Data<State>,
    ask: Ask<CreateSensitiveWord>,
) -> Reply<WordView> {
    let form = &ask.form;
    let word = word(&form.word)?.ok_or(Code::WordEmpty)?;
    let match_type = match_type(&form.match_type)?.ok_or(Code::WordMatchType)?;
    usable(match_type, &word)?;
    let description = form.description.text(DESCRIPTION_MAX)?.flatten().filter(|text| !text.is_empty());
    let (state, caller) = (&state, &admin.0);
    let mut conn = state.pool.write().await?;
    let (row, closed) = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            if words::count(conn, caller.owner).await? >= WORDS_MAX {
                return Err(Refusal::new(Code::WordsMax).with("max", WORDS_MAX).into());
            }
            let generation = write.generation;
            let new = New { owner_id: caller.owner, word, match_type, description, generation };
            let row = words::insert_in_tx(conn, new).await?;
            let details = json!({"matchType": row.match_type});
            let closed = write.close_in_tx(conn, caller, ("word", Some(row.id)), details).await?;
            Ok((row, closed))
        })
        .await?;
    Ok(Answer::written(row.into(), closed.committed(state)))
}
