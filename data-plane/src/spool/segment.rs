//! The form of a segment: a head, then frames of length, checksum and record. Reading stops at the first frame
//! that is not whole.

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

/// One record as a frame, in one buffer for one write.
pub(super) fn encode(record: &UsageRecord, frame: &mut Vec<u8>) -> Result<(), Error> {
    frame.clear();
    frame.extend_from_slice(&[0; FRAME_HEAD]);
    record.encode(frame);
    let bytes = frame.len() - FRAME_HEAD;
    let length = u32::try_from(bytes).ok().filter(|_| bytes <= MAX_RECORD_BYTES);
    let Some(length) = length else { return Err(Error::TooLarge { bytes }) };
    let checksum = checksum(length, &frame[FRAME_HEAD..]);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..FRAME_HEAD].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

fn checksum(length: u32, record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(record);
    hasher.finalize()
}

/// Reads frames of one segment from an offset on.
pub(super) struct Frames {
    file: BufReader<File>,
    offset: u64,
}

impl Frames {
    /// From `offset`, which lies before a frame or at the end.
    pub(super) fn new(file: File, offset: u64) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(64 << 10, file);
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file, offset })
    }

    /// Before the next frame.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record's bytes; `None` at the end or at damage.
    pub(super) fn next(&mut self, record: &mut Vec<u8>) -> io::Result<Option<()>> {
        let mut head = [0; FRAME_HEAD];
        if !fill(&mut self.file, &mut head)? {
            return Ok(None);
        }
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (length, want) = (word(0), word(4));
        let Some(bytes) = usize::try_from(length).ok().filter(|bytes| (1..=MAX_RECORD_BYTES).contains(bytes))
        else {
            return Ok(None);
        };
        record.resize(bytes, 0);
        if !fill(&mut self.file, record)? || checksum(length, record) != want {
            return Ok(None);
        }
        self.offset += (FRAME_HEAD + bytes) as u64;
        Ok(Some(()))
    }
}

/// Whether the whole buffer could be filled.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
