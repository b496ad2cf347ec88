//! Usage records on disk until the control plane has committed them: append-only segments, a checksum per
//! record, one write() per record before the caller goes on, so that `kill -9` loses nothing. A record that
//! was delivered and not yet acknowledged when the process died is delivered again; receivers know its id.
//! Beside them a slot per request that is under way, so that a kill does not lose those either.
//!
//! Depends on `contract` and `config` only. Bounded; never overwrites, never waits for the network.

mod acked;
mod deliver;
mod disk;
mod log;
mod open;
mod reader;
mod segment;
mod slots;
mod tend;
#[cfg(test)]
pub(crate) mod tests;
mod trouble;

pub use self::slots::{Entry, Slot};

use self::disk::{Disk, Lock};
use self::log::Log;
use self::slots::{Found, Left, Slots};
use crate::clock::now_ms;
use crate::config::SpoolFailure;
use bytes::Bytes;
use contract::ids::Generation;
use contract::usage::UsageRecord;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};
use tokio::sync::Notify;

/// Counter: bytes at the end of segments that are not whole because the process or the machine died while it wrote
/// them.
pub const SPOOL_TORN_BYTES: &str = "switchyard_proxy_spool_torn_bytes_total";
/// Counter: places that became unreadable on disk. Above 0 is an alarm: the disk is failing.
pub const SPOOL_DAMAGED: &str = "switchyard_proxy_spool_damaged_total";
/// Counter: times that the disk began to refuse what is written.
pub const SPOOL_FAILURES: &str = "switchyard_proxy_spool_failures_total";
/// Counter: requests that no slot was free for; after a kill nobody would know of them.
pub const SPOOL_WITHOUT_SLOT: &str = "switchyard_proxy_spool_requests_without_slot_total";

/// The spool takes at most this part of the file system that holds it, in per cent.
const FILE_SYSTEM_PERCENT: u64 = 80;

/// Where the spool lies and how large it may grow.
#[derive(Clone, Debug)]
pub struct Options {
    /// A folder for the spool alone; made if needed. Belongs to one process at a time.
    pub folder: PathBuf,
    /// The bound, see [`Standing::Full`]; less where the file system is small.
    pub max_bytes: u64,
    /// A segment that would grow beyond this is closed and the next begun; capped at a quarter of the bound and at
    /// 64 MiB.
    pub segment_bytes: u64,
    /// Requests under way that are known after a kill; less where the file system is small.
    pub slots: u32,
    /// What becomes of new requests when nothing can be written.
    pub failure: SpoolFailure,
    /// How long a record that cannot be delivered is waited for, see [`Depth::whole`].
    pub outstanding: Duration,
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
    /// Somebody took a file away that is being written.
    #[error("{} was removed", .0.display())]
    Removed(PathBuf),
    /// There is no segment to write to.
    #[error("there is no segment in {}", .0.display())]
    NoSegment(PathBuf),
    /// The bound and its reserve are used up; only possible where requests are served although nothing can be written.
    #[error("the spool is full")]
    Full,
    /// A record of more than 16 MiB.
    #[error("a usage record of {bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Whether records can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They can.
    Good = 0,
    /// The bound is reached; what is under way still finds room.
    Full = 1,
    /// The disk takes nothing.
    Failed = 2,
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
    /// Records on disk that are not acknowledged.
    pub records: u64,
    /// Records in memory that the disk did not take.
    pub unwritten: usize,
    /// Of all records on disk.
    pub bytes: u64,
    /// Bytes at which it is full.
    pub bound: u64,
    /// When the oldest on disk began, Unix milliseconds.
    pub oldest_ms: Option<i64>,
    /// When it ended: records are written in the order in which requests end.
    pub oldest_ended_ms: Option<i64>,
    /// Whether every record that is not acknowledged lies on disk in that order: nothing waits in memory, no segment
    /// was set aside and no record found no room, or [`Options::outstanding`] ago, and what a killed process left was
    /// recorded and delivered.
    pub whole: bool,
}

