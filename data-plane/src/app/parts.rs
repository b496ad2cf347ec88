//! Settings of the parts, out of the one list of settings; what all traffic threads share.

use super::Error;
use crate::clock::now_ms;
use crate::config::Config;
use crate::health::Book;
use crate::probe;
use crate::proxy;
use crate::spool::{Depth, Spool, Standing};
use crate::store::{self, Ledger};
use crate::table::Snapshot;
use crate::tasks::Tasks;
use crate::telemetry;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{self, Tls};
use crate::{server, spool};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How often the spool is looked after.
const TEND_EVERY: Duration = Duration::from_secs(1);

/// What one traffic thread is made from.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) proxy: Arc<proxy::Shared>,
    pub(crate) limits: Arc<store::Shared>,
    pub(crate) upstream: upstream::Settings,
    connections: Arc<Semaphore>,
    strangers: server::Strangers,
}

impl Common {
    pub(crate) fn new(
        config: &Arc<Config>,
        metrics: &Arc<Metrics>,
        ledger: Arc<dyn Ledger>,
    ) -> Result<Self, Error> {
        // Without Redis limits are this proxy's own from the start; with it the store says when they are.
        metrics.limits_local.set(f64::from(u8::from(config.redis_url.is_none())));
        let spool = Spool::open(&spooling(config)).map_err(Error::Spool)?;
        let shared = proxy::Shared {
            config: Arc::clone(config),
            table: Snapshot::empty(),
            health: Book::new(),
            live: Default::default(),
            spool,
            metrics: Arc::clone(metrics),
            budget: Arc::default(),
            rotation: Default::default(),
            last_classes: Default::default(),
            guard: Default::default(),
        };
        Ok(Self {
            proxy: Arc::new(shared),
            limits: store::Shared::new(counting(config), Some(ledger)),
            upstream: upstream::Settings {
                tls: Tls::new(config.upstream_ca_file.as_deref())?,
                connect_timeout: config.connect_timeout,
                keep_alive: config.upstream_keep_alive,
                max_age: config.upstream_max_age,
                max_idle: config.upstream_max_idle,
                names_ttl: config.dns_ttl,
                trouble: Arc::default(),
                metrics: Arc::clone(metrics),
            },
            connections: Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS))),
            strangers: server::Strangers::default(),
        })
    }

    pub(super) fn probe(&self) -> probe::Parts {
        let proxy = &self.proxy;
        probe::Parts {
            config: Arc::clone(&proxy.config),
            table: Arc::clone(&proxy.table),
            health: proxy.health.clone(),
            spool: proxy.spool.clone(),
            metrics: Arc::clone(&proxy.metrics),
        }
    }

    pub(super) fn server(&self, hurry: CancellationToken) -> server::Settings {
        let config = &self.proxy.config;
        server::Settings {
            header_read_timeout: config.header_read_timeout,
            keep_alive_timeout: config.keep_alive_timeout,
            stranger_keep_alive: config.stranger_keep_alive,
            send_timeout: config.send_timeout,
            linger_timeout: config.linger_timeout,
            max_header_bytes: config.max_header_bytes,
            max_headers: config.max_headers,
            head_refused: crate::proxy::head_refused,
            connections: Arc::clone(&self.connections),
            strangers: self.strangers.clone(),
            strangers_per_address: config.stranger_connections,
            is_stranger: crate::proxy::is_stranger,
            drain_timeout: config.drain_timeout,
            hurry,
            metrics: Arc::clone(&self.proxy.metrics),
        }
    }
}

pub(super) fn telemetry(config: &Config) -> telemetry::Settings {
    telemetry::Settings {
        format: config.log_format,
        level: config.log_level.clone(),
        access: config.access_log,
        otlp: config.otlp_endpoint.as_ref().map(ToString::to_string),
        service: config.otel_service_name.clone(),
        instance: config.proxy_id.clone(),
    }
}

fn counting(config: &Config) -> store::Options {
    store::Options {
        redis_url: config.redis_url.as_ref().map(|url| url.expose().to_owned()),
        redis_timeout: config.redis_timeout,
        ledger_timeout: config.ledger_timeout,
        session_ttl: config.session_ttl,
        reservation_ttl: config.reservation_ttl,
        leases: config.limit_leases,
        settle_queue: config.settle_queue,
        settle_backlog: config.settle_backlog,
        compare_every: config.compare_every,
        ..store::Options::default()
    }
}

/// Between the end of a request and its record in the spool.
const REPORTED_MARGIN_MS: i64 = 1_000;

