//! What a key has used of its limits.

use crate::api::actions::spending::{Counted, Money, Question};
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::auth::LoggedIn;
use crate::api::{Answer, Ask, Failure, State};
use crate::db::usage::{Filter, limits};
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use chrono::Utc;
use contract::ids::KeyId;
use contract::table::Scope;
use serde::Serialize;

form! {
    /// Which key.
    #[schema(example = json!({"keyId": 1}))]
    pub struct GetKeyLimitUsage {
        /// One's own, or as admin any.
        key_id: i64 = ["keyId", "id"] {example = 1},
    }
}

/// What a key has used.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"cost5h": {"current": 0.01155, "limit": 5},
    "costDaily": {"current": 0.01155, "limit": null, "resetAt": "2026-11-21T16:00:00.000Z"},
    "costWeekly": {"current": 1.5, "limit": 50, "resetAt": "2026-11-22T16:00:00.000Z"},
    "costMonthly": {"current": 4.25, "limit": null, "resetAt": "2026-11-30T16:00:00.000Z"},
    "costTotal": {"current": 12.75, "limit": null}, "concurrentSessions": {"current": 1, "limit": 2}}))]
pub struct KeyLimitUsage {
    #[serde(rename = "cost5h")]
    cost_5h: Money,
    cost_daily: Money,
    cost_weekly: Money,
    cost_monthly: Money,
    cost_total: Money,
    /// A key without a limit of its own has its user's.
    concurrent_sessions: Counted,
}

/// Usage of a key's limits
#[utoipa::path(tag = "keys", operation_id = "getKeyLimitUsage", request_body = GetKeyLimitUsage, responses(
    (status = 200, description = "Money in the windows that run now, and sessions", body = Envelope<KeyLimitUsage>),
    Failures))]
#[post("/actions/keys/getKeyLimitUsage")]
pub async fn get_key_limit_usage(
    caller: LoggedIn,
    state: Data<State>,
    ask: Ask<GetKeyLimitUsage>,
) -> Reply<KeyLimitUsage> {
    let (caller, id) = (&caller.0, ask.form.key_id.id()?);
    let mut conn = state.pool.read().await?;
    let row = match limits(&mut conn, caller.owner, Scope::Key(KeyId(id))).await? {
        Some(row) => row,
        None if caller.is_admin => return Err(Code::NoKey.into()),
        // Somebody else's key is as unknown to a user as one that does not exist.
        None => return Err(Failure::from(Code::PermissionDenied)),
    };
    caller.may_touch(row.user_id)?;
    let question = Question {
        filter: Filter { owner: caller.owner, key: Some(id), ..Filter::default() },
        row: &row,
        resets_total_only: false,
        zone: state.settings.time_zone,
        conversation: state.settings.conversation_ttl,
        now: Utc::now(),
    };
    let spent = question.answer(&mut conn).await?;
    Ok(Answer::read(KeyLimitUsage {
        cost_5h: spent.five_hours,
        cost_daily: spent.day,
        cost_weekly: spent.week,
        cost_monthly: spent.month,
        cost_total: spent.total,
        concurrent_sessions: spent.sessions,
    }))
}
