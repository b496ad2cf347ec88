//! Rows for tests of this crate: whole, valid and dull; a test changes what it is about.

use contract::ids::{KeyId, ProviderId, UserId};
use contract::seal::Sealer;
use contract::table::{Breaker, Key, Provider, ProviderKind, User, credential_aad};
use rust_decimal::Decimal;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;

/// The key that seals in tests.
pub fn sealer() -> Sealer {
    Sealer::from_hex(&"0f".repeat(32)).expect("key")
}

/// The hash of the client key whose clear text is its id.
pub fn hash(id: i64) -> [u8; 32] {
    Sha256::digest(id.to_string()).into()
}

/// A client key of user `id % 7`.
pub fn key(id: i64) -> Key {
    Key {
        id: KeyId(id),
        user_id: UserId(id % 7),
        hash: hash(id),
        name: format!("key {id}"),
        enabled: true,
        expires_at_ms: None,
        groups: vec!["default".into()],
        limits: Vec::new(),
        cache_ttl: None,
    }
}

/// A user of owner 1.
pub fn user(id: i64, name: &str) -> User {
    User {
        id: UserId(id),
        owner_id: UserId(1),
        name: name.to_owned(),
        enabled: true,
        expires_at_ms: None,
        groups: Vec::new(),
        limits: Vec::new(),
        allowed_models: Vec::new(),
        allowed_clients: Vec::new(),
        blocked_clients: Vec::new(),
        level: 0,
    }
}

/// A provider of owner 1 with the sealed credential `sk-<id>`.
pub fn provider(id: i64) -> Provider {
    let credential = sealer().seal(format!("sk-{id}").as_bytes(), &credential_aad(ProviderId(id)));
    Provider {
        id: ProviderId(id),
        owner_id: UserId(1),
        name: format!("p{id}"),
        base_url: "https://api.example.com/v1".to_owned(),
        kind: ProviderKind::Claude,
        credential: credential.expect("seal"),
        enabled: true,
        weight: 1,
        priority: 0,
        groups: Vec::new(),
        group_priorities: BTreeMap::new(),
        cost_multiplier: Decimal::ONE,
        redirects: Vec::new(),
        allowed_models: Vec::new(),
        limits: Vec::new(),
        max_attempts: None,
        breaker: Breaker::default(),
        first_byte_timeout: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        total_timeout: Duration::ZERO,
        level: 0,
        custom_headers: BTreeMap::new(),
        active: None,
        preserve_client_ip: false,
        disable_session_reuse: false,
        allowed_clients: Vec::new(),
        blocked_clients: Vec::new(),
        options: None,
        private: Vec::new(),
    }
}