/// All records of requests that ended before this instant are delivered; `None`: that cannot be said now, and what was
/// said before stands.
fn reported_ms(depth: &Depth, now_ms: i64) -> Option<i64> {
    if !depth.whole {
        return None;
    }
    // A record is written at the end of its request, so a moment before an empty spool everything is delivered.
    match (depth.records, depth.oldest_ended_ms) {
        (0, _) => Some(now_ms - REPORTED_MARGIN_MS),
        (_, ended) => ended.map(|ended| ended.min(now_ms) - REPORTED_MARGIN_MS),
    }
}

/// Puts the spool's depth on the metrics page, and says until when everything is reported.
#[expect(clippy::cast_precision_loss, reason = "gauges are floats; counts and bytes stay far below 2^53")]
pub(super) fn measure(spool: &Spool, metrics: &Metrics, reported: &AtomicI64) {
    // Before the look, so that what ends meanwhile is not taken for delivered.
    let looked_ms = now_ms();
    let depth = spool.depth();
    if let Some(until_ms) = reported_ms(&depth, looked_ms) {
        reported.store(until_ms, Ordering::Relaxed);
    }
    metrics.spool_records.set(depth.records as f64);
    metrics.spool_bytes.set(depth.bytes as f64);
    metrics
        .spool_oldest_seconds
        .set(depth.oldest_ms.map_or(0.0, |at| (now_ms() - at).max(0) as f64 / 1000.0));
    metrics.spool_fill.set(depth.bytes as f64 / depth.bound.max(1) as f64);
    metrics.spool_unwritten.set(depth.unwritten as f64);
    let standing = spool.standing();
    metrics.spool_full.set(f64::from(u8::from(standing == Standing::Full)));
    metrics.spool_failed.set(f64::from(u8::from(standing == Standing::Failed)));
}

fn spooling(config: &Config) -> spool::Options {
    spool::Options {
        folder: config.data_dir.join("spool"),
        max_bytes: config.spool_max_bytes,
        segment_bytes: config.spool_segment_bytes,
        slots: config.spool_slots,
        failure: config.spool_failure,
        outstanding: config.spool_outstanding,
    }
}

/// Starts what the spool needs from time to time.
pub(super) fn look_after(spool: &Spool, sync_every: Duration, tasks: &Tasks, metrics: &Arc<Metrics>) {
    let syncing = sync(spool.clone(), sync_every, tasks.clone(), Arc::clone(metrics));
    let stopping = tasks.stopping().clone();
    tasks.spawn_vital("spool-sync", async move {
        stopping.run_until_cancelled(syncing).await;
    });
    let tending = tend(spool.clone(), tasks.clone());
    let stopping = tasks.stopping().clone();
    tasks.spawn_vital("spool-tend", async move {
        stopping.run_until_cancelled(tending).await;
    });
}

/// Looks each second whether the spool can be written, and how full it is.
async fn tend(spool: Spool, tasks: Tasks) {
    loop {
        let tended = spool.clone();
        // A panic is logged; the next second is another chance.
        let _ = tasks.blocking("spool-tend", move || tended.tend()).await;
        tokio::time::sleep(TEND_EVERY).await;
    }
}

/// Forces the spool to disk from time to time; what a power cut can take is one interval.
async fn sync(spool: Spool, interval: Duration, tasks: Tasks, metrics: Arc<Metrics>) {
    loop {
        tokio::time::sleep(interval).await;
        let spool = spool.clone();
        let began = Instant::now();
        if let Some(Err(error)) = tasks.blocking("spool-sync", move || spool.sync()).await {
            tracing::error!(%error, "the spool cannot be forced to disk");
        }
        metrics.spool_sync_seconds.set(began.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_ends_where_something_waits() {
        const NOW: i64 = 1_000_000;
        let depth = |records, oldest_ended_ms: Option<i64>, whole| Depth {
            records,
            unwritten: 0,
            bytes: 0,
            bound: 1,
            // A long request: when it began says nothing.
            oldest_ms: oldest_ended_ms.map(|at| at - 600_000),
            oldest_ended_ms,
            whole,
        };
        for (depth, want) in [
            (depth(0, None, true), Some(NOW - 1_000)),
            (depth(3, Some(NOW - 5_000), true), Some(NOW - 6_000)),
            (depth(3, Some(NOW + 5_000), true), Some(NOW - 1_000)),
            // It cannot be read.
            (depth(3, None, true), None),
            // A record waits in memory, a segment was set aside, or a killed process left something.
            (depth(0, None, false), None),
            (depth(3, Some(NOW - 5_000), false), None),
        ] {
            assert_eq!(reported_ms(&depth, NOW), want, "{depth:?}");
        }
    }
}
