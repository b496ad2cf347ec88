//! Wakes the push and waits until this replica's proxies act on the newest change.

use super::stats::CacheStats;
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::ask::Nothing;
use crate::api::auth::Admin;
use crate::api::{Answer, Ask, State};
use crate::db::generation;
use actix_web::post;
use actix_web::web::Data;
use serde::Serialize;

/// After a refresh.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Refreshed {
    stats: CacheStats,
}

/// Refresh the words on the proxies (admin)
///
/// Never needed: every change is pushed. Answers when the proxies have it, or after `REFRESH_WAIT_MS`.
#[utoipa::path(tag = "sensitive-words", operation_id = "refreshCacheAction", request_body = Nothing, responses(
    (status = 200, description = "Counts", body = Envelope<Refreshed>), Failures))]
#[post("/actions/sensitive-words/refreshCacheAction")]
pub async fn refresh_cache(admin: Admin, state: Data<State>, _ask: Ask<Nothing>) -> Reply<Refreshed> {
    let newest = generation::current(&mut *state.pool.read().await?).await?;
    state.wake.wake();
    // Whether all came in time stands in the answer, as `isLoading`.
    let _ = state.fleet.wait_for(newest, state.settings.refresh_wait).await;
    Ok(Answer::read(Refreshed { stats: CacheStats::load(&state, admin.0.owner).await? }))
}
