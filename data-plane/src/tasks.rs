//! The one way to start background work: named, its panic logged, joined at shutdown. Traffic threads use
//! [`spawn_local`]; everything else a [`Tasks`] over the side runtime. Depends on tokio only.

use futures_util::FutureExt;
use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns onto the side runtime, whichever thread asks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    handle: Handle,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Tasks on the runtime of `handle`.
    pub fn new(handle: Handle) -> Self {
        Self { handle, tracker: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// Runs `future` until it ends. It should end soon after [`Tasks::stopping`] is cancelled.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn_on(guarded(name, future), &self.handle).abort_handle()
    }

    /// Runs blocking work apart from the runtime's threads; `None` if it panicked.
    pub async fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let joined = self.tracker.spawn_blocking_on(work, &self.handle).await;
        joined.inspect_err(|error| tracing::error!(task = name, %error, "blocking task died")).ok()
    }

    /// Cancelled when the process is to end; every loop selects on it.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// The runtime that the tasks run on.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Tells every task to end and waits for them; `false` when some were still running after `within`.
    pub async fn finish(&self, within: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(within, self.tracker.wait()).await.is_ok()
    }
}

/// Runs `future` on this traffic thread. Must be called within its `LocalSet`.
pub fn spawn_local<F>(name: &'static str, future: F) -> AbortHandle
where
    F: Future<Output = ()> + 'static,
{
    tokio::task::spawn_local(guarded(name, future)).abort_handle()
}

/// Not an `async fn`: that would hold the future twice, as its argument and as what it waits for.
fn guarded<F: Future<Output = ()>>(name: &'static str, future: F) -> impl Future<Output = ()> + use<F> {
    AssertUnwindSafe(future).catch_unwind().map(move |ended| {
        if let Err(panic) = ended {
            tracing::error!(task = name, reason = reason(&*panic), "task died");
        }
    })
}

fn reason(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_does_not_spread_and_finish_waits() {
        let tasks = Tasks::new(Handle::current());
        tasks.spawn("dies", async { panic!("on purpose") });
        let stop = tasks.stopping().clone();
        tasks.spawn("lives", async move { stop.cancelled().await });
        assert!(tasks.finish(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn finish_gives_up() {
        let tasks = Tasks::new(Handle::current());
        let stuck = tasks.spawn("stuck", std::future::pending());
        assert!(!tasks.finish(Duration::from_millis(1)).await);
        stuck.abort();
    }

    #[tokio::test]
    async fn blocking_work_answers() {
        let tasks = Tasks::new(Handle::current());
        assert_eq!(tasks.blocking("sum", || 1 + 1).await, Some(2));
        assert_eq!(tasks.blocking("dies", || -> u8 { panic!("on purpose") }).await, None);
    }
}
