//! The segments of a spool, the one being written, and the position up to which they are done. Single-threaded;
//! `Spool` puts a lock around it.

use super::acked::{self, Acked};
use super::reader::{Extent, View, path};
use super::segment::{FIRST, Frames, HEAD};
use super::{Error, Options, Position, SPOOL_TORN_BYTES};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the owner's end is waited for, and how often it is looked for.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A segment on disk.
struct Segment {
    number: u64,
    bytes: u64,
    /// Ordinal of its last record.
    until: u64,
}

pub(super) struct Log {
    folder: Arc<Path>,
    segment_bytes: u64,
    /// Oldest first; the last one is written to. Never empty.
    segments: VecDeque<Segment>,
    writer: Arc<File>,
    /// Closed segments, and the folder after a new one, that were not forced to disk yet.
    closed: Vec<Arc<File>>,
    dirty: bool,
    acked: Position,
    /// Records that were there at the start or have been appended since.
    appended: u64,
    /// Bytes of all records on disk.
    frames: u64,
    /// Wake the reader when so many have been appended.
    wake_at: u64,
    /// Held as long as the spool is open.
    _lock: File,
}

impl Log {
    pub(super) fn open(options: &Options) -> Result<Self, Error> {
        let folder: Arc<Path> = options.folder.as_path().into();
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        let lock = lock(&folder)?;
        let mut done = acked::load(&folder).unwrap_or_default();
        let mut segments = VecDeque::new();
        let mut appended = 0;
        for number in numbers(&folder)? {
            if number < done.segment {
                remove(&folder, number);
                continue;
            }
            let from = if number == done.segment { done.offset.max(FIRST) } else { FIRST };
            let (bytes, records) = examine(&folder, number, from)?;
            appended += records;
            // The end that was acknowledged is gone (a power cut): what is appended must not look acknowledged.
            if number == done.segment && bytes < done.offset {
                done.offset = bytes;
            }
            segments.push_back(Segment { number, bytes, until: appended });
        }
        let first = segments.front().map_or(done.segment, |segment: &Segment| segment.number);
        if first > done.segment || segments.is_empty() {
            done = Acked { segment: first, offset: FIRST };
        }
        // Appending goes on in a segment of its own: nothing is ever written behind what a crash left.
        let number = segments.back().map_or(done.segment, |segment| segment.number) + 1;
        let writer = create(&folder, number)?;
        segments.push_back(Segment { number, bytes: FIRST, until: appended });
        let frames = segments.iter().map(|segment| segment.bytes.saturating_sub(FIRST)).sum();
        let acked = Position { ordinal: 0, segment: done.segment, offset: done.offset.max(FIRST) };
        let mut log = Self {
            closed: File::open(&*folder).map(Arc::new).into_iter().collect(),
            folder,
            segment_bytes: options.segment_bytes.min(options.max_bytes / 4),
            segments,
            writer,
            dirty: false,
            acked,
            appended,
            frames,
            wake_at: u64::MAX,
            _lock: lock,
        };
        log.acknowledge(acked).tidy();
        Ok(log)
    }

    /// Of all records on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.frames
    }

    /// Writes one frame; whether the reader waits for it.
    pub(super) fn append(&mut self, frame: &[u8]) -> Result<bool, Error> {
        let size = frame.len() as u64;
        let last = self.last();
        if last.bytes > FIRST && last.bytes + size > self.segment_bytes {
            self.roll()?;
        }
        let number = self.last().number;
        if let Err(source) = (&*self.writer).write_all(frame) {
            // A part of the frame may be on disk, and nothing behind it could be read.
            let whole = self.last().bytes;
            if self.writer.set_len(whole).is_err() {
                self.roll()?;
            }
            return Err(Error::Io { what: "append to", path: path(&self.folder, number), source });
        }
        self.dirty = true;
        self.appended += 1;
        self.frames += size;
        if let Some(last) = self.segments.back_mut() {
            last.bytes += size;
            last.until = self.appended;
        }
        let wake = self.appended >= self.wake_at;
        if wake {
            self.wake_at = u64::MAX;
        }
        Ok(wake)
    }

    fn last(&self) -> &Segment {
        // `open` puts one in and `acknowledge` never takes the last one.
        self.segments.back().unwrap_or(&Segment { number: 0, bytes: FIRST, until: 0 })
    }

    /// Closes the segment that is written and begins the next.
    fn roll(&mut self) -> Result<(), Error> {
        let number = self.last().number + 1;
        let next = create(&self.folder, number)?;
        self.closed.push(std::mem::replace(&mut self.writer, next));
        // The new name must survive a power cut, too.
        self.closed.extend(File::open(&*self.folder).map(Arc::new));
        self.segments.push_back(Segment { number, bytes: FIRST, until: self.appended });
        Ok(())
    }

    /// Files with records that may not be on disk yet.
    pub(super) fn unsynced(&mut self) -> Vec<Arc<File>> {
        let mut files = std::mem::take(&mut self.closed);
        if std::mem::take(&mut self.dirty) {
            files.push(Arc::clone(&self.writer));
        }
        files
    }

    /// Whether so many records wait; if not, the appender of the last of them wakes the reader.
    pub(super) fn has(&mut self, records: u64) -> bool {
        let enough = self.appended - self.acked.ordinal >= records;
        self.wake_at = if enough { u64::MAX } else { self.acked.ordinal + records };
        enough
    }

    /// What a reader needs to work without the lock: segments only go by acknowledging.
    pub(super) fn view(&self) -> View {
        let waiting = self.segments.iter().filter(|segment| segment.number >= self.acked.segment);
        let extent = |segment: &Segment| {
            let from = if segment.number == self.acked.segment { self.acked.offset } else { FIRST };
            Extent { number: segment.number, from, to: segment.bytes, until: segment.until }
        };
        View {
            folder: Arc::clone(&self.folder),
            start: self.acked,
            extents: waiting.map(extent).collect(),
            records: self.appended - self.acked.ordinal,
            bytes: self.bytes(),
        }
    }

    /// Moves the position on; what then remains to be done outside of the lock.
    pub(super) fn acknowledge(&mut self, position: Position) -> Done {
        self.acked = self.acked.max(position);
        if self.appended == self.acked.ordinal {
            // Nothing waits: the segment that is written goes as well, once it is worth a new file. If none can
            // be made, it goes on being written.
            if self.last().bytes >= self.segment_bytes / 2 {
                let _ = self.roll();
            }
            (self.acked.segment, self.acked.offset) = (self.last().number, self.last().bytes);
        }
        let acked = Acked { segment: self.acked.segment, offset: self.acked.offset };
        let mut segments = Vec::new();
        while self.segments.len() > 1
            && let Some(segment) = self.segments.pop_front_if(|segment| segment.number < acked.segment)
        {
            self.frames -= segment.bytes.saturating_sub(FIRST);
            segments.push(segment.number);
        }
        Done { folder: Arc::clone(&self.folder), acked, segments }
    }
}

