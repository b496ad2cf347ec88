//! Usage records: the spool, the report and the ledger all speak this form.

use super::{Invalid, decimal};
use crate::ids::{Generation, KeyId, ProviderId, RequestId, UserId};
use crate::pb;
use crate::usage::{
    Attempt, AttemptResult, Dialect, Outcome, SelectedBy, Skipped, TokenCounts, UsageRecord, UsageSource,
    WhySkipped, WhyUnpriced,
};
use std::collections::BTreeMap;
use uuid::Uuid;

fn word<T>(parse: fn(&str) -> Option<T>, text: &str, path: &str) -> Result<T, Invalid> {
    parse(text).ok_or_else(|| Invalid::new(path, "unknown word"))
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn status(code: u32, path: &str) -> Result<u16, Invalid> {
    u16::try_from(code).map_err(|_| Invalid::new(path, "not an HTTP status"))
}

impl From<TokenCounts> for pb::TokenCounts {
    fn from(t: TokenCounts) -> Self {
        Self {
            input: t.input,
            output: t.output,
            reasoning: t.reasoning,
            cache_read: t.cache_read,
            cache_write_5m: t.cache_write_5m,
            cache_write_1h: t.cache_write_1h,
            input_audio: t.input_audio,
            output_audio: t.output_audio,
            input_image: t.input_image,
            output_image: t.output_image,
        }
    }
}

impl From<pb::TokenCounts> for TokenCounts {
    fn from(t: pb::TokenCounts) -> Self {
        Self {
            input: t.input,
            output: t.output,
            reasoning: t.reasoning,
            cache_read: t.cache_read,
            cache_write_5m: t.cache_write_5m,
            cache_write_1h: t.cache_write_1h,
            input_audio: t.input_audio,
            output_audio: t.output_audio,
            input_image: t.input_image,
            output_image: t.output_image,
        }
    }
}

impl From<&Attempt> for pb::Attempt {
    fn from(row: &Attempt) -> Self {
        Self {
            provider_id: row.provider_id.0,
            provider_name: row.provider_name.clone(),
            reason: row.result.as_str().to_owned(),
            status: row.status.map(u32::from),
            detail: row.detail.clone(),
            started_at_ms: row.started_at_ms,
            duration_ms: row.duration_ms,
            model: row.model.clone(),
            selected_by: row.selected_by.as_str().to_owned(),
        }
    }
}

impl TryFrom<pb::Attempt> for Attempt {
    type Error = Invalid;

    fn try_from(wire: pb::Attempt) -> Result<Self, Invalid> {
        Ok(Self {
            provider_id: ProviderId(wire.provider_id),
            provider_name: wire.provider_name,
            result: word(AttemptResult::parse, &wire.reason, "reason")?,
            selected_by: word(SelectedBy::parse, &wire.selected_by, "selected_by")?,
            status: wire.status.map(|code| status(code, "status")).transpose()?,
            detail: wire.detail,
            started_at_ms: wire.started_at_ms,
            duration_ms: wire.duration_ms,
            model: wire.model,
        })
    }
}

impl From<&Skipped> for pb::Skipped {
    fn from(row: &Skipped) -> Self {
        let why = row.why.as_str().to_owned();
        Self { provider_id: row.provider_id.0, provider_name: row.provider_name.clone(), why }
    }
}

impl TryFrom<pb::Skipped> for Skipped {
    type Error = Invalid;

    fn try_from(wire: pb::Skipped) -> Result<Self, Invalid> {
        let why = word(WhySkipped::parse, &wire.why, "skipped.why")?;
        Ok(Self { provider_id: ProviderId(wire.provider_id), provider_name: wire.provider_name, why })
    }
}

impl From<&UsageRecord> for pb::UsageRecord {
    fn from(row: &UsageRecord) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Self {
            id: row.id.0.as_bytes().to_vec().into(),
            proxy_id: row.proxy_id.clone(),
            started_at_ms: row.started_at_ms,
            owner_id: row.owner_id.0,
            user_id: row.user_id.0,
            key_id: row.key_id.0,
            provider_id: row.provider_id.map(|id| id.0),
            session_id: text(&row.session_id),
            dialect: row.dialect.as_str().to_owned(),
            endpoint: row.endpoint.clone(),
            model: row.model.clone(),
            upstream_model: text(&row.upstream_model),
            response_model: text(&row.response_model),
            billed_model: text(&row.billed_model),
            streamed: row.streamed,
            outcome: row.outcome.as_str().to_owned(),
            status: u32::from(row.status),
            error: text(&row.error),
            blocked_by: text(&row.blocked_by),
            blocked_reason: text(&row.blocked_reason),
            tokens: Some(row.tokens.into()),
            usage_source: row.usage_source.as_str().to_owned(),
            cost: row.cost.map(|cost| cost.to_string()),
            cost_parts: row.cost_parts.iter().map(|(name, part)| (name.clone(), part.to_string())).collect(),
            cost_multiplier: row.cost_multiplier.to_string(),
            generation: row.generation.0,
            duration_ms: row.duration_ms,
            ttft_ms: row.ttft_ms,
            attempts: row.attempts.iter().map(Into::into).collect(),
            user_agent: text(&row.user_agent),
            client_ip: text(&row.client_ip),
            trace_id: text(&row.trace_id),
            request_bytes: row.request_bytes,
            response_bytes: row.response_bytes,
            messages_count: row.messages_count,
            unpriced: row.unpriced.map_or_else(String::new, |why| why.as_str().to_owned()),
            held_cost: row.held_cost.map(|cost| cost.to_string()),
            skipped: row.skipped.iter().map(pb::Skipped::from).collect(),
        }
    }
}

