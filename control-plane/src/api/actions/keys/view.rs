//! How a key is shown.

use crate::api::State;
use crate::config::KeyReveal;
use crate::db::keys::Key;
use crate::rules::time::iso;
use crate::rules::{Exact, key};
use chrono::{DateTime, Utc};
use serde::Serialize;

/// A key. `key` is the mask, unless `KEY_REVEAL=admin` and an admin asks.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "named and explained as in the request")]
pub struct KeyView {
    pub id: i64,
    pub user_id: i64,
    pub name: String,
    #[schema(example = "sk-0••••••cdef")]
    pub key: String,
    #[schema(example = "sk-0••••••cdef")]
    pub masked_key: String,
    pub can_reveal: bool,
    pub can_copy: bool,
    pub is_enabled: bool,
    /// `enabled` or `disabled`.
    pub status: &'static str,
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    pub can_login_web_ui: bool,
    #[schema(value_type = Option<f64>)]
    pub limit_5h_usd: Option<Exact>,
    pub limit_5h_reset_mode: String,
    #[schema(value_type = Option<f64>)]
    pub limit_daily_usd: Option<Exact>,
    pub daily_reset_mode: String,
    pub daily_reset_time: String,
    #[schema(value_type = Option<f64>)]
    pub limit_weekly_usd: Option<Exact>,
    #[schema(value_type = Option<f64>)]
    pub limit_monthly_usd: Option<Exact>,
    #[schema(value_type = Option<f64>)]
    pub limit_total_usd: Option<Exact>,
    pub limit_concurrent_sessions: i32,
    /// Null: the user's.
    pub provider_group: Option<String>,
    pub cache_ttl_preference: String,
    #[schema(format = DateTime)]
    pub created_at: String,
    #[schema(format = DateTime)]
    pub updated_at: String,
    #[serde(skip)]
    #[schema(ignore)]
    pub made_at: DateTime<Utc>,
}

impl KeyView {
    /// With the clear key, where it may be shown.
    pub fn new(row: Key, clear: Option<String>) -> Self {
        let mask = key::mask_of(&row.first_chars, &row.last_chars);
        let can_reveal = clear.is_some();
        Self {
            id: row.id,
            user_id: row.user_id,
            name: row.name,
            key: clear.unwrap_or_else(|| mask.clone()),
            masked_key: mask,
            can_reveal,
            can_copy: can_reveal,
            is_enabled: row.enabled,
            status: if row.enabled { "enabled" } else { "disabled" },
            expires_at: row.expires_at.map(iso),
            can_login_web_ui: row.can_login_web_ui,
            limit_5h_usd: Exact::maybe(row.limit_5h_usd.as_ref()),
            limit_5h_reset_mode: row.limit_5h_reset_mode,
            limit_daily_usd: Exact::maybe(row.limit_daily_usd.as_ref()),
            daily_reset_mode: row.daily_reset_mode,
            daily_reset_time: row.daily_reset_time,
            limit_weekly_usd: Exact::maybe(row.limit_weekly_usd.as_ref()),
            limit_monthly_usd: Exact::maybe(row.limit_monthly_usd.as_ref()),
            limit_total_usd: Exact::maybe(row.limit_total_usd.as_ref()),
            limit_concurrent_sessions: row.limit_concurrent_sessions,
            provider_group: (!row.groups.is_empty()).then(|| row.groups.join(",")),
            cache_ttl_preference: row.cache_ttl_preference,
            created_at: iso(row.created_at),
            updated_at: iso(row.updated_at),
            made_at: row.created_at,
        }
    }
}

/// The clear key for an admin's eyes: `None` unless `KEY_REVEAL=admin` and a copy was kept that opens.
pub fn revealed(state: &State, row: &Key) -> Option<String> {
    let (KeyReveal::Admin, Some(sealed)) = (state.settings.key_reveal, &row.sealed) else { return None };
    match state.settings.sealer.open(sealed, &key::aad(row.id)) {
        Ok(clear) => String::from_utf8(clear).ok(),
        Err(error) => {
            tracing::warn!(key_id = row.id, %error, "the kept copy of a client key does not open");
            None
        }
    }
}
