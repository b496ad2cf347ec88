//! Requests that were under way when this process's predecessor was killed: of each the spool's slots say enough for a
//! record. Billed like a hang-up if the upstream had it, because it worked on what it was sent; else it costs nothing.
//!
//! Runs once, when there is a table. Looks at no clock.

use super::Shared;
use super::meter::STATUS_CUT;
use crate::bill::{self, Bill, Classes, Names, Service};
use crate::config::BillAborted;
use crate::spool::Entry;
use crate::table::Snapshot;
use crate::telemetry;
use contract::table::ProviderKind;
use contract::usage::{Dialect, Outcome, TokenCounts, UsageRecord, UsageSource};
use rust_decimal::Decimal;

/// Records all of them; how many there were.
pub fn record_left(shared: &Shared) -> usize {
    let table = shared.table.load_full();
    let count = shared.spool.settle_left(|entry| {
        let record = record(shared, &table, entry);
        shared.metrics.finished(&record);
        telemetry::access(&record);
        record
    });
    shared.metrics.interrupted.increment(count as u64);
    if count > 0 {
        tracing::warn!(
            count,
            "requests were under way when this proxy was killed; each is recorded as interrupted"
        );
    }
    count
}

fn record(shared: &Shared, table: &Snapshot, entry: Entry<'static>) -> UsageRecord {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let (tokens, usage_source) = used(&entry);
    let bill = bill_of(shared, table, &entry, &tokens);
    let sent = if entry.upstream_model.is_empty() { &entry.model } else { &entry.upstream_model }.to_string();
    UsageRecord {
        id: entry.id,
        proxy_id: shared.config.proxy_id.clone(),
        started_at_ms: entry.started_at_ms,
        owner_id: entry.owner,
        user_id: entry.user,
        key_id: entry.key,
        provider_id: Some(entry.provider),
        session_id: some(entry.session.into_owned()),
        dialect: entry.dialect,
        endpoint: entry.endpoint.into_owned(),
        model: entry.model.into_owned(),
        upstream_model: some(sent),
        response_model: None,
        billed_model: bill.model,
        streamed: entry.streamed,
        outcome: Outcome::Interrupted,
        status: STATUS_CUT,
        error: Some("the proxy was killed while it served this request".to_owned()),
        blocked_by: None,
        blocked_reason: None,
        tokens,
        usage_source,
        cost: bill.cost,
        unpriced: bill.unpriced,
        held_cost: bill.held,
        cost_parts: bill.parts,
        cost_multiplier: bill.multiplier,
        generation: entry.generation,
        // How far it came, nobody knows.
        duration_ms: 0,
        ttft_ms: None,
        attempts: Vec::new(),
        user_agent: some(entry.user_agent.into_owned()),
        client_ip: some(entry.client_ip.into_owned()),
        trace_id: None,
        request_bytes: entry.request_bytes,
        response_bytes: 0,
        messages_count: entry.messages,
        skipped: Vec::new(),
    }
}

fn used(entry: &Entry<'_>) -> (TokenCounts, UsageSource) {
    if !entry.sent || !entry.metered {
        return (TokenCounts::default(), UsageSource::None);
    }
    bill::hung_up(entry.input_bytes, Classes::from_bits(entry.classes))
}

fn bill_of(shared: &Shared, table: &Snapshot, entry: &Entry<'_>, tokens: &TokenCounts) -> Bill {
    let up = table.upstream(entry.provider);
    let multiplier = up.map_or(Decimal::ONE, |up| up.row.cost_multiplier);
    if !entry.sent || !entry.metered || shared.config.bill_aborted == BillAborted::Free {
        return Bill::free(multiplier);
    }
    let service = Service {
        owner: entry.owner,
        names: Names {
            asked: &entry.model,
            sent: Some(&*entry.upstream_model).filter(|model| !model.is_empty()),
            ..Names::default()
        },
        // A provider that is gone since was of the kind that speaks the caller's dialect.
        kind: up.map_or_else(|| kind_of(entry.dialect), |up| up.row.kind),
        multiplier,
        fast: entry.fast,
    };
    bill::bill(table, &service, tokens, false)
}

fn kind_of(dialect: Dialect) -> ProviderKind {
    match dialect {
        Dialect::Anthropic => ProviderKind::Claude,
        Dialect::OpenAi => ProviderKind::OpenAiCompatible,
        Dialect::Responses => ProviderKind::Codex,
        Dialect::Gemini => ProviderKind::Gemini,
    }
}
