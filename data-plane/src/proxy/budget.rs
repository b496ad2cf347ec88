//! One bound for the bodies that all requests of the process hold at once: those of callers, and documents of
//! upstreams that are held back until they are whole.

use super::refuse::Refusal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// So much of an answer is held without being counted: most answers are smaller, and a request has such buffers
/// anyway.
pub const FREE: usize = 64 * 1024;

/// Bytes of bodies that this process holds, over all requests.
#[derive(Debug, Default)]
pub struct Budget(AtomicU64);

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Share {
    /// An empty share of `budget`.
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Takes or gives back what is missing to `bytes`, and says whether all together is within `limit`.
    pub fn resize(&mut self, bytes: usize, limit: u64) -> Result<(), Refusal> {
        let (had, wanted) = (self.bytes, bytes as u64);
        if wanted >= had {
            return self.grow(usize::try_from(wanted - had).unwrap_or(usize::MAX), limit);
        }
        self.budget.0.fetch_sub(had - wanted, Ordering::Relaxed);
        self.bytes = wanted;
        Ok(())
    }

    /// Takes more, and says whether all together is within `limit`.
    pub fn grow(&mut self, bytes: usize, limit: u64) -> Result<(), Refusal> {
        let bytes = bytes as u64;
        let before = self.budget.0.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > limit { Err(Refusal::Overloaded) } else { Ok(()) }
    }

    /// The room for another copy of a body, for as long as it lives. Small ones are not counted.
    pub fn of_copy(budget: &Arc<Budget>, bytes: usize, limit: usize) -> Result<Option<Self>, Refusal> {
        if bytes <= FREE {
            return Ok(None);
        }
        let mut share = Self::new(budget);
        share.grow(bytes, limit as u64)?;
        Ok(Some(share))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The share of an answer that is held back.
#[derive(Debug)]
pub struct Room<'a> {
    budget: &'a Arc<Budget>,
    limit: u64,
    bytes: usize,
    share: Option<Share>,
}

impl<'a> Room<'a> {
    /// Nothing held yet; `limit` is that of the whole budget.
    pub fn new(budget: &'a Arc<Budget>, limit: usize) -> Self {
        Self { budget, limit: limit as u64, bytes: 0, share: None }
    }

    /// Counts a piece that is held. `false`: there is no room to hold more, and the answer should go its way.
    pub fn take(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        if self.bytes <= FREE {
            return true;
        }
        let new = if self.share.is_some() { bytes } else { self.bytes };
        self.share.get_or_insert_with(|| Share::new(self.budget)).grow(new, self.limit).is_ok()
    }

    /// What was taken, to be kept as long as the bytes are.
    pub fn into_share(self) -> Option<Share> {
        self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_answers_are_held_while_there_is_room_and_give_it_back() {
        let budget = Arc::<Budget>::default();
        let used = || budget.0.load(Ordering::Relaxed);
        let limit = 3 * FREE;
        let mut small = Room::new(&budget, limit);
        assert!(small.take(FREE) && small.into_share().is_none());
        let mut first = Room::new(&budget, limit);
        assert!(first.take(FREE) && first.take(FREE));
        assert_eq!(used(), 2 * FREE as u64);
        let mut second = Room::new(&budget, limit);
        assert!(second.take(FREE) && !second.take(FREE), "two and two are more than three");
        drop(second);
        assert_eq!(used(), 2 * FREE as u64);
        let kept = first.into_share();
        assert_eq!(used(), 2 * FREE as u64, "as long as the bytes wait for their reader");
        drop(kept);
        assert_eq!(used(), 0);
    }

    #[test]
    fn a_share_becomes_larger_and_smaller() {
        let budget = Arc::<Budget>::default();
        let used = || budget.0.load(Ordering::Relaxed);
        let mut share = Share::new(&budget);
        assert!(share.resize(100, 100).is_ok() && share.resize(30, 100).is_ok());
        assert_eq!(used(), 30);
        assert!(share.resize(101, 100).is_err());
        drop(share);
        assert_eq!(used(), 0);
        assert!(Share::of_copy(&budget, FREE, 1).is_ok_and(|share| share.is_none()));
        assert!(Share::of_copy(&budget, FREE + 1, FREE).is_err());
        let copy = Share::of_copy(&budget, FREE + 1, 2 * FREE).unwrap();
        assert_eq!(used(), FREE as u64 + 1);
        drop(copy);
        assert_eq!(used(), 0);
    }
}