impl TryFrom<pb::UsageRecord> for UsageRecord {
    type Error = Invalid;

    fn try_from(wire: pb::UsageRecord) -> Result<Self, Invalid> {
        let id = Uuid::from_slice(&wire.id).map_err(|_| Invalid::new("id", "not 16 bytes"))?;
        let mut attempts = Vec::with_capacity(wire.attempts.len());
        for (at, attempt) in wire.attempts.into_iter().enumerate() {
            let attempt = Attempt::try_from(attempt);
            attempts.push(attempt.map_err(|error| error.within(format_args!("attempts[{at}]")))?);
        }
        let mut cost_parts = BTreeMap::new();
        for (name, part) in wire.cost_parts {
            cost_parts.insert(name, decimal(&part, "cost_parts")?);
        }
        Ok(Self {
            id: RequestId(id),
            proxy_id: wire.proxy_id,
            started_at_ms: wire.started_at_ms,
            owner_id: UserId(wire.owner_id),
            user_id: UserId(wire.user_id),
            key_id: KeyId(wire.key_id),
            provider_id: wire.provider_id.map(ProviderId),
            session_id: some(wire.session_id),
            dialect: word(Dialect::parse, &wire.dialect, "dialect")?,
            endpoint: wire.endpoint,
            model: wire.model,
            upstream_model: some(wire.upstream_model),
            response_model: some(wire.response_model),
            billed_model: some(wire.billed_model),
            streamed: wire.streamed,
            outcome: word(Outcome::parse, &wire.outcome, "outcome")?,
            status: status(wire.status, "status")?,
            error: some(wire.error),
            blocked_by: some(wire.blocked_by),
            blocked_reason: some(wire.blocked_reason),
            tokens: wire.tokens.unwrap_or_default().into(),
            usage_source: word(UsageSource::parse, &wire.usage_source, "usage_source")?,
            cost: wire.cost.map(|cost| decimal(&cost, "cost")).transpose()?,
            cost_parts,
            cost_multiplier: decimal(&wire.cost_multiplier, "cost_multiplier")?,
            generation: Generation(wire.generation),
            duration_ms: wire.duration_ms,
            ttft_ms: wire.ttft_ms,
            attempts,
            user_agent: some(wire.user_agent),
            client_ip: some(wire.client_ip),
            trace_id: some(wire.trace_id),
            request_bytes: wire.request_bytes,
            response_bytes: wire.response_bytes,
            messages_count: wire.messages_count,
            unpriced: some(wire.unpriced)
                .map(|why| word(WhyUnpriced::parse, &why, "unpriced"))
                .transpose()?,
            held_cost: wire.held_cost.map(|cost| decimal(&cost, "held_cost")).transpose()?,
            // A word of a later version costs that line, not the record.
            skipped: wire.skipped.into_iter().filter_map(|line| Skipped::try_from(line).ok()).collect(),
        })
    }
}
