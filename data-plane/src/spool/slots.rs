//! Requests that are under way, in a file of slots whose blocks exist: written when a provider was chosen, worth
//! nothing once the record is in the spool. What stands in it after a kill was never recorded.
//!
//! A slot is written over by the next request; until then what it holds is known to be spent only in memory. So spent
//! slots are emptied before the segment that holds their records goes, and an entry whose id is in a segment is none.

mod entry;

use super::disk::{self, Disk, io_error};
use super::{Error, SPOOL_WITHOUT_SLOT};
use arc_swap::ArcSwapOption;
use contract::ids::RequestId;
pub use entry::Entry;
use entry::SLOT_BYTES;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const FILE: &str = "in-flight";
/// The slots take at most this part of the file system.
const SHARE: u64 = 16;

/// The place of one request; goes back with its record.
#[derive(Debug, PartialEq, Eq)]
pub struct Slot(pub(super) u32);

/// An entry that a process left that was killed.
pub(super) struct Left {
    pub(super) slot: u32,
    pub(super) entry: Entry<'static>,
}

pub(super) struct Slots {
    disk: Disk,
    path: PathBuf,
    file: ArcSwapOption<File>,
    count: u32,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    /// Their records are in the spool; they still hold an entry. Taken first: writing one over empties it.
    spent: Vec<u32>,
    empty: Vec<u32>,
}

/// What a process before this one left in its slots.
#[derive(Default)]
pub(super) struct Found {
    pub(super) left: Vec<Left>,
    /// Slots whose entries cannot be read: another version wrote them, or they were not written to the end.
    pub(super) unreadable: Vec<u32>,
}

/// Looks what a process before this one left.
pub(super) fn find(folder: &Path) -> Found {
    let mut bytes = Vec::new();
    if let Err(error) = File::open(folder.join(FILE)).and_then(|mut file| file.read_to_end(&mut bytes)) {
        if error.kind() != std::io::ErrorKind::NotFound {
            tracing::error!(%error, "requests that were under way at the last end cannot be read");
        }
        return Found::default();
    }
    let mut found = Found::default();
    for (slot, bytes) in (0..).zip(bytes.chunks(SLOT_BYTES)) {
        match Entry::decode(bytes) {
            Some(entry) => found.left.push(Left { slot, entry }),
            None if Entry::is_any(bytes) => found.unreadable.push(slot),
            None => {}
        }
    }
    if !found.unreadable.is_empty() {
        tracing::warn!(
            slots = found.unreadable.len(),
            "requests that were under way at the last end cannot be read: another version left them, or they are torn; \
             they are not recorded"
        );
    }
    found
}

/// Ids of entries.
pub(super) fn ids(left: &[Left]) -> HashSet<RequestId> {
    left.iter().map(|left| left.entry.id).collect()
}

impl Slots {
    /// At most `count`, as many as are a small part of the file system. `spent` hold what nobody needs, `left` requests
    /// that are recorded nowhere else: those slots are free when they are.
    pub(super) fn open(disk: Disk, folder: &Path, count: u32, spent: Vec<u32>, left: &[Left]) -> Self {
        let room =
            disk::size_of_file_system(folder).map_or(u64::MAX, |size| size / SHARE / SLOT_BYTES as u64);
        let count = u32::try_from(room).map_or(count, |room| room.min(count));
        let taken: HashSet<u32> = left.iter().map(|left| left.slot).chain(spent.iter().copied()).collect();
        // The first ones are taken first, so that few pages are touched.
        let empty = (0..count).rev().filter(|slot| !taken.contains(slot)).collect();
        let free = Free { spent, empty };
        let path = folder.join(FILE);
        let slots = Self { disk, path, file: ArcSwapOption::empty(), count, free: Mutex::new(free) };
        slots.open_file();
        slots
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the file, where there is none yet or it was removed. Without it requests go on without slots.
    pub(super) fn open_file(&self) {
        let is_there = |file: &File| disk::is_at(&self.path, file).unwrap_or(true);
        if self.count == 0 || self.file.load().as_deref().is_some_and(is_there) {
            return;
        }
        match self.make() {
            Ok(file) => self.file.store(Some(Arc::new(file))),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "requests go on without slots");
            }
        }
    }

    fn make(&self) -> Result<File, Error> {
        let file = disk::private().create(true).truncate(false).read(true).write(true).open(&self.path);
        let file = file.map_err(io_error("open", &self.path))?;
        let length = u64::from(self.count) * SLOT_BYTES as u64;
        disk::allocate(&file, length).map_err(io_error("make room for", &self.path))?;
        Ok(file)
    }

    /// A slot that holds `entry`; `None` when all are taken, or the disk does not take it.
    pub(super) fn begin(&self, entry: &Entry<'_>) -> Option<Slot> {
        let slot = {
            let mut free = self.free();
            free.spent.pop().or_else(|| free.empty.pop())
        };
        let slot = slot.filter(|slot| self.write(*slot, entry) || self.give_back(*slot));
        if slot.is_none() {
            metrics::counter!(SPOOL_WITHOUT_SLOT).increment(1);
        }
        slot.map(Slot)
    }

    /// What the slot holds is another now.
    pub(super) fn change(&self, slot: &Slot, entry: &Entry<'_>) {
        // If it fails the older entry stands: better than none.
        self.write(slot.0, entry);
    }

    /// The record is in the spool, or there will be none.
    pub(super) fn end(&self, slot: Slot) {
        self.free().spent.push(slot.0);
    }

    #[cold]
    fn give_back(&self, slot: u32) -> bool {
        self.free().spent.push(slot);
        false
    }

    fn write(&self, slot: u32, entry: &Entry<'_>) -> bool {
        thread_local! {
            static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let file = self.file.load();
        let Some(file) = file.as_deref() else { return false };
        BYTES.with_borrow_mut(|bytes| {
            entry.encode(bytes);
            self.disk.write_at(file, bytes, offset(slot)).is_ok()
        })
    }

    /// Empties every spent slot; due before their records leave the disk.
    pub(super) fn empty_spent(&self) {
        let slots = std::mem::take(&mut self.free().spent);
        let file = self.file.load();
        let (mut spent, mut empty) = (Vec::new(), Vec::new());
        for slot in slots {
            // A length of 0.
            let done = file.as_deref().is_some_and(|f| self.disk.write_at(f, &[0; 4], offset(slot)).is_ok());
            if done { empty.push(slot) } else { spent.push(slot) }
        }
        // Slots of a longer file that was made under other settings are not used again.
        empty.retain(|slot| *slot < self.count);
        spent.retain(|slot| *slot < self.count);
        if !spent.is_empty() {
            // Harmless while the ledger knows their ids, which it does by now.
            tracing::warn!(slots = spent.len(), "slots of recorded requests could not be emptied");
        }
        let mut free = self.free();
        free.empty.append(&mut empty);
        free.spent.append(&mut spent);
    }
}

fn offset(slot: u32) -> u64 {
    u64::from(slot) * SLOT_BYTES as u64
}
