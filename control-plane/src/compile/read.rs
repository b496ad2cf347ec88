//! Users, keys, words, health and settings: from the database's form to the table's.

use super::{Broken, limits};
use crate::db::rows::{HealthRow, KeyRow, SettingRow, UserRow, WordRow};
use crate::rules::settings::Setting;
use chrono::{DateTime, Utc};
use contract::ids::{KeyId, ProviderId, UserId};
use contract::table::{CacheTtl, CircuitState, Health, Key, MatchType, Rows, User, Word};
use std::sync::Arc;

/// The longest expression that proxies are asked to compile.
const MAX_REGEX: usize = 1_000;
/// Bytes that one compiled expression may take.
const MAX_REGEX_SIZE: usize = 1 << 20;

pub(super) fn millis(at: Option<DateTime<Utc>>) -> Option<i64> {
    at.map(|at| at.timestamp_millis())
}

pub(super) fn groups(words: &[String]) -> Vec<Arc<str>> {
    words.iter().map(|word| word.trim()).filter(|word| !word.is_empty()).map(Arc::from).collect()
}

/// A match type and its pattern, if a proxy can use them.
pub(super) fn matcher(kind: &str, pattern: &str, field: &str) -> Result<MatchType, Broken> {
    let kind = MatchType::parse(kind).ok_or_else(|| Broken::new(field, "has an unknown match type"))?;
    if pattern.is_empty() {
        return Err(Broken::new(field, "has an empty pattern"));
    }
    if kind == MatchType::Regex {
        let compiled = regex::RegexBuilder::new(pattern).size_limit(MAX_REGEX_SIZE).build();
        if pattern.len() > MAX_REGEX || compiled.is_err() {
            return Err(Broken::new(field, "is not a regular expression within bounds"));
        }
    }
    Ok(kind)
}

pub(super) fn user(row: &UserRow) -> Result<Rows, Broken> {
    let user = User {
        id: UserId(row.id),
        owner_id: UserId(row.owner_id),
        name: row.name.clone(),
        enabled: row.enabled,
        expires_at_ms: millis(row.expires_at),
        groups: groups(&row.groups),
        limits: limits::of_user(&row.limits, row.rpm)?,
        allowed_models: row.allowed_models.clone(),
        allowed_clients: row.allowed_clients.clone(),
        blocked_clients: row.blocked_clients.clone(),
        level: row.level,
    };
    Ok(Rows { users: vec![user], ..Rows::default() })
}

pub(super) fn key(row: &KeyRow) -> Result<Rows, Broken> {
    let key = Key {
        id: KeyId(row.id),
        user_id: UserId(row.user_id),
        hash: row.hash.as_slice().try_into().map_err(|_| Broken::new("hash", "is not 32 bytes"))?,
        name: row.name.clone(),
        enabled: row.enabled,
        expires_at_ms: millis(row.expires_at),
        groups: groups(&row.groups),
        limits: limits::of_key(&row.limits)?,
        cache_ttl: match row.cache_ttl_preference.as_str() {
            "inherit" => None,
            word => {
                Some(CacheTtl::parse(word).ok_or_else(|| Broken::new("cache_ttl_preference", "is unknown"))?)
            }
        },
    };
    Ok(Rows { keys: vec![key], ..Rows::default() })
}

pub(super) fn word(row: &WordRow) -> Result<Rows, Broken> {
    let match_type = matcher(&row.match_type, &row.word, "word")?;
    let word = Word { id: row.id, owner_id: UserId(row.owner_id), match_type, word: row.word.clone() };
    Ok(Rows { words: vec![word], ..Rows::default() })
}

pub(super) fn health(row: &HealthRow) -> Result<Health, Broken> {
    let state = match row.state.as_str() {
        "closed" => CircuitState::Closed,
        "open" => CircuitState::Open,
        "half-open" => CircuitState::HalfOpen,
        "disabled" => CircuitState::Disabled,
        _ => return Err(Broken::new("state", "is unknown")),
    };
    Ok(Health {
        provider_id: ProviderId(row.provider_id),
        state,
        until_ms: millis(row.until),
        reason: row.reason.clone(),
        failures: u32::try_from(row.failures).unwrap_or_default(),
        epoch: row.epoch,
    })
}

/// An owner whose setting has no meaning gets the default, which never opens anything.
pub(super) fn setting(row: &SettingRow) -> Result<Setting, Broken> {
    Setting::read(&row.key, &row.value).map_err(|why| Broken::new(&row.key, why))
}
