//! Every number that a proxy exports: one declared list, and [`Metrics`], the handles that the hot path
//! touches without a lookup. Labels are closed enums, so the page cannot grow with traffic.

mod list;
mod maker;

use self::list as names;
use self::maker::{ByCase, Maker};
pub use list::{Declared, Kind, LIST};

use contract::table::ProviderKind;
use contract::usage::{AttemptResult, Dialect, Outcome, UsageRecord};
use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bounds of histograms of whole requests: an LLM answers in 100 ms or in ten minutes.
const SECONDS: &[f64] =
    &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0];

/// Models without a price that have a label value of their own.
const UNPRICED_MOST: usize = 32;

/// The /metrics page.
#[derive(Clone)]
pub struct Page(PrometheusHandle);

impl Page {
    /// In Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds what histograms collected since the last call; due every few seconds, or they grow.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Handles of all metrics. Each is an atomic: no lock, no lookup.
pub struct Metrics {
    requests: Box<[ByCase]>,
    duration: Box<[Histogram]>,
    first_byte: Box<[Histogram]>,
    attempts: Box<[ByCase]>,
    tokens: ByCase,
    cost_nano_usd: Counter,
    unpriced: Counter,
    unpriced_models: Mutex<BTreeSet<String>>,
    refusals: ByCase,
    authentication_failures: ByCase,
    in_flight: Gauge,
    records_lost: Counter,
    upstream_failures: ByCase,
    upstream_connections: ByCase,
    probes: ByCase,
    local_trouble: ByCase,
    /// Callers' connections that are open.
    pub connections: Gauge,
    /// Connections ended by a fault of the caller: bad head, slow head, reset.
    pub connection_errors: Counter,
    /// Connections of strangers that were closed at once.
    pub strangers_refused: Counter,
    /// 1 while limits are counted in this proxy's memory because Redis is away, or there is none.
    pub limits_local: Gauge,
    /// Usage records that wait for the control plane.
    pub spool_records: Gauge,
    /// Bytes of the spool on disk.
    pub spool_bytes: Gauge,
    /// Age of the oldest record that waits.
    pub spool_oldest_seconds: Gauge,
    /// Size of the spool as a part of its bound.
    pub spool_fill: Gauge,
    /// 1 while the spool is at its bound.
    pub spool_full: Gauge,
    /// 1 while the spool cannot be written.
    pub spool_failed: Gauge,
    /// Records that the disk did not take yet.
    pub spool_unwritten: Gauge,
    /// How long it last took to force the spool to disk.
    pub spool_sync_seconds: Gauge,
    /// Requests that a kill interrupted.
    pub interrupted: Counter,
    /// Records the control plane acknowledged.
    pub records_reported: Counter,
    /// Reports that failed and are tried again.
    pub report_failures: Counter,
    /// Generation of the table in use.
    pub table_generation: Gauge,
    /// Seconds since the control plane was last heard.
    pub config_stale_seconds: Gauge,
    /// 1 while the configuration stream stands.
    pub control_connected: Gauge,
    /// Times the configuration stream was opened.
    pub control_connects: Counter,
    /// Sections refused because they were not valid.
    pub sections_refused: Counter,
    /// Tables taken into use.
    pub table_updates: Counter,
    /// 1 while the table in use came from this proxy's disk.
    pub table_from_disk: Gauge,
    /// Sections and rows that are refused now.
    pub table_rejected: Gauge,
}

impl Metrics {
    /// Makes the recorder and every handle. The first one in a process becomes the target of the `metrics`
    /// macros too.
    pub fn install() -> (Arc<Self>, Page) {
        let recorder = recorder();
        let page = Page(recorder.handle());
        let metrics = Arc::new(Self::on(&recorder));
        // A second proxy in one process (tests) keeps its own page and leaves the macros to the first.
        let _ = metrics::set_global_recorder(recorder);
        (metrics, page)
    }

