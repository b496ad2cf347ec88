//! The first page of a dashboard: today beside yesterday.

use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::ask::Nothing;
use crate::api::auth::LoggedIn;
use crate::api::{Answer, Ask, Failure, State};
use crate::db::usage::{self, Filter, Summary};
use crate::rules::{Exact, period, time};
use actix_web::post;
use actix_web::web::Data;
use chrono::{TimeDelta, Utc};
use rust_decimal::Decimal;
use serde::Serialize;

/// Today beside yesterday. What a content rule refused and calls that do no work of their own are left out.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"concurrentSessions": 3, "todayRequests": 120, "todayCost": 1.25, "avgResponseTime": 2100,
    "todayErrorRate": 0.83, "yesterdaySamePeriodRequests": 98, "yesterdaySamePeriodCost": 1.01,
    "yesterdaySamePeriodAvgResponseTime": 1900, "recentMinuteRequests": 4}))]
pub struct Overview {
    /// Conversations with a request within `SESSION_TTL_SECONDS`; 0 to callers who are no admins.
    concurrent_sessions: i64,
    /// Since midnight in the configured time zone.
    today_requests: i64,
    /// USD, to the last digit of the records.
    #[schema(value_type = f64)]
    today_cost: Exact,
    /// Milliseconds.
    avg_response_time: i64,
    /// Per cent of today's requests that were answered with a status of 400 or more.
    #[schema(value_type = f64)]
    today_error_rate: Exact,
    /// Yesterday until the same time by the clock.
    yesterday_same_period_requests: i64,
    /// USD.
    #[schema(value_type = f64)]
    yesterday_same_period_cost: Exact,
    /// Milliseconds.
    yesterday_same_period_avg_response_time: i64,
    /// Requests that began within the last 60 seconds and are over.
    recent_minute_requests: i64,
}

/// Today beside yesterday
///
/// Admins see all of their owner's, others their own.
#[utoipa::path(tag = "overview", operation_id = "getOverviewData", request_body = Nothing, responses(
    (status = 200, description = "The figures", body = Envelope<Overview>), Failures))]
#[post("/actions/overview/getOverviewData")]
pub async fn get_overview_data(caller: LoggedIn, state: Data<State>, _ask: Ask<Nothing>) -> Reply<Overview> {
    let (caller, zone, now) = (&caller.0, state.settings.time_zone, Utc::now());
    let user = (!caller.is_admin).then_some(caller.id);
    let all = Filter { owner: caller.owner, user, exclude_blocked: true, ..Filter::default() };
    let (midnight, same_time) = period::yesterday(now, zone);
    let today = Filter { from: Some(time::today(now, zone)), ..all.clone() };
    let yesterday = Filter { from: Some(midnight), until: Some(same_time), ..all };
    let mut conn = state.pool.read().await?;
    let mut snapshot = conn.build_transaction().repeatable_read().read_only();
    let overview = snapshot
        .run(async |conn| -> Result<_, Failure> {
            let today = usage::summary(conn, &today, zone).await?;
            let yesterday = usage::summary(conn, &yesterday, zone).await?;
            let minute = now - TimeDelta::minutes(1);
            Ok(Overview {
                concurrent_sessions: match caller.is_admin {
                    true => {
                        usage::active_sessions(conn, caller.owner, now - state.settings.conversation_ttl)
                            .await?
                    }
                    false => 0,
                },
                avg_response_time: average(&today),
                today_error_rate: Exact::decimal(per_cent(today.failed, today.requests)),
                today_requests: today.requests,
                today_cost: Exact::of(&today.cost),
                yesterday_same_period_avg_response_time: average(&yesterday),
                yesterday_same_period_requests: yesterday.requests,
                yesterday_same_period_cost: Exact::of(&yesterday.cost),
                recent_minute_requests: usage::requests_since(conn, caller.owner, user, minute).await?,
            })
        })
        .await?;
    Ok(Answer::read(overview))
}

/// Milliseconds, rounded.
fn average(sums: &Summary) -> i64 {
    match sums.requests {
        0 => 0,
        requests => (sums.duration_ms + requests / 2) / requests,
    }
}

/// With two places.
fn per_cent(part: i64, whole: i64) -> Decimal {
    match whole {
        0 => Decimal::ZERO,
        whole => (Decimal::from(part) * Decimal::ONE_HUNDRED / Decimal::from(whole)).round_dp(2),
    }
}
