//! The routing table: one immutable [`Snapshot`] of everything a request needs, shared by all threads and
//! replaced by one pointer swap. Indexes are shards behind `Arc`, so an update rebuilds only what it touches.
//!
//! Floor 2: contract and pure libraries. Never waits, never does I/O; `control` brings the sections.

mod builder;
mod index;
mod price;
mod reluctance;
mod section;
mod upstream;
mod words;

pub use builder::{Applied, Builder, Change, Mismatch, RawSection, Rejected};
pub use price::of_kind;
pub use upstream::{Proxy, Secret, Upstream, client_allowed, origin};
pub use words::{Hit, WordSet};

use crate::map::Map;
use arc_swap::ArcSwap;
use contract::ids::{Generation, ProviderId, UserId};
use contract::money::Price;
use contract::table::{Key, OwnerConfig, ProviderKind, User};
use contract::usage::Dialect;
use index::Index;
use price::Prices;
use std::sync::Arc;

/// Where every thread finds the current table; a request loads it once and keeps it to its end.
pub type Table = Arc<ArcSwap<Snapshot>>;

static NO_OWNER: OwnerConfig = OwnerConfig::new(UserId(0), chrono_tz::Tz::UTC);

/// One state of all configuration. Cheap to clone: everything in it is shared.
#[derive(Clone)]
pub struct Snapshot {
    /// The state of configuration that this is; 0: none was received yet.
    pub generation: Generation,
    keys: Index<[u8; 32], Arc<Key>>,
    users: Index<UserId, Arc<User>>,
    providers: Arc<Providers>,
    owners: Arc<Map<UserId, OwnerConfig>>,
    prices: Arc<Prices>,
    words: Arc<Map<UserId, Arc<WordSet>>>,
    sections: usize,
}

/// How much a table holds, for metrics and for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Sections held.
    pub sections: usize,
    /// Client keys.
    pub keys: usize,
    /// Users.
    pub users: usize,
    /// Providers with an opened credential.
    pub providers: usize,
    /// Models with a price row.
    pub prices: usize,
    /// Owners with settings of their own.
    pub owners: usize,
    /// Owners with sensitive words.
    pub word_sets: usize,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            generation: Generation(0),
            keys: Index::default(),
            users: Index::default(),
            providers: Arc::default(),
            owners: Arc::default(),
            prices: Arc::default(),
            words: Arc::default(),
            sections: 0,
        }
    }
}

impl Snapshot {
    /// A table that holds nothing, shared and ready to be replaced.
    pub fn empty() -> Table {
        Arc::new(ArcSwap::from_pointee(Self::default()))
    }

    /// The client key with this SHA-256.
    pub fn key(&self, hash: &[u8; 32]) -> Option<&Arc<Key>> {
        self.keys.get(hash)
    }

    /// A user.
    pub fn user(&self, id: UserId) -> Option<&Arc<User>> {
        self.users.get(&id)
    }

    /// An owner's settings; UTC and the defaults for an owner without any.
    pub fn owner(&self, id: UserId) -> &OwnerConfig {
        self.owners.get(&id).unwrap_or(&NO_OWNER)
    }

    /// An owner's providers that speak `dialect`, switched off ones included, by priority, then id.
    pub fn upstreams(&self, owner: UserId, dialect: Dialect) -> &[Arc<Upstream>] {
        self.providers.pools.get(&(owner, dialect)).map_or(&[], Vec::as_slice)
    }

    /// A provider.
    pub fn upstream(&self, id: ProviderId) -> Option<&Arc<Upstream>> {
        self.providers.by_id.get(&id)
    }

    /// All providers, in order of id.
    pub fn all_upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.providers.in_order.iter()
    }

    /// The price of a model, in whatever spelling; see `Prices::find`.
    pub fn price(&self, model: &str) -> Option<&Price> {
        self.prices.find(model).map(|(_, price)| price)
    }

    /// The same, with the name of the row in the price table.
    pub fn named_price(&self, model: &str) -> Option<(&str, &Price)> {
        self.prices.find(model)
    }

    /// What a model without a price is held to: the dearest of those that share the longest beginning of its name.
    pub fn ceiling(&self, model: &str) -> Option<&Price> {
        self.prices.ceiling(model)
    }

    /// What a model is held to that shares its beginning with none: the dearest of a kind of provider.
    pub fn ceiling_of_kind(&self, kind: ProviderKind) -> Option<&Price> {
        self.prices.ceiling_of_kind(kind)
    }

    /// Names of the models that have a price, in no order.
    pub fn priced_models(&self) -> impl Iterator<Item = &str> {
        self.prices.models()
    }

    /// An owner's sensitive words.
    pub fn words(&self, owner: UserId) -> Option<&Arc<WordSet>> {
        self.words.get(&owner)
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts {
            sections: self.sections,
            keys: self.keys.len(),
            users: self.users.len(),
            providers: self.providers.by_id.len(),
            prices: self.prices.len(),
            owners: self.owners.len(),
            word_sets: self.words.len(),
        }
    }
}

/// All providers, by what a request knows of them.
#[derive(Default)]
struct Providers {
    by_id: Map<ProviderId, Arc<Upstream>>,
    in_order: Vec<Arc<Upstream>>,
    pools: Map<(UserId, Dialect), Vec<Arc<Upstream>>>,
}

impl Providers {
    fn new(all: impl Iterator<Item = Arc<Upstream>>) -> Self {
        let by_id: Map<_, _> = all.map(|up| (up.row.id, up)).collect();
        let mut in_order: Vec<_> = by_id.values().cloned().collect();
        in_order.sort_by_key(|up| up.row.id);
        let mut pools: Map<_, Vec<_>> = Map::default();
        for up in &in_order {
            pools.entry((up.row.owner_id, up.row.kind.dialect())).or_default().push(Arc::clone(up));
        }
        pools.values_mut().for_each(|pool| pool.sort_by_key(|up| (up.row.priority, up.row.id)));
        Self { by_id, in_order, pools }
    }
}

#[cfg(test)]
pub mod fixtures;
#[cfg(test)]
mod tests;
