//! All words.

use super::view::WordView;
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::ask::Nothing;
use crate::api::auth::Admin;
use crate::api::{Answer, Ask, State};
use crate::db::words;
use actix_web::post;
use actix_web::web::Data;

/// List sensitive words (admin)
#[utoipa::path(tag = "sensitive-words", operation_id = "listSensitiveWords", request_body = Nothing, responses(
    (status = 200, description = "The words, newest first", body = Envelope<Vec<WordView>>), Failures))]
#[post("/actions/sensitive-words/listSensitiveWords")]
pub async fn list_sensitive_words(
    admin: Admin,
    state: Data<State>,
    _ask: Ask<Nothing>,
) -> Reply<Vec<WordView>> {
    let mut conn = state.pool.read().await?;
    let rows = words::list(&mut conn, admin.0.owner).await?;
    Ok(Answer::read(rows.into_iter().map(WordView::from).collect()))
}
