//! A map in many small shards, so that a copy with a few changes shares all the shards that did not change.

use contract::ids::UserId;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

/// At 100,000 entries a shard holds about 25: rebuilding one costs a microsecond or two, and copying the
/// list of shards about ten.
const SHARDS: usize = 4096;

/// An id whose spread over the shards is even without a costly hash.
pub trait Spread: Copy + Eq + Hash {
    /// 64 evenly spread bits.
    fn spread(&self) -> u64;
}

impl Spread for [u8; 32] {
    /// A SHA-256 is as even as can be; any of its bits will do.
    fn spread(&self) -> u64 {
        u64::from_le_bytes([self[0], self[1], self[2], self[3], self[4], self[5], self[6], self[7]])
    }
}

impl Spread for UserId {
    fn spread(&self) -> u64 {
        mix(self.0.cast_unsigned())
    }
}

/// Fibonacci hashing; the high half is folded in, because shards are picked by low bits and ids are dense.
fn mix(value: u64) -> u64 {
    let product = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    product ^ (product >> 32)
}

/// Takes bytes that are already a hash, or one integer, as they are.
#[derive(Default)]
pub struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut first = [0; 8];
        let len = bytes.len().min(8);
        first[..len].copy_from_slice(&bytes[..len]);
        self.0 ^= u64::from_le_bytes(first);
    }

    /// The length of an array comes before its bytes and says nothing.
    fn write_usize(&mut self, _length: usize) {}

    fn write_i64(&mut self, value: i64) {
        self.0 ^= mix(value.cast_unsigned());
    }
}

type Shard<K, V> = HashMap<K, V, BuildHasherDefault<Plain>>;

/// See the module.
#[derive(Clone)]
pub struct Index<K, V> {
    shards: Vec<Arc<Shard<K, V>>>,
    len: usize,
}

impl<K, V> Default for Index<K, V> {
    fn default() -> Self {
        let empty = Arc::new(Shard::default());
        Self { shards: vec![empty; SHARDS], len: 0 }
    }
}

impl<K: Spread, V: Clone> Index<K, V> {
    fn slot(id: &K) -> usize {
        // Not the bits that the shard's own map uses.
        usize::try_from(id.spread() >> 40).unwrap_or_default() % SHARDS
    }

    /// The value of `id`.
    pub fn get(&self, id: &K) -> Option<&V> {
        self.shards[Self::slot(id)].get(id)
    }

    /// Entries in all shards.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Sets a value; copies its shard if another index shares it.
    pub fn insert(&mut self, id: K, value: V) {
        let shard = Arc::make_mut(&mut self.shards[Self::slot(&id)]);
        self.len += usize::from(shard.insert(id, value).is_none());
    }

    /// Removes a value; copies its shard if another index shares it.
    pub fn remove(&mut self, id: &K) {
        let slot = &mut self.shards[Self::slot(id)];
        if slot.contains_key(id) {
            Arc::make_mut(slot).remove(id);
            self.len -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_copy_leaves_the_original_and_shares_the_rest() {
        let mut index = Index::default();
        for id in 0..10_000 {
            index.insert(UserId(id), id);
        }
        let before = index.clone();
        index.remove(&UserId(7));
        index.remove(&UserId(7));
        index.insert(UserId(8), -8);
        index.insert(UserId(20_000), 1);
        assert_eq!((before.len(), index.len()), (10_000, 10_000));
        assert_eq!((before.get(&UserId(7)), index.get(&UserId(7))), (Some(&7), None));
        assert_eq!((before.get(&UserId(8)), index.get(&UserId(8))), (Some(&8), Some(&-8)));
        let shared = before.shards.iter().zip(&index.shards).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= SHARDS - 3, "{shared}");
    }

    #[test]
    fn dense_ids_spread_evenly() {
        let mut index = Index::default();
        for id in 0..100_000 {
            index.insert(UserId(id), ());
        }
        let largest = index.shards.iter().map(|shard| shard.len()).max();
        assert!(largest < Some(100), "{largest:?}");
    }
}
