//! The segment files and the place up to which they are acknowledged. Blocking, small, under one lock.

use super::{Batch, Depth, Position, frame, replace};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes that are read at once for a batch.
const READ_STEP: usize = 1024 * 1024;
/// Where the acknowledged position stands.
const ACKNOWLEDGED: &str = "acknowledged";

struct Segment {
    number: u64,
    bytes: u64,
    records: u64,
}

/// See the module.
pub struct Segments {
    folder: PathBuf,
    segment_bytes: u64,
    /// In order; the last one is being written. Never empty.
    list: VecDeque<Segment>,
    file: File,
    acknowledged: Position,
    /// Records behind the acknowledged position.
    waiting: u64,
    oldest_ms: Option<i64>,
}

impl Segments {
    pub fn open(folder: &Path, segment_bytes: u64) -> io::Result<Self> {
        let mut numbers: Vec<u64> = fs::read_dir(folder)?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".seg")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        let acknowledged = read_position(folder);
        let mut list = VecDeque::new();
        let (mut waiting, mut oldest_ms) = (0, None);
        for number in numbers {
            let path = path_of(folder, number);
            let found = examine(&path)?;
            if found.whole == 0 {
                fs::remove_file(path)?;
                continue;
            }
            let passed = |end: u64| (number, end) <= (acknowledged.segment, acknowledged.offset);
            let left = found.frames.iter().filter(|(end, _)| !passed(*end));
            for (_, at_ms) in left {
                waiting += 1;
                oldest_ms = oldest_ms.or(Some(*at_ms));
            }
            let records = found.frames.len() as u64;
            list.push_back(Segment { number, bytes: found.whole, records });
        }
        // A number is never used twice, so that an old acknowledgement cannot hide new records.
        let next = list.back().map_or(0, |last: &Segment| last.number).max(acknowledged.segment) + 1;
        let file = create(&path_of(folder, next))?;
        list.push_back(Segment { number: next, bytes: 0, records: 0 });
        let folder = folder.to_owned();
        let mut segments = Self { folder, segment_bytes, list, file, acknowledged, waiting, oldest_ms };
        segments.drop_passed()?;
        Ok(segments)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn bytes(&self) -> u64 {
        self.list.iter().map(|segment| segment.bytes).sum()
    }

    pub fn depth(&self) -> Depth {
        Depth { records: self.waiting, bytes: self.bytes(), oldest_ms: self.oldest_ms }
    }

