//! How a provider is shown: under both sets of names, its credential masked.

use crate::db::providers::Provider;
use crate::rules::Exact;
use crate::rules::time::iso;
use serde::Serialize;
use serde_json::{Map, Value};

/// A provider. `url` and `baseUrl`, `type` and `providerType` are the same.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderView {
    pub id: i64,
    #[schema(example = "GLM Provider")]
    pub name: String,
    #[schema(example = "https://api.provider.com/v1")]
    pub base_url: String,
    pub url: String,
    #[schema(example = "sk-0••••••cdef")]
    pub masked_key: String,
    #[schema(example = "claude")]
    pub r#type: String,
    pub provider_type: String,
    pub is_enabled: bool,
    /// Why its health keeps it out of use, beside `isEnabled`: `credential`, while its credential is refused.
    #[schema(example = json!(null))]
    pub disabled_reason: Option<String>,
    pub weight: i32,
    pub priority: i32,
    #[schema(value_type = Option<Object>)]
    pub group_priorities: Option<Value>,
    #[schema(value_type = f64)]
    pub cost_multiplier: Exact,
    pub group_tag: Option<String>,
    pub level: i32,
    pub model_redirects: Option<Value>,
    pub allowed_models: Option<Value>,
    pub allowed_clients: Vec<String>,
    pub blocked_clients: Vec<String>,
    #[serde(flatten)]
    pub limits: LimitsView,
    #[schema(format = DateTime)]
    pub total_cost_reset_at: Option<String>,
    pub max_retry_attempts: Option<i32>,
    pub circuit_breaker_failure_threshold: i32,
    pub circuit_breaker_open_duration: i64,
    pub circuit_breaker_half_open_success_threshold: i32,
    pub first_byte_timeout_streaming_ms: i32,
    pub streaming_idle_timeout_ms: i32,
    pub request_timeout_non_streaming_ms: i32,
    pub active_time_start: Option<String>,
    pub active_time_end: Option<String>,
    pub preserve_client_ip: bool,
    pub disable_session_reuse: bool,
    #[schema(value_type = Option<Object>)]
    pub custom_headers: Option<Value>,
    #[schema(format = DateTime)]
    pub created_at: String,
    #[schema(format = DateTime)]
    pub updated_at: String,
    /// Fields that take effect with the feature that reads them.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Map<String, Value>,
}

/// The limits of a provider.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsView {
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
}

/// What a field that was never set is shown as.
const UNSET: &[(&str, Option<&str>)] = &[
    ("proxyUrl", None),
    ("mcpPassthroughType", Some("none")),
    ("mcpPassthroughUrl", None),
    ("cacheTtlPreference", Some("inherit")),
    ("context1mPreference", Some("inherit")),
    ("codexReasoningEffortPreference", Some("inherit")),
    ("codexReasoningSummaryPreference", Some("inherit")),
    ("codexTextVerbosityPreference", Some("inherit")),
    ("codexParallelToolCallsPreference", Some("inherit")),
    ("codexServiceTierPreference", Some("inherit")),
    ("codexImageGenerationPreference", Some("inherit")),
    ("codexInstructionsStrategy", Some("auto")),
    ("anthropicMaxTokensPreference", Some("inherit")),
    ("anthropicThinkingBudgetPreference", Some("inherit")),
    ("anthropicAdaptiveThinking", None),
    ("geminiGoogleSearchPreference", Some("inherit")),
    ("websiteUrl", None),
    ("faviconUrl", None),
    ("tpm", None),
    ("rpm", None),
    ("rpd", None),
    ("cc", None),
];
/// Flags of the same kind.
const UNSET_FLAGS: &[&str] = &["proxyFallbackToDirect", "swapCacheTtlBilling"];

fn with_unset(extra: Value) -> Map<String, Value> {
    let mut all: Map<String, Value> =
        UNSET_FLAGS.iter().map(|name| ((*name).to_owned(), false.into())).collect();
    all.extend(UNSET.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())));
    if let Value::Object(extra) = extra {
        all.extend(extra);
    }
    all
}

impl From<Provider> for ProviderView {
    fn from(row: Provider) -> Self {
        let limits = LimitsView::of(&row);
        Self {
            id: row.id,
            name: row.name,
            url: row.base_url.clone(),
            base_url: row.base_url,
            masked_key: row.credential_mask,
            provider_type: row.kind.clone(),
            r#type: row.kind,
            is_enabled: row.enabled,
            disabled_reason: row.disabled_reason,
            weight: row.weight,
            priority: row.priority,
            group_priorities: row.group_priorities,
            cost_multiplier: Exact::of(&row.cost_multiplier),
            group_tag: (!row.groups.is_empty()).then(|| row.groups.join(",")),
            level: row.level,
            model_redirects: row.model_redirects,
            allowed_models: row.allowed_models,
            allowed_clients: row.allowed_clients,
            blocked_clients: row.blocked_clients,
            limits,
            total_cost_reset_at: row.total_cost_reset_at.map(iso),
            max_retry_attempts: row.max_retry_attempts,
            circuit_breaker_failure_threshold: row.breaker_failure_threshold,
            circuit_breaker_open_duration: row.breaker_open_ms,
            circuit_breaker_half_open_success_threshold: row.breaker_half_open_successes,
            first_byte_timeout_streaming_ms: row.first_byte_timeout_ms,
            streaming_idle_timeout_ms: row.idle_timeout_ms,
            request_timeout_non_streaming_ms: row.total_timeout_ms,
            active_time_start: row.active_time_start,
            active_time_end: row.active_time_end,
            preserve_client_ip: row.preserve_client_ip,
            disable_session_reuse: row.disable_session_reuse,
            custom_headers: row.custom_headers,
            created_at: iso(row.created_at),
            updated_at: iso(row.updated_at),
            extra: with_unset(row.extra),
        }
    }
}

impl LimitsView {
    fn of(row: &Provider) -> Self {
        Self {
            limit_5h_usd: Exact::maybe(row.limit_5h_usd.as_ref()),
            limit_5h_reset_mode: row.limit_5h_reset_mode.clone(),
            limit_daily_usd: Exact::maybe(row.limit_daily_usd.as_ref()),
            daily_reset_mode: row.daily_reset_mode.clone(),
            daily_reset_time: row.daily_reset_time.clone(),
            limit_weekly_usd: Exact::maybe(row.limit_weekly_usd.as_ref()),
            limit_monthly_usd: Exact::maybe(row.limit_monthly_usd.as_ref()),
            limit_total_usd: Exact::maybe(row.limit_total_usd.as_ref()),
            limit_concurrent_sessions: row.limit_concurrent_sessions,
        }
    }
}
