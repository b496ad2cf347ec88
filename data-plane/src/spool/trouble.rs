//! What a log does while its disk takes nothing: records wait in memory, each second a frame of its own is tried, and
//! when that succeeds what waits is written and the log goes on.

use super::disk::{Lock, is_at};
use super::log::Log;
use super::reader::path;
use super::segment::{FIRST, Frames, Next, trial};
use super::slots::{Slot, Slots};
use super::{Error, SPOOL_FAILURES};
use crate::clock::Instant;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::sync::Arc;

/// Bytes of records that wait in memory: some ten thousand requests in flight. No new ones come meanwhile.
const BACKLOG_BYTES: usize = 128 << 20;

/// Why nothing can be written.
pub(super) struct Trouble {
    since: Instant,
    /// The segment that is written is not to be trusted: the next try begins another one.
    fresh: bool,
}

/// Frames that the disk did not take.
#[derive(Default)]
pub(super) struct Backlog {
    frames: VecDeque<(Box<[u8]>, Option<Slot>)>,
    bytes: usize,
}

impl Backlog {
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Keeps a frame; without its slot back, it is kept.
    pub(super) fn keep(&mut self, frame: &[u8], slot: Option<Slot>) -> Result<(), Option<Slot>> {
        if self.bytes + frame.len() > BACKLOG_BYTES {
            return Err(slot);
        }
        self.bytes += frame.len();
        self.frames.push_back((frame.into(), slot));
        Ok(())
    }
}

impl Log {
    /// From now on nothing is written but by [`Log::probe`].
    #[cold]
    pub(super) fn fail(&mut self, error: &Error, fresh: bool) {
        let trouble = self.trouble.get_or_insert_with(|| {
            metrics::counter!(SPOOL_FAILURES).increment(1);
            tracing::error!(
                error = error as &dyn std::error::Error,
                "the spool cannot be written; new requests are refused until it can, unless SPOOL_FAILURE says otherwise"
            );
            Trouble { since: Instant::now(), fresh: false }
        });
        trouble.fresh |= fresh;
    }

    pub(super) fn fresh_segment(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            trouble.fresh = true;
        }
    }

    /// What a try wrote could not be forced to disk: the next one begins another segment, in place of this one, or every
    /// try would take more of the bound.
    pub(super) fn tried_in_vain(&mut self) {
        self.fresh_segment();
        self.drop_trial();
    }

    /// Looks whether the segment that is written is still the one that readers see.
    pub(super) fn look(&mut self) {
        let Some(writer) = self.writer.clone() else { return };
        let path = path(&self.folder, self.last_number());
        let error = match is_at(&path, &writer) {
            Ok(true) => return,
            Ok(false) => Error::Removed(path),
            Err(source) => Error::Io { what: "find", path, source },
        };
        self.fail(&error, true);
        if matches!(error, Error::Removed(_)) {
            self.rescue(&writer);
        }
    }

    /// The segment that was written has no name any more: what is in it is kept in memory.
    fn rescue(&mut self, writer: &Arc<File>) {
        self.writer = None;
        let (acked, number) = (self.acked, self.last_number());
        let Some(last) = self.segments.back_mut() else { return };
        let from = if acked.segment == number { acked.offset } else { FIRST };
        let frames = writer.try_clone().and_then(|file| Frames::new(file, from, last.bytes));
        self.frames = self.frames.saturating_sub(last.bytes.saturating_sub(from));
        last.bytes = from;
        let mut record = Vec::new();
        let mut kept = 0u64;
        if let Ok(mut frames) = frames {
            while let Ok(next @ (Next::Record | Next::Damage { .. })) = frames.next(&mut record) {
                if next == Next::Record && self.backlog.keep(&super::segment::frame(&record), None).is_ok() {
                    kept += 1;
                }
            }
        }
        tracing::warn!(kept, "the spool's folder was removed; the records of the last segment are kept");
    }

    /// Tries the disk with a frame of its own. The file that took it is to be forced to disk.
    pub(super) fn probe(&mut self) -> Result<Option<Arc<File>>, Error> {
        let Some(trouble) = &self.trouble else { return Ok(self.writer.clone()) };
        if trouble.fresh || self.writer.is_none() {
            if !self.lock.holds() {
                let fail = super::disk::io_error("create", &self.folder);
                fs::create_dir_all(&self.folder).map_err(fail)?;
                self.lock = Lock::take(&self.folder)?;
            }
            self.begin(&trial())?;
            if let Some(trouble) = &mut self.trouble {
                trouble.fresh = false;
            }
        } else {
            self.write(&trial())?;
        }
        Ok(self.writer.clone())
    }

    /// Writes some of what waits in memory; whether that was all. Then the trouble is over.
    pub(super) fn flush(&mut self, most: usize, slots: &Slots) -> Result<bool, Error> {
        for _ in 0..most {
            let Some((frame, slot)) = self.backlog.frames.pop_front() else { break };
            if let Err(error) = self.append(&frame) {
                self.backlog.frames.push_front((frame, slot));
                self.fail(&error, false);
                return Err(error);
            }
            self.backlog.bytes -= frame.len();
            slot.into_iter().for_each(|slot| slots.end(slot));
        }
        let is_all = self.backlog.frames.is_empty();
        if is_all && let Some(trouble) = self.trouble.take() {
            let seconds = trouble.since.elapsed().as_secs();
            tracing::warn!(seconds, "the spool can be written again");
        }
        Ok(is_all)
    }
}
