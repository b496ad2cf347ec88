//! What a question costs: a record of the provider's owner, of no user and no key, so that it counts towards the
//! owner's sums and the provider's limits and towards nobody else's. Pure.

use super::request::Question;
use crate::bill::{self, Names, Service};
use crate::table::{Snapshot, Upstream};
use contract::ids::{KeyId, RequestId, UserId};
use contract::usage::{Outcome, UsageRecord};
use llm::usage::UsageScanner;

/// Named in records in place of a caller's program.
const AGENT: &str = "switchyard-probe";

/// A question that was answered.
pub struct Answered<'a> {
    /// What was asked.
    pub question: &'a Question,
    /// Of the provider.
    pub up: &'a Upstream,
    /// HTTP.
    pub status: u16,
    /// Whether it came as events.
    pub streamed: bool,
    /// What it said.
    pub text: &'a [u8],
    /// When it was asked, Unix milliseconds, and how long it took.
    pub time_ms: (i64, u32),
}

/// The record of a question that is paid for: it was asked for what costs something, and got an answer.
pub fn record(table: &Snapshot, proxy_id: &str, answered: &Answered<'_>) -> Option<UsageRecord> {
    let Answered { question, up, status, streamed, text, time_ms } = *answered;
    if !question.is_metered() || !(200..300).contains(&status) {
        return None;
    }
    let mut scanner = UsageScanner::new(question.dialect(), streamed);
    scanner.feed(text);
    let seen = scanner.finish();
    if seen.error.is_some() {
        return None;
    }
    let (tokens, usage_source) = seen.or_estimated(|| bill::hung_up(question.bytes(), None).0);
    let service = Service {
        owner: up.row.owner_id,
        names: Names {
            asked: question.model(),
            answered: seen.response_model.as_deref(),
            ..Names::default()
        },
        kind: up.row.kind,
        multiplier: up.row.cost_multiplier,
        fast: false,
    };
    let bill = bill::bill(table, &service, &tokens, false);
    Some(UsageRecord {
        id: RequestId::new(time_ms.0, rand::random()),
        proxy_id: proxy_id.to_owned(),
        started_at_ms: time_ms.0,
        owner_id: up.row.owner_id,
        user_id: UserId(0),
        key_id: KeyId(0),
        provider_id: Some(up.row.id),
        session_id: None,
        dialect: question.dialect(),
        endpoint: question.path(),
        model: question.model().to_owned(),
        upstream_model: Some(question.model().to_owned()),
        response_model: seen.response_model,
        billed_model: bill.model,
        streamed,
        outcome: Outcome::Completed,
        status,
        error: None,
        blocked_by: None,
        blocked_reason: None,
        tokens,
        usage_source,
        cost: bill.cost,
        unpriced: bill.unpriced,
        held_cost: bill.held,
        cost_parts: bill.parts,
        cost_multiplier: bill.multiplier,
        generation: table.generation,
        duration_ms: time_ms.1,
        ttft_ms: None,
        attempts: Vec::new(),
        user_agent: Some(AGENT.to_owned()),
        client_ip: None,
        trace_id: None,
        request_bytes: question.bytes(),
        response_bytes: text.len() as u64,
        messages_count: 1,
        skipped: Vec::new(),
    })
}
