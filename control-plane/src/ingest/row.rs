//! A record from the wire → a row that Postgres will take. What a column cannot hold is refused or cut here,
//! because one bad value would fail its whole batch, again and again.

use crate::db::ledger::RecordRow;
use bigdecimal::{BigDecimal, num_bigint::BigInt};
use chrono::{DateTime, Utc};
use contract::convert::Invalid;
use contract::pb;
use contract::usage::{Attempt, Skipped, TokenCounts, UsageRecord, WhyUnpriced};
use rust_decimal::Decimal;
use serde_json::{Value, json};

/// Names are parts of index keys, which must stay short.
const MAX_NAME: usize = 256;
/// Everything else that is text.
const MAX_TEXT: usize = 2_000;
/// A request that counts more tokens than this counts nonsense; sums of such would overflow.
const MAX_TOKENS: u64 = 1_000_000_000_000;
/// USD of one request, which `numeric(30,15)` holds with room for sums.
const MAX_COST: Decimal = Decimal::from_parts(1_000_000_000, 0, 0, false, 0);
/// 9999-12-31.
const MAX_TIME_MS: i64 = 253_402_214_400_000;
/// Attempts kept of a decision trail.
const MAX_ATTEMPTS: usize = 64;
/// Providers that were not asked; a proxy names no more than these.
const MAX_SKIPPED: usize = 16;

/// The row of a record.
pub(super) fn read(wire: pb::UsageRecord) -> Result<RecordRow, Invalid> {
    let record = UsageRecord::try_from(wire)?;
    let at = Some(record.started_at_ms).filter(|ms| (0..=MAX_TIME_MS).contains(ms));
    let created_at: DateTime<Utc> = at
        .and_then(DateTime::from_timestamp_millis)
        .ok_or_else(|| Invalid::new("started_at_ms", "out of bounds"))?;
    let tokens = counts(&record.tokens)?;
    Ok(RecordRow {
        id: record.id.0,
        created_at,
        owner_id: record.owner_id.0,
        user_id: record.user_id.0,
        key_id: record.key_id.0,
        provider_id: record.provider_id.map(|id| id.0),
        proxy_id: name(record.proxy_id),
        session_id: record.session_id.map(name),
        dialect: record.dialect.as_str(),
        endpoint: name(kind_of(&record.endpoint)),
        model: name(record.model),
        upstream_model: record.upstream_model.map(name),
        response_model: record.response_model.map(name),
        billed_model: record.billed_model.map(name),
        streamed: record.streamed,
        outcome: record.outcome.as_str(),
        status: i16::try_from(record.status).map_err(|_| Invalid::new("status", "not an HTTP status"))?,
        error: record.error.map(text),
        blocked_by: record.blocked_by.map(name),
        blocked_reason: record.blocked_reason.map(text),
        input_tokens: tokens.input,
        output_tokens: tokens.output,
        reasoning_tokens: tokens.reasoning,
        cache_read_tokens: tokens.cache_read,
        cache_write_5m_tokens: tokens.cache_write_5m,
        cache_write_1h_tokens: tokens.cache_write_1h,
        other_tokens: other(&record.tokens),
        usage_source: record.usage_source.as_str(),
        cost: record.cost.map(|cost| money(cost, "cost")).transpose()?,
        unpriced: record.unpriced.map(WhyUnpriced::as_str),
        held_cost: record.held_cost.map(|held| money(held, "held_cost")).transpose()?,
        cost_parts: record
            .cost_parts
            .into_iter()
            .map(|(part, usd)| (name(part), json!(usd.normalize().to_string())))
            .collect(),
        cost_multiplier: money(record.cost_multiplier, "cost_multiplier")?,
        generation: record.generation.0,
        duration_ms: i32::try_from(record.duration_ms).unwrap_or(i32::MAX),
        ttft_ms: record.ttft_ms.map(|ms| i32::try_from(ms).unwrap_or(i32::MAX)),
        retry_count: i16::try_from(record.attempts.len().saturating_sub(1)).unwrap_or(i16::MAX),
        // One trail: first who was not asked, then the attempts.
        attempts: (record.skipped.into_iter().take(MAX_SKIPPED).map(skipped))
            .chain(record.attempts.into_iter().take(MAX_ATTEMPTS).map(attempt))
            .collect(),
        user_agent: record.user_agent.map(name),
        client_ip: record.client_ip.map(name),
        trace_id: record.trace_id.map(name),
        request_bytes: i64::try_from(record.request_bytes).unwrap_or(i64::MAX),
        response_bytes: i64::try_from(record.response_bytes).unwrap_or(i64::MAX),
        messages_count: i32::try_from(record.messages_count).unwrap_or(i32::MAX),
    })
}

