//! Where the parts meet: binds every port, starts every task, and ends them in order. `main` and tests call
//! the same function.

mod start;
mod tls;

use crate::api::actions::model_prices::keep_synced;
use crate::config::Config;
use crate::db::{self, Pool};
use crate::ingest::Ingest;
use crate::outbound::{self, Outbound};
use crate::publish::{
    Discovery, Fleet, Gate, HealthInbox, Heard, Keep, LiveInbox, Newest, Reconciler, UnpricedInbox, Wake,
    listen,
};
use crate::tasks::Tasks;
use crate::{api, jobs, ops};
use actix_web::dev::ServerHandle;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use contract::pb::config_discovery_server::ConfigDiscoveryServer;
use contract::pb::usage_ingest_server::UsageIngestServer;
use metrics_exporter_prometheus::PrometheusHandle;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;

pub use start::migrate;

/// How long names of models without a price are gathered before they are looked at again.
const UNPRICED_PAUSE: Duration = Duration::from_secs(1);
/// Largest gRPC message: a batch of usage records.
const MAX_MESSAGE: usize = 16 << 20;

/// Why the process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres stayed away, or a migration failed.
    #[error("the database is not ready")]
    Database(#[from] db::Error),
    /// TLS for calls to the outside cannot be set up.
    #[error("calls to the outside are not possible")]
    Outbound(#[from] outbound::Error),
    /// TLS of the gRPC port cannot be set up.
    #[error("the gRPC port cannot speak TLS")]
    Tls(#[from] tls::Error),
    /// A port is taken, or an address is not ours.
    #[error("{variable}: cannot listen on {address}")]
    Bind {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// A running control plane.
pub struct Bound {
    /// Where the admin APIs listen.
    pub http: SocketAddr,
    /// Where the gRPC services listen.
    pub grpc: SocketAddr,
    /// Where probes and metrics are served.
    pub ops: SocketAddr,
    /// Who acts on which table.
    pub fleet: Fleet,
    /// The newest table.
    pub newest: Newest,
    pool: Pool,
    tasks: Tasks,
    admin: ServerHandle,
    probes: ServerHandle,
    limit: Duration,
}

/// Migrates if it may, makes what must be there, binds and serves. Must run on the main runtime.
pub async fn build(config: Config, metrics: Option<PrometheusHandle>) -> Result<Bound, Error> {
    let tasks = Tasks::new(Handle::current());
    let listeners = Listeners::bind(&config)?;
    start::prepare(&config).await?;
    let pool = Pool::new(&config.database, tasks.main().clone());

    let (wake, fleet, health) = (Wake::default(), Fleet::default(), HealthInbox::default());
    let keep = Keep { sealer: config.access.sealer.clone(), ttl: config.admin.messages_ttl };
    let live = LiveInbox::new(config.admin.store_messages.then_some(keep));
    let (sender, newest) = watch::channel(None);
    start_publishing(&config, &tasks, &pool, &wake, sender);
    start_storing(&config, &tasks, &pool, &wake, (&fleet, &health));
    let (kept, stored, token) = (live.clone(), pool.clone(), tasks.shutdown().clone());
    tasks.keep("live", move || kept.clone().store(stored.clone(), token.clone()));
    let outbound = Outbound::new(config.outbound.clone())?;
    let notifier = jobs::notify::Notifier {
        pool: pool.clone(),
        outbound: outbound.clone(),
        sealer: config.access.sealer.clone(),
        time_zone: config.time_zone,
        settings: config.notify,
    };
    jobs::notify::start(&tasks, &notifier);
    jobs::start(&tasks, &jobs::Context::new(pool.clone(), config.jobs, config.publish, config.time_zone));

    let heard = Heard { health, live, unpriced: UnpricedInbox::default() };
    let unpriced = heard.unpriced.clone();
    let discovery = Discovery::new(config.publish, newest.clone(), fleet.clone(), heard, tasks.clone());
    let ingest = Ingest::new(pool.clone(), config.ingest, tasks.clone());
    let (http, grpc, ops) = (listeners.http.address, listeners.grpc.address, listeners.ops.address);
    serve_grpc(&config, &tasks, listeners.grpc, discovery, ingest)?;
    let state =
        api::State::new(pool.clone(), settings(&config, outbound), wake, fleet.clone(), newest.clone());
    let state = Arc::new(state);
    start_price_sync(&config, &tasks, &state, unpriced);
    let admin = serve_admin(&config, &tasks, listeners.http, state)?;
    let shown = ops::State {
        pool: pool.clone(),
        newest: newest.clone(),
        metrics,
        shutdown: tasks.shutdown().clone(),
    };
    let probes = serve_ops(&tasks, listeners.ops, shown)?;
    tracing::info!(%http, %grpc, %ops, "the control plane serves");
    Ok(Bound { http, grpc, ops, fleet, newest, pool, tasks, admin, probes, limit: config.shutdown })
}

fn settings(config: &Config, outbound: Outbound) -> api::Settings {
    let access = config.access.clone();
    api::Settings {
        admin_token: access.admin_token,
        sealer: access.sealer,
        key_reveal: access.key_reveal,
        session_ttl: access.session_ttl,
        time_zone: config.time_zone,
        max_body: config.admin.max_body,
        body_timeout: config.admin.body_timeout,
        forwarded_hops: config.admin.forwarded_hops,
        forget: config.publish.forget,
        parallel: config.admin.parallel,
        queue: config.admin.queue,
        apply_wait: config.admin.apply_wait,
        refresh_wait: config.admin.refresh_wait,
        ranking_ttl: config.admin.ranking_ttl,
        conversation_ttl: config.admin.conversation_ttl,
        messages_ttl: config.admin.store_messages.then_some(config.admin.messages_ttl),
        outbound,
        health_wait: config.admin.health_wait,
        unpriced: config.publish.unpriced,
        retention_days: config.jobs.retention_days,
    }
}

fn start_publishing(
    config: &Config,
    tasks: &Tasks,
    pool: &Pool,
    wake: &Wake,
    sender: watch::Sender<Option<Arc<crate::publish::Published>>>,
) {
    let (settings, zone, shutdown) = (config.publish, config.time_zone, tasks.shutdown().clone());
    let (pool, waked, token) = (pool.clone(), wake.clone(), shutdown.clone());
    let sealer = config.access.sealer.clone();
    tasks.keep("reconciler", move || {
        let compiler = (zone, sealer.clone());
        Reconciler::new(pool.clone(), settings, compiler, waked.clone(), sender.clone()).run(token.clone())
    });
    let (database, wake) = (config.database.clone(), wake.clone());
    tasks.keep("listen", move || listen(database.clone(), settings, wake.clone(), shutdown.clone()));
}

fn start_storing(config: &Config, tasks: &Tasks, pool: &Pool, wake: &Wake, from: (&Fleet, &HealthInbox)) {
    let (settings, shutdown) = (config.publish, tasks.shutdown().clone());
    let (fleet, persisted, token) = (from.0.clone(), pool.clone(), shutdown.clone());
    tasks.keep("fleet", move || fleet.clone().persist(persisted.clone(), settings.forget, token.clone()));
    let (health, pool, wake) = (from.1.clone(), pool.clone(), wake.clone());
    tasks
        .keep("health", move || health.clone().store(pool.clone(), settings, wake.clone(), shutdown.clone()));
}

/// A job whose work is an action: now and then, and at once when a model without a price is asked for.
fn start_price_sync(config: &Config, tasks: &Tasks, state: &Arc<api::State>, unpriced: UnpricedInbox) {
    let Some(period) = config.outbound.price_sync else { return };
    let tick = config.jobs.period.min(period);
    // Half a tick less, so that the tick at which it is due does not come a moment too early.
    let due = period - tick / 2;
    let run = move |state: Arc<api::State>| async move { keep_synced::run(&state, due).await };
    jobs::every(tasks, "price-sync", tick, state, run);
    let (state, shutdown) = (Arc::clone(state), tasks.shutdown().clone());
    tasks.keep("price-sync-unpriced", move || {
        let (state, unpriced, shutdown) = (Arc::clone(&state), unpriced.clone(), shutdown.clone());
        async move {
            while let Some(models) = shutdown.run_until_cancelled(unpriced.take()).await {
                jobs::ended("price-sync-unpriced", keep_synced::run_for(&state, &models).await);
                shutdown.run_until_cancelled(sleep(UNPRICED_PAUSE)).await;
            }
        }
    });
}

struct Listener {
    variable: &'static str,
    address: SocketAddr,
    socket: TcpListener,
}

struct Listeners {
    http: Listener,
    grpc: Listener,
    ops: Listener,
}

impl Listener {
    fn bind(variable: &'static str, address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::Bind { variable, address, source };
        let socket = TcpListener::bind(address).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { variable, address, socket })
    }

    fn failed(variable: &'static str, address: SocketAddr) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Bind { variable, address, source }
    }
}

impl Listeners {
    /// Before anything else starts, so that a port that is taken is known at once.
    fn bind(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            http: Listener::bind("LISTEN_ADDR", config.listen.http)?,
            grpc: Listener::bind("GRPC_ADDR", config.listen.grpc)?,
            ops: Listener::bind("OPS_ADDR", config.listen.ops)?,
        })
    }
}

fn serve_grpc(
    config: &Config,
    tasks: &Tasks,
    at: Listener,
    discovery: Discovery,
    ingest: Ingest,
) -> Result<(), Error> {
    let socket = tokio::net::TcpListener::from_std(at.socket);
    let socket = socket.map_err(Listener::failed(at.variable, at.address))?;
    let gate = Gate::new(config.access.control_token.clone());
    let discovery = ConfigDiscoveryServer::new(discovery).max_decoding_message_size(MAX_MESSAGE);
    let ingest = UsageIngestServer::new(ingest).max_decoding_message_size(MAX_MESSAGE);
    let shutdown = tasks.shutdown().clone().cancelled_owned();
    let server = tls::server(config.listen.grpc_tls.as_ref())?
        .http2_keepalive_interval(Some(config.publish.keepalive))
        .http2_keepalive_timeout(Some(config.publish.keepalive))
        .add_service(InterceptedService::new(discovery, gate.clone()))
        .add_service(InterceptedService::new(ingest, gate))
        .serve_with_incoming_shutdown(TcpIncoming::from(socket).with_nodelay(Some(true)), shutdown);
    drop(tasks.spawn("grpc", async move {
        if let Err(error) = server.await {
            tracing::error!(error = &error as &dyn std::error::Error, "the gRPC port ended");
        }
    }));
    Ok(())
}

fn serve_admin(
    config: &Config,
    tasks: &Tasks,
    at: Listener,
    state: Arc<api::State>,
) -> Result<ServerHandle, Error> {
    let state = Data::from(state);
    let server = HttpServer::new(move || App::new().app_data(state.clone()).configure(api::configure))
        .workers(config.listen.workers)
        .client_request_timeout(config.listen.headers_timeout)
        .keep_alive(config.listen.keep_alive)
        .shutdown_timeout(config.shutdown.as_secs())
        .disable_signals()
        .listen(at.socket)
        .map_err(Listener::failed(at.variable, at.address))?
        .run();
    let handle = server.handle();
    drop(tasks.spawn("admin", async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the admin port ended");
        }
    }));
    Ok(handle)
}

fn serve_ops(tasks: &Tasks, at: Listener, state: ops::State) -> Result<ServerHandle, Error> {
    let state = Data::new(state);
    let server = HttpServer::new(move || App::new().app_data(state.clone()).configure(ops::configure))
        .workers(1)
        .shutdown_timeout(1)
        .disable_signals()
        .listen(at.socket)
        .map_err(Listener::failed(at.variable, at.address))?
        .run();
    let handle = server.handle();
    drop(tasks.spawn("ops", async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the ops port ended");
        }
    }));
    Ok(handle)
}

impl Bound {
    /// Ends in order: not ready, no new connections, streams told to end, tasks finished, pool closed. Says
    /// whether all ended within the limit.
    pub async fn shutdown(self) -> bool {
        tracing::info!("shutting down");
        let end = Instant::now() + self.limit;
        // Readiness turns, streams and tasks begin to end.
        self.tasks.shutdown().cancel();
        let is_drained = timeout(self.limit, self.admin.stop(true)).await.is_ok();
        self.probes.stop(false).await;
        let is_finished = self.tasks.finish(end.saturating_duration_since(Instant::now())).await;
        self.pool.close();
        is_drained && is_finished
    }
}
