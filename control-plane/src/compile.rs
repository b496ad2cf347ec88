//! Rows of the database → sections of the routing table. Pure: the same rows give the same bytes, in
//! whatever order and in however many steps they came.
//!
//! Depends on `contract`, on `rules` and on the row types of `db::rows`. Never reads a clock, a table or a socket. A row
//! that has no meaning is left out, so that it never allows anything, and becomes a [`Problem`].

pub(crate) mod limits;
mod options;
mod price;
mod provider;
mod read;
mod shelf;

use crate::db::rows::{Changes, ROOT};
use crate::rules::settings::Setting;
use bytes::Bytes;
use chrono_tz::Tz;
use contract::ids::UserId;
use contract::pb;
use contract::seal::Sealer;
use contract::table::{CounterNaming, Health, OwnerConfig, Rows, Unpriced};
use prost::Message;
use sha2::{Digest, Sha256};
use shelf::{Shelf, Split};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A section's version is that much of the SHA-256 of its payload.
pub const VERSION_LEN: usize = 16;

/// An encoded section. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Hash of the payload.
    pub version: [u8; VERSION_LEN],
    /// Encoded [`pb::Rows`].
    pub payload: Bytes,
}

impl Section {
    fn new(payload: Bytes) -> Self {
        let digest = Sha256::digest(&payload);
        let mut version = [0; VERSION_LEN];
        version.copy_from_slice(&digest[..VERSION_LEN]);
        Self { version, payload }
    }
}

/// The table: sections by name.
pub type Sections = BTreeMap<Arc<str>, Section>;

/// What a proxy must hold: SHA-256 over name, 0, version of all sections in order of name.
pub fn table_hash(sections: &Sections) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (name, section) in sections {
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(section.version);
    }
    hash.finalize().into()
}

/// A row that was left out, or a value that its default replaced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Problem {
    /// `key`, `user`, `provider`, `price`, `word`, `health`, `setting`.
    pub kind: &'static str,
    /// The row's id; of a setting, the owner's.
    pub id: i64,
    /// The column, with the place in it where that helps.
    pub field: String,
    /// What is wrong with it, without its value.
    pub why: String,
}

/// Kind and id of a row; of a setting, its key as well.
type Place = (&'static str, i64, String);

/// What is wrong with a field.
#[derive(Debug, thiserror::Error)]
#[error("{field} {why}")]
pub(crate) struct Broken {
    field: String,
    why: String,
}

impl Broken {
    fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into() }
    }
}

/// All rows that count, encoded one by one, and the sections as they were compiled last.
pub struct Inputs {
    zone: Tz,
    sealer: Sealer,
    keys: Shelf<i64>,
    users: Shelf<i64>,
    providers: Shelf<i64>,
    prices: Shelf<String>,
    owners: Shelf<i64>,
    words: Shelf<i64>,
    health: Shelf<i64>,
    /// Health as stored; only that of providers in the table is in `health`.
    reported: BTreeMap<i64, Health>,
    /// Owner of each user, and users of each owner: an owner without users needs no configuration.
    owner_of: BTreeMap<i64, i64>,
    accounts: BTreeMap<i64, usize>,
    /// What an owner did not set for requests without a price.
    unpriced: Unpriced,
    /// How the counters of all owners are called.
    counter_naming: CounterNaming,
    /// What owners set, by owner and key.
    settings: BTreeMap<(i64, String), Setting>,
    problems: BTreeMap<Place, Problem>,
    sections: Sections,
}

/// All sections from scratch, and what was left out of them.
pub fn compile(inputs: &Inputs) -> (Sections, Vec<Problem>) {
    let mut sections = Sections::new();
    inputs.keys.all_into(&mut sections);
    inputs.users.all_into(&mut sections);
    inputs.providers.all_into(&mut sections);
    inputs.prices.all_into(&mut sections);
    inputs.owners.all_into(&mut sections);
    inputs.words.all_into(&mut sections);
    inputs.health.all_into(&mut sections);
    (sections, inputs.problems())
}

impl Inputs {
    /// No rows yet. `zone` decides days, weeks and months for every owner.
    /// `sealer` seals what of a provider may be secret, the same row alike.
    pub fn new(zone: Tz, sealer: Sealer) -> Self {
        let mut inputs = Self {
            zone,
            sealer,
            keys: Shelf::new("keys", Split::Prefix),
            users: Shelf::new("users", Split::Modulo),
            providers: Shelf::new("providers", Split::Whole),
            prices: Shelf::new("prices", Split::Whole),
            owners: Shelf::new("owners", Split::Whole),
            words: Shelf::new("words", Split::Whole),
            health: Shelf::new("health", Split::Whole),
            reported: BTreeMap::new(),
            owner_of: BTreeMap::new(),
            accounts: BTreeMap::new(),
            unpriced: Unpriced::default(),
            counter_naming: CounterNaming::default(),
            settings: BTreeMap::new(),
            problems: BTreeMap::new(),
            sections: Sections::new(),
        };
        inputs.place_owner(ROOT);
        inputs
    }

    /// The same, where requests without a price are treated in this way unless their owner set another.
    #[must_use]
    pub fn with_unpriced(mut self, unpriced: Unpriced) -> Self {
        self.unpriced = unpriced;
        self.place_owner(ROOT);
        self
    }

