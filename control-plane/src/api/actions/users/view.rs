//! How a user is shown.

use crate::db::users::User;
use crate::rules::Exact;
use crate::rules::time::iso;
use contract::table::DEFAULT_GROUP;
use serde::Serialize;

/// A user. `note` and `description` are the same.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserView {
    pub id: i64,
    #[schema(example = "Alice")]
    pub name: String,
    #[schema(example = "测试用户")]
    pub description: String,
    pub note: String,
    pub role: String,
    pub is_enabled: bool,
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    #[schema(example = 60)]
    pub rpm: Option<i32>,
    #[schema(value_type = Option<f64>, example = 10)]
    pub daily_quota: Option<Exact>,
    pub provider_group: String,
    pub tags: Vec<String>,
    #[schema(value_type = Option<f64>)]
    pub limit_5h_usd: Option<Exact>,
    pub limit_5h_reset_mode: String,
    pub daily_reset_mode: String,
    pub daily_reset_time: String,
    #[schema(value_type = Option<f64>)]
    pub limit_weekly_usd: Option<Exact>,
    #[schema(value_type = Option<f64>)]
    pub limit_monthly_usd: Option<Exact>,
    #[schema(value_type = Option<f64>)]
    pub limit_total_usd: Option<Exact>,
    pub limit_concurrent_sessions: i32,
    #[schema(format = DateTime)]
    pub cost_reset_at: Option<String>,
    pub allowed_clients: Vec<String>,
    pub blocked_clients: Vec<String>,
    pub allowed_models: Vec<String>,
    #[schema(format = DateTime)]
    pub created_at: String,
    #[schema(format = DateTime)]
    pub updated_at: String,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            name: user.name,
            description: user.note.clone(),
            note: user.note,
            role: user.role,
            is_enabled: user.enabled,
            expires_at: user.expires_at.map(iso),
            rpm: user.rpm,
            daily_quota: Exact::maybe(user.limit_daily_usd.as_ref()),
            provider_group: match user.groups.is_empty() {
                true => DEFAULT_GROUP.to_owned(),
                false => user.groups.join(","),
            },
            tags: user.tags,
            limit_5h_usd: Exact::maybe(user.limit_5h_usd.as_ref()),
            limit_5h_reset_mode: user.limit_5h_reset_mode,
            daily_reset_mode: user.daily_reset_mode,
            daily_reset_time: user.daily_reset_time,
            limit_weekly_usd: Exact::maybe(user.limit_weekly_usd.as_ref()),
            limit_monthly_usd: Exact::maybe(user.limit_monthly_usd.as_ref()),
            limit_total_usd: Exact::maybe(user.limit_total_usd.as_ref()),
            limit_concurrent_sessions: user.limit_concurrent_sessions.unwrap_or(0),
            cost_reset_at: user.cost_reset_at.map(iso),
            allowed_clients: user.allowed_clients,
            blocked_clients: user.blocked_clients,
            allowed_models: user.allowed_models,
            created_at: iso(user.created_at),
            updated_at: iso(user.updated_at),
        }
    }
}
