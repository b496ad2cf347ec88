//! What the proxies hold of an owner's words. A proxy acknowledges a generation only after it acts on it, so the
//! words of that generation are what it holds; one that is behind the last change is still loading.

use crate::api::{Failure, State};
use crate::db::{proxies, words};
use chrono::Utc;
use serde::Serialize;

/// The words that hold, and where.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheStats {
    #[schema(example = 3)]
    contains_count: i64,
    #[schema(example = 1)]
    exact_count: i64,
    #[schema(example = 1)]
    regex_count: i64,
    #[schema(example = 5)]
    total_count: i64,
    /// Unix milliseconds: the last change, or the last proxy that connected after it.
    last_reload_time: i64,
    /// Whether a connected proxy does not act on the last change yet.
    is_loading: bool,
    /// Connected proxies.
    proxies: usize,
    /// Those of them that act on the last change.
    loaded: usize,
}

impl CacheStats {
    pub(super) async fn load(state: &State, owner: i64) -> Result<Self, Failure> {
        let mut conn = state.pool.read().await?;
        let summary = words::summary(&mut conn, owner).await?;
        let stored = proxies::seen_since(&mut conn, Utc::now() - state.settings.forget).await?;
        drop(conn);
        let fleet = state.fleet.with_stored(stored);
        let connected: Vec<_> = fleet.iter().filter(|proxy| proxy.connected).collect();
        let holds = |proxy: &crate::publish::ProxyState| {
            proxy.generation >= summary.generation && proxy.rejected.iter().all(|one| one.section != "words")
        };
        let loaded = connected.iter().filter(|proxy| holds(proxy)).count();
        let joined = connected.iter().map(|proxy| proxy.connected_at).max();
        let count = |kind: &str| summary.counts.get(kind).copied().unwrap_or_default();
        Ok(Self {
            contains_count: count("contains"),
            exact_count: count("exact"),
            regex_count: count("regex"),
            total_count: summary.counts.values().sum(),
            last_reload_time: summary.changed_at.max(joined).map_or(0, |at| at.timestamp_millis()),
            is_loading: loaded < connected.len(),
            proxies: connected.len(),
            loaded,
        })
    }
}
