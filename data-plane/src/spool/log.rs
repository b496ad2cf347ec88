//! The segments of a spool, the one being written, and the position up to which they are done. Single-threaded;
//! `Spool` puts a lock around it. What happens while the disk does not take anything is in `trouble`.

use super::acked::{self, Acked};
use super::disk::{Disk, Lock};
use super::open::{DAMAGED, SEGMENT, UNREAD, examine, numbers, take_back, waits_from};
use super::reader::{Extent, View, path};
use super::segment::{FIRST, HEAD, TRIAL_BYTES};
use super::trouble::{Backlog, Trouble};
use super::{Error, Options, Position, SPOOL_DAMAGED};
use crate::clock::now_ms;
use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Segments hold no more, so that a look for whole frames in a damaged one has a bound.
const MAX_SEGMENT_BYTES: u64 = 64 << 20;
/// Damaged segments that are kept for people to look at; the oldest go first.
const DAMAGED_KEPT: usize = 8;
/// Places of damage that are remembered, so that each is counted once.
const DAMAGE_REMEMBERED: usize = 4096;
/// Names that are tried for a new segment, where files of a failed start are in the way.
const NAMES: u64 = 16;

/// A segment on disk.
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) bytes: u64,
    /// Ordinal of its last record.
    pub(super) until: u64,
}

pub(super) struct Log {
    pub(super) disk: Disk,
    pub(super) folder: Arc<Path>,
    most_segment_bytes: u64,
    segment_bytes: u64,
    bound: u64,
    /// Oldest first; the last one is written to, if there is a writer.
    pub(super) segments: VecDeque<Segment>,
    /// `None` while no segment could be made.
    pub(super) writer: Option<Arc<File>>,
    /// Closed segments by number, and the folder after a new one, that were not forced to disk yet.
    unsynced: Vec<(Option<u64>, Arc<File>)>,
    dirty: bool,
    pub(super) acked: Position,
    /// Records that were there at the start or have been appended since.
    pub(super) appended: u64,
    /// Bytes of all records on disk.
    pub(super) frames: u64,
    /// Bytes of segments that were set aside unread.
    aside: u64,
    aside_ms: i64,
    damage: BTreeSet<(u64, u64)>,
    /// Wake the reader when so many have been appended.
    wake_at: u64,
    /// Why nothing can be written.
    pub(super) trouble: Option<Trouble>,
    pub(super) backlog: Backlog,
    /// Held as long as the spool is open.
    pub(super) lock: Lock,
}

