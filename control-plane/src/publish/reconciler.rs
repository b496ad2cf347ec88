//! The one task that turns rows into the newest table. Woken by the admin APIs, by LISTEN and by a timer;
//! takes no input from any of them but reads the truth. While Postgres is away the last table stays.

use super::{Published, Wake};
use crate::compile::{Inputs, table_hash};
use crate::config;
use crate::db::generation::{CHANNEL, current};
use crate::db::pool::connect;
use crate::db::rows::{Changes, changed_since};
use crate::db::{Error, Pool};
use crate::telemetry::metric;
use chrono_tz::Tz;
use contract::ids::Generation;
use contract::seal::Sealer;
use diesel_async::RunQueryDsl;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long LISTEN may be silent before its connection is tried with a query.
const LISTEN_PROBE: Duration = Duration::from_secs(30);

/// Reads, compiles, publishes.
pub struct Reconciler {
    pool: Pool,
    settings: config::Publish,
    zone: Tz,
    sealer: Sealer,
    wake: Wake,
    newest: watch::Sender<Option<Arc<Published>>>,
    inputs: Inputs,
    last: Generation,
}

impl Reconciler {
    /// `zone` and `sealer` are the compiler's. Publishes into `newest`, which may hold a table of an earlier run of this task.
    pub fn new(
        pool: Pool,
        settings: config::Publish,
        (zone, sealer): (Tz, Sealer),
        wake: Wake,
        newest: watch::Sender<Option<Arc<Published>>>,
    ) -> Self {
        let inputs = Inputs::new(zone, sealer.clone()).with_unpriced(settings.unpriced);
        Self { pool, settings, zone, sealer, wake, newest, inputs, last: Generation(0) }
    }

    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut pause = self.settings.poll;
        let mut is_lost = false;
        loop {
            match self.round().await {
                Ok(()) => {
                    pause = self.settings.poll;
                    is_lost = false;
                }
                Err(error) => {
                    metrics::counter!(metric::RECONCILE_ERRORS).increment(1);
                    // Once per outage, not once per attempt.
                    if !is_lost {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "cannot read the configuration"
                        );
                    }
                    is_lost = true;
                    pause = (pause * 2).min(self.settings.retry_max);
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.wake.woken() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Brings the newest table up to what is committed now.
    pub async fn round(&mut self) -> Result<(), Error> {
        let Some(mut changes) = self.read().await? else { return Ok(()) };
        let is_first = self.last.0 == 0;
        if !is_first && !changes.revokes() && self.settle().await {
            changes = self.read().await?.unwrap_or(changes);
        }
        self.publish(changes).await
    }

    /// What changed since the last table; `None` if nothing did.
    async fn read(&mut self) -> Result<Option<Changes>, Error> {
        let mut conn = self.pool.read().await?;
        let now = current(&mut conn).await?;
        if now == self.last {
            return Ok(None);
        }
        if now < self.last {
            // Postgres was restored from a backup: what we know is of another history.
            tracing::warn!(
                was = self.last.0,
                now = now.0,
                "the generation went back; all rows are read again"
            );
            self.forget();
        }
        changed_since(&mut conn, self.last).await.map(Some)
    }

    /// Waits until no change came for the debounce, at most for its maximum. Says whether one came.
    async fn settle(&self) -> bool {
        let end = Instant::now() + self.settings.debounce_max;
        let mut came = false;
        while Instant::now() < end {
            let rest = self.settings.debounce.min(end - Instant::now());
            match timeout(rest, self.wake.woken()).await {
                Ok(()) => came = true,
                Err(_) => break,
            }
        }
        came
    }

    async fn publish(&mut self, changes: Changes) -> Result<(), Error> {
        let started = Instant::now();
        let generation = Generation(changes.generation);
        let none = self.no_inputs();
        let mut inputs = std::mem::replace(&mut self.inputs, none);
        // A large table takes longer to compile than a worker thread may be held.
        let compiled = tokio::task::spawn_blocking(move || {
            inputs.apply(changes);
            let sections = inputs.sections().clone();
            let (table_hash, problems) = (table_hash(&sections), inputs.problems());
            (inputs, Published { generation, sections, table_hash, problems })
        });
        let Ok((inputs, published)) = compiled.await else {
            self.forget();
            tracing::error!("compiling the table panicked; all rows are read again");
            return Ok(());
        };
        self.inputs = inputs;
        self.last = generation;
        metrics::gauge!(metric::GENERATION).set(generation.0 as f64);
        metrics::gauge!(metric::PROBLEMS).set(published.problems.len() as f64);
        metrics::histogram!(metric::COMPILE_SECONDS).record(started.elapsed().as_secs_f64());
        self.report(&published);
        self.newest.send_replace(Some(Arc::new(published)));
        Ok(())
    }

    fn report(&self, published: &Published) {
        let before = self.newest.borrow();
        let known = before.as_ref().map(|table| table.problems.as_slice()).unwrap_or_default();
        for problem in published.problems.iter().filter(|problem| !known.contains(problem)) {
            let crate::compile::Problem { kind, id, field, why } = problem;
            tracing::warn!(kind, id, field, why, "a row is left out of the table");
        }
        tracing::debug!(
            generation = published.generation.0,
            sections = published.sections.len(),
            "table published"
        );
    }

    fn no_inputs(&self) -> Inputs {
        Inputs::new(self.zone, self.sealer.clone()).with_unpriced(self.settings.unpriced)
    }

    fn forget(&mut self) {
        self.inputs = self.no_inputs();
        self.last = Generation(0);
    }
}

/// Keeps a connection on LISTEN and wakes the reconciler; other replicas' commits come this way. Only a
/// wake-up: while it is down, the reconciler's timer finds the changes.
pub async fn listen(
    database: config::Database,
    settings: config::Publish,
    wake: Wake,
    shutdown: CancellationToken,
) {
    let mut pause = Duration::from_millis(100);
    while !shutdown.is_cancelled() {
        let started = Instant::now();
        let ended = shutdown.run_until_cancelled(listen_once(&database, &wake)).await;
        if let Some(Err(error)) = ended {
            tracing::debug!(error = &error as &dyn std::error::Error, "LISTEN ended");
        }
        pause = if started.elapsed() > settings.retry_max { Duration::from_millis(100) } else { pause * 2 };
        pause = pause.min(settings.retry_max);
        shutdown.run_until_cancelled(sleep(pause)).await;
    }
}

async fn listen_once(database: &config::Database, wake: &Wake) -> Result<(), Error> {
    let mut conn = connect(database.direct_url.expose(), database.timeouts, &database.tls).await?;
    diesel::sql_query(format!("LISTEN {CHANNEL}")).execute(&mut conn).await?;
    // What was committed while nobody listened.
    wake.wake();
    loop {
        let heard = timeout(LISTEN_PROBE, next_notification(&mut conn)).await;
        match heard {
            Ok(Some(Ok(()))) => wake.wake(),
            Ok(Some(Err(error))) => return Err(error.into()),
            Ok(None) => return Ok(()),
            Err(_) => {
                diesel::sql_query("SELECT 1").execute(&mut conn).await?;
            }
        }
    }
}

async fn next_notification(conn: &mut crate::db::Conn) -> Option<Result<(), diesel::result::Error>> {
    let mut stream = std::pin::pin!(conn.notifications_stream());
    stream.next().await.map(|heard| heard.map(drop))
}
