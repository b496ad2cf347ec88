//! How a session is shown.

use crate::db::sessions::Session;
use crate::db::usage::Names;
use crate::rules::amount;
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use contract::pb;
use serde::Serialize;
use std::collections::BTreeMap;

/// A conversation.
#[derive(Clone, Debug, Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    pub(super) session_id: String,
    user_id: i64,
    user_name: Option<String>,
    key_id: i64,
    key_name: Option<String>,
    /// For admins.
    provider_id: Option<i64>,
    /// For admins.
    provider_name: Option<String>,
    model: Option<String>,
    /// `codex` for the Responses protocol, else `chat`.
    #[schema(example = "chat")]
    api_type: &'static str,
    /// Unix milliseconds.
    start_time: i64,
    input_tokens: i64,
    output_tokens: i64,
    cache_creation_input_tokens: i64,
    cache_read_input_tokens: i64,
    total_tokens: i64,
    /// USD.
    #[schema(example = "0.01155")]
    cost_usd: String,
    /// `in_progress` while a request is open, `error` if the last one failed, else `completed`.
    #[schema(example = "in_progress")]
    status: &'static str,
    /// Of all requests together; of a first one that is open, so far.
    duration_ms: i64,
    /// Requests that ended, and those that are open.
    pub(super) request_count: i64,
    /// Requests that are open now.
    concurrent_count: i64,
    #[serde(skip)]
    #[schema(ignore)]
    last_seen_ms: i64,
}

/// Sessions by user and name.
#[derive(Default)]
pub(super) struct Sessions(BTreeMap<(i64, String), SessionView>);

fn api_type(dialect: &str) -> &'static str {
    if dialect == "responses" { "codex" } else { "chat" }
}

impl Sessions {
    /// What the ledger saw.
    pub(super) fn add(&mut self, row: Session) {
        let total = row.input_tokens + row.output_tokens + row.cache_write_tokens + row.cache_read_tokens;
        let view = SessionView {
            session_id: row.session_id.clone(),
            user_id: row.user_id,
            key_id: row.key_id,
            provider_id: row.provider_id,
            model: Some(row.model),
            api_type: api_type(&row.dialect),
            start_time: row.first_seen_at.timestamp_millis(),
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            cache_creation_input_tokens: row.cache_write_tokens,
            cache_read_input_tokens: row.cache_read_tokens,
            total_tokens: total,
            cost_usd: amount::plain(&row.cost),
            status: if (200..400).contains(&row.last_status) { "completed" } else { "error" },
            duration_ms: row.duration_ms,
            request_count: row.requests,
            last_seen_ms: row.last_seen_at.timestamp_millis(),
            ..SessionView::default()
        };
        self.0.insert((row.user_id, row.session_id), view);
    }

    /// What is open; it is the newest that is known of its session.
    pub(super) fn open(&mut self, open: pb::OpenRequest, now: DateTime<Utc>) {
        let view = self.0.entry((open.user_id, open.session_id.clone())).or_insert_with(|| SessionView {
            session_id: open.session_id,
            user_id: open.user_id,
            start_time: open.started_at_ms,
            cost_usd: amount::plain(&BigDecimal::default()),
            duration_ms: (now.timestamp_millis() - open.started_at_ms).max(0),
            ..SessionView::default()
        });
        view.key_id = open.key_id;
        view.provider_id = open.provider_id.or(view.provider_id);
        view.model = Some(open.model);
        view.api_type = api_type(&open.dialect);
        view.status = "in_progress";
        view.request_count += 1;
        view.concurrent_count += 1;
        view.last_seen_ms = view.last_seen_ms.max(open.started_at_ms);
    }

    /// The ids that need a name: users, keys, providers.
    pub(super) fn ids(&self) -> [Vec<i64>; 3] {
        let ids = |id: &dyn Fn(&SessionView) -> Option<i64>| {
            let mut ids: Vec<i64> = self.0.values().filter_map(id).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        [ids(&|view| Some(view.user_id)), ids(&|view| Some(view.key_id)), ids(&|view| view.provider_id)]
    }

    /// All with their names, the one seen last first. Callers who are no admins do not see which upstreams there
    /// are.
    pub(super) fn named(self, names: &Names, is_admin: bool) -> Vec<SessionView> {
        let mut all: Vec<SessionView> = self.0.into_values().collect();
        for view in &mut all {
            view.provider_id = view.provider_id.filter(|_| is_admin);
            view.user_name = names.users.get(&view.user_id).cloned();
            view.key_name = names.keys.get(&view.key_id).cloned();
            view.provider_name = view.provider_id.and_then(|id| names.providers.get(&id).cloned());
        }
        all.sort_by(|a, b| b.last_seen_ms.cmp(&a.last_seen_ms).then_with(|| a.session_id.cmp(&b.session_id)));
        all
    }
}