impl Log {
    pub(super) fn open(options: &Options, disk: Disk, lock: Lock) -> Result<Self, Error> {
        let folder: Arc<Path> = options.folder.as_path().into();
        let done = acked::load(&folder).unwrap_or_default();
        take_back(&folder, done.segment)?;
        let mut log = Self {
            disk,
            folder,
            most_segment_bytes: options.segment_bytes.min(MAX_SEGMENT_BYTES),
            segment_bytes: 0,
            bound: 0,
            segments: VecDeque::new(),
            writer: None,
            unsynced: Vec::new(),
            dirty: false,
            acked: Position { ordinal: 0, segment: done.segment, offset: done.offset.max(FIRST) },
            appended: 0,
            frames: 0,
            aside: 0,
            aside_ms: 0,
            damage: BTreeSet::new(),
            wake_at: u64::MAX,
            trouble: None,
            backlog: Backlog::default(),
            lock,
        };
        log.set_bound(options.max_bytes);
        log.find(done)?;
        // Appending goes on in a segment of its own: nothing is ever written behind what a crash left.
        match log.roll() {
            Ok(()) => {}
            Err(Error::Io { source, what, path }) if source.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Error::Io { what, path, source });
            }
            // It may get better, and what waits here can be delivered meanwhile.
            Err(error) => log.fail(&error, true),
        }
        let acked = log.acked;
        log.acknowledge(acked).tidy();
        Ok(log)
    }

    /// The segments that are there.
    fn find(&mut self, mut done: Acked) -> Result<(), Error> {
        for number in numbers(&self.folder, SEGMENT)? {
            if number < done.segment {
                remove(&self.folder, number);
                continue;
            }
            let found = examine(&self.disk, &self.folder, number, waits_from(done, number));
            self.appended += found.records;
            // The end that was acknowledged is gone (a power cut): what is appended must not look acknowledged.
            if number == done.segment && found.bytes < done.offset {
                done.offset = found.bytes;
            }
            self.frames += found.bytes.saturating_sub(FIRST);
            self.segments.push_back(Segment { number, bytes: found.bytes, until: self.appended });
            self.note_damage(found.damage.into_iter().map(|offset| (number, offset)));
            self.damage.extend(found.torn.map(|offset| (number, offset)));
        }
        let first = self.segments.front().map_or(done.segment, |segment| segment.number);
        if first > done.segment {
            done = Acked { segment: first, offset: FIRST };
        }
        self.acked = Position { ordinal: 0, segment: done.segment, offset: done.offset.max(FIRST) };
        Ok(())
    }

    /// Of all records on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.frames + self.aside
    }

    /// When the newest segment that was set aside was written last, Unix milliseconds: its records ended before. 0:
    /// none was.
    pub(super) fn aside_ms(&self) -> i64 {
        self.aside_ms
    }

    /// Bytes at which it is full.
    pub(super) fn bound(&self) -> u64 {
        self.bound
    }

    pub(super) fn set_bound(&mut self, bound: u64) {
        self.bound = bound;
        self.segment_bytes = self.most_segment_bytes.min(bound / 4);
    }

    /// Writes one frame that holds a record; whether the reader waits for it.
    pub(super) fn append(&mut self, frame: &[u8]) -> Result<bool, Error> {
        let last = self.last_bytes();
        if last > FIRST && last + frame.len() as u64 > self.segment_bytes {
            self.roll()?;
        }
        self.write(frame)?;
        self.appended += 1;
        if let Some(last) = self.segments.back_mut() {
            last.until = self.appended;
        }
        let wake = self.appended >= self.wake_at;
        if wake {
            self.wake_at = u64::MAX;
        }
        Ok(wake)
    }

    /// Writes one frame behind the last.
    pub(super) fn write(&mut self, frame: &[u8]) -> Result<(), Error> {
        let Some((writer, last)) = self.writer.as_ref().zip(self.segments.back_mut()) else {
            return Err(Error::NoSegment(self.folder.to_path_buf()));
        };
        if let Err(source) = self.disk.write(writer, frame) {
            // A part of the frame may be on disk. Readers would find what follows it, but take it for damage.
            let is_cut = writer.set_len(last.bytes).is_ok();
            let path = path(&self.folder, last.number);
            // A full disk may have room again in this file; what else is wrong with it, nobody knows.
            let is_full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let error = Error::Io { what: "append to", path, source };
            self.fail(&error, !is_cut || !is_full);
            return Err(error);
        }
        last.bytes += frame.len() as u64;
        self.dirty = true;
        self.frames += frame.len() as u64;
        Ok(())
    }

    pub(super) fn last_number(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.number)
    }

    fn last_bytes(&self) -> u64 {
        self.segments.back().map_or(FIRST, |segment| segment.bytes)
    }

    /// Closes the segment that is written and begins the next.
    pub(super) fn roll(&mut self) -> Result<(), Error> {
        self.begin(&[])
    }

    /// Begins the next segment with a frame that is not counted as a record, or none.
    pub(super) fn begin(&mut self, frame: &[u8]) -> Result<(), Error> {
        let next = self.last_number().max(self.acked.segment) + 1;
        let start = [HEAD, frame].concat();
        let mut made = Err(io::Error::from(io::ErrorKind::AlreadyExists));
        let mut number = next;
        for try_number in next..next + NAMES {
            number = try_number;
            made = self.disk.create(&path(&self.folder, number), &start);
            if !matches!(&made, Err(error) if error.kind() == io::ErrorKind::AlreadyExists) {
                break;
            }
        }
        let path = path(&self.folder, number);
        let writer = match made {
            Ok(writer) => writer,
            Err(source) => {
                let error = Error::Io { what: "create", path, source };
                self.fail(&error, true);
                return Err(error);
            }
        };
        let last = self.last_number();
        if let Some(closed) = self.writer.replace(Arc::new(writer)).filter(|_| self.dirty) {
            self.unsynced.push((Some(last), closed));
        }
        // The new name must survive a power cut, too; with it all names before.
        self.unsynced.retain(|(number, _)| number.is_some());
        self.unsynced.extend(File::open(&*self.folder).map(|folder| (None, Arc::new(folder))));
        self.dirty = !frame.is_empty();
        self.frames += frame.len() as u64;
        self.segments.push_back(Segment { number, bytes: start.len() as u64, until: self.appended });
        Ok(())
    }

    /// Removes the newest segment if a trial is all that it holds.
    pub(super) fn drop_trial(&mut self) {
        let before = self.segments.iter().rev().nth(1).map_or(self.acked.ordinal, |segment| segment.until);
        let is_trial =
            |segment: &mut Segment| segment.until == before && segment.bytes == FIRST + TRIAL_BYTES as u64;
        let Some(last) = self.segments.pop_back_if(is_trial) else { return };
        if fs::remove_file(path(&self.folder, last.number)).is_err() {
            // Its number is taken.
            self.segments.push_back(last);
            return;
        }
        (self.writer, self.dirty) = (None, false);
        self.frames -= TRIAL_BYTES as u64;
    }

    /// Files with records that may not be on disk yet.
    pub(super) fn unsynced(&mut self) -> Vec<(Option<u64>, Arc<File>)> {
        let mut files = std::mem::take(&mut self.unsynced);
        if std::mem::take(&mut self.dirty)
            && let Some(writer) = &self.writer
        {
            files.push((Some(self.last_number()), Arc::clone(writer)));
        }
        files
    }

    /// Files that could not be forced to disk are still to be. Those whose records have left the spool are not.
    pub(super) fn still_unsynced(&mut self, files: impl Iterator<Item = (Option<u64>, Arc<File>)>) {
        for (number, file) in files {
            match number {
                None if self.unsynced.iter().any(|(number, _)| number.is_none()) => {}
                Some(number) if !self.segments.iter().any(|segment| segment.number == number) => {}
                Some(number) if number == self.last_number() && self.writer.is_some() => self.dirty = true,
                _ => self.unsynced.push((number, file)),
            }
        }
    }

    /// Whether so many records wait; if not, the appender of the last of them wakes the reader.
    pub(super) fn has(&mut self, records: u64) -> bool {
        let enough = self.waiting() >= records;
        self.wake_at = if enough { u64::MAX } else { self.acked.ordinal + records };
        enough
    }

    /// Records on disk that are not acknowledged.
    pub(super) fn waiting(&self) -> u64 {
        self.appended - self.acked.ordinal
    }

    /// What a reader needs to work without the lock: segments only go by acknowledging.
    pub(super) fn view(&self) -> View {
        let waiting = self.segments.iter().filter(|segment| segment.number >= self.acked.segment);
        let extent = |segment: &Segment| {
            let from = if segment.number == self.acked.segment { self.acked.offset } else { FIRST };
            Extent { number: segment.number, from, to: segment.bytes, until: segment.until }
        };
        View {
            disk: self.disk.clone(),
            folder: Arc::clone(&self.folder),
            start: self.acked,
            extents: waiting.map(extent).collect(),
        }
    }

    /// Counts places of damage that were not known.
    pub(super) fn note_damage(&mut self, places: impl IntoIterator<Item = (u64, u64)>) {
        for place in places {
            if self.damage.len() < DAMAGE_REMEMBERED && self.damage.insert(place) {
                metrics::counter!(SPOOL_DAMAGED).increment(1);
                let (segment, offset) = place;
                tracing::error!(
                    segment,
                    offset,
                    "the disk gave a spool segment back damaged; a part is left out"
                );
            }
        }
    }

    /// A segment cannot be read, and what is behind it must not wait: it goes out of the way and is tried again at the
    /// next start.
    pub(super) fn set_aside(&mut self, number: u64, why: &io::Error) -> Done {
        let found = self.segments.iter().find(|segment| segment.number == number);
        let Some((until, bytes)) = found.map(|segment| (segment.until, segment.bytes)) else {
            return self.acknowledge(self.acked);
        };
        tracing::error!(segment = number, error = %why, "a spool segment cannot be read; it is set aside");
        self.note_damage([(number, 0)]);
        // A name may change, and the process, but not when it was written.
        let written = fs::metadata(path(&self.folder, number)).and_then(|meta| meta.modified());
        let since_epoch = written.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let written_ms = since_epoch.and_then(|since| i64::try_from(since.as_millis()).ok());
        self.aside_ms = self.aside_ms.max(written_ms.unwrap_or_else(now_ms));
        if fs::rename(path(&self.folder, number), path(&self.folder, number).with_extension(UNREAD)).is_ok() {
            self.aside += bytes;
        }
        self.acknowledge(Position { ordinal: until, segment: number, offset: bytes })
    }

    /// Moves the position on; what then remains to be done outside of the lock.
    pub(super) fn acknowledge(&mut self, position: Position) -> Done {
        self.acked = self.acked.max(position);
        if self.appended == self.acked.ordinal {
            self.all_acknowledged();
        }
        let acked = Acked { segment: self.acked.segment, offset: self.acked.offset };
        let (mut removed, mut damaged) = (Vec::new(), Vec::new());
        while let Some(segment) = self.segments.pop_front_if(|segment| segment.number < acked.segment) {
            self.frames -= segment.bytes.saturating_sub(FIRST);
            let number = segment.number;
            let is_damaged = self.damage.range((number, 0)..(number + 1, 0)).next().is_some();
            self.damage.retain(|(segment, _)| *segment != number);
            if is_damaged { damaged.push(number) } else { removed.push(number) }
        }
        if !removed.is_empty() || !damaged.is_empty() {
            self.unsynced.retain(|(number, _)| number.is_none_or(|number| number >= acked.segment));
        }
        Done { folder: Arc::clone(&self.folder), acked, removed, damaged }
    }

    /// Nothing waits: the segment that is written goes as well, once it is worth a new file. On a full disk it goes
    /// before there is a new one, to make room.
    fn all_acknowledged(&mut self) {
        if self.segments.is_empty() {
            return;
        }
        if self.writer.is_none() || self.trouble.is_some() && self.last_bytes() > FIRST {
            self.writer = None;
            self.fresh_segment();
            self.acked.segment = self.last_number().max(self.acked.segment) + 1;
            self.acked.offset = FIRST;
            return;
        }
        // If none can be made, it goes on being written.
        if self.last_bytes() >= (self.segment_bytes / 2).max(FIRST + 1) {
            let _ = self.roll();
        }
        (self.acked.segment, self.acked.offset) = (self.last_number(), self.last_bytes());
    }
}