/// A handle on the spool; clones share it. All methods may be called from any thread.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
}

struct Shared {
    log: Mutex<Log>,
    slots: Slots,
    /// What a killed process left, until it is settled.
    left: Mutex<Vec<Left>>,
    /// As in [`Standing`]; read without the lock.
    standing: AtomicU8,
    failure: SpoolFailure,
    max_bytes: u64,
    /// Per cent of the bound that was last warned of.
    warned: AtomicU64,
    /// When the oldest record that waits began and ended, and where reading begins.
    oldest: Mutex<Option<(Position, i64, i64)>>,
    /// Records up to here, those of earlier runs among them, may not lie in the order in which their requests ended.
    disordered: AtomicU64,
    /// When a record found no room last, on disk and in memory, Unix milliseconds: the ledger lacks it, or gets it after
    /// the next start, from its slot.
    refused_ms: AtomicI64,
    outstanding_ms: i64,
    /// The segment that cannot be read, and how often that was tried.
    unreadable: Mutex<(u64, u32)>,
    arrived: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under the lock can only come before or after a whole record.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    fn publish(&self, log: &Log) {
        let standing = match () {
            () if log.trouble.is_some() => Standing::Failed,
            () if log.bytes() >= log.bound() => Standing::Full,
            () => Standing::Good,
        };
        self.standing.store(standing as u8, Ordering::Relaxed);
    }

    fn bound(max_bytes: u64, folder: &Path) -> u64 {
        let size = disk::size_of_file_system(folder).unwrap_or(u64::MAX);
        max_bytes.min(size / 100 * FILE_SYSTEM_PERCENT)
    }
}

impl Spool {
    /// Opens or makes the spool. Of a disk that takes nothing now only [`Spool::standing`] says so.
    pub fn open(options: &Options) -> Result<Self, Error> {
        Self::open_on(options, Disk::default())
    }

