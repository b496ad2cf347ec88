//! The encoded rows of one kind and the sections that they stand in.
//!
//! A row is kept as the encoding of a `Rows` that holds just it: the encodings of several, one after the
//! other, are the encoding of a `Rows` that holds them all.

use super::{Section, Sections};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Mean bytes of a shard; the fullest of evenly filled shards stays below 32 KiB.
const SHARD_BYTES: usize = 24 * 1024;
/// More shards than that make the table slower to compare than to send.
const MAX_BITS: u32 = 12;

/// How rows spread over sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// One section.
    Whole,
    /// By the leading bits of the row's home, a hash; named in hex.
    Prefix,
    /// By the trailing bits of the row's home, an id; named in decimal.
    Modulo,
}

struct Row {
    home: u32,
    segment: Bytes,
}

/// Rows of one kind by identity.
pub(super) struct Shelf<K> {
    name: &'static str,
    split: Split,
    rows: BTreeMap<K, Row>,
    bytes: usize,
    /// The state of the last compilation: number of shards as a power of two, who stands where.
    bits: u32,
    shards: Vec<BTreeSet<K>>,
    touched: BTreeSet<usize>,
}

impl<K: Ord + Clone> Shelf<K> {
    pub(super) fn new(name: &'static str, split: Split) -> Self {
        let touched = BTreeSet::from([0]);
        Self { name, split, rows: BTreeMap::new(), bytes: 0, bits: 0, shards: vec![BTreeSet::new()], touched }
    }

    pub(super) fn has(&self, key: &K) -> bool {
        self.rows.contains_key(key)
    }

    /// Puts a row in place of the one before, or takes it away.
    pub(super) fn put(&mut self, key: K, home: u32, segment: Option<Bytes>) {
        let same = match (self.rows.get(&key), &segment) {
            (Some(row), Some(segment)) => row.home == home && row.segment == *segment,
            (None, None) => true,
            _ => false,
        };
        if same {
            return;
        }
        if let Some(before) = self.rows.remove(&key) {
            self.bytes -= before.segment.len();
            let at = self.index(before.home, self.bits);
            self.shards[at].remove(&key);
            self.touched.insert(at);
        }
        if let Some(segment) = segment {
            self.bytes += segment.len();
            let at = self.index(home, self.bits);
            self.shards[at].insert(key.clone());
            self.touched.insert(at);
            self.rows.insert(key, Row { home, segment });
        }
    }

    /// Encodes what was touched since the last time; drops sections that are no more.
    pub(super) fn touched_into(&mut self, sections: &mut Sections) {
        let want = self.wanted_bits();
        if want != self.bits {
            for at in 0..self.shards.len() {
                sections.remove(self.section_name(at, self.bits).as_str());
            }
            self.bits = want;
            self.shards = self.placed(want);
            self.touched = (0..self.shards.len()).collect();
        }
        for at in std::mem::take(&mut self.touched) {
            let name = self.section_name(at, self.bits);
            sections.insert(Arc::from(name), Section::new(self.payload(&self.shards[at])));
        }
    }

    /// Encodes everything from scratch.
    pub(super) fn all_into(&self, sections: &mut Sections) {
        let bits = self.wanted_bits();
        for (at, shard) in self.placed(bits).iter().enumerate() {
            let name = self.section_name(at, bits);
            sections.insert(Arc::from(name), Section::new(self.payload(shard)));
        }
    }

    fn placed(&self, bits: u32) -> Vec<BTreeSet<K>> {
        let mut shards = vec![BTreeSet::new(); 1 << bits];
        for (key, row) in &self.rows {
            shards[self.index(row.home, bits)].insert(key.clone());
        }
        shards
    }

    fn payload(&self, shard: &BTreeSet<K>) -> Bytes {
        let segments = || shard.iter().filter_map(|key| self.rows.get(key)).map(|row| &row.segment);
        let mut payload = BytesMut::with_capacity(segments().map(Bytes::len).sum());
        segments().for_each(|segment| payload.extend_from_slice(segment));
        payload.freeze()
    }

    fn wanted_bits(&self) -> u32 {
        match self.split {
            Split::Whole => 0,
            _ => self.bytes.div_ceil(SHARD_BYTES).max(1).next_power_of_two().trailing_zeros().min(MAX_BITS),
        }
    }

    fn index(&self, home: u32, bits: u32) -> usize {
        match self.split {
            Split::Prefix => (u64::from(home) >> (32 - bits)) as usize,
            Split::Whole | Split::Modulo => (home & ((1 << bits) - 1)) as usize,
        }
    }

    fn section_name(&self, at: usize, bits: u32) -> String {
        match self.split {
            Split::Whole => self.name.to_owned(),
            Split::Prefix => format!("{}/{at:0width$x}", self.name, width = bits.div_ceil(4).max(1) as usize),
            Split::Modulo => format!("{}/{at}", self.name),
        }
    }
}
