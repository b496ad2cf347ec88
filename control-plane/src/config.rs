//! Environment variables → one struct. A wrong or missing value is one sentence that names its variable.
//!
//! Every wait and every bound of the process has its name here. Never logs a value.

mod database_tls;
mod outbound;
mod read;

pub use database_tls::DatabaseTls;
pub use outbound::{Allowed, Notify, Outbound};
pub use read::{Invalid, Secret};

use chrono_tz::Tz;
use contract::seal::Sealer;
use contract::table::Unpriced;
use read::Env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// All settings of the process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Postgres.
    pub database: Database,
    /// Who may do what.
    pub access: Access,
    /// Where to listen.
    pub listen: Listen,
    /// The admin APIs.
    pub admin: Admin,
    /// Config push.
    pub publish: Publish,
    /// Usage ingest.
    pub ingest: Ingest,
    /// Background jobs.
    pub jobs: Jobs,
    /// Calls to the outside.
    pub outbound: Outbound,
    /// Notifications.
    pub notify: Notify,
    /// Logs and traces.
    pub observe: Observe,
    /// `TIME_ZONE`: decides days, weeks, months, chart buckets and date-only parameters.
    pub time_zone: Tz,
    /// `AUTO_MIGRATE`: whether `serve` runs pending migrations first.
    pub auto_migrate: bool,
    /// `SHUTDOWN_SECONDS`: how long open requests and streams may take to end; keep it below the grace period
    /// of whatever stops the process.
    pub shutdown: Duration,
}

/// Postgres.
#[derive(Clone, Debug)]
pub struct Database {
    /// `DATABASE_URL`: may lead through a transaction pooler.
    pub url: Secret,
    /// `DATABASE_DIRECT_URL`, else `DATABASE_URL`: migrations and LISTEN need a connection of their own.
    pub direct_url: Secret,
    /// `DATABASE_MAX_CONNECTIONS`: per replica; all replicas together stay below Postgres' max_connections.
    pub max_connections: usize,
    /// `DATABASE_WAIT_MS`: how long a request waits for a free connection before it answers 503.
    pub wait: Duration,
    /// `DATABASE_MAX_LIFETIME_SECONDS`: older connections are replaced, so that load follows a failover.
    pub max_lifetime: Duration,
    /// `DATABASE_START_WAIT_SECONDS`: how long the start waits for Postgres before it gives up.
    pub start_wait: Duration,
    /// Limits of each connection.
    pub timeouts: DatabaseTimeouts,
    /// Whom connections with `sslmode=require` trust.
    pub tls: DatabaseTls,
}

impl Database {
    /// Reads only what concerns Postgres: all that `migrate` needs.
    pub fn from_env() -> Result<Self, Invalid> {
        database(&Env::new(&|name| std::env::var(name).ok()))
    }
}

/// Limits of one connection.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseTimeouts {
    /// `DATABASE_CONNECT_TIMEOUT_MS`: too short, and a slow failover looks like an outage.
    pub connect: Duration,
    /// `DATABASE_STATEMENT_TIMEOUT_MS`: a statement that takes longer is ended by Postgres.
    pub statement: Duration,
    /// `DATABASE_LOCK_TIMEOUT_MS`: how long a statement waits for a row that another transaction holds.
    pub lock: Duration,
    /// `DATABASE_IDLE_IN_TRANSACTION_MS`: a transaction that was left open is ended after this.
    pub idle_in_transaction: Duration,
}

/// Who may do what.
#[derive(Clone, Debug)]
pub struct Access {
    /// `ADMIN_TOKEN`: a credential of account 1.
    pub admin_token: Secret,
    /// `CONTROL_TOKEN`: what proxies present on the gRPC port.
    pub control_token: Secret,
    /// `SECRETS_KEY`: seals secrets at rest.
    pub sealer: Sealer,
    /// `KEY_REVEAL`: whether a sealed copy of client keys is kept for admins to see again.
    pub key_reveal: KeyReveal,
    /// `AUTH_SESSION_TTL_SECONDS`: how long a login lives.
    pub session_ttl: Duration,
}

