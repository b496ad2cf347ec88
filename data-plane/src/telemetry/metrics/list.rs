//! The list of all metrics: name, kind, meaning, labels. A metric that is not here does not exist.

use contract::usage::TokenCounts;
use metrics::{KeyName, Recorder};

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// As on the page.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Its meaning.
    pub help: &'static str,
    /// Names of its labels; their values are closed sets.
    pub labels: &'static [&'static str],
}

macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal [$($label:literal)*] $help:literal;)+) => {
        $(pub(super) const $constant: &str = concat!("switchyard_proxy_", $name);)+

        /// Every metric of a proxy.
        pub const LIST: &[Declared] = &[
            $(Declared { name: $constant, kind: Kind::$kind, help: $help, labels: &[$($label),*] },)+
        ];
    };
}

metrics! {
    REQUESTS Counter "requests_total" ["dialect" "outcome"] "Admitted requests by how they ended.";
    REQUEST_SECONDS Histogram "request_seconds" ["dialect"] "From a request's head to the end of its answer.";
    FIRST_BYTE_SECONDS Histogram "first_byte_seconds" ["dialect"] "From a request's head to its answer's first byte.";
    IN_FLIGHT Gauge "requests_in_flight" [] "Requests that run now.";
    ATTEMPTS Counter "attempts_total" ["kind" "result"] "Attempts by kind of provider and what became of them.";
    TOKENS Counter "tokens_total" ["class"] "Tokens by price class.";
    COST Counter "cost_nano_usd_total" [] "Billed cost in billionths of a US dollar.";
    UNPRICED Counter "unpriced_requests_total" [] "Requests for a model that has no price: not billed.";
    UNPRICED_MODELS Counter "unpriced_model_requests_total" ["model"] "Requests for a model that has no price, served or refused, by the first 32 such models: an alarm.";
    REFUSALS Counter "refusals_total" ["reason"] "Requests that this proxy refused, though it knew the caller.";
    AUTHENTICATION_FAILURES Counter "authentication_failures_total" ["reason"] "Requests refused for their credential.";
    UPSTREAM_FAILURES Counter "upstream_failures_total" ["class"] "Exchanges with upstreams that failed below HTTP.";
    UPSTREAM_CONNECTIONS Counter "upstream_connections_total" ["from"] "Connections used for attempts: resting or new.";
    LOCAL_TROUBLE Counter "local_trouble_total" ["kind"] "Attempts that failed for trouble of this proxy: no descriptors, route, resolver or network. Above 0 is an alarm.";
    PROBES Counter "health_probes_total" ["result"] "Requests of the gateway's own, to see whether a provider accepts its credential.";
    CONNECTIONS Gauge "connections" [] "Callers' open connections.";
    CONNECTION_ERRORS Counter "connection_errors_total" [] "Callers' connections ended by a fault: bad or slow head, reset.";
    STRANGERS_REFUSED Counter "strangers_refused_total" [] "Connections closed because their address had too many without a known key.";
    LIMITS_LOCAL Gauge "limits_local" [] "1 while limits are counted by this proxy alone.";
    LIMITER_FALLBACKS Counter "limiter_fallbacks_total" [] "Reservations counted in memory because Redis did not answer.";
    SETTLEMENTS_LOST Counter "settlements_lost_total" [] "Settlements dropped because their queue was full.";
    SETTLEMENTS_WAITING Gauge "settlements_waiting" [] "Settlements that wait for Redis to come back.";
    STORE_ERRORS Counter "store_errors_total" ["kind"] "Commands to Redis that failed.";
    COUNTERS_SEEDED Counter "counters_seeded_total" ["source"] "Money counters that Redis did not know and that were seeded.";
    RECORDS_LOST Counter "records_lost_total" [] "Usage records the spool did not take. Above 0 is an alarm.";
    SPOOL_DAMAGED Counter "spool_damaged_total" [] "Places where the disk gave the spool back damaged; each costs a record or more.";
    SPOOL_TORN_BYTES Counter "spool_torn_bytes_total" [] "Bytes left out at the end of the spool after a crash: half a record.";
    SPOOL_FAILURES Counter "spool_failures_total" [] "Times that the disk began to refuse usage records.";
    SPOOL_WITHOUT_SLOT Counter "spool_requests_without_slot_total" [] "Requests that no slot was free for: unknown after a kill.";
    SPOOL_RECORDS Gauge "spool_records" [] "Usage records that wait for the control plane.";
    SPOOL_BYTES Gauge "spool_bytes" [] "Size of the spool on disk.";
    SPOOL_OLDEST Gauge "spool_oldest_seconds" [] "Age of the oldest usage record that waits.";
    SPOOL_FILL Gauge "spool_fill" [] "Size of the spool as a part of its bound.";
    SPOOL_FULL Gauge "spool_full" [] "1 while the spool is at its bound and new traffic is refused. An alarm.";
    SPOOL_FAILED Gauge "spool_failed" [] "1 while the spool cannot be written and new traffic is refused. An alarm.";
    SPOOL_UNWRITTEN Gauge "spool_unwritten_records" [] "Usage records in memory because the disk does not take them.";
    SPOOL_SYNC Gauge "spool_sync_seconds" [] "How long it last took to force the spool to disk.";
    INTERRUPTED Counter "interrupted_requests_total" [] "Requests that were under way when this proxy was killed, recorded at its start.";
    RECORDS_REPORTED Counter "records_reported_total" [] "Usage records that the control plane acknowledged.";
    REPORT_FAILURES Counter "report_failures_total" [] "Reports that failed and are sent again.";
    TABLE_GENERATION Gauge "table_generation" [] "Generation of the routing table in use.";
    TABLE_UPDATES Counter "table_updates_total" [] "Routing tables taken into use.";
    TABLE_FROM_DISK Gauge "table_from_disk" [] "1 while the routing table in use is the one kept on this proxy's disk.";
    TABLE_REJECTED Gauge "table_rejected" [] "Sections and rows of the routing table that are refused now.";
    SECTIONS_REFUSED Counter "sections_refused_total" [] "Pushed sections that were not valid; the old ones stay.";
    CONFIG_STALE Gauge "config_stale_seconds" [] "Since the control plane was last heard.";
    CONTROL_CONNECTED Gauge "control_connected" [] "1 while the configuration stream stands.";
    CONTROL_CONNECTS Counter "control_connects_total" [] "Times the configuration stream was opened.";
}

