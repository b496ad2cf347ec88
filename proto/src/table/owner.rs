//! What holds for all users of an owner. Plain values; what an owner did not set has its default here.

use crate::ids::UserId;

/// What holds for all users of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerConfig {
    /// Whose.
    pub owner_id: UserId,
    /// Decides days, weeks, months.
    pub time_zone: chrono_tz::Tz,
    /// Bill by the redirected model's price instead of the asked one's.
    pub bill_redirected: bool,
    /// Whether callers may reach what the upstream accounts keep (files, batches, stored responses …). All callers of
    /// an account share it, so it is off unless the owner switched it on.
    pub upstream_resources: bool,
    /// What happens to a request for a model without a price.
    pub unpriced: Unpriced,
    /// Where sensitive words are looked for.
    pub word_scope: WordScope,
    /// How the counters of its users and providers are called in Redis; no setting, the same for all owners.
    pub counter_naming: CounterNaming,
}

impl OwnerConfig {
    /// An owner who set nothing.
    pub const fn new(owner_id: UserId, time_zone: chrono_tz::Tz) -> Self {
        Self {
            owner_id,
            time_zone,
            bill_redirected: false,
            upstream_resources: false,
            unpriced: Unpriced::Ceiling,
            word_scope: WordScope::People,
            counter_naming: CounterNaming::ByUser,
        }
    }
}

/// What happens to a request for a model without a price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unpriced {
    /// It is refused to callers with a money limit.
    Refuse,
    /// It is served, and counts towards money limits at the dearest price of models with a like name.
    #[default]
    Ceiling,
    /// It is served and counts nothing.
    Serve,
}

impl Unpriced {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Refuse, Self::Ceiling, Self::Serve];

    /// The word of the admin API, the environment and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Ceiling => "ceiling",
            Self::Serve => "serve",
        }
    }

    /// The way of a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.as_str() == word)
    }
}

/// Where sensitive words are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WordScope {
    /// In what people wrote and tools answered.
    #[default]
    People,
    /// In what a client's vendor wrote as well: system prompts and descriptions of tools.
    All,
}

impl WordScope {
    /// Every scope.
    pub const ALL: [Self; 2] = [Self::People, Self::All];

    /// The word of the admin API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::People => "people",
            Self::All => "all",
        }
    }

    /// The scope of a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }
}

/// How the counters of limits are called in Redis. Proxies that use different names count apart, so the control
/// plane raises it only once all of them know the newer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CounterNaming {
    /// A hash tag per user and per provider: what a caller and a provider count lies apart.
    #[default]
    ByUser,
    /// A hash tag per owner: one script sees the counters of a caller and of the providers.
    ByOwner,
}

impl CounterNaming {
    /// The newest that this build knows.
    pub const NEWEST: Self = Self::ByOwner;

    /// The naming of a number on the wire. A later one than this build knows counts as the newest that it knows.
    pub const fn from_number(number: u32) -> Self {
        if number < Self::ByOwner.number() { Self::ByUser } else { Self::ByOwner }
    }

    /// Its number on the wire.
    pub const fn number(self) -> u32 {
        match self {
            Self::ByUser => 1,
            Self::ByOwner => 2,
        }
    }
}
