//! How a request is shown.

use crate::db::usage::{Names, Record, Summary};
use crate::rules::time::iso;
use crate::rules::{Exact, amount};
use serde::Serialize;
use serde_json::{Value, json};

/// A page of requests.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogPage {
    pub logs: Vec<LogView>,
    /// Over all pages.
    pub total: i64,
    pub page: i64,
    pub page_size: i64,
    /// For the next page; null on the last.
    pub next_cursor: Option<String>,
    pub summary: LogSummary,
}

/// Sums over all pages.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogSummary {
    pub total_requests: i64,
    /// USD.
    #[schema(value_type = f64)]
    pub total_cost: Exact,
    pub total_tokens: i64,
    pub total_input_tokens: i64,
    pub total_output_tokens: i64,
    pub total_cache_creation_tokens: i64,
    pub total_cache_read_tokens: i64,
    pub total_cache_creation_5m_tokens: i64,
    pub total_cache_creation_1h_tokens: i64,
}

impl From<Summary> for LogSummary {
    fn from(sums: Summary) -> Self {
        let written = sums.cache_write_5m_tokens + sums.cache_write_1h_tokens;
        Self {
            total_requests: sums.requests,
            total_cost: Exact::of(&sums.cost),
            total_tokens: sums.input_tokens + sums.output_tokens + written + sums.cache_read_tokens,
            total_input_tokens: sums.input_tokens,
            total_output_tokens: sums.output_tokens,
            total_cache_creation_tokens: written,
            total_cache_read_tokens: sums.cache_read_tokens,
            total_cache_creation_5m_tokens: sums.cache_write_5m_tokens,
            total_cache_creation_1h_tokens: sums.cache_write_1h_tokens,
        }
    }
}

/// One request.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogView {
    pub id: String,
    #[schema(format = DateTime)]
    pub created_at: String,
    pub session_id: Option<String>,
    pub user_id: i64,
    pub user_name: Option<String>,
    pub key_id: i64,
    pub key_name: Option<String>,
    pub provider_id: Option<i64>,
    pub provider_name: Option<String>,
    /// As sent upstream.
    pub model: String,
    /// As asked for.
    pub original_model: String,
    /// As named in the answer.
    pub actual_response_model: Option<String>,
    /// Whose price was used.
    pub billed_model: Option<String>,
    pub endpoint: String,
    pub api_type: String,
    pub is_streaming: bool,
    pub status_code: Option<i16>,
    /// How it ended: `completed`, `rejected`, `exhausted`, `blocked`, `aborted` (the caller hung up), `cut` (the upstream broke
    /// off), `internal` or `interrupted` (the proxy was killed).
    pub outcome: String,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub reasoning_tokens: i64,
    pub cache_creation_input_tokens: i64,
    pub cache_read_input_tokens: i64,
    pub cache_creation_5m_input_tokens: i64,
    pub cache_creation_1h_input_tokens: i64,
    /// `5m`, `1h` or `mixed`.
    pub cache_ttl_applied: Option<&'static str>,
    pub total_tokens: i64,
    /// `reported`, `estimated` or `none`.
    pub usage_source: String,
    /// USD; null: the model has no price, see `unpriced`.
    #[schema(example = "0.01155")]
    pub cost_usd: Option<String>,
    /// Why there is no cost: `no_price` in the table, or only one in an `other_unit` that is not counted (image,
    /// second, character, query). Null where there is one.
    pub unpriced: Option<String>,
    /// USD that count towards money limits in place of the cost. In no sum of costs.
    pub held_usd: Option<String>,
    /// Null to callers who are no admins.
    pub cost_multiplier: Option<String>,
    pub group_cost_multiplier: Option<String>,
    /// USD by component, before the multiplier; empty to callers who are no admins.
    #[schema(value_type = Object)]
    pub cost_breakdown: Value,
    pub duration_ms: i32,
    pub ttft_ms: Option<i32>,
    pub first_byte_ms: Option<i32>,
    pub error_message: Option<String>,
    /// The decision trail: providers that were not asked (`reason` is `skipped`, `errorMessage` says why), then the attempts.
    #[schema(value_type = Vec<Object>)]
    pub provider_chain: Value,
    pub blocked_by: Option<String>,
    pub blocked_reason: Option<String>,
    pub user_agent: Option<String>,
    pub client_ip: Option<String>,
    pub messages_count: i32,
}