/// Values of the label `class` of tokens, in the order of [`token_classes`].
pub(super) const TOKEN_CLASSES: &[&str] = &[
    "input",
    "output",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "input_audio",
    "output_audio",
    "input_image",
    "output_image",
];

/// Values of the label `reason` of failed authentications: the words of `proxy::refuse`; new ones share `other`.
pub(super) const CREDENTIAL_REASONS: &[&str] = &[
    "missing",
    "ambiguous",
    "invalid_api_key",
    "key_disabled",
    "key_expired",
    "user_disabled",
    "user_expired",
    "blocked",
    "other",
];

/// Values of the label `reason` of refusals: the words of `proxy::refuse`; new ones share `other`.
pub(super) const REASONS: &[&str] = &[
    "not_ready",
    "body_budget",
    "not_found",
    "request_too_large",
    "body_timeout",
    "body_unreadable",
    "invalid_request",
    "model_not_allowed",
    "model_not_priced",
    "client_not_allowed",
    "sensitive_word",
    "rate_limit_exceeded",
    "rpm",
    "concurrent_sessions",
    "usd_5h",
    "daily_quota",
    "usd_weekly",
    "usd_monthly",
    "usd_total",
    "spool_full",
    "spool_failed",
    "circuit_breaker_open",
    "mixed_unavailable",
    "no_available_providers",
    "all_providers_failed",
    "upstream_not_found",
    "upstream_error",
    "internal",
    "other",
];

/// Values of the label `result` of probes, in the order of `health::Probe`.
pub(super) const PROBE_RESULTS: &[&str] = &["accepted", "refused", "unclear", "failed"];

/// Values of the label `kind` of this proxy's own trouble: the words of `upstream::Local`.
pub(super) const LOCAL_KINDS: &[&str] =
    &["local_descriptors", "local_route", "local_resolver", "local_network", "other"];

/// Values of the label `class` of upstream failures; the words of `upstream::FailureClass`.
pub(super) const FAILURE_CLASSES: &[&str] = &[
    "dns",
    "no_resolver",
    "connect",
    "unreachable",
    "local_descriptors",
    "local_route",
    "local_resolver",
    "local_network",
    "tls",
    "timeout_connect",
    "timeout_head",
    "timeout_first_byte",
    "timeout_idle",
    "timeout_total",
    "reset",
    "incomplete",
    "protocol",
    "request",
    "other",
];

/// Tokens in the order of [`TOKEN_CLASSES`].
pub(super) const fn token_classes(tokens: &TokenCounts) -> [u64; 9] {
    [
        tokens.input,
        tokens.output,
        tokens.cache_read,
        tokens.cache_write_5m,
        tokens.cache_write_1h,
        tokens.input_audio,
        tokens.output_audio,
        tokens.input_image,
        tokens.output_image,
    ]
}

pub(super) fn describe(recorder: &impl Recorder) {
    for metric in LIST {
        let (name, help) = (KeyName::from_const_str(metric.name), metric.help.into());
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, None, help),
            Kind::Gauge => recorder.describe_gauge(name, None, help),
            Kind::Histogram => recorder.describe_histogram(name, None, help),
        }
    }
}