    fn on(recorder: &PrometheusRecorder) -> Self {
        list::describe(recorder);
        let make = Maker(recorder);
        register_others(&make);
        let dialects: Vec<_> = Dialect::ALL.iter().map(|case| case.as_str()).collect();
        let outcomes: Vec<_> = Outcome::ALL.iter().map(|case| case.as_str()).collect();
        let results: Vec<_> = AttemptResult::ALL.iter().map(|case| case.as_str()).collect();
        let kinds = ProviderKind::ALL.map(ProviderKind::as_str);
        let (plain, gauge) = (|name| make.counter(name), |name| make.gauge(name));
        let family = |name, label, cases: &[&'static str]| make.family(name, label, cases);
        Self {
            requests: make.families(names::REQUESTS, ("dialect", &dialects), ("outcome", &outcomes)),
            duration: make.histograms(names::REQUEST_SECONDS, "dialect", &dialects),
            first_byte: make.histograms(names::FIRST_BYTE_SECONDS, "dialect", &dialects),
            attempts: make.families(names::ATTEMPTS, ("kind", &kinds), ("result", &results)),
            tokens: family(names::TOKENS, "class", names::TOKEN_CLASSES),
            cost_nano_usd: plain(names::COST),
            unpriced: plain(names::UNPRICED),
            unpriced_models: Mutex::default(),
            refusals: family(names::REFUSALS, "reason", names::REASONS),
            authentication_failures: family(
                names::AUTHENTICATION_FAILURES,
                "reason",
                names::CREDENTIAL_REASONS,
            ),
            in_flight: gauge(names::IN_FLIGHT),
            records_lost: plain(names::RECORDS_LOST),
            upstream_failures: family(names::UPSTREAM_FAILURES, "class", names::FAILURE_CLASSES),
            upstream_connections: family(names::UPSTREAM_CONNECTIONS, "from", &["pool", "new"]),
            local_trouble: family(names::LOCAL_TROUBLE, "kind", names::LOCAL_KINDS),
            probes: family(names::PROBES, "result", names::PROBE_RESULTS),
            connections: gauge(names::CONNECTIONS),
            connection_errors: plain(names::CONNECTION_ERRORS),
            strangers_refused: plain(names::STRANGERS_REFUSED),
            limits_local: gauge(names::LIMITS_LOCAL),
            spool_records: gauge(names::SPOOL_RECORDS),
            spool_bytes: gauge(names::SPOOL_BYTES),
            spool_oldest_seconds: gauge(names::SPOOL_OLDEST),
            spool_fill: gauge(names::SPOOL_FILL),
            spool_full: gauge(names::SPOOL_FULL),
            spool_failed: gauge(names::SPOOL_FAILED),
            spool_unwritten: gauge(names::SPOOL_UNWRITTEN),
            spool_sync_seconds: gauge(names::SPOOL_SYNC),
            interrupted: plain(names::INTERRUPTED),
            records_reported: plain(names::RECORDS_REPORTED),
            report_failures: plain(names::REPORT_FAILURES),
            table_generation: gauge(names::TABLE_GENERATION),
            config_stale_seconds: gauge(names::CONFIG_STALE),
            control_connected: gauge(names::CONTROL_CONNECTED),
            control_connects: plain(names::CONTROL_CONNECTS),
            sections_refused: plain(names::SECTIONS_REFUSED),
            table_updates: plain(names::TABLE_UPDATES),
            table_from_disk: gauge(names::TABLE_FROM_DISK),
            table_rejected: gauge(names::TABLE_REJECTED),
        }
    }

    /// One request ended; its record says how.
    pub fn finished(&self, record: &UsageRecord) {
        let dialect = record.dialect as usize;
        self.requests[dialect].at(record.outcome as usize).increment(1);
        self.duration[dialect].record(Duration::from_millis(record.duration_ms.into()));
        if let Some(ttft) = record.ttft_ms {
            self.first_byte[dialect].record(Duration::from_millis(ttft.into()));
        }
        for (class, tokens) in names::token_classes(&record.tokens).into_iter().enumerate() {
            if tokens > 0 {
                self.tokens.at(class).increment(tokens);
            }
        }
        match record.cost.map(|cost| contract::money::NanoUsd::from_usd(cost).0) {
            Some(nano) => self.cost_nano_usd.increment(nano.max(0).unsigned_abs()),
            None => self.unpriced.increment(1),
        }
    }

    /// A usage record could not be written: an alarm.
    pub fn record_lost(&self) {
        self.records_lost.increment(1);
    }

    /// This proxy refused a request; `reason` is the refusal's word.
    pub fn refused(&self, reason: &str) {
        self.refusals.at(case_of(names::REASONS, reason)).increment(1);
    }

    /// A model without a price was asked for. Callers invent names, so only the first ones are told apart.
    pub fn lacks_price(&self, model: &str) {
        let mut named = self.unpriced_models.lock().unwrap_or_else(PoisonError::into_inner);
        let is_named = named.contains(model) || named.len() < UNPRICED_MOST && named.insert(model.to_owned());
        drop(named);
        let label = if is_named { model.to_owned() } else { "other".to_owned() };
        metrics::counter!(names::UNPRICED_MODELS, "model" => label).increment(1);
    }

    /// A caller's credential was refused; `reason` is the refusal's word.
    pub fn not_authenticated(&self, reason: &str) {
        self.authentication_failures.at(case_of(names::CREDENTIAL_REASONS, reason)).increment(1);
    }

    /// One attempt at a provider ended.
    pub fn attempted(&self, kind: ProviderKind, result: AttemptResult) {
        if let Some(kind) = ProviderKind::ALL.iter().position(|case| *case == kind) {
            self.attempts[kind].at(result as usize).increment(1);
        }
    }

    /// An upstream could not be reached or broke off; `class` is a failure class.
    pub fn upstream_failed(&self, class: &str) {
        self.upstream_failures.at(case_of(names::FAILURE_CLASSES, class)).increment(1);
    }

    /// An attempt failed for trouble of this proxy: an alarm.
    pub fn in_trouble(&self, kind: &str) {
        self.local_trouble.at(case_of(names::LOCAL_KINDS, kind)).increment(1);
    }

    /// The gateway asked a provider by itself; `result` in the order of `health::Probe`.
    pub fn probed(&self, result: usize) {
        self.probes.at(result).increment(1);
    }

    /// An upstream connection was used, a resting one or a new one.
    pub fn upstream_connection(&self, reused: bool) {
        self.upstream_connections.at(usize::from(!reused)).increment(1);
    }

    /// Counts one request as running until the guard is dropped.
    pub fn running(self: &Arc<Self>) -> Running {
        self.in_flight.increment(1);
        Running(Arc::clone(self))
    }
}

/// A request that runs.
pub struct Running(Arc<Metrics>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.in_flight.decrement(1);
    }
}

/// The position of a word; unknown ones share the last, `other`.
fn case_of(cases: &[&str], word: &str) -> usize {
    cases.iter().position(|case| *case == word).unwrap_or(cases.len() - 1)
}

/// Metrics that others reach through the macros; registered so that they stand on the page from the start.
fn register_others(make: &Maker<'_>) {
    make.gauge(names::SETTLEMENTS_WAITING).set(0.0);
    for name in [
        names::LIMITER_FALLBACKS,
        names::SETTLEMENTS_LOST,
        names::SPOOL_DAMAGED,
        names::SPOOL_TORN_BYTES,
        names::SPOOL_FAILURES,
        names::SPOOL_WITHOUT_SLOT,
    ] {
        make.counter(name).increment(0);
    }
    make.family(names::UNPRICED_MODELS, "model", &["other"]);
    make.family(names::STORE_ERRORS, "kind", &["timeout", "disconnected", "protocol"]);
    make.family(names::COUNTERS_SEEDED, "source", &["ledger", "provisional"]);
}

fn recorder() -> PrometheusRecorder {
    let builder = [(names::REQUEST_SECONDS, SECONDS), (names::FIRST_BYTE_SECONDS, SECONDS)]
        .into_iter()
        .try_fold(PrometheusBuilder::new(), |builder, (name, bounds)| {
            builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)
        });
    // Bounds are refused only when there are none; above they are constants with members.
    builder.unwrap_or_default().build_recorder()
}

#[cfg(test)]
pub(super) mod tests;
