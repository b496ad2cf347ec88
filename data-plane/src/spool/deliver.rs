//! What the reporter does with the spool: read, and acknowledge what was committed.

use super::{Batch, Depth, Position, Spool, lock};
use crate::clock::now_ms;
use contract::pb;
use prost::Message;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::timeout;

/// Pause before an unreadable segment is tried again, and how often before it is set aside.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(1);
const UNREADABLE_TRIES: u32 = 3;
/// Bytes of records in one batch, below what a gRPC message may have.
const MAX_BATCH_BYTES: u64 = 1 << 20;

impl Spool {
    /// The oldest records that are not acknowledged, at most `max` and about a megabyte. Waits for a first one,
    /// then at most `linger` for more; a `linger` of zero does not wait at all. What is not acknowledged is read
    /// again by the next call. One reader at a time; cancel-safe: nothing is taken out.
    pub async fn next_batch(&self, max: usize, linger: Duration) -> Batch {
        let max = max.max(1);
        loop {
            if !linger.is_zero() {
                self.wait(1).await;
                // Running out of patience is the normal case.
                let _ = timeout(linger, self.wait(max as u64)).await;
            }
            // Read without the lock, so that no request waits for it.
            let view = self.shared.log().view();
            let reading = view.read(max, MAX_BATCH_BYTES);
            if !reading.damage.is_empty() {
                self.shared.log().note_damage(reading.damage);
            }
            let batch = reading.batch;
            if linger.is_zero() || !batch.records.is_empty() {
                return batch;
            }
            if batch.position != view.start {
                // Only damage: nothing to deliver and nothing to wait for.
                self.acknowledge(batch.position);
            }
            if let Some((segment, why)) = reading.stuck {
                self.cannot_read(segment, &why);
                tokio::time::sleep(UNREADABLE_PAUSE).await;
            } else if batch.position == view.start {
                // Records are counted that are nowhere; not to be asked for without a pause.
                tokio::time::sleep(UNREADABLE_PAUSE).await;
            }
        }
    }

    /// A segment that cannot be read for long must not hold up what is behind it.
    #[cold]
    fn cannot_read(&self, segment: u64, why: &io::Error) {
        tracing::error!(error = %why, segment, "a spool segment cannot be read");
        if !is_about_the_file(why) {
            return;
        }
        let mut log = self.shared.log();
        if segment == log.last_number() && log.writer.is_some() {
            // Behind the one that is written there is nothing. If it is gone, `tend` sees it.
            return;
        }
        let mut unreadable = lock(&self.shared.unreadable);
        unreadable.1 = if unreadable.0 == segment { unreadable.1 + 1 } else { 1 };
        unreadable.0 = segment;
        if unreadable.1 < UNREADABLE_TRIES && why.kind() != io::ErrorKind::NotFound {
            return;
        }
        let done = log.set_aside(segment, why);
        self.shared.publish(&log);
        drop(log);
        // They are tried again at the next start, which may be unable to see whose records they hold.
        self.shared.slots.empty_spent();
        done.tidy();
    }

    async fn wait(&self, records: u64) {
        while !self.shared.log().has(records) {
            self.shared.arrived.notified().await;
        }
    }

    /// Everything up to `position` has been committed and is forgotten. An older position does nothing.
    pub fn acknowledge(&self, position: Position) {
        let mut log = self.shared.log();
        let done = log.acknowledge(position);
        self.shared.publish(&log);
        drop(log);
        if done.takes_records() {
            self.shared.slots.empty_spent();
        }
        done.tidy();
    }

    /// How much waits.
    pub fn depth(&self) -> Depth {
        let log = self.shared.log();
        let (view, records) = (log.view(), log.waiting());
        let (unwritten, bytes, bound) = (log.backlog.len(), log.bytes(), log.bound());
        let is_ordered = log.acked.ordinal >= self.shared.disordered.load(Ordering::Relaxed);
        let missing_ms = log.aside_ms().max(self.shared.refused_ms.load(Ordering::Relaxed));
        let is_missed = missing_ms > 0 && now_ms() - missing_ms < self.shared.outstanding_ms;
        let on_disk = unwritten == 0 && !is_missed && is_ordered;
        drop(log);
        let whole = on_disk && lock(&self.shared.left).is_empty();
        let mut oldest = lock(&self.shared.oldest);
        if records == 0 || oldest.is_some_and(|(start, ..)| start != view.start) {
            *oldest = None;
        }
        if records > 0 && oldest.is_none() {
            let reading = view.read(1, 1);
            self.shared.log().note_damage(reading.damage);
            let record = reading.batch.records.into_iter().next();
            let record = record.and_then(|record| pb::UsageRecord::decode(record).ok());
            *oldest = record.map(|record| {
                let began_ms = record.started_at_ms;
                (view.start, began_ms, began_ms + i64::from(record.duration_ms))
            });
        }
        let (oldest_ms, oldest_ended_ms) = oldest.map(|(_, began, ended)| (began, ended)).unzip();
        Depth { records, unwritten, bytes, bound, oldest_ms, oldest_ended_ms, whole }
    }
}

/// Whether another try later can be expected to end the same way: not when this process is short of something.
fn is_about_the_file(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let shortage = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR];
    !error.raw_os_error().is_some_and(|code| shortage.iter().any(|known| known.raw_os_error() == code))
}