/// `KEY_REVEAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyReveal {
    /// A client key is shown once, when it is made.
    Never,
    /// `getKeys` shows it to an admin.
    Admin,
}

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Listen {
    /// `LISTEN_ADDR`: admin APIs and console.
    pub http: SocketAddr,
    /// `GRPC_ADDR`: config subscription and usage ingest.
    pub grpc: SocketAddr,
    /// TLS of that port; `None`: in clear text, for a network of our own.
    pub grpc_tls: Option<GrpcTls>,
    /// `OPS_ADDR`: liveness, readiness, metrics.
    pub ops: SocketAddr,
    /// `HTTP_WORKERS`: threads that serve the admin APIs.
    pub workers: usize,
    /// `HEADERS_TIMEOUT_MS`: how long a new connection may take to send its first request's headers. Browsers and pools
    /// open connections ahead of their need, and take the 408 of an unused one for the answer to their next request.
    pub headers_timeout: Duration,
    /// `KEEP_ALIVE_MS`: how long a connection may rest between requests; longer than the 60 s of usual load balancers,
    /// which would otherwise send a request into a closing connection.
    pub keep_alive: Duration,
}

/// TLS of the gRPC port.
#[derive(Clone, Debug)]
pub struct GrpcTls {
    /// `GRPC_CERT_FILE`: PEM file of our certificate, with those between it and its authority.
    pub cert: PathBuf,
    /// `GRPC_KEY_FILE`: PEM file of its private key.
    pub key: PathBuf,
    /// `GRPC_CLIENT_CA_FILE`: PEM file of the authority whose certificates proxies must show (mTLS).
    pub client_ca: Option<PathBuf>,
    /// `GRPC_TLS_HANDSHAKE_MS`: how long a proxy may take to greet.
    pub handshake: Duration,
}

/// The admin APIs.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    /// `MAX_BODY_BYTES`: of one admin request; a price table is the largest.
    pub max_body: usize,
    /// `BODY_TIMEOUT_MS`: how long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// `HEALTH_WAIT_MS`: how long `/api/actions/health` waits for Postgres before it answers 503.
    pub health_wait: Duration,
    /// `FORWARDED_HOPS`: how many proxies in front append to `X-Forwarded-For`; 0: none is believed. Too high,
    /// and a caller can name its own address.
    pub forwarded_hops: usize,
    /// `ADMIN_CONCURRENCY`: requests handled at once; keep it below `DATABASE_MAX_CONNECTIONS`, so that usage and
    /// jobs always find a connection.
    pub parallel: usize,
    /// `ADMIN_QUEUE_MS`: how long a request beyond that waits for its turn before it is answered 429.
    pub queue: Duration,
    /// `APPLY_WAIT_MS`: how long the answer to a change waits until this replica's proxies act on it. A proxy that is
    /// stuck delays every change by so much.
    pub apply_wait: Duration,
    /// `REFRESH_WAIT_MS`: how long `refreshCacheAction` waits for the proxies to act on the newest change.
    pub refresh_wait: Duration,
    /// `RANKING_TTL_SECONDS`: how long it is remembered which of more than a hundred users have a series of their own
    /// in charts.
    pub ranking_ttl: Duration,
    /// `SESSION_TTL_SECONDS`: how long a conversation counts as active after its last request; the proxies'
    /// `SESSION_TTL`.
    pub conversation_ttl: Duration,
    /// `STORE_SESSION_MESSAGES`: whether `getSessionMessages` shows what was said; the proxies must be told to say it,
    /// too. Off, nothing of a conversation is ever stored.
    pub store_messages: bool,
    /// `SESSION_MESSAGES_TTL_SECONDS`: for how long.
    pub messages_ttl: Duration,
}

