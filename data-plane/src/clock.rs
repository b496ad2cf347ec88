//! The two clocks of this crate: the wall's, for windows, records and all that others see, and a monotonic one
//! for waits and durations. Everybody reads them here, so that a test can pause the one and step the other.
//!
//! Depends on `contract` and tokio's `Instant`, which outside tests is the standard library's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use tokio::time::Instant;

/// The wall clock in Unix milliseconds.
pub fn now_ms() -> i64 {
    #[cfg(test)]
    if let Some(now_ms) = testing::now_ms() {
        return now_ms;
    }
    contract::window::now_ms()
}

/// The wall clock, for libraries that want the standard library's type.
pub fn system_time() -> SystemTime {
    let since = Duration::from_millis(u64::try_from(now_ms()).unwrap_or_default());
    UNIX_EPOCH + since
}

/// A wall clock for tests: it goes as fast as tokio's clock, which tests pause, and jumps when told to.
#[cfg(test)]
pub mod testing {
    use super::Instant;
    use std::cell::Cell;
    use std::time::Duration;

    thread_local! {
        /// Unix milliseconds at an instant of the monotonic clock.
        static WALL: Cell<Option<(i64, Instant)>> = const { Cell::new(None) };
    }

    pub(super) fn now_ms() -> Option<i64> {
        let (at_ms, since) = WALL.get()?;
        Some(at_ms + i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    /// From now on this thread's wall clock begins at `at_ms` and follows tokio's clock.
    pub fn set(at_ms: i64) {
        WALL.set(Some((at_ms, Instant::now())));
    }

    /// Moves this thread's wall clock, forwards or back. The monotonic clock does not notice.
    pub fn step(by_ms: i64) {
        set(super::now_ms() + by_ms);
    }

    /// Lets time pass on both clocks: timers that are due ring.
    pub async fn pass(time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Lets so much time be past at once: what would have rung often meanwhile rings once.
    pub async fn skip(time: Duration) {
        tokio::time::advance(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_wall_clock_follows_paused_time_and_jumps() {
        set(1_000);
        pass(Duration::from_millis(250)).await;
        assert_eq!(super::now_ms(), 1_250);
        let before = Instant::now();
        step(-1_250);
        assert_eq!((super::now_ms(), before.elapsed()), (0, Duration::ZERO));
        assert_eq!(super::system_time(), std::time::UNIX_EPOCH);
    }
}
