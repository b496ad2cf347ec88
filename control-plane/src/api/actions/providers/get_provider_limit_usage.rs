//! What was used of a provider's limits.

use crate::api::actions::spending::{Counted, Money, Question};
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::auth::LoggedIn;
use crate::api::{Answer, Ask, State};
use crate::db::usage::{Filter, limits};
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use chrono::Utc;
use contract::ids::ProviderId;
use contract::table::Scope;
use serde::Serialize;

form! {
    /// Which provider.
    #[schema(example = json!({"providerId": 1}))]
    pub struct GetProviderLimitUsage {
        /// Of any provider.
        provider_id: i64 = ["providerId", "id"] {example = 1},
    }
}

/// What was used of a provider.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"cost5h": {"current": 0.01155, "limit": 5, "resetInfo": "rolling"},
    "costDaily": {"current": 0.01155, "limit": null, "resetAt": "2026-11-21T16:00:00.000Z"},
    "costWeekly": {"current": 1.5, "limit": 50, "resetAt": "2026-11-22T16:00:00.000Z"},
    "costMonthly": {"current": 4.25, "limit": null, "resetAt": "2026-11-30T16:00:00.000Z"},
    "limitTotalUsd": {"current": 12.75, "limit": null}, "concurrentSessions": {"current": 1, "limit": 0}}))]
pub struct ProviderLimitUsage {
    #[serde(rename = "cost5h")]
    cost_5h: FiveHours,
    cost_daily: Money,
    cost_weekly: Money,
    cost_monthly: Money,
    limit_total_usd: Money,
    concurrent_sessions: Counted,
}

/// Money in five hours.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FiveHours {
    #[serde(flatten)]
    money: Money,
    /// `rolling`, or `fixed`: from the first billed request on.
    reset_info: String,
}

/// Usage of a provider's limits
///
/// Callers who are no admins see the limits and what they used themselves, not what others used.
#[utoipa::path(tag = "providers", operation_id = "getProviderLimitUsage", request_body = GetProviderLimitUsage,
    responses((status = 200, description = "Money in the windows that run now, and sessions",
        body = Envelope<ProviderLimitUsage>), Failures))]
#[post("/actions/providers/getProviderLimitUsage")]
pub async fn get_provider_limit_usage(
    caller: LoggedIn,
    state: Data<State>,
    ask: Ask<GetProviderLimitUsage>,
) -> Reply<ProviderLimitUsage> {
    let (caller, id) = (&caller.0, ask.form.provider_id.id()?);
    let mut conn = state.pool.read().await?;
    let row =
        limits(&mut conn, caller.owner, Scope::Provider(ProviderId(id))).await?.ok_or(Code::NoProvider)?;
    let user = (!caller.is_admin).then_some(caller.id);
    let question = Question {
        filter: Filter { owner: caller.owner, provider: Some(id), user, ..Filter::default() },
        row: &row,
        resets_total_only: true,
        zone: state.settings.time_zone,
        conversation: state.settings.conversation_ttl,
        now: Utc::now(),
    };
    let spent = question.answer(&mut conn).await?;
    Ok(Answer::read(ProviderLimitUsage {
        cost_5h: FiveHours { money: spent.five_hours, reset_info: row.limit_5h_reset_mode.clone() },
        cost_daily: spent.day,
        cost_weekly: spent.week,
        cost_monthly: spent.month,
        limit_total_usd: spent.total,
        concurrent_sessions: spent.sessions,
    }))
}
