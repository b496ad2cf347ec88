//! Reads records out of segments, without holding up those who write.

use super::disk::Disk;
use super::segment::{Frames, Next};
use super::{Batch, Position};
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name of a segment.
pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.seg"))
}

/// The part of a segment that waits.
pub(super) struct Extent {
    pub(super) number: u64,
    pub(super) from: u64,
    pub(super) to: u64,
    /// Ordinal of its last record.
    pub(super) until: u64,
}

/// What waits, as it stood at one moment.
pub(super) struct View {
    pub(super) disk: Disk,
    pub(super) folder: Arc<Path>,
    pub(super) start: Position,
    pub(super) extents: Vec<Extent>,
}

/// What a look at a view gave.
pub(super) struct Reading {
    pub(super) batch: Batch,
    /// Places that cannot be read: segment and offset.
    pub(super) damage: Vec<(u64, u64)>,
    /// The segment that stopped the reading, and why.
    pub(super) stuck: Option<(u64, io::Error)>,
}

impl View {
    /// The oldest records.
    pub(super) fn read(&self, max: usize, max_bytes: u64) -> Reading {
        let batch = Batch { records: Vec::new(), position: self.start };
        let mut reading = Reading { batch, damage: Vec::new(), stuck: None };
        let mut left = max_bytes;
        for extent in &self.extents {
            match self.read_extent(extent, max, &mut left, &mut reading) {
                Ok(true) => {
                    // Whatever could be read: here it ends.
                    let position =
                        Position { ordinal: extent.until, segment: extent.number, offset: extent.to };
                    reading.batch.position = position.max(reading.batch.position);
                }
                Ok(false) => break,
                Err(error) => {
                    reading.stuck = Some((extent.number, error));
                    break;
                }
            }
        }
        reading
    }

    /// Whether there is room for more.
    fn read_extent(
        &self,
        extent: &Extent,
        max: usize,
        left: &mut u64,
        reading: &mut Reading,
    ) -> io::Result<bool> {
        if extent.from >= extent.to {
            return Ok(true);
        }
        let file = self.disk.open(&path(&self.folder, extent.number))?;
        let mut frames = Frames::new(file, extent.from, extent.to)?;
        let mut record = Vec::new();
        let batch = &mut reading.batch;
        loop {
            match frames.next(&mut record)? {
                Next::End => return Ok(true),
                Next::Damage { from, .. } => reading.damage.push((extent.number, from)),
                Next::Record => {
                    let ordinal = (batch.position.ordinal + 1).min(extent.until);
                    batch.position = Position { ordinal, segment: extent.number, offset: frames.offset() };
                    batch.records.push(Bytes::copy_from_slice(&record));
                    *left = left.saturating_sub(record.len() as u64);
                    if batch.records.len() >= max || *left == 0 {
                        return Ok(false);
                    }
                }
            }
        }
    }
}
