//! The one way to start background work: named, its panic logged, joined at shutdown. Traffic threads use
//! [`spawn_local`]; everything else a [`Tasks`] over the side runtime. Depends on tokio only.

use futures_util::FutureExt;
use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause before work begins anew.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Whether a task died without which the process does not do its work. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Vital(Arc<Death>);

#[derive(Debug, Default)]
struct Death {
    name: OnceLock<&'static str>,
    told: CancellationToken,
}

impl Vital {
    /// The task that died first.
    pub fn died(&self) -> Option<&'static str> {
        self.0.name.get().copied()
    }

    /// Cancelled when one died.
    pub fn told(&self) -> &CancellationToken {
        &self.0.told
    }

    fn dies(&self, name: &'static str) {
        // The first one is what people look for.
        let _ = self.0.name.set(name);
        self.0.told.cancel();
    }
}

/// Spawns onto the side runtime, whichever thread asks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    handle: Handle,
    tracker: TaskTracker,
    stop: CancellationToken,
    vital: Vital,
}

impl Tasks {
    /// Tasks on the runtime of `handle`.
    pub fn new(handle: Handle) -> Self {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        Self { handle, tracker, stop, vital: Vital::default() }
    }

    /// Runs `future` until it ends. It should end soon after [`Tasks::stopping`] is cancelled.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn_on(guarded(name, None, future), &self.handle).abort_handle()
    }

    /// The same for work that the process must not go on without: if it panics, [`Tasks::vital`] tells.
    pub fn spawn_vital<F>(&self, name: &'static str, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let vital = Some(self.vital.clone());
        self.tracker.spawn_on(guarded(name, vital, future), &self.handle).abort_handle()
    }

    /// Whether such work died.
    pub fn vital(&self) -> &Vital {
        &self.vital
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
    tokio::task::spawn_local(guarded(name, None, future)).abort_handle()
}

/// The same for work that the process must not go on without.
pub fn spawn_vital_local<F>(name: &'static str, vital: &Vital, future: F) -> AbortHandle
where
    F: Future<Output = ()> + 'static,
{
    tokio::task::spawn_local(guarded(name, Some(vital.clone()), future)).abort_handle()
}

/// Runs work on this traffic thread that begins anew after a panic, from `begin`. For work that holds nothing.
pub fn keep_local<F>(name: &'static str, begin: impl Fn() -> F + 'static) -> AbortHandle
where
    F: Future<Output = ()> + 'static,
{
    let kept = async move {
        while let Err(panic) = AssertUnwindSafe(begin()).catch_unwind().await {
            tracing::error!(task = name, reason = reason(&*panic), "task died and begins anew");
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    };
    tokio::task::spawn_local(kept).abort_handle()
}

/// Not an `async fn`: that would hold the future twice, as its argument and as what it waits for.
fn guarded<F: Future<Output = ()>>(
    name: &'static str,
    vital: Option<Vital>,
    future: F,
) -> impl Future<Output = ()> + use<F> {
    AssertUnwindSafe(future).catch_unwind().map(move |ended| {
        if let Err(panic) = ended {
            tracing::error!(task = name, reason = reason(&*panic), "task died");
            if let Some(vital) = vital {
                vital.dies(name);
            }
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
    async fn the_death_of_vital_work_is_told_and_other_work_begins_anew() {
        let tasks = Tasks::new(Handle::current());
        tasks.spawn("any", async { panic!("on purpose") });
        tasks.spawn_vital("ends", async {});
        let local = tokio::task::LocalSet::new();
        let times = std::rc::Rc::new(std::cell::Cell::new(0));
        let seen = std::rc::Rc::clone(&times);
        local
            .run_until(async move {
                tokio::time::pause();
                keep_local("kept", move || {
                    seen.set(seen.get() + 1);
                    let first = seen.get() == 1;
                    async move { assert!(!first, "on purpose") }
                });
                while times.get() < 2 {
                    tokio::time::advance(AGAIN_AFTER).await;
                }
            })
            .await;
        assert_eq!(tasks.vital().died(), None);
        tasks.spawn_vital("dies", async { panic!("on purpose") });
        tasks.vital().told().cancelled().await;
        assert_eq!(tasks.vital().died(), Some("dies"));
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