    /// The file being written, for a sync outside of the lock.
    pub fn current(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    pub fn append(&mut self, frame: &[u8], at_ms: i64) -> io::Result<()> {
        if self.list.back().is_some_and(|last| last.bytes >= self.segment_bytes) {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(frame) {
            // Half a frame would hide what comes after it.
            if let Some(last) = self.list.back() {
                self.file.set_len(last.bytes)?;
            }
            return Err(error);
        }
        if let Some(last) = self.list.back_mut() {
            last.bytes += frame.len() as u64;
            last.records += 1;
        }
        self.waiting += 1;
        self.oldest_ms = self.oldest_ms.or(Some(at_ms));
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let number = self.list.back().map_or(0, |last| last.number) + 1;
        self.file.sync_data()?;
        self.file = create(&path_of(&self.folder, number))?;
        self.list.push_back(Segment { number, bytes: 0, records: 0 });
        Ok(())
    }

    /// At most `max` records behind the acknowledged position.
    pub fn read(&self, max: usize) -> io::Result<Batch> {
        let mut records = Vec::new();
        let mut position = self.acknowledged;
        for segment in self.list.iter().filter(|segment| segment.number >= self.acknowledged.segment) {
            let same = segment.number == self.acknowledged.segment;
            let mut offset = if same { self.acknowledged.offset } else { 0 };
            while records.len() < max && offset < segment.bytes {
                let bytes = read_at(&path_of(&self.folder, segment.number), offset, segment.bytes)?;
                let mut used = 0;
                while records.len() < max
                    && let Some((record, length)) = frame::decode(&bytes[used..])
                {
                    used += length;
                    position = Position {
                        segment: segment.number,
                        offset: offset + used as u64,
                        at_ms: record.started_at_ms,
                    };
                    records.push(record);
                }
                if used == 0 {
                    tracing::error!(segment = segment.number, offset, "a spool segment is damaged; its rest is skipped");
                    position = Position { segment: segment.number, offset: segment.bytes, at_ms: position.at_ms };
                    break;
                }
                offset += used as u64;
            }
            if records.len() >= max {
                break;
            }
        }
        Ok(Batch { records, position })
    }

    pub fn acknowledge(&mut self, position: Position) -> io::Result<()> {
        let place = |position: &Position| (position.segment, position.offset);
        if place(&position) <= place(&self.acknowledged) {
            return Ok(());
        }
        let passed = self.count_between(self.acknowledged, position)?;
        self.waiting = self.waiting.saturating_sub(passed);
        self.oldest_ms = (self.waiting > 0).then_some(position.at_ms);
        self.acknowledged = position;
        // What is wholly acknowledged starts over in a new file, so that an idle proxy keeps no old one.
        if self.waiting == 0 && self.list.back().is_some_and(|last| last.bytes >= self.segment_bytes / 4) {
            self.rotate()?;
        }
        write_position(&self.folder, position)?;
        self.drop_passed()
    }

    /// Records in `from..to`. Whole segments are counted from memory; one is looked through at each end.
    fn count_between(&self, from: Position, to: Position) -> io::Result<u64> {
        let mut count = 0;
        for segment in self.list.iter().filter(|s| (from.segment..=to.segment).contains(&s.number)) {
            let start = if segment.number == from.segment { from.offset } else { 0 };
            let end = if segment.number == to.segment { to.offset } else { segment.bytes };
            if start == 0 && end == segment.bytes {
                count += segment.records;
                continue;
            }
            let mut offset = start;
            while offset < end {
                let bytes = read_at(&path_of(&self.folder, segment.number), offset, end)?;
                let mut used = 0;
                while let Some((_, length)) = frame::decode(&bytes[used..]) {
                    used += length;
                    count += 1;
                }
                if used == 0 {
                    break;
                }
                offset += used as u64;
            }
        }
        Ok(count)
    }

    fn drop_passed(&mut self) -> io::Result<()> {
        while self.list.len() > 1 {
            let Some(first) = self.list.front() else { break };
            let place = (first.number, first.bytes);
            if place > (self.acknowledged.segment, self.acknowledged.offset) {
                break;
            }
            fs::remove_file(path_of(&self.folder, first.number))?;
            self.list.pop_front();
        }
        Ok(())
    }
}

/// What a segment file holds: the end of each whole frame with the time of its record.
struct Found {
    frames: Vec<(u64, i64)>,
    whole: u64,
}

/// Looks through a segment and cuts off a torn end.
fn examine(path: &Path) -> io::Result<Found> {
    let bytes = fs::read(path)?;
    let mut frames = Vec::new();
    let mut used = 0;
    while let Some((record, length)) = frame::decode(&bytes[used..]) {
        used += length;
        frames.push((used as u64, record.started_at_ms));
    }
    if used < bytes.len() {
        tracing::warn!(path = %path.display(), bytes = bytes.len() - used, "a torn end of the spool was cut off");
        File::options().write(true).open(path)?.set_len(used as u64)?;
    }
    Ok(Found { frames, whole: used as u64 })
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.seg"))
}

fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).append(true).mode(0o600).open(path)
}

/// Up to [`READ_STEP`] bytes from `offset`, but at least one whole frame if there is one before `end`.
fn read_at(path: &Path, offset: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take((end - offset).min(READ_STEP as u64)).read_to_end(&mut bytes)?;
    if frame::decode(&bytes).is_none() {
        file.take(end.saturating_sub(offset + bytes.len() as u64)).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn write_position(folder: &Path, position: Position) -> io::Result<()> {
    let mut content = Vec::with_capacity(28);
    content.extend_from_slice(&position.segment.to_le_bytes());
    content.extend_from_slice(&position.offset.to_le_bytes());
    content.extend_from_slice(&position.at_ms.to_le_bytes());
    let check = crc32fast::hash(&content);
    content.extend_from_slice(&check.to_le_bytes());
    replace(&folder.join(ACKNOWLEDGED), &content)
}

/// The start, if there is none or it is damaged: what was acknowledged is sent again and stored once.
fn read_position(folder: &Path) -> Position {
    let read = || {
        let content = fs::read(folder.join(ACKNOWLEDGED)).ok()?;
        let check = u32::from_le_bytes(content.get(24..28)?.try_into().ok()?);
        if crc32fast::hash(&content[..24]) != check {
            return None;
        }
        let number = |at: usize| Some(u64::from_le_bytes(content[at..at + 8].try_into().ok()?));
        Some(Position { segment: number(0)?, offset: number(8)?, at_ms: number(16)?.cast_signed() })
    };
    read().unwrap_or_default()
}