/// What is left to do after acknowledging.
#[must_use]
pub(super) struct Done {
    folder: Arc<Path>,
    acked: Acked,
    removed: Vec<u64>,
    damaged: Vec<u64>,
}

impl Done {
    /// Whether records leave the disk.
    pub(super) fn takes_records(&self) -> bool {
        !self.removed.is_empty() || !self.damaged.is_empty()
    }

    /// Notes the position and removes segments that are done.
    pub(super) fn tidy(self) {
        if let Err(error) = acked::store(&self.folder, self.acked) {
            // Harmless: after a crash these records are delivered again.
            tracing::warn!(%error, "the acknowledged position could not be written");
        }
        for number in self.removed {
            remove(&self.folder, number);
        }
        for number in &self.damaged {
            let path = path(&self.folder, *number);
            // One that is gone, or stands aside already, needs nothing.
            let _ = fs::rename(&path, path.with_extension(DAMAGED));
        }
        if !self.damaged.is_empty()
            && let Ok(kept) = numbers(&self.folder, DAMAGED)
        {
            for number in kept.iter().rev().skip(DAMAGED_KEPT) {
                let _ = fs::remove_file(path(&self.folder, *number).with_extension(DAMAGED));
            }
        }
    }
}

fn remove(folder: &Path, number: u64) {
    let path = path(folder, number);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "a delivered spool segment could not be removed");
        }
        _ => {}
    }
}
