//! The end of a word.

use crate::api::answer::{Bare, Failures};
use crate::api::audit::Write;
use crate::api::auth::Admin;
use crate::api::{Ask, Done, Failure, State};
use crate::db::words;
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use diesel_async::AsyncConnection;
use serde_json::json;

form! {
    /// A word.
    #[schema(example = json!({"id": 1}))]
    pub struct DeleteSensitiveWord {
        /// Which word.
        id: i64 = ["id", "wordId"] {example = 1},
    }
}

/// Delete a sensitive word (admin)
#[utoipa::path(tag = "sensitive-words", operation_id = "deleteSensitiveWordAction",
    request_body = DeleteSensitiveWord, responses(
    (status = 200, description = "Deleted", body = Bare), Failures))]
#[post("/actions/sensitive-words/deleteSensitiveWordAction")]
pub async fn delete_sensitive_word(
    admin: Admin,
    state: Data<State>,
    ask: Ask<DeleteSensitiveWord>,
) -> Result<Done, Failure> {
    let id = ask.form.id.id()?;
    let (state, caller) = (&state, &admin.0);
    let mut conn = state.pool.write().await?;
    let closed = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            if words::remove_in_tx(conn, caller.owner, id, write.generation).await? == 0 {
                return Err(Code::NoWord.into());
            }
            write.close_in_tx(conn, caller, ("word", Some(id)), json!({})).await
        })
        .await?;
    Ok(Done::written(closed.committed(state)))
}