impl LogView {
    /// Callers who are no admins do not see which upstreams there are.
    pub fn new(record: Record, names: &Names, is_admin: bool) -> Self {
        let written = record.cache_write_5m_tokens + record.cache_write_1h_tokens;
        let prompt = record.input_tokens + written + record.cache_read_tokens;
        let provider_id = record.provider_id.filter(|_| is_admin);
        Self {
            id: record.id.to_string(),
            created_at: iso(record.created_at),
            session_id: record.session_id,
            user_id: record.user_id,
            user_name: names.users.get(&record.user_id).cloned(),
            key_id: record.key_id,
            key_name: names.keys.get(&record.key_id).cloned(),
            provider_id,
            provider_name: provider_id.and_then(|id| names.providers.get(&id).cloned()),
            model: record.upstream_model.unwrap_or_else(|| record.model.clone()),
            original_model: record.model,
            actual_response_model: record.response_model,
            billed_model: record.billed_model,
            endpoint: record.endpoint,
            api_type: record.dialect,
            is_streaming: record.streamed,
            status_code: Some(record.status).filter(|status| *status > 0),
            outcome: record.outcome,
            input_tokens: record.input_tokens,
            output_tokens: record.output_tokens,
            reasoning_tokens: record.reasoning_tokens,
            cache_creation_input_tokens: written,
            cache_read_input_tokens: record.cache_read_tokens,
            cache_creation_5m_input_tokens: record.cache_write_5m_tokens,
            cache_creation_1h_input_tokens: record.cache_write_1h_tokens,
            cache_ttl_applied: match (record.cache_write_5m_tokens > 0, record.cache_write_1h_tokens > 0) {
                (true, true) => Some("mixed"),
                (true, false) => Some("5m"),
                (false, true) => Some("1h"),
                (false, false) => None,
            },
            total_tokens: prompt + record.output_tokens,
            usage_source: record.usage_source,
            cost_usd: record.cost.as_ref().map(amount::plain),
            unpriced: record.unpriced,
            held_usd: record.held_cost.as_ref().map(amount::plain),
            cost_multiplier: is_admin.then(|| amount::plain(&record.cost_multiplier)),
            group_cost_multiplier: None,
            // The parts are before the multiplier and would give it away.
            cost_breakdown: if is_admin { record.cost_parts } else { json!({}) },
            duration_ms: record.duration_ms,
            ttft_ms: record.ttft_ms,
            first_byte_ms: record.ttft_ms,
            error_message: record.error,
            provider_chain: if is_admin { chain(record.attempts) } else { json!([]) },
            blocked_by: record.blocked_by,
            blocked_reason: record.blocked_reason,
            user_agent: record.user_agent,
            client_ip: record.client_ip,
            messages_count: record.messages_count,
        }
    }
}

/// The trail under the names that clients know.
fn chain(attempts: Value) -> Value {
    let Value::Array(attempts) = attempts else { return json!([]) };
    let item = |attempt: &Value| {
        let get = |name: &str| attempt.get(name).cloned().unwrap_or(Value::Null);
        json!({
            "id": get("provider_id"),
            "name": get("provider_name"),
            "reason": get("reason"),
            "selectionMethod": get("selected_by"),
            "statusCode": get("status"),
            "errorMessage": get("detail"),
            "timestamp": get("started_at_ms"),
            "durationMs": get("duration_ms"),
            "model": get("model"),
        })
    };
    attempts.iter().map(item).collect()
}
