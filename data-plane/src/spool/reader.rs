//! Reads records out of segments, without holding up those who write.

use super::segment::Frames;
use super::{Batch, Depth, Position, SPOOL_DAMAGED};
use bytes::Bytes;
use contract::pb;
use prost::Message;
use std::fs::File;
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
    pub(super) folder: Arc<Path>,
    pub(super) start: Position,
    pub(super) extents: Vec<Extent>,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl View {
    /// The oldest records.
    pub(super) fn read(&self, max: usize, max_bytes: u64) -> Batch {
        let mut batch = Batch { records: Vec::new(), position: self.start };
        let mut left = max_bytes;
        for extent in &self.extents {
            match self.read_extent(extent, max, &mut left, &mut batch) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(%error, segment = extent.number, "a spool segment cannot be read");
                    break;
                }
            }
        }
        batch
    }

    /// Whether there is room for more. Damage inside of a segment hides what follows it in there.
    fn read_extent(
        &self,
        extent: &Extent,
        max: usize,
        left: &mut u64,
        batch: &mut Batch,
    ) -> io::Result<bool> {
        let file = File::open(path(&self.folder, extent.number))?;
        let mut frames = Frames::new(file, extent.from)?;
        let mut record = Vec::new();
        while frames.offset() < extent.to && frames.next(&mut record)?.is_some() {
            batch.position.segment = extent.number;
            batch.position.offset = frames.offset();
            batch.position.ordinal += 1;
            batch.records.push(Bytes::copy_from_slice(&record));
            *left = left.saturating_sub(record.len() as u64);
            if batch.records.len() >= max || *left == 0 {
                return Ok(false);
            }
        }
        if frames.offset() < extent.to {
            let lost = extent.until - batch.position.ordinal;
            metrics::counter!(SPOOL_DAMAGED).increment(lost);
            tracing::error!(
                segment = extent.number,
                lost,
                "a spool segment is damaged; its rest is left out"
            );
            batch.position = Position { ordinal: extent.until, segment: extent.number, offset: extent.to };
        }
        Ok(true)
    }

    /// How much waits.
    pub(super) fn depth(&self) -> Depth {
        let oldest = self.read(1, 1).records.into_iter().next();
        Depth {
            records: self.records,
            bytes: self.bytes,
            oldest_ms: oldest
                .and_then(|record| pb::UsageRecord::decode(record).ok())
                .map(|record| record.started_at_ms),
        }
    }
}
