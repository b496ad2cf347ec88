//! The port of operators and probes: liveness, readiness, metrics. Needs no credential and shows no secret.

use crate::db::{Pool, generation};
use crate::publish::Newest;
use crate::telemetry::metric;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, get, http::header::ContentType};
use metrics_exporter_prometheus::PrometheusHandle;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A probe answers before its prober gives up.
const PROBE: Duration = Duration::from_secs(1);

/// What the port shows.
#[derive(Clone)]
pub struct State {
    /// Postgres.
    pub pool: Pool,
    /// The newest table.
    pub newest: Newest,
    /// Renders the metrics.
    pub metrics: Option<PrometheusHandle>,
    /// Cancelled when the process is to end.
    pub shutdown: CancellationToken,
}

/// The routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(livez).service(readyz).service(render);
}

/// The process runs and answers.
#[get("/livez")]
async fn livez() -> &'static str {
    "ok\n"
}

/// The admin APIs would be served: a table was compiled, and Postgres answers.
#[get("/readyz")]
async fn readyz(state: Data<State>) -> HttpResponse {
    let why = match not_ready(&state).await {
        None => return HttpResponse::Ok().body("ready\n"),
        Some(why) => why,
    };
    HttpResponse::ServiceUnavailable().body(format!("not ready: {why}\n"))
}

async fn not_ready(state: &State) -> Option<&'static str> {
    if state.shutdown.is_cancelled() {
        return Some("shutting down");
    }
    if state.newest.borrow().is_none() {
        return Some("no table was compiled yet");
    }
    let answered = timeout(PROBE, async { generation::current(&mut *state.pool.read().await?).await }).await;
    (!matches!(answered, Ok(Ok(_)))).then_some("the database does not answer")
}

#[get("/metrics")]
async fn render(state: Data<State>) -> HttpResponse {
    let (in_use, open) = state.pool.usage();
    metrics::gauge!(metric::DB_IN_USE).set(in_use as f64);
    metrics::gauge!(metric::DB_OPEN).set(open as f64);
    let body = state.metrics.as_ref().map(PrometheusHandle::render).unwrap_or_default();
    HttpResponse::Ok().content_type(ContentType::plaintext()).body(body)
}