    /// Takes in rows that changed. A row that is deleted or broken leaves the table.
    pub fn apply(&mut self, changes: Changes) {
        if changes.counter_naming != self.counter_naming {
            self.counter_naming = changes.counter_naming;
            let owners: Vec<i64> = self.accounts.keys().copied().chain([ROOT]).collect();
            owners.into_iter().for_each(|owner| self.place_owner(owner));
        }
        for row in changes.users {
            let user = self.checked("user", row.id, row.deleted_at.is_none(), || read::user(&row));
            self.count_owner(row.id, user.as_ref().map(|_| row.owner_id));
            self.users.put(row.id, low(row.id), user);
        }
        for row in changes.keys {
            let key = self.checked("key", row.id, row.deleted_at.is_none(), || read::key(&row));
            let home = row.hash.first_chunk().map_or(0, |prefix| u32::from_be_bytes(*prefix));
            self.keys.put(row.id, home, key);
        }
        for row in changes.providers {
            let live = row.deleted_at.is_none();
            let sealer = self.sealer.clone();
            let provider = self.checked("provider", row.id, live, || provider::read(&row, &sealer));
            self.providers.put(row.id, 0, provider);
            self.place_health(row.id);
        }
        for row in changes.health {
            let health = read::health(&row);
            if let Some(health) = self.noted(("health", row.provider_id, String::new()), true, || health) {
                self.reported.insert(row.provider_id, health);
            }
            self.place_health(row.provider_id);
        }
        for row in changes.settings {
            let place = ("setting", row.owner_id, row.key.clone());
            let setting = self.noted(place, row.deleted_at.is_none(), || read::setting(&row));
            let key = (row.owner_id, row.key);
            match setting {
                Some(setting) => self.settings.insert(key, setting),
                None => self.settings.remove(&key),
            };
            self.place_owner(row.owner_id);
        }
        for row in changes.prices {
            let live = row.deleted_at.is_none();
            let price = self.checked("price", row.id, live, || price::read(&row));
            // Proxies hold on to what they had: a model must not become free because its row is broken.
            let price = price.or_else(|| live.then(|| price::unreadable(&row)));
            self.prices.put(row.model_name, 0, price);
        }
        for row in changes.words {
            let live = row.enabled && row.deleted_at.is_none();
            let word = self.checked("word", row.id, live, || read::word(&row));
            self.words.put(row.id, 0, word);
        }
    }

    /// The sections now; only what was touched since the last call is encoded again.
    pub fn sections(&mut self) -> &Sections {
        self.keys.touched_into(&mut self.sections);
        self.users.touched_into(&mut self.sections);
        self.providers.touched_into(&mut self.sections);
        self.prices.touched_into(&mut self.sections);
        self.owners.touched_into(&mut self.sections);
        self.words.touched_into(&mut self.sections);
        self.health.touched_into(&mut self.sections);
        &self.sections
    }

    /// What is left out, in order of kind and id.
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.values().cloned().collect()
    }

    /// Remembers or forgets the problem of a row.
    fn noted<T>(&mut self, place: Place, live: bool, read: impl FnOnce() -> Result<T, Broken>) -> Option<T> {
        self.problems.remove(&place);
        if !live {
            return None;
        }
        let broken = match read() {
            Ok(row) => return Some(row),
            Err(broken) => broken,
        };
        let (kind, id, _) = place;
        self.problems.insert(place, Problem { kind, id, field: broken.field, why: broken.why });
        None
    }

    /// The encoded row, if it is one that every proxy will accept.
    fn checked(
        &mut self,
        kind: &'static str,
        id: i64,
        live: bool,
        read: impl FnOnce() -> Result<Rows, Broken>,
    ) -> Option<Bytes> {
        self.noted((kind, id, String::new()), live, || {
            let wire = pb::Rows::from(&read()?);
            let segment = Bytes::from(wire.encode_to_vec());
            Rows::try_from(wire).map_err(|invalid| Broken::new(invalid.path, invalid.why))?;
            Ok(segment)
        })
    }

    fn count_owner(&mut self, user: i64, owner: Option<i64>) {
        let before = match owner {
            Some(owner) => self.owner_of.insert(user, owner),
            None => self.owner_of.remove(&user),
        };
        if before == owner {
            return;
        }
        if let Some(before) = before {
            if let Some(count) = self.accounts.get_mut(&before) {
                *count -= 1;
            }
            self.place_owner(before);
        }
        if let Some(owner) = owner {
            *self.accounts.entry(owner).or_default() += 1;
            self.place_owner(owner);
        }
    }

    fn place_owner(&mut self, id: i64) {
        let has_users = self.accounts.get(&id).is_some_and(|count| *count > 0);
        let config = (has_users || id == ROOT).then(|| self.owner(id));
        let segment = config.map(|config| encode(&Rows { owners: vec![config], ..Rows::default() }));
        self.owners.put(id, 0, segment);
    }

    /// What an owner set, over the defaults.
    fn owner(&self, id: i64) -> OwnerConfig {
        let plain = OwnerConfig::new(UserId(id), self.zone);
        let counter_naming = self.counter_naming;
        let mut config = OwnerConfig { unpriced: self.unpriced, counter_naming, ..plain };
        let of_owner = self.settings.range((id, String::new())..);
        of_owner
            .take_while(|((owner, _), _)| *owner == id)
            .for_each(|(_, setting)| setting.lay_over(&mut config));
        config
    }

    fn place_health(&mut self, provider: i64) {
        let health = self.reported.get(&provider).filter(|_| self.providers.has(&provider));
        let segment = health.map(|health| encode(&Rows { health: vec![health.clone()], ..Rows::default() }));
        self.health.put(provider, 0, segment);
    }
}

fn encode(rows: &Rows) -> Bytes {
    pb::Rows::from(rows).encode_to_vec().into()
}

/// The low bits of an id, which decide its shard.
fn low(id: i64) -> u32 {
    u32::try_from(id & i64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
