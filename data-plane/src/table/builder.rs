//! From sections to the next snapshot: what did not change is shared, what is broken is left out by name.

use super::index::Index;
use super::price::Prices;
use super::section::{Opener, Part, decode};
use super::words::WordSet;
use super::{Providers, Snapshot};
use crate::map::Map;
use bytes::Bytes;
use contract::ids::{Generation, UserId};
use contract::pb;
use contract::seal::Sealer;
use contract::table::{Health, Rows, Word};
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A section's version is that much of the SHA-256 of its payload.
const VERSION_LEN: usize = 16;

/// A section as it travels.
#[derive(Clone, Debug)]
pub struct RawSection {
    /// `keys/07f`, `providers`, …
    pub name: String,
    /// Hash of the payload.
    pub version: Bytes,
    /// Encoded rows.
    pub payload: Bytes,
}

impl RawSection {
    /// A section of these rows. For tests and tools; proxies only receive sections.
    pub fn of(name: &str, rows: &Rows) -> Self {
        let payload = Bytes::from(pb::Rows::from(rows).encode_to_vec());
        Self { name: name.to_owned(), version: version_of(&payload), payload }
    }
}

/// Everything between two commits, and the commit.
#[derive(Clone, Debug)]
pub struct Change {
    /// The state that it leads to.
    pub generation: Generation,
    /// What is new or different.
    pub sections: Vec<RawSection>,
    /// Sections that are no more.
    pub removed: Vec<String>,
    /// Whether everything that is not in `sections` is to go: the answer to an empty `Hello`.
    pub replace: bool,
    /// What the sections must add up to; `None` where there is nobody to check against.
    pub table_hash: Option<Bytes>,
}

impl Change {
    /// A whole table of these sections.
    pub fn whole(generation: i64, sections: Vec<RawSection>) -> Self {
        let generation = Generation(generation);
        Self { generation, sections, removed: Vec::new(), replace: true, table_hash: None }
    }
}

/// A section, or a row of one, that was refused.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rejected {
    /// Its name.
    pub section: String,
    /// The field and what is wrong with it.
    pub reason: String,
}

/// The outcome of a change.
pub struct Applied {
    /// To be swapped in.
    pub snapshot: Arc<Snapshot>,
    /// Everything that is refused now, by this change or an earlier one.
    pub rejected: Vec<Rejected>,
    /// Rows of the health sections, if one of them changed.
    pub health: Vec<Health>,
    /// Over the sections that are in use; differs from the commit's while a section is rejected.
    pub table_hash: [u8; 32],
}

/// The sections do not add up to what the control plane says: this proxy must ask for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sections do not add up to the table hash of generation {0}")]
pub struct Mismatch(pub Generation);

/// What is known of one section.
#[derive(Clone, Default)]
struct Entry {
    /// The version received last, be it in use or rejected.
    seen: Bytes,
    /// In use.
    part: Option<Arc<Part>>,
    /// Why `seen` is not in use.
    refused: Option<String>,
}

/// Holds the sections in use and makes the next snapshot of them. One per process, not shared.
pub struct Builder {
    sealer: Sealer,
    entries: BTreeMap<Arc<str>, Entry>,
    snapshot: Arc<Snapshot>,
}

