//! What a proxy tells about itself: log lines and traces (`subscriber`, `trace`), numbers (`metrics`), and one
//! access event per request. Depends on `contract`; never decides anything.

mod lines;
mod logging;
pub mod metrics;
pub mod trace;

pub use logging::{Error, Guard, Settings, start};

use contract::usage::UsageRecord;

/// Target of the access events, so that a filter can name them.
pub const ACCESS_TARGET: &str = "access";

/// The one event that every finished request leaves in the log. No key, no content: ids only.
pub fn access(record: &UsageRecord) {
    tracing::info!(
        target: ACCESS_TARGET,
        request_id = %record.id,
        trace_id = record.trace_id,
        user_id = record.user_id.0,
        key_id = record.key_id.0,
        provider_id = record.provider_id.map(|id| id.0),
        session_id = record.session_id,
        dialect = record.dialect.as_str(),
        endpoint = record.endpoint,
        model = record.model,
        upstream_model = record.upstream_model,
        streamed = record.streamed,
        outcome = record.outcome.as_str(),
        status = record.status,
        attempts = record.attempts.len(),
        duration_ms = record.duration_ms,
        ttft_ms = record.ttft_ms,
        request_bytes = record.request_bytes,
        response_bytes = record.response_bytes,
        tokens_prompt = record.tokens.prompt(),
        tokens_output = record.tokens.output,
        cost_usd = record.cost.map(tracing::field::display),
        client_ip = record.client_ip,
        error = record.error,
        "request finished",
    );
}
