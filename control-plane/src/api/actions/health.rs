//! Whether this replica answers, for people; probes use the ops port.

use crate::api::State;
use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use chrono::Utc;
use serde::Serialize;

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
    (status = 200, description = "How this replica is", body = Health)))]
#[get("/actions/health")]
pub async fn health(state: Data<State>) -> HttpResponse {
    let is_up = match state.pool.read().await {
        Ok(mut conn) => crate::db::generation::current(&mut conn).await.is_ok(),
        Err(_) => false,
    };
    let (status, database) = if is_up { ("ok", "up") } else { ("degraded", "down") };
    let timestamp = crate::rules::time::iso(Utc::now());
    let version = env!("CARGO_PKG_VERSION");
    HttpResponse::Ok().json(Health { status, timestamp, version, details: Parts { database } })
}
