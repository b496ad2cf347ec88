//! Puts a proxy together: the side runtime, what all threads share, one traffic thread per core; and takes it
//! apart in the order that loses nothing. The only module that knows all others.

mod descriptors;
mod opening;
mod parts;
mod worker;

use crate::admin::Ops;
use crate::config::Config;
use crate::control::{Link, Report, Watch};
use crate::server;
use crate::tasks::{Tasks, Vital};
use crate::telemetry::metrics::{Metrics, Page};
use crate::{control, spool, store, telemetry, upstream};
use opening::Opening;
pub(crate) use parts::Common;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};
use tokio_util::sync::CancellationToken;

/// Threads for gRPC, spool, metrics and the ops port.
const SIDE_THREADS: usize = 2;
/// What background work may take beyond the last report.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the last spans may take.
const TRACE_FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// How often histograms are folded and the spool is measured.
const UPKEEP: Duration = Duration::from_secs(1);

/// Why a proxy does not start; names the setting that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address is taken or not ours.
    #[error("{variable}: cannot listen on {address}")]
    Listen {
        /// The setting.
        variable: &'static str,
        /// Its value.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread or a runtime.
    #[error("the system refuses a thread")]
    Thread(#[from] io::Error),
    /// Logs or traces.
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    /// The spool cannot be used.
    #[error("DATA_DIR: the spool cannot be opened")]
    Spool(#[source] spool::Error),
    /// The control plane's URL or certificates.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// Authorities of upstreams.
    #[error(transparent)]
    Tls(#[from] upstream::TlsError),
    /// Redis' URL.
    #[error(transparent)]
    Store(#[from] store::OpenError),
}

/// Why a proxy ended by itself.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the task `{0}` died; the proxy cannot do its work without it")]
pub struct Died(&'static str);

/// A proxy that runs.
pub struct Bound {
    /// Where callers connect.
    pub address: SocketAddr,
    /// Where operators look.
    pub ops_address: SocketAddr,
    config: Arc<Config>,
    side: Runtime,
    tasks: Tasks,
    telemetry: telemetry::Guard,
    workers: Vec<JoinHandle<()>>,
    draining: Arc<AtomicBool>,
    stop: Stop,
}

/// How a proxy is told to end; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Accept no more, let answers in flight end.
    pub drain: CancellationToken,
    /// Do not wait for them any longer.
    pub hurry: CancellationToken,
    /// Tells when work died that the process must not go on without.
    pub vital: Vital,
}

/// Binds every socket, starts every thread. Callers can connect once there is a table. Must not be called from within a runtime.
pub fn build(config: Config) -> Result<Bound, Error> {
    let config = Arc::new(config);
    let side = runtime::Builder::new_multi_thread()
        .worker_threads(SIDE_THREADS)
        .thread_name("side")
        .enable_all()
        .build()?;
    let entered = side.enter();
    let telemetry = telemetry::start(&parts::telemetry(&config))?;
    descriptors::raise();
    let (metrics, page) = Metrics::install();
    let tasks = Tasks::new(side.handle().clone());
    let (address, sockets) = server::bind(config.listen_addr, config.workers.0)
        .map_err(|source| Error::Listen { variable: "LISTEN_ADDR", address: config.listen_addr, source })?;
    let (ops_address, ops_listener) = ops_listener(config.ops_addr)?;
    let link = Link::new(&config, side.handle())?;
    let common = Common::new(&config, &metrics, link.ledger())?;

    let draining = Arc::new(AtomicBool::new(false));
    let stop = Stop { vital: tasks.vital().clone(), ..Stop::default() };
    let (opening, open) = Opening::new(&sockets)?;
    let workers = worker::start(sockets, &common, &stop, &open)?;
    let reported: Arc<AtomicI64> = Arc::default();
    let watch = Watch {
        config: Arc::clone(&config),
        tasks: tasks.clone(),
        link: link.clone(),
        table: Arc::clone(&common.proxy.table),
        health: common.proxy.health.clone(),
        live: common.proxy.live.clone(),
        reported: Arc::clone(&reported),
        metrics: Arc::clone(&metrics),
        address: address.to_string(),
        timing: control::Timing::default(),
    };
    let watching = watch.start();
    opening.start(watching.ready.clone(), Arc::clone(&common.proxy), &tasks, stop.drain.clone());
    let ops = Ops {
        proxy_id: config.proxy_id.clone(),
        token: config.control_token.clone(),
        vital: tasks.vital().clone(),
        page: page.clone(),
        table: Arc::clone(&common.proxy.table),
        health: common.proxy.health.clone(),
        watching,
        open,
        spool: common.proxy.spool.clone(),
        draining: Arc::clone(&draining),
        trouble: Arc::clone(&common.upstream.trouble),
    };
    ops.start(ops_listener, &tasks);
    let spool = common.proxy.spool.clone();
    upkeep(&tasks, page, spool.clone(), (Arc::clone(&metrics), reported));
    parts::look_after(&spool, config.spool_fsync_interval, &tasks, &metrics);
    Report { config: Arc::clone(&config), tasks: tasks.clone(), link, spool, metrics }.start();
    descriptors::warn(config.max_connections);
    tracing::info!(%address, %ops_address, proxy_id = config.proxy_id, workers = workers.len(), "proxy started");
    drop(entered);
    Ok(Bound { address, ops_address, config, side, tasks, telemetry, workers, draining, stop })
}

fn ops_listener(address: SocketAddr) -> Result<(SocketAddr, TcpListener), Error> {
    let wrong = |source| Error::Listen { variable: "OPS_ADDR", address, source };
    let listener = std::net::TcpListener::bind(address).map_err(wrong)?;
    listener.set_nonblocking(true).map_err(wrong)?;
    let listener = TcpListener::from_std(listener).map_err(wrong)?;
    Ok((listener.local_addr().map_err(wrong)?, listener))
}

fn upkeep(tasks: &Tasks, page: Page, spool: spool::Spool, told: (Arc<Metrics>, Arc<AtomicI64>)) {
    let (metrics, reported) = told;
    let stop = tasks.stopping().clone();
    tasks.spawn("upkeep", async move {
        let every = async {
            loop {
                page.upkeep();
                parts::measure(&spool, &metrics, &reported);
                tokio::time::sleep(UPKEEP).await;
            }
        };
        stop.run_until_cancelled(every).await;
    });
}

impl Bound {
    /// A handle to end it from elsewhere.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Waits for SIGTERM, SIGINT, [`Stop::drain`] or the death of vital work, then ends the proxy. A second signal does
    /// not wait for answers in flight. Fails if it was a death: whoever runs the process is to start it again.
    pub fn run(self) -> Result<(), Died> {
        let stop = self.stop.clone();
        self.side.block_on(async {
            tokio::select! {
                () = signal() => {}
                () = stop.drain.cancelled() => {}
                () = stop.vital.told().cancelled() => {}
            }
        });
        self.tasks.spawn("second-signal", async move {
            let second = async {
                signal().await;
                stop.hurry.cancel();
            };
            stop.hurry.run_until_cancelled(second).await;
        });
        let vital = self.stop.vital.clone();
        self.shutdown();
        vital.died().map_or(Ok(()), |task| Err(Died(task)))
    }

    /// Not ready → accept no more → answers in flight → last records → background work → last spans.
    pub fn shutdown(self) {
        tracing::info!("draining");
        self.draining.store(true, Ordering::Relaxed);
        self.side.block_on(async {
            let delay = tokio::time::sleep(self.config.drain_delay);
            self.stop.hurry.run_until_cancelled(delay).await;
        });
        self.stop.drain.cancel();
        for worker in self.workers {
            if worker.join().is_err() {
                tracing::error!("a traffic thread died");
            }
        }
        self.stop.hurry.cancel();
        let finish = self.tasks.finish(self.config.flush_timeout + STOP_TIMEOUT);
        if !self.side.block_on(finish) {
            tracing::warn!("background work did not end in time");
        }
        tracing::info!("stopped");
        self.side.block_on(self.telemetry.flush(TRACE_FLUSH_TIMEOUT));
        self.side.shutdown_timeout(STOP_TIMEOUT);
    }
}

/// SIGTERM or SIGINT.
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be received; only a kill ends this process");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(test)]
mod tests;
