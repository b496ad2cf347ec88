//! Which proxy acts on what: all replicas' proxies, and the rows that the table had to leave out.

use super::answer::{Envelope, Failures, Reply};
use super::auth::Admin;
use super::{Answer, State};
use crate::db::{generation, proxies};
use crate::publish::ProxyState;
use crate::rules::time::iso;
use actix_web::get;
use actix_web::web::Data;
use chrono::Utc;
use serde::Serialize;

/// The fleet.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct FleetView {
    /// Of the newest committed change.
    #[schema(example = 4711)]
    generation: i64,
    /// Every proxy that was seen lately.
    proxies: Vec<ProxyView>,
    /// How many of the connected proxies act on the newest change.
    #[schema(example = "2 of 2 at 4711")]
    summary: String,
    /// Rows that were left out of the table, and why.
    problems: Vec<ProblemView>,
}

/// A proxy.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyView {
    proxy_id: String,
    /// What it acts on.
    generation: i64,
    connected: bool,
    version: String,
    address: String,
    /// How many changes it is behind.
    lag: i64,
    /// Sections that it refused; the ones before them stay in use.
    rejected: Vec<RejectedView>,
    #[schema(format = DateTime)]
    connected_at: String,
    #[schema(format = DateTime)]
    last_seen_at: String,
}

/// A section that a proxy refused.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct RejectedView {
    section: String,
    reason: String,
}

/// A row that was left out of the table.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ProblemView {
    kind: String,
    id: i64,
    field: String,
    why: String,
}

/// The fleet (admin)
#[utoipa::path(tag = "system", operation_id = "fleet", responses(
    (status = 200, description = "Which proxy acts on what", body = Envelope<FleetView>), Failures))]
#[get("/fleet")]
pub async fn fleet(_admin: Admin, state: Data<State>) -> Reply<FleetView> {
    let mut conn = state.pool.read().await?;
    let generation = generation::current(&mut conn).await?.0;
    let since = Utc::now() - state.settings.forget;
    let stored = proxies::seen_since(&mut conn, since).await?;
    drop(conn);
    let proxies: Vec<ProxyView> =
        state.fleet.with_stored(stored).into_iter().map(|proxy| ProxyView::new(proxy, generation)).collect();
    let connected = proxies.iter().filter(|proxy| proxy.connected).count();
    let current = proxies.iter().filter(|proxy| proxy.connected && proxy.lag == 0).count();
    let summary = format!("{current} of {connected} at {generation}");
    Ok(Answer::read(FleetView { generation, proxies, summary, problems: problems(&state) }))
}

fn problems(state: &State) -> Vec<ProblemView> {
    let newest = state.newest.borrow();
    let found = newest.iter().flat_map(|table| &table.problems);
    let view = |problem: &crate::compile::Problem| ProblemView {
        kind: problem.kind.to_owned(),
        id: problem.id,
        field: problem.field.clone(),
        why: problem.why.clone(),
    };
    found.map(view).collect()
}

impl ProxyView {
    fn new(proxy: ProxyState, generation: i64) -> Self {
        let rejected = proxy.rejected.into_iter();
        Self {
            lag: (generation - proxy.generation).max(0),
            proxy_id: proxy.proxy_id,
            generation: proxy.generation,
            connected: proxy.connected,
            version: proxy.version,
            address: proxy.address,
            rejected: rejected.map(|r| RejectedView { section: r.section, reason: r.reason }).collect(),
            connected_at: iso(proxy.connected_at),
            last_seen_at: iso(proxy.last_seen_at),
        }
    }
}
