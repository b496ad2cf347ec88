//! Background work: every task has a name, runs on the main runtime, logs its end if it panics, and is
//! waited for at shutdown. The only place that spawns.

use futures_util::FutureExt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Pause before a task that panicked runs again.
const RESTART_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1_000 });

/// Spawns, and ends what it spawned. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    main: Handle,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Tasks {
    /// Tasks run on `main`, whatever thread spawns them: an actix worker's own runtime ends before they do.
    pub fn new(main: Handle) -> Self {
        Self { main, tracker: TaskTracker::new(), shutdown: CancellationToken::new() }
    }

    /// Cancelled when the process is to end; long tasks and streams select on it.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// The runtime of the tasks.
    pub fn main(&self) -> &Handle {
        &self.main
    }

    /// Runs `work` to its end, even if nobody waits for it any more. A panic is logged and, to whoever
    /// waits, a join error.
    pub fn spawn<F>(&self, name: &'static str, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let span = tracing::info_span!("task", name);
        let logged = async move {
            match AssertUnwindSafe(work).catch_unwind().await {
                Ok(done) => done,
                Err(panic) => {
                    tracing::error!(task = name, "a background task panicked");
                    resume_unwind(panic)
                }
            }
        };
        self.tracker.spawn_on(logged.instrument(span), &self.main)
    }

    /// Keeps `work` running until shutdown: when it ends or panics, it is made and run again.
    pub fn keep<F>(&self, name: &'static str, mut work: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tasks = self.clone();
        drop(self.spawn(name, async move {
            while !tasks.shutdown.is_cancelled() {
                let ended = AssertUnwindSafe(work()).catch_unwind().await;
                if tasks.shutdown.is_cancelled() {
                    return;
                }
                tracing::error!(
                    task = name,
                    panicked = ended.is_err(),
                    "a task that runs for ever ended; again"
                );
                let pause = tokio::time::sleep(RESTART_PAUSE);
                tasks.shutdown.run_until_cancelled(pause).await;
            }
        }));
    }

    /// Asks everything to end and waits for it. Says whether all ended in time.
    pub async fn finish(&self, limit: Duration) -> bool {
        self.shutdown.cancel();
        self.tracker.close();
        timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn what_panics_is_run_again_and_everything_ends() {
        let tasks = Tasks::new(Handle::current());
        let runs = Arc::new(AtomicU32::new(0));
        let (seen, shutdown) = (Arc::clone(&runs), tasks.shutdown().clone());
        tasks.keep("test", move || {
            let (seen, shutdown) = (Arc::clone(&seen), shutdown.clone());
            async move {
                assert!(seen.fetch_add(1, Ordering::SeqCst) > 1, "the first two runs panic");
                shutdown.cancelled().await;
            }
        });
        while runs.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        assert!(tasks.finish(Duration::from_secs(1)).await);
    }
}
