//! The file that says up to where records have been acknowledged. Replaced as a whole; if it is missing or
//! damaged, records are delivered again, which is harmless.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

const FILE: &str = "acknowledged";
const LENGTH: usize = 20;

/// Segment and offset up to which everything is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Acked {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// `None`: not known.
pub(super) fn load(folder: &Path) -> Option<Acked> {
    let bytes = fs::read(folder.join(FILE)).ok().filter(|bytes| bytes.len() == LENGTH)?;
    let (numbers, checksum) = bytes.split_at(LENGTH - 4);
    if crc32fast::hash(numbers).to_le_bytes() != checksum {
        return None;
    }
    let number = |part: &[u8]| part.try_into().ok().map(u64::from_le_bytes);
    let (segment, offset) = numbers.split_at(8);
    Some(Acked { segment: number(segment)?, offset: number(offset)? })
}

/// By a new file and a rename, so that it is always whole.
pub(super) fn store(folder: &Path, acked: Acked) -> io::Result<()> {
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(&acked.segment.to_le_bytes());
    bytes[8..16].copy_from_slice(&acked.offset.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&checksum.to_le_bytes());
    let fresh = folder.join("acknowledged.new");
    let mut file = fs::File::create(&fresh)?;
    file.write_all(&bytes)?;
    fs::rename(&fresh, folder.join(FILE))
}