/// Config push.
#[derive(Clone, Copy, Debug)]
pub struct Publish {
    /// `PUBLISH_POLL_MS`: how often the tables are looked at when no wake-up comes; the truth, if LISTEN fails.
    pub poll: Duration,
    /// `PUBLISH_DEBOUNCE_MS`: how long more changes are waited for after the first.
    pub debounce: Duration,
    /// `PUBLISH_DEBOUNCE_MAX_MS`: how long a steady stream of changes may put off the push.
    pub debounce_max: Duration,
    /// `PUBLISH_RETRY_MAX_MS`: the longest pause between attempts to reach Postgres.
    pub retry_max: Duration,
    /// `HEARTBEAT_MS`: a proxy that hears nothing for three beats reconnects.
    pub heartbeat: Duration,
    /// `ACK_TIMEOUT_MS`: a proxy that does not acknowledge a commit for this long gets the newest one anyway.
    pub ack_timeout: Duration,
    /// `HELLO_TIMEOUT_MS`: how long a new stream may stay silent.
    pub hello_timeout: Duration,
    /// `HTTP2_KEEPALIVE_MS`: ping interval of the gRPC port; the answer must come within the same time.
    pub keepalive: Duration,
    /// `MAX_SUBSCRIBERS`: streams served at once.
    pub max_subscribers: usize,
    /// `HEALTH_PAUSE_MS`: between two transactions that store reported provider health.
    pub health_pause: Duration,
    /// `FLEET_FORGET_SECONDS`: a proxy that stayed away this long leaves the fleet view.
    pub forget: Duration,
    /// `UNPRICED`: what happens to a request for a model without a price, where its owner set nothing: `refuse`,
    /// `ceiling` or `serve`.
    pub unpriced: Unpriced,
}

/// Usage ingest.
#[derive(Clone, Copy, Debug)]
pub struct Ingest {
    /// `INGEST_MAX_RECORDS`: of one batch.
    pub max_records: usize,
    /// `INGEST_CONCURRENCY`: batches written at once; keep it below the number of connections.
    pub concurrency: usize,
    /// `SPENT_CONCURRENCY`: questions about sums that are answered at once, beside the batches; keep both together below
    /// the number of connections.
    pub spent_concurrency: usize,
    /// `INGEST_TIMEOUT_MS`: for one batch, from the wait for its turn to the commit; and for one question.
    pub timeout: Duration,
}

/// Background jobs.
#[derive(Clone, Copy, Debug)]
pub struct Jobs {
    /// `RETENTION_DAYS`: records of days before this many days ago (UTC) are removed, whole months at once and the
    /// rest in batches; 0 keeps all. The sums stay for ever.
    pub retention_days: u32,
    /// `RETENTION_BATCH_ROWS`: records of one batch; a larger one holds its locks longer.
    pub retention_batch: usize,
    /// `RETENTION_MAX_BATCHES`: of one run; what is left is removed by the next.
    pub retention_batches: usize,
    /// `JOBS_PERIOD_SECONDS`: how often each job looks whether there is something to do.
    pub period: Duration,
}

/// Logs and traces.
#[derive(Clone, Debug)]
pub struct Observe {
    /// `LOG_FORMAT`: `json` or `text`.
    pub json: bool,
    /// `LOG_LEVEL`: a level, or directives like `info,control_plane=debug`.
    pub level: String,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: where traces go (OTLP over gRPC); none if empty.
    pub otlp_endpoint: Option<String>,
    /// `OTLP_TIMEOUT_MS`: for one export, and for the last one at shutdown.
    pub otlp_timeout: Duration,
}

