//! What the proxies hold.

use super::stats::CacheStats;
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::ask::Nothing;
use crate::api::auth::LoggedIn;
use crate::api::{Answer, Ask, State};
use actix_web::post;
use actix_web::web::Data;

/// Count the sensitive words that the proxies hold
///
/// Shows no word.
#[utoipa::path(tag = "sensitive-words", operation_id = "getCacheStats", request_body = Nothing, responses(
    (status = 200, description = "Counts", body = Envelope<CacheStats>), Failures))]
#[post("/actions/sensitive-words/getCacheStats")]
pub async fn get_cache_stats(caller: LoggedIn, state: Data<State>, _ask: Ask<Nothing>) -> Reply<CacheStats> {
    Ok(Answer::read(CacheStats::load(&state, caller.0.owner).await?))
}
