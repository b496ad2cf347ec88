//! Usage records on disk until the control plane has committed them: append-only segments, a checksum per
//! record, one write() per record before the caller goes on, so that `kill -9` loses nothing. A record that
//! was delivered and not yet acknowledged when the process died is delivered again; receivers know its id.
//!
//! Depends on `contract` only. Bounded; never overwrites, never waits for the network.

mod acked;
mod log;
mod reader;
mod segment;
#[cfg(test)]
pub(crate) mod tests;

use self::log::Log;
use bytes::Bytes;
use contract::usage::UsageRecord;
use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Counter: bytes cut off at start because the process or the machine died while it wrote them.
pub const SPOOL_TORN_BYTES: &str = "switchyard_proxy_spool_torn_bytes_total";
/// Counter: records that became unreadable on disk. Above 0 is an alarm: the disk is failing.
pub const SPOOL_DAMAGED: &str = "switchyard_proxy_spool_damaged_total";

/// Pause before an unreadable segment is tried again.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of records in one batch, below what a gRPC message may have.
const MAX_BATCH_BYTES: u64 = 1 << 20;

/// Where the spool lies and how large it may grow.
#[derive(Clone, Debug)]
pub struct Options {
    /// A folder for the spool alone; made if needed. Belongs to one process at a time.
    pub folder: PathBuf,
    /// The bound, see [`Spool::is_full`].
    pub max_bytes: u64,
    /// A segment that would grow beyond this is closed and the next begun; capped at a quarter of the bound.
    pub segment_bytes: u64,
}

/// The spool cannot do what was asked. Names files, never their contents.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system said no.
    #[error("cannot {what} {}", .path.display())]
    Io {
        /// `create`, `read`, …
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The bound and its reserve are used up; only possible when traffic without money limits goes on for
    /// hours without a control plane.
    #[error("the spool is full")]
    Full,
    /// A record of more than 16 MiB.
    #[error("a usage record of {bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Where reading ended; given back to [`Spool::acknowledge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Records since this process opened the spool, up to here.
    ordinal: u64,
    segment: u64,
    offset: u64,
}

/// The oldest records that are not acknowledged.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Encoded `UsageRecord`s, in the order of appending.
    pub records: Vec<Bytes>,
    /// What to acknowledge when they have been committed.
    pub position: Position,
}

/// How much waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Records that are not acknowledged.
    pub records: u64,
    /// Of all records on disk.
    pub bytes: u64,
    /// When the oldest of them began, Unix milliseconds.
    pub oldest_ms: Option<i64>,
}

/// A handle on the spool; clones share it. All methods may be called from any thread.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
}

struct Shared {
    log: Mutex<Log>,
    /// Of all records on disk; read without the lock.
    bytes: AtomicU64,
    max_bytes: u64,
    arrived: Notify,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        // A panic under the lock can only come before or after a whole record.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spool {
    /// Opens or makes the spool; a record that a crash left half-written is cut off.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let log = Log::open(options)?;
        Ok(Self {
            shared: Arc::new(Shared {
                bytes: AtomicU64::new(log.bytes()),
                log: Mutex::new(log),
                max_bytes: options.max_bytes,
                arrived: Notify::new(),
            }),
        })
    }

    /// Writes one record. It is in the kernel's hands when this returns: only a power cut within the sync
    /// interval can take it. Takes microseconds; callable from `Drop`.
    pub fn append(&self, record: &UsageRecord) -> Result<(), Error> {
        thread_local! {
            static FRAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        FRAME.with_borrow_mut(|frame| {
            segment::encode(record, frame)?;
            let mut log = self.shared.log();
            let max_bytes = self.shared.max_bytes;
            // A quarter beyond the bound is kept for requests that were admitted before it was reached.
            if log.bytes() + frame.len() as u64 > max_bytes.saturating_add(max_bytes / 4) {
                return Err(Error::Full);
            }
            let wake = log.append(frame)?;
            self.shared.bytes.store(log.bytes(), Ordering::Relaxed);
            drop(log);
            if wake {
                self.shared.arrived.notify_one();
            }
            Ok(())
        })
    }

    /// Whether the bound is reached: then requests with a money limit are refused rather than their spending
    /// lost. Takes no lock.
    pub fn is_full(&self) -> bool {
        self.shared.bytes.load(Ordering::Relaxed) >= self.shared.max_bytes
    }

    /// The oldest records that are not acknowledged, at most `max` and about a megabyte. Waits for a first one,
    /// then at most `linger` for more; a `linger` of zero does not wait at all. What is not acknowledged is read
    /// again by the next call. One reader at a time; cancel-safe: nothing is taken out.
    pub async fn next_batch(&self, max: usize, linger: Duration) -> Batch {
        let max = max.max(1);
        loop {
            if !linger.is_zero() {
                self.wait(1).await;
                // Running out of patience is the normal case.
                let _ = timeout(linger, self.wait(max as u64)).await;
            }
            // Read without the lock, so that no request waits for it.
            let view = self.shared.log().view();
            let batch = view.read(max, MAX_BATCH_BYTES);
            if linger.is_zero() || batch.position != view.start {
                return batch;
            }
            tokio::time::sleep(UNREADABLE_PAUSE).await;
        }
    }

    async fn wait(&self, records: u64) {
        while !self.shared.log().has(records) {
            self.shared.arrived.notified().await;
        }
    }

    /// Everything up to `position` has been committed and is forgotten. An older position does nothing.
    pub fn acknowledge(&self, position: Position) {
        let mut log = self.shared.log();
        let done = log.acknowledge(position);
        self.shared.bytes.store(log.bytes(), Ordering::Relaxed);
        drop(log);
        done.tidy();
    }

    /// How much waits.
    pub fn depth(&self) -> Depth {
        let view = self.shared.log().view();
        view.depth()
    }

    /// Forces everything to disk. Blocks; call it where blocking is allowed.
    pub fn sync(&self) -> io::Result<()> {
        // Not under the lock: a slow disk must not hold up the requests.
        let files = self.shared.log().unsynced();
        files.iter().try_for_each(|file| file.sync_data())
    }
}
