//! Keeps the routing table up to date, for ever: the last good table from disk first, then subscription after
//! subscription. Nothing that happens here stops traffic.

use super::backoff::Backoff;
use super::disk;
use super::holder::{Holder, Status};
use super::link::Link;
use super::stream::{End, Identity, Subscription};
use crate::clock::{Instant, now_ms};
use crate::config::Config;
use crate::health::Book;
use crate::live::Live;
use crate::table::{Builder, Table};
use crate::tasks::Tasks;
use crate::telemetry::metrics::Metrics;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;
use tokio::sync::watch;

/// The control plane beats every 5 s; after three missed beats it counts as gone.
const SILENCE: Duration = Duration::from_secs(15);
/// First and longest pause between two subscriptions.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// How often the age of the table is measured.
const AGE_EVERY: Duration = Duration::from_secs(1);

/// Whether a verified table is held. Once true, it stays so.
pub type Ready = watch::Receiver<bool>;

/// Times of the subscription loop.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Longest time without a message.
    pub silence: Duration,
    /// First pause before another subscription.
    pub retry_first: Duration,
    /// Longest pause.
    pub retry_last: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { silence: SILENCE, retry_first: RETRY_FIRST, retry_last: RETRY_LAST }
    }
}

/// What the subscription works with.
pub struct Watch {
    /// Settings.
    pub config: Arc<Config>,
    /// Where it runs.
    pub tasks: Tasks,
    /// The way to the control plane.
    pub link: Link,
    /// What it keeps up to date.
    pub table: Table,
    /// Whose transitions it reports, and which hears of the others'.
    pub health: Book,
    /// Which open requests it reports.
    pub live: Live,
    /// All records of requests that ended before were delivered, Unix milliseconds; 0: not known.
    pub reported: Arc<AtomicI64>,
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// Where callers reach this proxy, for people.
    pub address: String,
    /// Times.
    pub timing: Timing,
}

/// What others see of a running subscription.
#[derive(Clone)]
pub struct Watching {
    /// Whether there is a table.
    pub ready: Ready,
    /// How it stands.
    pub status: Arc<ArcSwap<Status>>,
}

impl Watch {
    /// Starts the loop; it ends with the tasks.
    pub fn start(self) -> Watching {
        let status: Arc<ArcSwap<Status>> = Arc::default();
        let (ready, is_ready) = watch::channel(false);
        let watching = Watching { ready: is_ready, status: Arc::clone(&status) };
        let sealer = self.config.sealer.clone();
        let holder = Holder {
            builder: Builder::new(sealer.clone()),
            sealer,
            table: Arc::clone(&self.table),
            health: self.health.clone(),
            metrics: Arc::clone(&self.metrics),
            tasks: self.tasks.clone(),
            saver: disk::save_behind(self.config.data_dir.clone(), &self.tasks),
            status: Arc::clone(&status),
            ready,
        };
        let (metrics, stop) = (Arc::clone(&self.metrics), self.tasks.stopping().clone());
        self.tasks.spawn("table-age", async move {
            stop.run_until_cancelled(measure_age(&metrics, &status)).await;
        });
        let stop = self.tasks.stopping().clone();
        self.tasks.clone().spawn_vital("watch", async move {
            stop.run_until_cancelled(Box::pin(self.run(holder))).await;
        });
        watching
    }

    async fn run(self, mut holder: Holder) {
        holder.load(&self.config.data_dir).await;
        let identity = Identity {
            proxy_id: self.config.proxy_id.clone(),
            boot_id: uuid::Uuid::new_v4().to_string(),
            address: self.address.clone(),
        };
        let transitions = self.health.transitions();
        let mut backoff = Backoff::new(self.timing.retry_first, self.timing.retry_last);
        let mut from_nothing = false;
        loop {
            let mut progressed = false;
            let since = Instant::now();
            let subscription = Subscription {
                holder: &mut holder,
                transitions: &transitions,
                live: &self.live,
                reported: &self.reported,
                silence: self.timing.silence,
                from_nothing,
                progressed: &mut progressed,
            };
            let end = subscription.run(&self.link, &identity).await;
            self.metrics.control_connected.set(0.0);
            holder.report(|status| status.connected = false);
            from_nothing = matches!(end, End::Refused(_)) || (from_nothing && !progressed);
            let lasted = since.elapsed() >= self.timing.retry_last;
            if (progressed || lasted) && !from_nothing {
                backoff.reset();
            }
            let pause = backoff.pause();
            tracing::warn!(%end, ?pause, "the subscription ended; traffic goes on with the table held");
            tokio::time::sleep(pause).await;
        }
    }
}

async fn measure_age(metrics: &Metrics, status: &ArcSwap<Status>) {
    let started_ms = now_ms();
    loop {
        let heard_ms = status.load().heard_ms.max(started_ms);
        let age = Duration::from_millis(u64::try_from(now_ms() - heard_ms).unwrap_or(0));
        metrics.config_stale_seconds.set(age.as_secs_f64());
        tokio::time::sleep(AGE_EVERY).await;
    }
}
