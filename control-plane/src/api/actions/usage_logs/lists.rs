//! What the filters of the log can be set to.

use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::ask::Nothing;
use crate::api::auth::{Caller, LoggedIn};
use crate::api::{Answer, Ask, State};
use crate::db::usage;
use actix_web::post;
use actix_web::web::Data;
use chrono::{DateTime, TimeDelta, Utc};

/// How far back the lists look.
const DAYS: i64 = 366;

/// Whose records, and since when.
fn of(caller: &Caller) -> (i64, Option<i64>, DateTime<Utc>) {
    let user = (!caller.is_admin).then_some(caller.id);
    (caller.owner, user, Utc::now() - TimeDelta::days(DAYS))
}

/// List models in the log
///
/// Those that were asked for or sent upstream in the last year; admins see all of their owner's, others their own.
#[utoipa::path(tag = "usage-logs", operation_id = "getModelList", request_body = Nothing, responses(
    (status = 200, description = "Names, in order", body = Envelope<Vec<String>>,
        example = json!({"ok": true, "data": ["claude-sonnet-4-5", "gpt-5"]})), Failures))]
#[post("/actions/usage-logs/getModelList")]
pub async fn get_model_list(caller: LoggedIn, state: Data<State>, _ask: Ask<Nothing>) -> Reply<Vec<String>> {
    let (owner, user, since) = of(&caller.0);
    let mut conn = state.pool.read().await?;
    Ok(Answer::read(usage::models(&mut conn, owner, user, since).await?))
}

/// List status codes in the log
///
/// Those that were answered in the last year; admins see all of their owner's, others their own.
#[utoipa::path(tag = "usage-logs", operation_id = "getStatusCodeList", request_body = Nothing, responses(
    (status = 200, description = "Codes, in order", body = Envelope<Vec<i16>>,
        example = json!({"ok": true, "data": [200, 429, 503]})), Failures))]
#[post("/actions/usage-logs/getStatusCodeList")]
pub async fn get_status_code_list(
    caller: LoggedIn,
    state: Data<State>,
    _ask: Ask<Nothing>,
) -> Reply<Vec<i16>> {
    let (owner, user, since) = of(&caller.0);
    let mut conn = state.pool.read().await?;
    Ok(Answer::read(usage::statuses(&mut conn, owner, user, since).await?))
}
