//! The form of a segment: a head, then frames of length, checksum and record. A frame that is not whole costs that
//! frame: reading goes on at the next one whose checksum holds. Frames that only try the disk are passed over.

use super::Error;
use contract::usage::UsageRecord;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// Names the form; another form gets another number.
pub(super) const HEAD: &[u8; 8] = b"SWSPOOL1";
/// Offset of the first frame.
pub(super) const FIRST: u64 = HEAD.len() as u64;
/// Length and checksum, 4 bytes each, little-endian. The checksum covers the length and the record.
const FRAME_HEAD: usize = 8;
/// A longer length is damage.
const MAX_RECORD_BYTES: usize = 16 << 20;
/// In the length of a frame that holds no record.
const TRIAL: u32 = 1 << 31;
/// Bytes of such a frame: a disk that takes them has room for some dozens of records.
pub(super) const TRIAL_BYTES: usize = 32 << 10;
/// How every record begins: its first field is an id of 16 bytes. Scans look for it, so that checksums are only
/// made where a frame may be.
const RECORD_START: &[u8] = &[0x0a, 0x10];
/// Bytes that one look for the next whole frame reads into memory.
const SCAN_BYTES: u64 = 64 << 20;
/// Bytes that it makes checksums of; more are only needed for bytes that somebody wrote to keep us busy.
const SCAN_WORK: usize = 256 << 20;

/// One record as a frame, in one buffer for one write.
pub(super) fn encode(record: &UsageRecord, frame: &mut Vec<u8>) -> Result<(), Error> {
    frame.clear();
    frame.extend_from_slice(&[0; FRAME_HEAD]);
    record.encode(frame);
    let bytes = frame.len() - FRAME_HEAD;
    let length = u32::try_from(bytes).ok().filter(|_| bytes <= MAX_RECORD_BYTES);
    let Some(length) = length else { return Err(Error::TooLarge { bytes }) };
    close(length, frame);
    Ok(())
}

/// The frame of an encoded record.
pub(super) fn frame(record: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; FRAME_HEAD];
    frame.extend_from_slice(record);
    // It was a frame before, and no longer one is read.
    close(u32::try_from(record.len()).unwrap_or_default(), &mut frame);
    frame
}

/// A frame that readers pass over.
pub(super) fn trial() -> Vec<u8> {
    let mut frame = vec![0; TRIAL_BYTES];
    // A constant far below the bound.
    let length = u32::try_from(TRIAL_BYTES - FRAME_HEAD).unwrap_or_default();
    close(TRIAL | length, &mut frame);
    frame
}

fn close(length: u32, frame: &mut [u8]) {
    let checksum = checksum(length, &frame[FRAME_HEAD..]);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..FRAME_HEAD].copy_from_slice(&checksum.to_le_bytes());
}

fn checksum(length: u32, record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(record);
    hasher.finalize()
}

/// What stands before a record.
#[derive(Clone, Copy)]
struct Head {
    length: u32,
    checksum: u32,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        Some(Self { length: word(0)?, checksum: word(4)? })
    }

    fn is_trial(self) -> bool {
        self.length & TRIAL != 0
    }

    /// Bytes of the record; `None` if no frame has this length.
    fn bytes(self) -> Option<usize> {
        let bytes = usize::try_from(self.length & !TRIAL).ok()?;
        (1..=MAX_RECORD_BYTES).contains(&bytes).then_some(bytes)
    }

    fn fits(self, record: &[u8]) -> bool {
        checksum(self.length, record) == self.checksum
    }
}

/// What comes next in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A record; its bytes are in the buffer.
    Record,
    /// Nothing that can be read, from an offset up to another one.
    Damage { from: u64, to: u64 },
    /// The end.
    End,
}

/// Reads frames of one segment from an offset on.
pub(super) struct Frames {
    file: BufReader<File>,
    offset: u64,
    end: u64,
}

impl Frames {
    /// From `offset`, which lies before a frame, up to `end`.
    pub(super) fn new(file: File, offset: u64, end: u64) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(64 << 10, file);
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file, offset, end })
    }

    /// Before the next frame.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record, or the damage before it.
    pub(super) fn next(&mut self, record: &mut Vec<u8>) -> io::Result<Next> {
        while self.offset < self.end {
            let Some(head) = self.whole(record)? else { return self.damage() };
            self.offset += (FRAME_HEAD + record.len()) as u64;
            if !head.is_trial() {
                return Ok(Next::Record);
            }
        }
        Ok(Next::End)
    }

    /// The frame that begins here, if it is whole.
    fn whole(&mut self, record: &mut Vec<u8>) -> io::Result<Option<Head>> {
        let left = self.end - self.offset;
        let mut head = [0; FRAME_HEAD];
        if left < FRAME_HEAD as u64 || !fill(&mut self.file, &mut head)? {
            return Ok(None);
        }
        let Some((head, bytes)) = Head::read(&head).and_then(|head| Some((head, head.bytes()?))) else {
            return Ok(None);
        };
        if (FRAME_HEAD + bytes) as u64 > left {
            return Ok(None);
        }
        record.resize(bytes, 0);
        let whole = fill(&mut self.file, record)? && head.fits(record);
        Ok(whole.then_some(head))
    }

    /// Goes on at the next whole frame.
    #[cold]
    fn damage(&mut self) -> io::Result<Next> {
        let from = self.offset;
        let mut rest = Vec::new();
        self.file.seek(SeekFrom::Start(from))?;
        (&mut self.file).take((self.end - from).min(SCAN_BYTES)).read_to_end(&mut rest)?;
        let skipped = next_whole(&rest);
        // A file shorter than it should be ends here.
        self.offset = if rest.is_empty() { self.end } else { from + skipped as u64 };
        self.file.seek(SeekFrom::Start(self.offset))?;
        Ok(Next::Damage { from, to: self.offset })
    }
}

/// Where, behind the damage that `rest` begins with, the next whole frame begins; its length if there is none.
fn next_whole(rest: &[u8]) -> usize {
    // The likely case: the record is damaged and its length is not.
    let behind = Head::read(rest).and_then(Head::bytes).map(|bytes| FRAME_HEAD + bytes);
    let mut work = SCAN_WORK;
    if let Some(at) = behind
        && (at == rest.len() || is_whole(rest, at, &mut work))
    {
        return at;
    }
    let first = FRAME_HEAD + 1;
    let starts = rest.get(first..).map(|tail| memchr::memmem::find_iter(tail, RECORD_START));
    starts
        .into_iter()
        .flatten()
        .map(|at| at + 1)
        .find(|at| is_whole(rest, *at, &mut work))
        .unwrap_or(rest.len())
}

fn is_whole(rest: &[u8], at: usize, work: &mut usize) -> bool {
    let Some(frame) = rest.get(at..) else { return false };
    let Some(head) = Head::read(frame) else { return false };
    let record = head.bytes().and_then(|bytes| frame.get(FRAME_HEAD..FRAME_HEAD + bytes));
    let Some(record) = record.filter(|record| record.len() <= *work) else { return false };
    *work -= record.len();
    head.fits(record)
}

/// Whether the whole buffer could be filled.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
