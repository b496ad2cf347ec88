//! A change of a word.

use super::view::WordView;
use super::{DESCRIPTION_MAX, match_type, usable, word};
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::audit::Write;
use crate::api::auth::Admin;
use crate::api::{Answer, Ask, Failure, State};
use crate::db::words::{self, Change};
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use diesel_async::AsyncConnection;
use serde_json::json;

form! {
    /// Only what is named changes.
    #[schema(example = json!({"id": 1, "isEnabled": false}))]
    pub struct UpdateSensitiveWord {
        /// Which word.
        id: i64 = ["id", "wordId"] {example = 1},
        /// The text or expression.
        word: Option<String> = ["word"] {min_length = 1, max_length = 255},
        /// `contains`, `exact` or `regex`.
        match_type: Option<String> = ["matchType"] {pattern = "^(contains|exact|regex)$"},
        /// For people; null clears it.
        description: Option<String> = ["description"] {max_length = 500},
        /// Words that are switched off do not hold.
        is_enabled: Option<bool> = ["isEnabled", "enabled"] {example = false},
        => ["createdAt", "updatedAt"],
    }
}

/// Update a sensitive word (admin)
#[utoipa::path(tag = "sensitive-words", operation_id = "updateSensitiveWordAction",
    request_body = UpdateSensitiveWord, responses(
    (status = 200, description = "The word as it is now", body = Envelope<WordView>), Failures))]
#[post("/actions/sensitive-words/updateSensitiveWordAction")]
pub async fn update_sensitive_word(
    admin: Admin,
    state: Data<State>,
    ask: Ask<UpdateSensitiveWord>,
) -> Reply<WordView> {
    let form = &ask.form;
    let id = form.id.id()?;
    let description = form.description.text(DESCRIPTION_MAX)?;
    let change = Change {
        word: word(&form.word)?,
        match_type: match_type(&form.match_type)?,
        description: description.map(|text| text.filter(|text| !text.is_empty())),
        enabled: form.is_enabled.flag(true)?,
        generation: None,
    };
    let fields = ask.names();
    let (state, caller) = (&state, &admin.0);
    let mut conn = state.pool.write().await?;
    let (row, closed) = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            let old = words::find(conn, caller.owner, id).await?.ok_or(Code::NoWord)?;
            let kind = change.match_type.unwrap_or(&old.match_type);
            usable(kind, change.word.as_deref().unwrap_or(&old.word))?;
            let change = Change { generation: Some(write.generation), ..change.clone() };
            let row = words::update_in_tx(conn, caller.owner, id, &change).await?.ok_or(Code::NoWord)?;
            let details = json!({"fields": fields});
            let closed = write.close_in_tx(conn, caller, ("word", Some(id)), details).await?;
            Ok((row, closed))
        })
        .await?;
    Ok(Answer::written(row.into(), closed.committed(state)))
}