struct Counts {
    input: i64,
    output: i64,
    reasoning: i64,
    cache_read: i64,
    cache_write_5m: i64,
    cache_write_1h: i64,
}

fn counts(tokens: &TokenCounts) -> Result<Counts, Invalid> {
    let count = |value: u64| match value {
        ..=MAX_TOKENS => Ok(value.cast_signed()),
        _ => Err(Invalid::new("tokens", "out of bounds")),
    };
    for other in [tokens.input_audio, tokens.output_audio, tokens.input_image, tokens.output_image] {
        count(other)?;
    }
    Ok(Counts {
        input: count(tokens.input)?,
        output: count(tokens.output)?,
        reasoning: count(tokens.reasoning)?,
        cache_read: count(tokens.cache_read)?,
        cache_write_5m: count(tokens.cache_write_5m)?,
        cache_write_1h: count(tokens.cache_write_1h)?,
    })
}

fn other(tokens: &TokenCounts) -> Option<Value> {
    let classes = [
        ("input_audio", tokens.input_audio),
        ("output_audio", tokens.output_audio),
        ("input_image", tokens.input_image),
        ("output_image", tokens.output_image),
    ];
    let some: serde_json::Map<_, _> = classes
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(class, count)| (class.to_owned(), json!(count)))
        .collect();
    (!some.is_empty()).then_some(Value::Object(some))
}

fn skipped(skipped: Skipped) -> Value {
    json!({
        "provider_id": skipped.provider_id.0,
        "provider_name": name(skipped.provider_name),
        "reason": "skipped",
        "detail": skipped.why.as_str(),
    })
}

fn attempt(attempt: Attempt) -> Value {
    json!({
        "provider_id": attempt.provider_id.0,
        "provider_name": name(attempt.provider_name),
        "reason": attempt.result.as_str(),
        "selected_by": attempt.selected_by.as_str(),
        "status": attempt.status,
        "detail": text(attempt.detail),
        "started_at_ms": attempt.started_at_ms,
        "duration_ms": attempt.duration_ms,
        "model": name(attempt.model),
    })
}

/// Exactly the same number.
fn money(value: Decimal, path: &str) -> Result<BigDecimal, Invalid> {
    if value.is_sign_negative() && !value.is_zero() || value > MAX_COST {
        return Err(Invalid::new(path, "out of bounds"));
    }
    Ok(BigDecimal::new(BigInt::from(value.mantissa()), i64::from(value.scale())))
}

/// The path without the ids of single things, `/v1/files/:id/content`: sums are kept per path, and there must be as
/// many paths as there are kinds of calls, not as many as there are files. The first two words never are ids.
fn kind_of(path: &str) -> String {
    let words = path.split('/').enumerate();
    let words = words.map(|(at, word)| match at > 2 && word.bytes().any(|byte| byte.is_ascii_digit()) {
        true => ":id",
        false => word,
    });
    words.collect::<Vec<_>>().join("/")
}

fn name(value: String) -> String {
    cut(value, MAX_NAME)
}

fn text(value: String) -> String {
    cut(value, MAX_TEXT)
}

/// Postgres holds no NUL in text.
fn cut(mut value: String, max: usize) -> String {
    if value.contains('\0') {
        value.retain(|c| c != '\0');
    }
    if value.len() > max {
        value.truncate(value.floor_char_boundary(max));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::kind_of;

    #[test]
    fn paths_are_kinds_of_calls() {
        for (path, kind) in [
            ("/v1/messages", "/v1/messages"),
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/messages/count_tokens", "/v1/messages/count_tokens"),
            ("/v1/files/file-Ab12/content", "/v1/files/:id/content"),
            ("/v1/messages/batches/msgbatch_013Z/results", "/v1/messages/batches/:id/results"),
            ("/v1/responses/resp_67cc", "/v1/responses/:id"),
            ("/", "/"),
            ("", ""),
        ] {
            assert_eq!(kind_of(path), kind);
        }
    }
}
