//! What is due each second: how large the spool may be, whether it can be written again, whether it is getting full;
//! and forcing it to disk. All of it blocks; none of it on a traffic thread.

use super::{Shared, Spool, Standing};
use std::io;
use std::sync::atomic::Ordering;

/// Records from memory that are written in one go, after the disk came back.
const FLUSH: usize = 64;
/// Per cent of the bound at which the log warns.
const WARNINGS: [u64; 2] = [50, 80];
/// How far it must fall below one before it is warned of again.
const WARNED_AGAIN: u64 = 5;

impl Spool {
    /// Due each second.
    pub fn tend(&self) {
        let folder = self.shared.log().folder.clone();
        let bound = Shared::bound(self.shared.max_bytes, &folder);
        let mut log = self.shared.log();
        log.set_bound(bound);
        if log.trouble.is_none() {
            log.look();
        }
        let (bytes, is_failing) = (log.bytes(), log.trouble.is_some());
        self.shared.publish(&log);
        drop(log);
        if is_failing {
            self.recover();
        }
        self.warn(bytes, bound);
    }

    /// Tries whether the disk takes something again, and writes what waits in memory.
    #[cold]
    fn recover(&self) {
        if let Err(error) = self.probe() {
            tracing::debug!(error = &error as &dyn std::error::Error, "the spool still cannot be written");
            return;
        }
        self.shared.slots.open_file();
        loop {
            let mut log = self.shared.log();
            let flushed = log.flush(FLUSH, &self.shared.slots);
            self.shared.publish(&log);
            drop(log);
            match flushed {
                Ok(false) => {}
                Ok(true) => break,
                Err(_) => return,
            }
        }
        // What the tries took goes with the next records; where none wait, nobody would ever acknowledge it.
        let log = self.shared.log();
        let (is_idle, position) = (log.waiting() == 0, log.acked);
        drop(log);
        if is_idle {
            self.acknowledge(position);
        }
        self.shared.arrived.notify_one();
    }

    fn probe(&self) -> Result<(), super::Error> {
        let mut log = self.shared.log();
        let (disk, file) = (log.disk.clone(), log.probe()?);
        let path = log.folder.to_path_buf();
        drop(log);
        // Not under the lock: a slow disk must not hold up the requests.
        let synced = file.map_or(Ok(()), |file| disk.sync(&file));
        synced.map_err(|source| {
            self.shared.log().tried_in_vain();
            super::Error::Io { what: "force to disk", path, source }
        })
    }

    fn warn(&self, bytes: u64, bound: u64) {
        let percent = bytes.saturating_mul(100) / bound.max(1);
        let warned = self.shared.warned.load(Ordering::Relaxed);
        let level = WARNINGS.into_iter().rev().find(|level| percent >= *level).unwrap_or(0);
        if level > warned {
            tracing::warn!(percent, bytes, bound, "the spool fills up: the control plane takes no records");
            self.shared.warned.store(level, Ordering::Relaxed);
        } else if percent + WARNED_AGAIN < warned {
            self.shared.warned.store(level, Ordering::Relaxed);
        }
    }

    /// Forces everything to disk. Blocks; call it where blocking is allowed. What a disk refuses is tried again by the
    /// next call.
    pub fn sync(&self) -> io::Result<()> {
        let mut log = self.shared.log();
        let (disk, files) = (log.disk.clone(), log.unsynced());
        drop(log);
        let mut failed = None;
        let mut left = files.into_iter();
        // Not under the lock: a slow disk must not hold up the requests.
        for file in left.by_ref() {
            if let Err(error) = disk.sync(&file.1) {
                failed = Some((file, error));
                break;
            }
        }
        let Some((file, source)) = failed else { return Ok(()) };
        let mut log = self.shared.log();
        log.still_unsynced([file].into_iter().chain(left));
        let (what, path) = ("force to disk", log.folder.to_path_buf());
        let again = io::Error::from(source.kind());
        log.fail(&super::Error::Io { what, path, source }, true);
        self.shared.publish(&log);
        Err(again)
    }
}

impl Drop for Shared {
    /// The last chance of what waits in memory; a clean end leaves no entries in slots.
    fn drop(&mut self) {
        let log = self.log.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if log.trouble.is_some() && log.probe().is_ok() {
            // Why it fails was logged when it began to.
            let _ = log.flush(usize::MAX, &self.slots);
        }
        if log.backlog.len() > 0 {
            tracing::error!(
                records = log.backlog.len(),
                "the disk did not take records of requests; their slots stand for them at the next start"
            );
        }
        let files = log.unsynced();
        if let Err(error) = files.iter().try_for_each(|(_, file)| log.disk.sync(file)) {
            tracing::error!(%error, "the spool could not be forced to disk");
        }
        self.slots.empty_spent();
    }
}

impl Standing {
    /// A line for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "the spool can be written\n",
            Self::Full => "the spool is full\n",
            Self::Failed => "the spool cannot be written\n",
        }
    }
}