impl Config {
    /// Reads the process environment.
    pub fn from_env() -> Result<Self, Invalid> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads from any source of values.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Invalid> {
        let env = Env::new(&lookup);
        Ok(Self {
            database: database(&env)?,
            access: access(&env)?,
            listen: listen(&env)?,
            admin: Admin {
                max_body: env.count("MAX_BODY_BYTES", 10 << 20)?,
                body_timeout: env.millis("BODY_TIMEOUT_MS", 10_000)?,
                health_wait: env.millis("HEALTH_WAIT_MS", 500)?,
                forwarded_hops: env.number("FORWARDED_HOPS", 0)? as usize,
                parallel: env.count("ADMIN_CONCURRENCY", 12)?,
                queue: env.millis("ADMIN_QUEUE_MS", 20_000)?,
                apply_wait: env.millis("APPLY_WAIT_MS", 500)?,
                refresh_wait: env.millis("REFRESH_WAIT_MS", 5_000)?,
                ranking_ttl: env.seconds("RANKING_TTL_SECONDS", 60)?,
                conversation_ttl: env.seconds("SESSION_TTL_SECONDS", 300)?,
                store_messages: env.flag("STORE_SESSION_MESSAGES", false)?,
                messages_ttl: env.seconds("SESSION_MESSAGES_TTL_SECONDS", 300)?,
            },
            publish: publish(&env)?,
            ingest: Ingest {
                max_records: env.count("INGEST_MAX_RECORDS", 5_000)?,
                concurrency: env.count("INGEST_CONCURRENCY", 4)?,
                spent_concurrency: env.count("SPENT_CONCURRENCY", 2)?,
                timeout: env.millis("INGEST_TIMEOUT_MS", 20_000)?,
            },
            jobs: Jobs {
                retention_days: env.number("RETENTION_DAYS", 0)?,
                retention_batch: env.count("RETENTION_BATCH_ROWS", 5_000)?,
                retention_batches: env.count("RETENTION_MAX_BATCHES", 200)?,
                period: env.seconds("JOBS_PERIOD_SECONDS", 3_600)?,
            },
            outbound: Outbound::read(&env)?,
            notify: Notify::read(&env)?,
            observe: observe(&env)?,
            time_zone: env.parsed("TIME_ZONE", "UTC", "must be an IANA time zone such as Europe/Berlin")?,
            auto_migrate: env.flag("AUTO_MIGRATE", true)?,
            shutdown: env.seconds("SHUTDOWN_SECONDS", 20)?,
        })
    }
}

fn database(env: &Env<'_>) -> Result<Database, Invalid> {
    let url = env.url("DATABASE_URL")?;
    Ok(Database {
        direct_url: env.optional_url("DATABASE_DIRECT_URL")?.unwrap_or_else(|| url.clone()),
        url,
        max_connections: env.count("DATABASE_MAX_CONNECTIONS", 16)?,
        wait: env.millis("DATABASE_WAIT_MS", 3_000)?,
        start_wait: env.seconds("DATABASE_START_WAIT_SECONDS", 60)?,
        max_lifetime: env.seconds("DATABASE_MAX_LIFETIME_SECONDS", 1_800)?,
        timeouts: DatabaseTimeouts {
            connect: env.millis("DATABASE_CONNECT_TIMEOUT_MS", 3_000)?,
            statement: env.millis("DATABASE_STATEMENT_TIMEOUT_MS", 15_000)?,
            lock: env.millis("DATABASE_LOCK_TIMEOUT_MS", 5_000)?,
            idle_in_transaction: env.millis("DATABASE_IDLE_IN_TRANSACTION_MS", 20_000)?,
        },
        tls: DatabaseTls::read(env)?,
    })
}

fn access(env: &Env<'_>) -> Result<Access, Invalid> {
    Ok(Access {
        admin_token: env.token("ADMIN_TOKEN")?,
        control_token: env.token("CONTROL_TOKEN")?,
        sealer: env.sealer("SECRETS_KEY")?,
        key_reveal: match env.text("KEY_REVEAL", "never").as_str() {
            "never" => KeyReveal::Never,
            "admin" => KeyReveal::Admin,
            _ => return Err(Invalid::new("KEY_REVEAL", "must be never or admin")),
        },
        session_ttl: env.seconds("AUTH_SESSION_TTL_SECONDS", 604_800)?,
    })
}

