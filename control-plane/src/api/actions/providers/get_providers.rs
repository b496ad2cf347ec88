//! All providers with what they served today.

use super::view::ProviderView;
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::ask::Nothing;
use crate::api::auth::Admin;
use crate::api::{Answer, Ask, State};
use crate::db::{providers, usage};
use crate::rules::Exact;
use crate::rules::time::{self, iso};
use actix_web::post;
use actix_web::web::Data;
use bigdecimal::BigDecimal;
use chrono::Utc;
use serde::Serialize;
use std::collections::HashMap;

/// A provider with what it served today.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsedProvider {
    #[serde(flatten)]
    provider: ProviderView,
    /// USD.
    #[schema(value_type = f64)]
    today_total_cost_usd: Exact,
    today_call_count: i64,
    #[schema(format = DateTime)]
    last_call_time: Option<String>,
    last_call_model: Option<String>,
}

/// List providers (admin)
#[utoipa::path(tag = "providers", operation_id = "getProviders", request_body = Nothing, responses(
    (status = 200, description = "The providers, their credentials masked", body = Envelope<Vec<UsedProvider>>),
    Failures))]
#[post("/actions/providers/getProviders")]
pub async fn get_providers(admin: Admin, state: Data<State>, _ask: Ask<Nothing>) -> Reply<Vec<UsedProvider>> {
    let owner = admin.0.owner;
    let mut conn = state.pool.read().await?;
    let rows = providers::list(&mut conn, owner).await?;
    let since = time::today(Utc::now(), state.settings.time_zone);
    let today = usage::of_providers_since(&mut conn, owner, since).await?;
    let today: HashMap<i64, usage::ProviderDay> =
        today.into_iter().map(|day| (day.provider_id, day)).collect();
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let last = usage::last_of_providers(&mut conn, &ids).await?;
    let last: HashMap<i64, usage::Last> = last.into_iter().map(|last| (last.id, last)).collect();
    let used = |row: providers::Provider| {
        let (day, last) = (today.get(&row.id), last.get(&row.id));
        UsedProvider {
            today_total_cost_usd: Exact::of(&day.map_or_else(BigDecimal::default, |day| day.cost.clone())),
            today_call_count: day.map_or(0, |day| day.requests),
            last_call_time: last.map(|last| iso(last.created_at)),
            last_call_model: last.map(|last| last.model.clone()),
            provider: row.into(),
        }
    };
    Ok(Answer::read(rows.into_iter().map(used).collect()))
}
