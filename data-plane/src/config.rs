//! Everything that can be told to a proxy, read once from the environment: one list of variables with type,
//! default and meaning. A missing or wrong value is one sentence that names the variable. Never holds state,
//! never prints a secret.

mod value;

pub use value::{BillAborted, Cores, Hidden, LogFormat, QuotaStatus, Setting, SpoolFailure};

use contract::seal::Sealer;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Why the process cannot start: always names the variable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It has no default and was not given.
    #[error("{name} is not set: {doc}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What it is for.
        doc: &'static str,
    },
    /// The value does not parse; the value itself is not repeated, it may be a secret.
    #[error("{name} is wrong: expected {expected}")]
    Wrong {
        /// The variable.
        name: &'static str,
        /// What would have been right.
        expected: String,
    },
}

/// One line of the list, for documentation.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name in the environment.
    pub name: &'static str,
    /// `None`: must be given. Empty: none.
    pub default: Option<&'static str>,
    /// Its meaning.
    pub doc: &'static str,
}

macro_rules! optional_default {
    () => {
        None
    };
    ($default:literal) => {
        Some($default)
    };
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:literal $field:ident: $kind:ty $(= $default:literal)?;)+) => {
        /// The settings of one proxy.
        #[derive(Clone, Debug)]
        pub struct Config { $($(#[doc = $doc])+ pub $field: $kind,)+ }

        /// Every variable that a proxy reads.
        pub const VARIABLES: &[Variable] = &[
            $(Variable { name: $name, default: optional_default!($($default)?), doc: concat!($($doc),+) },)+
        ];

        impl Config {
            /// Reads every variable through `lookup`; an empty value counts as not given.
            pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
                let mut list = VARIABLES.iter();
                let mut config = Self { $($field: {
                    // The list and the fields come out of the same macro arm, in the same order.
                    let variable = list.next().ok_or(Error::Missing { name: $name, doc: "" })?;
                    value::read::<$kind>(variable, &lookup)?
                },)+ };
                config.complete();
                config.check()?;
                Ok(config)
            }
        }
    };
}

settings! {
    /// Address that callers connect to.
    "LISTEN_ADDR" listen_addr: SocketAddr = "0.0.0.0:8080";
    /// Address of /livez, /readyz, /metrics and /table; not for callers.
    "OPS_ADDR" ops_addr: SocketAddr = "0.0.0.0:8081";
    /// Traffic threads; empty: one per core.
    "WORKERS" workers: Cores = "";
    /// Name of this proxy in the fleet; empty: host name and port. Two proxies must not share one.
    "PROXY_ID" proxy_id: String = "";
    /// Directory of the spool and of the last good table; survives restarts, belongs to one proxy.
    "DATA_DIR" data_dir: PathBuf = "data";

    /// URL of the control plane's gRPC port, http:// or https://.
    "CONTROL_PLANE_GRPC" control_plane_grpc: url::Url = "http://127.0.0.1:23001";
    /// The bearer token that the control plane asks of proxies.
    "CONTROL_TOKEN" control_token: Hidden;
    /// PEM file of the authority that signed the control plane's certificate.
    "CONTROL_CA_FILE" control_ca_file: Option<PathBuf> = "";
    /// PEM file of this proxy's client certificate (mTLS).
    "CONTROL_CERT_FILE" control_cert_file: Option<PathBuf> = "";
    /// PEM file of that certificate's private key.
    "CONTROL_KEY_FILE" control_key_file: Option<PathBuf> = "";
    /// Longest wait for a connection to the control plane, and for one answer of it.
    "CONTROL_TIMEOUT" control_timeout: Duration = "10s";
    /// The key that unseals upstream credentials: 64 hexadecimal digits, the same as the control plane's.
    "SECRETS_KEY" sealer: Sealer;

    /// Redis for exact limits across proxies; empty: each proxy counts alone.
    "REDIS_URL" redis_url: Option<Hidden> = "";
    /// Longest wait for Redis before a request is counted in memory instead. A Redis that is gone is noticed at once;
    /// this is for one that hangs. Too short, and a proxy short of CPU takes itself for a broken Redis and admits
    /// more than the limits allow.
    "REDIS_TIMEOUT" redis_timeout: Duration = "1s";
    /// Lend hot keys slices of their limits, so that most of their requests need not ask Redis; near a limit
    /// every request asks. Needs REDIS_URL.
    "LIMIT_LEASES" limit_leases: bool = "true";
    /// Settlements that may wait for Redis per worker; beyond, they are counted as lost.
    "SETTLE_QUEUE" settle_queue: usize = "16384";

    /// Settlements that may wait per worker for Redis to come back; beyond, the oldest are counted as lost.
    "SETTLE_BACKLOG" settle_backlog: usize = "65536";
    /// Longest wait for the control plane's sums when a money counter is seen for the first time.
    "LEDGER_TIMEOUT" ledger_timeout: Duration = "500ms";
    /// How often money counters in use are compared with the ledger. What settlements lost is found after this at the
    /// latest; each comparison is a query of a sum.
    "COMPARE_EVERY" compare_every: Duration = "15m";
    /// How long the reservation of a proxy that died holds. Those of requests in flight are renewed.
    "RESERVATION_TTL" reservation_ttl: Duration = "15m";

    /// Bound of the spool, and never more than 80 % of the file system that holds it; at it, new traffic is refused
    /// rather than records lost.
    "SPOOL_MAX_BYTES" spool_max_bytes: u64 = "4294967296";
    /// Size at which a spool segment is closed and the next begun; at most 64 MiB and a quarter of the bound.
    "SPOOL_SEGMENT_BYTES" spool_segment_bytes: u64 = "16777216";
    /// What becomes of new requests while records cannot be written: refuse (503, not ready) or serve (they may be
    /// served and never billed).
    "SPOOL_FAILURE" spool_failure: SpoolFailure = "refuse";
    /// How long a usage record that cannot be delivered (its segment was set aside, or neither disk nor memory had room
    /// for it) keeps the counters of the fleet from being compared with the ledger, from when it was written, or would
    /// have been.
    "SPOOL_OUTSTANDING" spool_outstanding: Duration = "24h";
    /// Requests under way that are known after a kill, 1 KiB of disk each; at most a sixteenth of the file system.
    /// 0: none.
    "SPOOL_SLOTS" spool_slots: u32 = "16384";
    /// How often the spool is forced to disk; what a power cut may take.
    "SPOOL_FSYNC_INTERVAL" spool_fsync_interval: Duration = "1s";
    /// Most records in one report to the control plane.
    "REPORT_BATCH" report_batch: usize = "500";
    /// Longest wait for a report to fill.
    "REPORT_LINGER" report_linger: Duration = "1s";

    /// Largest request body, decompressed.
    "MAX_BODY_BYTES" max_body_bytes: usize = "104857600";
    /// Memory for the bodies of all requests together. At it, requests are refused, and answers that are no streams
    /// go to their callers as they come, which cannot fail over any more.
    "BODY_BUDGET_BYTES" body_budget_bytes: usize = "536870912";
    /// Longest pause between two chunks of a request body.
    "BODY_READ_TIMEOUT" body_read_timeout: Duration = "30s";
    /// For a whole request body, however steadily it trickles in.
    "BODY_TOTAL_TIMEOUT" body_total_timeout: Duration = "10m";
    /// Longest wait for a complete request head, from its first byte.
    "HEADER_READ_TIMEOUT" header_read_timeout: Duration = "10s";
    /// How long a caller's connection may rest between two requests.
    "KEEP_ALIVE_TIMEOUT" keep_alive_timeout: Duration = "120s";
    /// The same for a caller who has not shown a known key: a connection after a probe or a refused request.
    "STRANGER_KEEP_ALIVE" stranger_keep_alive: Duration = "5s";
    /// Most resting connections of one address (of IPv6: of one /64) without a known key; beyond, new ones are closed.
    /// Connections with a request under way do not count. 0: any number. Behind a balancer its address counts.
    "STRANGER_CONNECTIONS" stranger_connections: usize = "2000";
    /// How long what a caller still sends is passed over after an answer that did not wait for it (401, 413).
    "LINGER_TIMEOUT" linger_timeout: Duration = "2s";
    /// How long an answer may wait for a caller who takes no bytes.
    "SEND_TIMEOUT" send_timeout: Duration = "120s";
    /// Largest request head; beyond: 431.
    "MAX_HEADER_BYTES" max_header_bytes: usize = "65536";
    /// Most headers of a request; beyond: 431.
    "MAX_HEADERS" max_headers: usize = "100";
    /// Most caller connections of this process; beyond, new ones wait in the listen queue.
    "MAX_CONNECTIONS" max_connections: usize = "20000";

    /// Longest wait for a connection to an upstream: name, TCP and TLS together, and the proxy where there is one.
    "CONNECT_TIMEOUT" connect_timeout: Duration = "10s";
    /// Longest wait for a sign of life of a stream (event, comment, ping, blank line) on Messages, Responses and Gemini,
    /// which speak at once; each sign renews it. Where the provider has no own value.
    "FIRST_SIGN_TIMEOUT" first_sign_timeout: Duration = "60s";
    /// The same on Chat Completions, whose reasoning models are silent while they think.
    "FIRST_SIGN_TIMEOUT_CHAT" first_sign_timeout_chat: Duration = "300s";
    /// Longest wait for the first content of a stream, whatever signs of life there are.
    "FIRST_BYTE_TIMEOUT" first_byte_timeout: Duration = "600s";
    /// After so long without a byte, a caller who asked for a stream gets a keep-alive, again and again; before the
    /// first content under a head of our own, behind which failover goes on. 0: never.
    "SSE_KEEPALIVE" sse_keepalive: Duration = "10s";
    /// Longest pause between two chunks of an answer, where the provider has no own value.
    "IDLE_TIMEOUT" idle_timeout: Duration = "300s";
    /// Longest wait for the head of an answer that is no stream, where the provider has no own value for the whole of one.
    "TOTAL_TIMEOUT" total_timeout: Duration = "600s";
    /// How long an upstream connection rests before it is closed; below what upstreams and their balancers keep.
    "UPSTREAM_KEEP_ALIVE" upstream_keep_alive: Duration = "50s";
    /// How old an upstream connection gets before it is not used again, so that a busy one follows its host's name.
    "UPSTREAM_MAX_AGE" upstream_max_age: Duration = "10m";
    /// Most resting connections per upstream and worker.
    "UPSTREAM_MAX_IDLE" upstream_max_idle: usize = "512";
    /// How long an upstream's addresses are remembered.
    "DNS_TTL" dns_ttl: Duration = "30s";
    /// PEM file of authorities to trust for upstreams, besides the built-in ones.
    "UPSTREAM_CA_FILE" upstream_ca_file: Option<PathBuf> = "";

    /// How long a session counts as alive, and stays bound to its provider, after its last request.
    "SESSION_TTL" session_ttl: Duration = "300s";
    /// Attempts at one provider for one request, where the provider has no own value.
    "MAX_ATTEMPTS_PER_PROVIDER" max_attempts_per_provider: u32 = "2";
    /// Providers tried for one request.
    "MAX_PROVIDERS_PER_REQUEST" max_providers_per_request: u32 = "20";
    /// Attempts of one request, at all providers together.
    "MAX_ATTEMPTS_PER_REQUEST" max_attempts_per_request: usize = "24";
    /// Longest wait for the text of an answer that refuses; what came by then is judged.
    "ERROR_BODY_TIMEOUT" error_body_timeout: Duration = "250ms";
    /// After how long a silence a caller who leaves a stream says something of the provider: half a failure.
    "HANGUP_SILENCE" hangup_silence: Duration = "30s";
    /// How long a stream whose caller left after its first content is read on for the usage at its end; 0: not at all.
    "HANGUP_READ_TIMEOUT" hangup_read_timeout: Duration = "5s";
    /// Such streams at a time, per traffic thread; more are cancelled at once.
    "HANGUP_READ_STREAMS" hangup_read_streams: usize = "64";
    /// How long after a credential was found refused it is asked again for the first time, and how often a suspected
    /// one is looked at, at most.
    "HEALTH_PROBE_FIRST" health_probe_first: Duration = "60s";
    /// The longest pause between two looks at a refused credential.
    "HEALTH_PROBE_MAX" health_probe_max: Duration = "15m";
    /// Longest wait for the answer to such a question.
    "HEALTH_PROBE_TIMEOUT" health_probe_timeout: Duration = "30s";
    /// Longest time in which new attempts of one request begin.
    "FAILOVER_TIMEOUT" failover_timeout: Duration = "240s";
    /// Pause before the same provider is tried again.
    "RETRY_PAUSE" retry_pause: Duration = "100ms";
    /// Events of a stream that may be held back while waiting for content.
    "STREAM_GATE_EVENTS" stream_gate_events: usize = "2048";
    /// Bytes of a stream that may be held back while waiting for content.
    "STREAM_GATE_BYTES" stream_gate_bytes: usize = "1048576";
    /// Status of a refusal for money: 402 or 429.
    "QUOTA_STATUS" quota_status: QuotaStatus = "402";
    /// What a caller who hung up pays: estimate or free.
    "BILL_ABORTED" bill_aborted: BillAborted = "estimate";
    /// Whether the control plane is given what callers say, to show it for some minutes; it must be told to keep it,
    /// too.
    "STORE_SESSION_MESSAGES" store_session_messages: bool = "false";
    /// Unknown keys that one address may present within AUTH_FAILURE_WINDOW; 0: any number.
    "AUTH_FAILURE_LIMIT" auth_failure_limit: u32 = "20";
    /// Over which time unknown keys of one address are counted.
    "AUTH_FAILURE_WINDOW" auth_failure_window: Duration = "300s";
    /// How long an address is refused after too many unknown keys.
    "AUTH_FAILURE_BLOCK" auth_failure_block: Duration = "600s";
    /// How many proxies in front append the address that they saw to X-Forwarded-For; 0: none is believed, and the
    /// connection's address counts. Too high, and callers choose their address themselves.
    "FORWARDED_HOPS" forwarded_hops: u32 = "0";
    /// The older setting: true means FORWARDED_HOPS=1 where that is not given.
    "TRUST_FORWARDED_FOR" trust_forwarded_for: bool = "false";

    /// How long a stopping proxy, already not ready, still accepts: until balancers have noticed.
    "DRAIN_DELAY" drain_delay: Duration = "0s";
    /// How long answers in flight may take at shutdown; above the longest answer promised, below the
    /// orchestrator's grace period.
    "DRAIN_TIMEOUT" drain_timeout: Duration = "600s";
    /// How long a stopping proxy tries to report its last records; what is left stays in the spool.
    "FLUSH_TIMEOUT" flush_timeout: Duration = "5s";

    /// text or json.
    "LOG_FORMAT" log_format: LogFormat = "text";
    /// error, warn, info, debug, trace, or a list of target=level.
    "LOG_LEVEL" log_level: String = "info";
    /// One event per request.
    "ACCESS_LOG" access_log: bool = "true";
    /// Where traces go, OTLP over gRPC; empty: nowhere.
    "OTEL_EXPORTER_OTLP_ENDPOINT" otlp_endpoint: Option<url::Url> = "";
    /// Name of this service in traces.
    "OTEL_SERVICE_NAME" otel_service_name: String = "switchyard-data-plane";
}

impl Config {
    /// Reads the process environment.
    pub fn from_env() -> Result<Self, Error> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// The defaults, changed by pairs of variable and value. For tests and tools.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Result<Self, Error> {
        Self::read(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    /// Zero would not mean "no limit" here but a proxy that answers nobody, or a loop without a pause.
    fn check(&self) -> Result<(), Error> {
        if self.max_attempts_per_request == 0 {
            let expected = "a number above 0".to_owned();
            return Err(Error::Wrong { name: "MAX_ATTEMPTS_PER_REQUEST", expected });
        }
        let times = [
            ("CONTROL_TIMEOUT", self.control_timeout),
            ("REDIS_TIMEOUT", self.redis_timeout),
            ("LEDGER_TIMEOUT", self.ledger_timeout),
            ("RESERVATION_TTL", self.reservation_ttl),
            ("COMPARE_EVERY", self.compare_every),
            ("SPOOL_FSYNC_INTERVAL", self.spool_fsync_interval),
            ("BODY_READ_TIMEOUT", self.body_read_timeout),
            ("BODY_TOTAL_TIMEOUT", self.body_total_timeout),
            ("HEADER_READ_TIMEOUT", self.header_read_timeout),
            ("KEEP_ALIVE_TIMEOUT", self.keep_alive_timeout),
            ("STRANGER_KEEP_ALIVE", self.stranger_keep_alive),
            ("LINGER_TIMEOUT", self.linger_timeout),
            ("SEND_TIMEOUT", self.send_timeout),
            ("CONNECT_TIMEOUT", self.connect_timeout),
            ("SESSION_TTL", self.session_ttl),
            ("FAILOVER_TIMEOUT", self.failover_timeout),
            ("ERROR_BODY_TIMEOUT", self.error_body_timeout),
            ("HEALTH_PROBE_FIRST", self.health_probe_first),
            ("HEALTH_PROBE_MAX", self.health_probe_max),
            ("HEALTH_PROBE_TIMEOUT", self.health_probe_timeout),
        ];
        match times.into_iter().find(|(_, time)| time.is_zero()) {
            Some((name, _)) => Err(Error::Wrong { name, expected: "a time above 0".to_owned() }),
            None => Ok(()),
        }
    }

    /// Fills in what depends on other settings or on the machine.
    fn complete(&mut self) {
        if self.trust_forwarded_for && self.forwarded_hops == 0 {
            self.forwarded_hops = 1;
        }
        if self.proxy_id.is_empty() {
            let host = std::env::var("HOSTNAME")
                .ok()
                .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
                .unwrap_or_else(|| "proxy".to_owned());
            self.proxy_id = format!("{}:{}", host.trim(), self.listen_addr.port());
        }
    }
}

#[cfg(test)]
mod tests;
