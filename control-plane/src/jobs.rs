//! Work that nobody asks for: each job looks at the database, does what is due and can run twice, on every
//! replica, without harm.
//!
//! Depends on `db` and `telemetry`. Never holds state between runs.

mod check;
mod forget;
pub mod notify;
mod partitions;
mod retention;

pub use partitions::run as make_partitions;

use crate::config::{Jobs, Publish};
use crate::db::Pool;
use crate::tasks::Tasks;
use crate::telemetry::metric;
use chrono_tz::Tz;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// What every job gets.
#[derive(Clone, Debug)]
pub struct Context {
    /// Postgres.
    pub pool: Pool,
    /// Bounds of the jobs.
    pub settings: Jobs,
    /// `FLEET_FORGET_SECONDS`.
    pub forget: Duration,
    /// `TIME_ZONE`.
    pub zone: Tz,
}

impl Context {
    /// From the process's settings.
    pub fn new(pool: Pool, settings: Jobs, publish: Publish, zone: Tz) -> Self {
        Self { pool, settings, forget: publish.forget, zone }
    }
}

/// Starts every job of this module.
pub fn start(tasks: &Tasks, context: &Context) {
    macro_rules! job {
        ($name:literal, $run:path) => {
            let run = |context: Context| async move { $run(&context).await };
            every(tasks, $name, context.settings.period, context, run);
        };
    }
    job!("partitions", partitions::run);
    job!("retention", retention::run);
    job!("rollup-check", check::run);
    job!("forget-proxies", forget::run);
}

/// Keeps a job: it runs at once and then once a period, with its own handle to `context`.
pub fn every<C, F>(
    tasks: &Tasks,
    name: &'static str,
    period: Duration,
    context: &C,
    run: impl Fn(C) -> F + Copy + Send + Sync + 'static,
) where
    C: Clone + Send + Sync + 'static,
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let (context, shutdown) = (context.clone(), tasks.shutdown().clone());
    tasks.keep(name, move || {
        let (context, shutdown) = (context.clone(), shutdown.clone());
        async move {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
                ended(name, run(context.clone()).await);
            }
        }
    });
}

/// Counts a run and logs what went wrong in it.
pub fn ended(job: &'static str, result: anyhow::Result<()>) {
    let word = if result.is_ok() { "ok" } else { "error" };
    metrics::counter!(metric::JOB_RUNS, "job" => job, "result" => word).increment(1);
    if let Err(error) = result {
        tracing::warn!(job, error = format!("{error:#}"), "a job failed; it runs again in its next period");
    }
}
