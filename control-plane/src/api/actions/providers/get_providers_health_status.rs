//! Which providers rest, and until when.

use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::ask::Nothing;
use crate::api::auth::LoggedIn;
use crate::api::{Answer, Ask, State};
use crate::db::health::{self, Known};
use crate::db::live;
use actix_web::post;
use actix_web::web::Data;
use chrono::{DateTime, TimeDelta, Utc};
use contract::pb;
use prost::Message;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// A proxy says what it counts at least three times in this time.
const FRESH: TimeDelta = TimeDelta::seconds(16);
/// Milliseconds of a minute.
const MINUTE: i64 = 60_000;

/// The circuit of one provider.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitView {
    /// `closed`, `open` or `half-open`.
    #[schema(example = "open")]
    circuit_state: &'static str,
    /// Failures in a row.
    #[schema(example = 5)]
    failure_count: i32,
    /// Unix milliseconds.
    last_failure_time: Option<i64>,
    /// Unix milliseconds; null while its credential is refused: the proxies go on asking it by themselves.
    circuit_open_until: Option<i64>,
    /// From now on, rounded up.
    #[schema(example = 30)]
    recovery_minutes: Option<i64>,
    /// Why it is open: `failures`, `rate_limited`, `credential` …
    #[schema(example = "failures")]
    reason: Option<String>,
}

impl CircuitView {
    /// A closed circuit is reported only when it changes; what it counts meanwhile, the proxies say.
    fn counted(mut self, (failures, failed_ms): (i32, i64)) -> Self {
        if self.circuit_state == "closed" {
            self.failure_count = self.failure_count.max(failures);
        }
        let said = Some(failed_ms).filter(|at| *at > 0);
        self.last_failure_time = self.last_failure_time.max(said);
        self
    }

    fn of(known: Known, now: DateTime<Utc>) -> Self {
        let until = known.until.filter(|until| *until > now);
        let state = match known.state.as_deref() {
            Some("disabled") => "open",
            // Its time is over: the next request is its trial.
            Some("open") if until.is_none() && known.until.is_some() => "half-open",
            Some("open") => "open",
            Some("half-open") => "half-open",
            _ => "closed",
        };
        let until = until.filter(|_| state == "open").map(|until| until.timestamp_millis());
        Self {
            circuit_state: state,
            failure_count: known.failures.unwrap_or_default(),
            last_failure_time: known.last_failure_at.map(|at| at.timestamp_millis()),
            circuit_open_until: until,
            recovery_minutes: until.map(|until| (until - now.timestamp_millis() + MINUTE - 1) / MINUTE),
            reason: known.reason.filter(|reason| !reason.is_empty() && state != "closed"),
        }
    }
}

/// Failures in a row by provider, and when the last one was: the most that any proxy counts since the last change of its
/// health that is known.
fn counted(said: &[Vec<u8>], known: &[Known]) -> HashMap<i64, (i32, i64)> {
    let epochs: HashMap<i64, i64> =
        known.iter().map(|known| (known.provider_id, known.epoch.unwrap_or_default())).collect();
    let mut most = HashMap::new();
    for live in said.iter().filter_map(|payload| pb::Live::decode(payload.as_slice()).ok()) {
        for failing in live.failing {
            if epochs.get(&failing.provider_id).is_none_or(|epoch| failing.epoch < *epoch) {
                continue;
            }
            let (count, failed_ms) = most.entry(failing.provider_id).or_default();
            *count = i32::try_from(failing.failures).unwrap_or(i32::MAX).max(*count);
            *failed_ms = failing.failed_ms.max(*failed_ms);
        }
    }
    most
}

/// Show the circuits of all providers, by provider id
#[utoipa::path(tag = "providers", operation_id = "getProvidersHealthStatus", request_body = Nothing, responses(
    (status = 200, description = "A circuit per provider id", body = Envelope<BTreeMap<String, CircuitView>>),
    Failures))]
#[post("/actions/providers/getProvidersHealthStatus")]
pub async fn get_providers_health_status(
    caller: LoggedIn,
    state: Data<State>,
    _ask: Ask<Nothing>,
) -> Reply<BTreeMap<String, CircuitView>> {
    let mut conn = state.pool.read().await?;
    let known = health::of_owner(&mut conn, caller.0.owner).await?;
    let now = Utc::now();
    let counted = counted(&live::since(&mut conn, now - FRESH).await?, &known);
    drop(conn);
    let circuits = known.into_iter().map(|known| {
        let failures = counted.get(&known.provider_id).copied().unwrap_or_default();
        (known.provider_id.to_string(), CircuitView::of(known, now).counted(failures))
    });
    Ok(Answer::read(circuits.collect()))
}