    fn open_on(options: &Options, disk: Disk) -> Result<Self, Error> {
        let folder = &options.folder;
        fs::create_dir_all(folder).map_err(disk::io_error("create", folder))?;
        let lock = Lock::take(folder)?;
        let Found { left, unreadable } = slots::find(folder);
        let mut ids = slots::ids(&left);
        open::strike_out(&disk, folder, &mut ids)?;
        let (left, spent) = left.into_iter().partition::<Vec<_>, _>(|left| ids.contains(&left.entry.id));
        let spent = spent.iter().map(|left| left.slot).chain(unreadable).collect();
        let slots = Slots::open(disk.clone(), folder, options.slots, spent, &left);
        // Before the log removes segments that are done: nothing else would tell that these were recorded.
        slots.empty_spent();
        let bounded = Options { max_bytes: Shared::bound(options.max_bytes, folder), ..options.clone() };
        let log = Log::open(&bounded, disk, lock)?;
        let shared = Shared {
            slots,
            left: Mutex::new(left),
            standing: AtomicU8::new(0),
            failure: options.failure,
            max_bytes: options.max_bytes,
            warned: AtomicU64::new(0),
            oldest: Mutex::default(),
            disordered: AtomicU64::new(log.appended),
            refused_ms: AtomicI64::new(0),
            outstanding_ms: i64::try_from(options.outstanding.as_millis()).unwrap_or(i64::MAX),
            unreadable: Mutex::default(),
            arrived: Notify::new(),
            log: Mutex::new(log),
        };
        shared.publish(&shared.log());
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Notes a request that a provider was chosen for. `None`: there is no room, and after a kill nobody knows of it.
    pub fn begin(&self, entry: &Entry<'_>) -> Option<Slot> {
        self.shared.slots.begin(entry)
    }

    /// What is known of that request changed.
    pub fn change(&self, slot: &Slot, entry: &Entry<'_>) {
        self.shared.slots.change(slot, entry);
    }

    /// There will be no record of that request.
    pub fn forget(&self, slot: Slot) {
        self.shared.slots.end(slot);
    }

    /// The newest table that a request was pinned to which a killed process left; `None`: it left none.
    pub fn newest_left(&self) -> Option<Generation> {
        lock(&self.shared.left).iter().map(|left| left.entry.generation).max()
    }

    /// Records what a killed process left, each once; how many that were. Their slots are free from then on.
    pub fn settle_left(&self, record: impl Fn(Entry<'static>) -> UsageRecord) -> usize {
        let left = std::mem::take(&mut *lock(&self.shared.left));
        let count = left.len();
        for Left { slot, entry } in left {
            let record = record(entry);
            if let Err(error) = self.append(&record, Some(Slot(slot))) {
                tracing::error!(request_id = %record.id, %error, "an interrupted request could not be recorded");
            }
        }
        if count > 0 {
            // They ended before others that were written before them.
            self.shared.disordered.fetch_max(self.shared.log().appended, Ordering::Relaxed);
        }
        count
    }

    /// Writes one record. It is in the kernel's hands when this returns: only a power cut within the sync
    /// interval can take it. While the disk takes nothing it waits in memory, and its slot stands for it. Takes
    /// microseconds; callable from `Drop`.
    pub fn append(&self, record: &UsageRecord, slot: Option<Slot>) -> Result<(), Error> {
        thread_local! {
            static FRAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        FRAME.with_borrow_mut(|frame| {
            segment::encode(record, frame)?;
            let mut log = self.shared.log();
            if log.trouble.is_none() && log.bytes() < log.bound() {
                match log.append(frame) {
                    Ok(wake) => {
                        self.appended(log, slot, wake);
                        return Ok(());
                    }
                    Err(error) => log.fail(&error, false),
                }
            }
            self.append_beyond(log, frame, slot)
        })
    }

    fn appended(&self, log: MutexGuard<'_, Log>, slot: Option<Slot>, wake: bool) {
        // Under the lock: once the record can be delivered, its slot can be emptied.
        if let Some(slot) = slot {
            self.shared.slots.end(slot);
        }
        self.shared.publish(&log);
        drop(log);
        if wake {
            self.shared.arrived.notify_one();
        }
    }

    /// The record of a request that was admitted before the bound was reached or the disk failed: it goes into the
    /// reserve, or it waits in memory.
    #[cold]
    fn append_beyond(
        &self,
        mut log: MutexGuard<'_, Log>,
        frame: &[u8],
        slot: Option<Slot>,
    ) -> Result<(), Error> {
        let is_served = self.shared.failure == SpoolFailure::Serve;
        let reserve = log.bound() / 4;
        if log.trouble.is_none() {
            // Where new requests still come, the reserve has an end.
            if is_served && log.bytes() + frame.len() as u64 > log.bound().saturating_add(reserve) {
                slot.into_iter().for_each(|slot| self.shared.slots.end(slot));
                self.shared.refused_ms.store(now_ms(), Ordering::Relaxed);
                return Err(Error::Full);
            }
            match log.append(frame) {
                Ok(wake) => {
                    self.appended(log, slot, wake);
                    return Ok(());
                }
                Err(error) => log.fail(&error, false),
            }
        }
        let kept = log.backlog.keep(frame, slot);
        self.shared.publish(&log);
        kept.map_err(|slot| {
            self.shared.refused_ms.store(now_ms(), Ordering::Relaxed);
            // Its slot stands for it, unless that would use them all up.
            slot.into_iter().filter(|_| is_served).for_each(|slot| self.shared.slots.end(slot));
            Error::Full
        })
    }

    /// Whether records can be written. Takes no lock.
    pub fn standing(&self) -> Standing {
        match self.shared.standing.load(Ordering::Relaxed) {
            0 => Standing::Good,
            1 => Standing::Full,
            _ => Standing::Failed,
        }
    }

    /// Why new requests are refused, if they are. Takes no lock.
    pub fn refuses(&self) -> Option<Standing> {
        let standing = self.standing();
        let is_refused = standing != Standing::Good && self.shared.failure == SpoolFailure::Refuse;
        is_refused.then_some(standing)
    }
}