/// What is left to do after acknowledging.
#[must_use]
pub(super) struct Done {
    folder: Arc<Path>,
    acked: Acked,
    segments: Vec<u64>,
}

impl Done {
    /// Notes the position and removes segments that are done.
    pub(super) fn tidy(self) {
        if let Err(error) = acked::store(&self.folder, self.acked) {
            // Harmless: after a crash these records are delivered again.
            tracing::warn!(%error, "the acknowledged position could not be written");
        }
        for number in self.segments {
            remove(&self.folder, number);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        for file in self.unsynced() {
            if let Err(error) = file.sync_data() {
                tracing::error!(%error, "the spool could not be forced to disk");
            }
        }
    }
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |source| Error::Io { what, path: path.to_owned(), source }
}

/// A process that was killed a moment ago may still hold it: waits a little.
fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join("lock");
    let file = private().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(io_error("open", &path))?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(Error::InUse(folder.to_owned())),
            Err(TryLockError::Error(source)) => return Err(Error::Io { what: "lock", path, source }),
        }
    }
}

/// Only this user may read what people asked their models.
fn private() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn create(folder: &Path, number: u64) -> Result<Arc<File>, Error> {
    let path = path(folder, number);
    let fail = io_error("create", &path);
    let mut file = private().create_new(true).append(true).open(&path).map_err(&fail)?;
    file.write_all(HEAD).map_err(&fail)?;
    Ok(Arc::new(file))
}

fn remove(folder: &Path, number: u64) {
    let path = path(folder, number);
    if let Err(error) = fs::remove_file(&path) {
        tracing::warn!(%error, path = %path.display(), "a delivered spool segment could not be removed");
    }
}

/// Numbers of the segments in a folder, ascending.
fn numbers(folder: &Path) -> Result<Vec<u64>, Error> {
    let fail = io_error("read", folder);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(&fail)? {
        let name = entry.map_err(&fail)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// Counts the whole records from `from` on and cuts off what follows them; the segment's size and the count.
fn examine(folder: &Path, number: u64, from: u64) -> Result<(u64, u64), Error> {
    let path = path(folder, number);
    let fail = io_error("read", &path);
    let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(&fail)?;
    let size = file.metadata().map_err(&fail)?.len();
    let mut head = [0; HEAD.len()];
    let known = size >= FIRST && file.read_exact(&mut head).is_ok() && head == *HEAD;
    if !known {
        // A crash between making the file and its head; or a file of another program, which is left alone.
        torn(&path, size);
        return Ok((size, 0));
    }
    let mut records = 0;
    let mut frames = Frames::new(file.try_clone().map_err(&fail)?, from.min(size)).map_err(&fail)?;
    let mut record = Vec::new();
    while frames.next(&mut record).map_err(&fail)?.is_some() {
        records += 1;
    }
    let whole = frames.offset();
    if whole < size {
        torn(&path, size - whole);
        file.set_len(whole).map_err(io_error("cut", &path))?;
    }
    Ok((whole, records))
}

fn torn(path: &Path, bytes: u64) {
    metrics::counter!(SPOOL_TORN_BYTES).increment(bytes);
    tracing::warn!(path = %path.display(), bytes, "the end of a spool segment is not whole and is left out");
}