impl Builder {
    /// Holds nothing yet.
    pub fn new(sealer: Sealer) -> Self {
        Self { sealer, entries: BTreeMap::new(), snapshot: Arc::default() }
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The sections in use, as they came: for the next `Hello` and for the disk.
    pub fn sections(&self) -> impl Iterator<Item = RawSection> {
        self.entries.iter().filter_map(|(name, entry)| {
            let part = entry.part.as_ref()?;
            let (version, payload) = (part.version.clone(), part.payload.clone());
            Some(RawSection { name: name.to_string(), version, payload })
        })
    }

    /// Hash over the sections in use.
    pub fn table_hash(&self) -> [u8; 32] {
        let held = self
            .entries
            .iter()
            .filter_map(|(name, entry)| entry.part.as_ref().map(|part| (&**name, &*part.version)));
        table_hash(held)
    }

    /// Applies a change. Nothing happens on `Err`. Takes time in proportion to what changed: not for
    /// traffic threads.
    pub fn apply(&mut self, change: Change) -> Result<Applied, Mismatch> {
        let mut next = if change.replace { BTreeMap::new() } else { self.entries.clone() };
        change.removed.iter().for_each(|name| _ = next.remove(name.as_str()));
        let mut fresh: BTreeMap<Arc<str>, Bytes> = BTreeMap::new();
        for section in change.sections {
            let name = Arc::from(section.name);
            let held = self.entries.get(&name).and_then(|entry| entry.part.clone());
            next.insert(Arc::clone(&name), Entry { seen: section.version, part: held, refused: None });
            fresh.insert(name, section.payload);
        }
        let sum = table_hash(next.iter().map(|(name, entry)| (&**name, &*entry.seen)));
        if change.table_hash.is_some_and(|want| *want != sum) {
            return Err(Mismatch(change.generation));
        }
        let opener = Opener { sealer: &self.sealer, known: &self.snapshot.providers.by_id };
        for (name, payload) in fresh {
            if let Some(entry) = next.get_mut(&name) {
                entry.take(payload, &opener);
            }
        }
        let touched = self.touched(&next);
        self.snapshot = Arc::new(self.rebuild(change.generation, &next, &touched));
        self.entries = next;
        let health = touched.iter().filter_map(|(_, new)| new.as_ref());
        Ok(Applied {
            health: health.flat_map(|part| part.health.iter().cloned()).collect(),
            snapshot: Arc::clone(&self.snapshot),
            rejected: self.rejected(),
            table_hash: self.table_hash(),
        })
    }

    /// Everything that is refused now.
    pub fn rejected(&self) -> Vec<Rejected> {
        let mut all = Vec::new();
        for (name, entry) in &self.entries {
            let mut add = |reason: String| all.push(Rejected { section: name.to_string(), reason });
            if let Some(reason) = &entry.refused {
                add(reason.clone());
            }
            let problems = entry.part.iter().flat_map(|part| &part.problems);
            problems.for_each(|problem| add(problem.to_string()));
        }
        let words = self.snapshot.words.values().flat_map(|set| set.problems());
        all.extend(words.map(|why| Rejected { section: "words".to_owned(), reason: why.to_string() }));
        all
    }

    /// The sections whose content differs, before and after.
    fn touched(&self, next: &BTreeMap<Arc<str>, Entry>) -> Vec<Pair> {
        let part = |map: &BTreeMap<Arc<str>, Entry>, name: &Arc<str>| map.get(name)?.part.clone();
        let gone = self.entries.keys().filter(|name| !next.contains_key(*name));
        let pairs = next.keys().chain(gone).map(|name| (part(&self.entries, name), part(next, name)));
        pairs
            .filter(|(old, new)| match (old, new) {
                (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
                (None, None) => false,
                _ => true,
            })
            .collect()
    }

    fn rebuild(
        &self,
        generation: Generation,
        next: &BTreeMap<Arc<str>, Entry>,
        touched: &[Pair],
    ) -> Snapshot {
        let mut snapshot = Snapshot { generation, ..Snapshot::clone(&self.snapshot) };
        move_rows(&mut snapshot.keys, &mut snapshot.users, touched);
        let parts = || next.values().filter_map(|entry| entry.part.as_deref());
        let any = |rows: fn(&Part) -> bool| {
            touched.iter().flat_map(|(old, new)| old.iter().chain(new)).any(|part| rows(part))
        };
        snapshot.sections = parts().count();
        if any(|part| !part.upstreams.is_empty()) {
            let all = parts().flat_map(|part| part.upstreams.iter().cloned());
            snapshot.providers = Arc::new(Providers::new(all));
        }
        if any(|part| !part.prices.is_empty()) {
            let all = parts().flat_map(|part| part.prices.iter().map(|row| (row.model.as_str(), &row.price)));
            snapshot.prices = Arc::new(Prices::new(all));
        }
        if any(|part| !part.owners.is_empty()) {
            let all = parts().flat_map(|part| part.owners.iter().map(|row| (row.owner_id, row.clone())));
            snapshot.owners = Arc::new(all.collect());
        }
        if any(|part| !part.words.is_empty()) {
            snapshot.words = Arc::new(word_sets(parts().flat_map(|part| &part.words)));
        }
        snapshot
    }
}

type Pair = (Option<Arc<Part>>, Option<Arc<Part>>);

impl Entry {
    /// Decodes what was received; on failure the old part stays.
    fn take(&mut self, payload: Bytes, opener: &Opener<'_>) {
        if self.part.as_ref().is_some_and(|part| part.version == self.seen) {
            return;
        }
        if version_of(&payload) != self.seen {
            self.refused = Some("version: not the hash of the payload".to_owned());
            return;
        }
        match decode(self.seen.clone(), payload, opener, self.part.as_deref()) {
            Ok(part) => self.part = Some(Arc::new(part)),
            Err(why) => self.refused = Some(format!("payload: {why}")),
        }
    }
}

/// First everything old out, then everything new in: a row may have moved from one section to another.
fn move_rows(
    keys: &mut Index<[u8; 32], Arc<contract::table::Key>>,
    users: &mut Index<UserId, Arc<contract::table::User>>,
    touched: &[Pair],
) {
    for old in touched.iter().filter_map(|(old, _)| old.as_ref()) {
        old.keys.iter().for_each(|row| keys.remove(&row.hash));
        old.users.iter().for_each(|row| users.remove(&row.id));
    }
    for new in touched.iter().filter_map(|(_, new)| new.as_ref()) {
        new.keys.iter().for_each(|row| keys.insert(row.hash, Arc::clone(row)));
        new.users.iter().for_each(|row| users.insert(row.id, Arc::clone(row)));
    }
}

fn word_sets<'a>(words: impl Iterator<Item = &'a Word>) -> Map<UserId, Arc<WordSet>> {
    let mut by_owner: HashMap<UserId, Vec<&Word>> = HashMap::new();
    words.for_each(|word| by_owner.entry(word.owner_id).or_default().push(word));
    by_owner.into_iter().map(|(owner, words)| (owner, Arc::new(WordSet::new(words)))).collect()
}

/// The version of a payload.
fn version_of(payload: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(payload)[..VERSION_LEN])
}

/// SHA-256 over name, zero byte and version of all sections in order of name.
fn table_hash<'a>(held: impl Iterator<Item = (&'a str, &'a [u8])>) -> [u8; 32] {
    let mut sum = Sha256::new();
    for (name, version) in held {
        sum.update(name.as_bytes());
        sum.update([0]);
        sum.update(version);
    }
    sum.finalize().into()
}