fn listen(env: &Env<'_>) -> Result<Listen, Invalid> {
    let address = "must be an address with a port, such as 0.0.0.0:23000";
    Ok(Listen {
        http: env.parsed("LISTEN_ADDR", "0.0.0.0:23000", address)?,
        grpc: env.parsed("GRPC_ADDR", "0.0.0.0:23001", address)?,
        grpc_tls: grpc_tls(env)?,
        ops: env.parsed("OPS_ADDR", "0.0.0.0:23002", address)?,
        workers: env.count("HTTP_WORKERS", 2)?,
        headers_timeout: env.millis("HEADERS_TIMEOUT_MS", 60_000)?,
        keep_alive: env.millis("KEEP_ALIVE_MS", 75_000)?,
    })
}

fn grpc_tls(env: &Env<'_>) -> Result<Option<GrpcTls>, Invalid> {
    let [cert, key, client_ca] =
        ["GRPC_CERT_FILE", "GRPC_KEY_FILE", "GRPC_CLIENT_CA_FILE"].map(|name| env.path(name));
    match (cert, key) {
        (Some(cert), Some(key)) => {
            let handshake = env.millis("GRPC_TLS_HANDSHAKE_MS", 10_000)?;
            Ok(Some(GrpcTls { cert, key, client_ca, handshake }))
        }
        (None, None) if client_ca.is_none() => Ok(None),
        (Some(_), None) => Err(Invalid::new("GRPC_KEY_FILE", "must be set with GRPC_CERT_FILE")),
        (None, _) => {
            Err(Invalid::new("GRPC_CERT_FILE", "must be set with GRPC_KEY_FILE, and for GRPC_CLIENT_CA_FILE"))
        }
    }
}

fn publish(env: &Env<'_>) -> Result<Publish, Invalid> {
    Ok(Publish {
        poll: env.millis("PUBLISH_POLL_MS", 1_000)?,
        debounce: env.millis("PUBLISH_DEBOUNCE_MS", 10)?,
        debounce_max: env.millis("PUBLISH_DEBOUNCE_MAX_MS", 50)?,
        retry_max: env.millis("PUBLISH_RETRY_MAX_MS", 5_000)?,
        heartbeat: env.millis("HEARTBEAT_MS", 5_000)?,
        ack_timeout: env.millis("ACK_TIMEOUT_MS", 15_000)?,
        hello_timeout: env.millis("HELLO_TIMEOUT_MS", 5_000)?,
        keepalive: env.millis("HTTP2_KEEPALIVE_MS", 10_000)?,
        max_subscribers: env.count("MAX_SUBSCRIBERS", 5_000)?,
        health_pause: env.millis("HEALTH_PAUSE_MS", 100)?,
        forget: env.seconds("FLEET_FORGET_SECONDS", 86_400)?,
        unpriced: Unpriced::parse(&env.text("UNPRICED", Unpriced::default().as_str()))
            .ok_or_else(|| Invalid::new("UNPRICED", "must be refuse, ceiling or serve"))?,
    })
}

fn observe(env: &Env<'_>) -> Result<Observe, Invalid> {
    let json = match env.text("LOG_FORMAT", "json").as_str() {
        "json" => true,
        "text" => false,
        _ => return Err(Invalid::new("LOG_FORMAT", "must be json or text")),
    };
    Ok(Observe {
        json,
        level: env.text("LOG_LEVEL", "info,actix_server=warn"),
        otlp_endpoint: Some(env.text("OTEL_EXPORTER_OTLP_ENDPOINT", "")).filter(|url| !url.is_empty()),
        otlp_timeout: env.millis("OTLP_TIMEOUT_MS", 3_000)?,
    })
}

#[cfg(test)]
mod tests;
