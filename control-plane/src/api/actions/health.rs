//! Whether this replica answers, for people; probes use the ops port.

use crate::api::State;
use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use chrono::Utc;
use serde::Serialize;
use tokio::time::timeout;

/// How it is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Health {
    /// `ok`, or `degraded` when Postgres cannot be reached.
    status: &'static str,
    /// Now.
    timestamp: String,
    /// Of the software.
    version: &'static str,
    /// Of the parts.
    details: Parts,
}

/// The parts.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Parts {
    /// Postgres: `up` or `down`.
    database: &'static str,
}

/// Health
#[utoipa::path(tag = "system", operation_id = "health", security(()), responses(
    (status = 200, description = "This replica answers, and so does Postgres", body = Health),
    (status = 503, description = "Postgres does not answer in time", body = Health)))]
#[get("/actions/health")]
pub async fn health(state: Data<State>) -> HttpResponse {
    // A pool that is used up is no reason to keep a monitor waiting.
    let asked = timeout(state.settings.health_wait, async {
        crate::db::generation::current(&mut *state.pool.read().await?).await
    });
    let is_up = matches!(asked.await, Ok(Ok(_)));
    let (status, database) = if is_up { ("ok", "up") } else { ("degraded", "down") };
    let timestamp = crate::rules::time::iso(Utc::now());
    let version = env!("CARGO_PKG_VERSION");
    let mut answer = if is_up { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.json(Health { status, timestamp, version, details: Parts { database } })
}
