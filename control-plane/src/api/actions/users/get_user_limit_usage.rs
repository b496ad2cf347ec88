//! What a user has used of its limits.

use crate::api::actions::spending::{Money, Question};
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::auth::LoggedIn;
use crate::api::{Answer, Ask, State};
use crate::db::usage::{Filter, limits};
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use chrono::Utc;
use contract::ids::UserId;
use contract::table::Scope;
use serde::Serialize;

form! {
    /// Which user.
    #[schema(example = json!({"userId": 1}))]
    pub struct GetUserLimitUsage {
        /// One's own, or as admin any.
        user_id: i64 = ["userId", "id"] {example = 2},
    }
}

/// What a user has used.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"rpm": {"current": 3, "limit": 60, "window": "per_minute"},
    "dailyCost": {"current": 0.01155, "limit": 10, "resetAt": "2026-11-21T16:00:00.000Z"}}))]
pub struct UserLimitUsage {
    rpm: Rate,
    daily_cost: Money,
}

/// Requests per minute.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Rate {
    /// That began within the last 60 seconds and are over.
    current: i64,
    /// Null is unlimited.
    limit: Option<i32>,
    /// Always `per_minute`.
    window: &'static str,
}

/// Usage of a user's limits
#[utoipa::path(tag = "users", operation_id = "getUserLimitUsage", request_body = GetUserLimitUsage, responses(
    (status = 200, description = "Requests of this minute and money of this day", body = Envelope<UserLimitUsage>),
    Failures))]
#[post("/actions/users/getUserLimitUsage")]
pub async fn get_user_limit_usage(
    caller: LoggedIn,
    state: Data<State>,
    ask: Ask<GetUserLimitUsage>,
) -> Reply<UserLimitUsage> {
    let (caller, id) = (&caller.0, ask.form.user_id.id()?);
    caller.may_touch(id)?;
    let mut conn = state.pool.read().await?;
    let row = limits(&mut conn, caller.owner, Scope::User(UserId(id))).await?.ok_or(Code::NoUser)?;
    let question = Question {
        filter: Filter { owner: caller.owner, user: Some(id), ..Filter::default() },
        row: &row,
        resets_total_only: false,
        zone: state.settings.time_zone,
        conversation: state.settings.conversation_ttl,
        now: Utc::now(),
    };
    let limit = row.rpm.filter(|rpm| *rpm > 0);
    Ok(Answer::read(UserLimitUsage {
        rpm: Rate { current: question.minute(&mut conn).await?, limit, window: "per_minute" },
        daily_cost: question.daily(&mut conn).await?,
    }))
}
