//! The usage records that the control plane has not acknowledged yet: append-only segment files.
//!
//! [`Spool::append`] has handed the record to the kernel when it returns, so killing the process after it
//! loses nothing; a background task forces the files to disk, so a power cut loses at most its interval.
//! Records may be delivered twice after a crash, never lost; the ledger stores each once.
//!
//! Depends on `contract` only; never knows who reads it.

mod frame;
mod segments;

use contract::pb;
use contract::usage::UsageRecord;
use segments::Segments;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Where and how large.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the segments; belongs to one process.
    pub folder: PathBuf,
    /// The bound, see [`Spool::is_full`].
    pub max_bytes: u64,
    /// Size at which a segment is closed.
    pub segment_bytes: u64,
}

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it open.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The file system said no.
    #[error("cannot {what} in {}", .folder.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The bound and its reserve are used up; only possible when traffic without money limits goes on for
    /// hours without a control plane.
    #[error("the spool is full")]
    Full,
}

/// A place between two records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    segment: u64,
    offset: u64,
    /// When the last record before it began; Unix milliseconds.
    at_ms: i64,
}

/// Records in the order in which they were appended.
#[derive(Debug)]
pub struct Batch {
    /// Not empty, except when a deadline of zero found nothing.
    pub records: Vec<pb::UsageRecord>,
    /// Behind the last of them; for [`Spool::acknowledge`].
    pub position: Position,
}

/// How much waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Records not acknowledged.
    pub records: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// When the oldest of them began, or a little earlier; Unix milliseconds.
    pub oldest_ms: Option<i64>,
}

/// The spool. Clones share it.
#[derive(Clone)]
pub struct Spool(Arc<Inner>);

struct Inner {
    segments: Mutex<Segments>,
    appended: Notify,
    max_bytes: u64,
    /// Held for its lock.
    _owner: File,
}

impl Spool {
    /// Opens or makes the spool; a record that a crash left half-written is cut off.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let folder = &options.folder;
        std::fs::create_dir_all(folder).map_err(|source| failed("make the folder", folder, source))?;
        let owner = File::create(folder.join("lock")).map_err(|source| failed("open the lock", folder, source))?;
        owner.try_lock().map_err(|_| Error::InUse(folder.clone()))?;
        let segments = Segments::open(folder, options.segment_bytes)
            .map_err(|source| failed("read the segments", folder, source))?;
        Ok(Self(Arc::new(Inner {
            segments: Mutex::new(segments),
            appended: Notify::new(),
            max_bytes: options.max_bytes,
            _owner: owner,
        })))
    }

    fn segments(&self) -> MutexGuard<'_, Segments> {
        self.0.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one record; a few microseconds. When it returns the record outlives this process.
    pub fn append(&self, record: &UsageRecord) -> Result<(), Error> {
        let frame = frame::encode(&pb::UsageRecord::from(record));
        let mut segments = self.segments();
        // A quarter beyond the bound is kept for requests that were admitted before it was reached.
        if segments.bytes() + frame.len() as u64 > self.0.max_bytes + self.0.max_bytes / 4 {
            return Err(Error::Full);
        }
        let written = segments.append(&frame, record.started_at_ms);
        written.map_err(|source| failed("append a record", segments.folder(), source))?;
        drop(segments);
        self.0.appended.notify_one();
        Ok(())
    }

    /// Whether the bound is reached: then requests with a money limit are refused rather than their
    /// spending lost.
    pub fn is_full(&self) -> bool {
        self.segments().bytes() >= self.0.max_bytes
    }

    /// The oldest records that are not acknowledged, at most `max`. Waits for a first one, then at most
    /// `linger` for more; a `linger` of zero does not wait at all. Cancel-safe: nothing is taken out.
    pub async fn next_batch(&self, max: usize, linger: Duration) -> Batch {
        if !linger.is_zero() {
            while self.depth().records == 0 {
                self.0.appended.notified().await;
            }
            let full = async {
                while self.depth().records < max as u64 {
                    self.0.appended.notified().await;
                }
            };
            // Running out of patience is the normal case.
            let _ = tokio::time::timeout(linger, full).await;
        }
        self.segments().read(max).unwrap_or_else(|error| {
            tracing::error!(%error, "the spool cannot be read");
            Batch { records: Vec::new(), position: Position::default() }
        })
    }

    /// Everything before `position` is in the ledger; segments that hold nothing else are deleted.
    pub fn acknowledge(&self, position: Position) {
        if let Err(error) = self.segments().acknowledge(position) {
            // Harmless: the records are sent again after the next start and stored once.
            tracing::warn!(%error, "an acknowledgement of usage records could not be written down");
        }
    }

    /// How much waits.
    pub fn depth(&self) -> Depth {
        self.segments().depth()
    }

    /// Forces everything to disk. Blocks; call it where blocking is allowed.
    pub fn sync(&self) -> io::Result<()> {
        // The file is cloned out, so that no append waits for the disk.
        let file = self.segments().current()?;
        file.sync_data()
    }
}

fn failed(what: &'static str, folder: &Path, source: io::Error) -> Error {
    Error::Io { what, folder: folder.to_owned(), source }
}

/// Replaces a small file as a whole: written beside, then renamed.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(content)?;
    std::fs::rename(beside, path)
}

#[cfg(test)]
mod tests;
