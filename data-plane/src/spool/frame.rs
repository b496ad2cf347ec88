//! One record on disk: length, CRC-32, protobuf. Both numbers are little-endian u32.

use contract::pb;
use prost::Message;

/// Bytes before the record.
pub const HEAD: usize = 8;
/// No record is larger; a length beyond it is damage, not a record.
const MAX_RECORD: usize = 4 * 1024 * 1024;

/// The frame of a record.
pub fn encode(record: &pb::UsageRecord) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + 512);
    frame.extend_from_slice(&[0; HEAD]);
    // A Vec grows as needed, so that encoding into it cannot fail.
    let _ = record.encode(&mut frame);
    let length = u32::try_from(frame.len() - HEAD).unwrap_or(u32::MAX);
    let check = crc32fast::hash(&frame[HEAD..]);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..HEAD].copy_from_slice(&check.to_le_bytes());
    frame
}

/// The first record of `bytes` and the length of its frame; `None` if it is cut off or damaged.
pub fn decode(bytes: &[u8]) -> Option<(pb::UsageRecord, usize)> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let length = usize::try_from(number(0)?).ok().filter(|length| *length <= MAX_RECORD)?;
    let check = number(4)?;
    let record = bytes.get(HEAD..HEAD + length)?;
    if crc32fast::hash(record) != check {
        return None;
    }
    Some((pb::UsageRecord::decode(record).ok()?, HEAD + length))
}
