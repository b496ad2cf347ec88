//! Rows of the routing table.

use super::options::cache_ttl;
use super::{Invalid, decimal};
use crate::ids::{KeyId, ProviderId, UserId};
use crate::pb;
use crate::table::{
    Breaker, CircuitState, Health, Key, Limit, MatchType, Measure, ModelRule, Options, Provider,
    ProviderKind, Rows, User, Word,
};
use crate::window::Window;
use std::sync::Arc;
use std::time::Duration;

const MINUTES_A_DAY: u32 = 1440;

fn minute(value: u32, path: &str) -> Result<u16, Invalid> {
    u16::try_from(value)
        .ok()
        .filter(|_| value < MINUTES_A_DAY)
        .ok_or_else(|| Invalid::new(path, "not a minute of the day"))
}

fn all<W, D: TryFrom<W, Error = Invalid>>(wire: Vec<W>, name: &str) -> Result<Vec<D>, Invalid> {
    wire.into_iter()
        .enumerate()
        .map(|(at, row)| D::try_from(row).map_err(|error| error.within(format_args!("{name}[{at}]"))))
        .collect()
}

fn arcs(names: Vec<String>) -> Vec<Arc<str>> {
    names.into_iter().map(Arc::from).collect()
}

fn strings(names: &[Arc<str>]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

impl TryFrom<pb::Limit> for Limit {
    type Error = Invalid;

    fn try_from(wire: pb::Limit) -> Result<Self, Invalid> {
        let measure = match wire.measure() {
            pb::Measure::Requests => Measure::Requests,
            pb::Measure::Usd => Measure::Usd,
            pb::Measure::Sessions => Measure::Sessions,
            pb::Measure::Unspecified => return Err(Invalid::new("measure", "unknown")),
        };
        let window = match wire.window() {
            pb::Window::Minute => Window::Minute,
            pb::Window::FiveHours => Window::FiveHours,
            pb::Window::FiveHoursFixed => Window::FiveHoursFixed,
            pb::Window::Day => Window::Day { reset_minute: minute(wire.reset_minute, "reset_minute")? },
            pb::Window::DayRolling => Window::DayRolling,
            pb::Window::Week => Window::Week,
            pb::Window::Month => Window::Month,
            pb::Window::Total => Window::Total,
            pb::Window::Concurrent => Window::Concurrent,
            pb::Window::Unspecified => return Err(Invalid::new("window", "unknown")),
        };
        let pair_fits = match measure {
            Measure::Requests => window == Window::Minute,
            Measure::Sessions => window == Window::Concurrent,
            Measure::Usd => !matches!(window, Window::Minute | Window::Concurrent),
        };
        if !pair_fits {
            return Err(Invalid::new("window", "does not go with this measure"));
        }
        if wire.amount <= 0 {
            return Err(Invalid::new("amount", "must be greater than zero"));
        }
        Ok(Self { measure, window, amount: wire.amount, since_ms: wire.since_ms, absent_until_ms: None })
    }
}

impl From<&Limit> for pb::Limit {
    fn from(row: &Limit) -> Self {
        let measure = match row.measure {
            Measure::Requests => pb::Measure::Requests,
            Measure::Usd => pb::Measure::Usd,
            Measure::Sessions => pb::Measure::Sessions,
        };
        let (window, reset_minute) = match row.window {
            Window::Minute => (pb::Window::Minute, 0),
            Window::FiveHours => (pb::Window::FiveHours, 0),
            Window::FiveHoursFixed => (pb::Window::FiveHoursFixed, 0),
            Window::Day { reset_minute } => (pb::Window::Day, u32::from(reset_minute)),
            Window::DayRolling => (pb::Window::DayRolling, 0),
            Window::Week => (pb::Window::Week, 0),
            Window::Month => (pb::Window::Month, 0),
            Window::Total => (pb::Window::Total, 0),
            Window::Concurrent => (pb::Window::Concurrent, 0),
        };
        Self {
            measure: measure.into(),
            window: window.into(),
            amount: row.amount,
            reset_minute,
            since_ms: row.since_ms,
        }
    }
}

impl TryFrom<pb::Key> for Key {
    type Error = Invalid;

    fn try_from(wire: pb::Key) -> Result<Self, Invalid> {
        let hash = wire.hash.as_ref().try_into().map_err(|_| Invalid::new("hash", "not 32 bytes"))?;
        Ok(Self {
            id: KeyId(wire.id),
            user_id: UserId(wire.user_id),
            hash,
            name: wire.name,
            enabled: wire.enabled,
            expires_at_ms: wire.expires_at_ms,
            groups: arcs(wire.groups),
            limits: all(wire.limits, "limits")?,
            cache_ttl: cache_ttl(wire.cache_ttl.as_deref())?,
        })
    }
}

impl From<&Key> for pb::Key {
    fn from(row: &Key) -> Self {
        Self {
            id: row.id.0,
            user_id: row.user_id.0,
            hash: row.hash.to_vec().into(),
            enabled: row.enabled,
            expires_at_ms: row.expires_at_ms,
            groups: strings(&row.groups),
            limits: row.limits.iter().map(Into::into).collect(),
            name: row.name.clone(),
            cache_ttl: row.cache_ttl.map(|ttl| ttl.as_str().to_owned()),
        }
    }
}

impl TryFrom<pb::User> for User {
    type Error = Invalid;

    fn try_from(wire: pb::User) -> Result<Self, Invalid> {
        Ok(Self {
            id: UserId(wire.id),
            owner_id: UserId(wire.owner_id),
            name: wire.name,
            enabled: wire.enabled,
            expires_at_ms: wire.expires_at_ms,
            groups: arcs(wire.groups),
            limits: all(wire.limits, "limits")?,
            allowed_models: wire.allowed_models,
            allowed_clients: wire.allowed_clients,
            blocked_clients: wire.blocked_clients,
            level: wire.level,
        })
    }
}

impl From<&User> for pb::User {
    fn from(row: &User) -> Self {
        Self {
            id: row.id.0,
            owner_id: row.owner_id.0,
            name: row.name.clone(),
            enabled: row.enabled,
            expires_at_ms: row.expires_at_ms,
            groups: strings(&row.groups),
            limits: row.limits.iter().map(Into::into).collect(),
            allowed_models: row.allowed_models.clone(),
            allowed_clients: row.allowed_clients.clone(),
            blocked_clients: row.blocked_clients.clone(),
            level: row.level,
        }
    }
}

fn match_type(wire: pb::MatchType) -> Result<MatchType, Invalid> {
    Ok(match wire {
        pb::MatchType::Exact => MatchType::Exact,
        pb::MatchType::Prefix => MatchType::Prefix,
        pb::MatchType::Suffix => MatchType::Suffix,
        pb::MatchType::Contains => MatchType::Contains,
        pb::MatchType::Regex => MatchType::Regex,
        pb::MatchType::Unspecified => return Err(Invalid::new("match_type", "unknown")),
    })
}

fn wire_match_type(kind: MatchType) -> i32 {
    match kind {
        MatchType::Exact => pb::MatchType::Exact,
        MatchType::Prefix => pb::MatchType::Prefix,
        MatchType::Suffix => pb::MatchType::Suffix,
        MatchType::Contains => pb::MatchType::Contains,
        MatchType::Regex => pb::MatchType::Regex,
    }
    .into()
}

impl TryFrom<pb::ModelRule> for ModelRule {
    type Error = Invalid;

    fn try_from(wire: pb::ModelRule) -> Result<Self, Invalid> {
        let match_type = match_type(wire.match_type())?;
        Ok(Self { match_type, pattern: wire.pattern, target: wire.target })
    }
}

impl From<&ModelRule> for pb::ModelRule {
    fn from(row: &ModelRule) -> Self {
        Self {
            match_type: wire_match_type(row.match_type),
            pattern: row.pattern.clone(),
            target: row.target.clone(),
        }
    }
}

fn kind(wire: pb::ProviderKind) -> Result<ProviderKind, Invalid> {
    Ok(match wire {
        pb::ProviderKind::Claude => ProviderKind::Claude,
        pb::ProviderKind::ClaudeAuth => ProviderKind::ClaudeAuth,
        pb::ProviderKind::Codex => ProviderKind::Codex,
        pb::ProviderKind::OpenaiCompatible => ProviderKind::OpenAiCompatible,
        pb::ProviderKind::Gemini => ProviderKind::Gemini,
        pb::ProviderKind::GeminiCli => ProviderKind::GeminiCli,
        pb::ProviderKind::Unspecified => return Err(Invalid::new("kind", "unknown")),
    })
}

fn wire_kind(kind: ProviderKind) -> pb::ProviderKind {
    match kind {
        ProviderKind::Claude => pb::ProviderKind::Claude,
        ProviderKind::ClaudeAuth => pb::ProviderKind::ClaudeAuth,
        ProviderKind::Codex => pb::ProviderKind::Codex,
        ProviderKind::OpenAiCompatible => pb::ProviderKind::OpenaiCompatible,
        ProviderKind::Gemini => pb::ProviderKind::Gemini,
        ProviderKind::GeminiCli => pb::ProviderKind::GeminiCli,
    }
}

fn breaker(wire: Option<pb::Breaker>) -> Breaker {
    wire.map_or_else(Breaker::default, |wire| Breaker {
        failure_threshold: wire.failure_threshold,
        open: Duration::from_millis(wire.open_ms),
        half_open_successes: wire.half_open_successes.max(1),
    })
}

fn options(wire: Option<pb::ProviderOptions>) -> Result<Option<Box<Options>>, Invalid> {
    let options = wire.map(Options::try_from).transpose().map_err(|error| error.within("options"))?;
    Ok(options.and_then(Options::boxed))
}

impl TryFrom<pb::Provider> for Provider {
    type Error = Invalid;

    fn try_from(wire: pb::Provider) -> Result<Self, Invalid> {
        let cost_multiplier = decimal(&wire.cost_multiplier, "cost_multiplier")?;
        if cost_multiplier.is_sign_negative() {
            return Err(Invalid::new("cost_multiplier", "cannot be negative"));
        }
        if wire.weight == 0 {
            return Err(Invalid::new("weight", "must be greater than zero"));
        }
        let active = match (wire.active_from_minute, wire.active_to_minute) {
            (None, None) => None,
            (Some(from), Some(to)) => {
                Some((minute(from, "active_from_minute")?, minute(to, "active_to_minute")?))
            }
            _ => return Err(Invalid::new("active_from_minute", "needs both ends or neither")),
        };
        Ok(Self {
            id: ProviderId(wire.id),
            owner_id: UserId(wire.owner_id),
            kind: kind(wire.kind())?,
            name: wire.name,
            base_url: wire.base_url,
            credential: wire.credential.to_vec(),
            enabled: wire.enabled,
            weight: wire.weight,
            priority: wire.priority,
            groups: arcs(wire.groups),
            group_priorities: wire.group_priorities,
            cost_multiplier,
            redirects: all(wire.redirects, "redirects")?,
            allowed_models: all(wire.allowed_models, "allowed_models")?,
            limits: all(wire.limits, "limits")?,
            max_attempts: wire.max_attempts,
            breaker: breaker(wire.breaker),
            first_byte_timeout: Duration::from_millis(wire.first_byte_timeout_ms),
            idle_timeout: Duration::from_millis(wire.idle_timeout_ms),
            total_timeout: Duration::from_millis(wire.total_timeout_ms),
            level: wire.level,
            custom_headers: wire.custom_headers,
            active,
            preserve_client_ip: wire.preserve_client_ip,
            disable_session_reuse: wire.disable_session_reuse,
            allowed_clients: wire.allowed_clients,
            blocked_clients: wire.blocked_clients,
            options: options(wire.options)?,
            private: wire.private.to_vec(),
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<&Provider> for pb::Provider {
    fn from(row: &Provider) -> Self {
        Self {
            id: row.id.0,
            owner_id: row.owner_id.0,
            name: row.name.clone(),
            base_url: row.base_url.clone(),
            kind: wire_kind(row.kind).into(),
            credential: row.credential.clone().into(),
            enabled: row.enabled,
            weight: row.weight,
            priority: row.priority,
            groups: strings(&row.groups),
            cost_multiplier: row.cost_multiplier.normalize().to_string(),
            redirects: row.redirects.iter().map(Into::into).collect(),
            allowed_models: row.allowed_models.iter().map(Into::into).collect(),
            limits: row.limits.iter().map(Into::into).collect(),
            max_attempts: row.max_attempts,
            breaker: Some(pb::Breaker {
                failure_threshold: row.breaker.failure_threshold,
                open_ms: millis(row.breaker.open),
                half_open_successes: row.breaker.half_open_successes,
            }),
            first_byte_timeout_ms: millis(row.first_byte_timeout),
            idle_timeout_ms: millis(row.idle_timeout),
            total_timeout_ms: millis(row.total_timeout),
            level: row.level,
            custom_headers: row.custom_headers.clone(),
            group_priorities: row.group_priorities.clone(),
            active_from_minute: row.active.map(|(from, _)| u32::from(from)),
            active_to_minute: row.active.map(|(_, to)| u32::from(to)),
            preserve_client_ip: row.preserve_client_ip,
            disable_session_reuse: row.disable_session_reuse,
            allowed_clients: row.allowed_clients.clone(),
            blocked_clients: row.blocked_clients.clone(),
            options: row.options.as_deref().map(Into::into),
            private: row.private.clone().into(),
        }
    }
}

impl TryFrom<pb::Word> for Word {
    type Error = Invalid;

    fn try_from(wire: pb::Word) -> Result<Self, Invalid> {
        let match_type = match_type(wire.match_type())?;
        Ok(Self { id: wire.id, owner_id: UserId(wire.owner_id), match_type, word: wire.word })
    }
}

impl From<&Word> for pb::Word {
    fn from(row: &Word) -> Self {
        Self {
            id: row.id,
            owner_id: row.owner_id.0,
            match_type: wire_match_type(row.match_type),
            word: row.word.clone(),
        }
    }
}

impl TryFrom<pb::Health> for Health {
    type Error = Invalid;

    fn try_from(wire: pb::Health) -> Result<Self, Invalid> {
        let state = match wire.state() {
            pb::CircuitState::Closed => CircuitState::Closed,
            pb::CircuitState::Open => CircuitState::Open,
            pb::CircuitState::HalfOpen => CircuitState::HalfOpen,
            pb::CircuitState::Disabled => CircuitState::Disabled,
            pb::CircuitState::Unspecified => return Err(Invalid::new("state", "unknown")),
        };
        Ok(Self {
            provider_id: ProviderId(wire.provider_id),
            state,
            until_ms: wire.until_ms,
            reason: wire.reason,
            failures: wire.failures,
            epoch: wire.epoch,
        })
    }
}

impl From<&Health> for pb::Health {
    fn from(row: &Health) -> Self {
        let state = match row.state {
            CircuitState::Closed => pb::CircuitState::Closed,
            CircuitState::Open => pb::CircuitState::Open,
            CircuitState::HalfOpen => pb::CircuitState::HalfOpen,
            CircuitState::Disabled => pb::CircuitState::Disabled,
        };
        Self {
            provider_id: row.provider_id.0,
            state: state.into(),
            until_ms: row.until_ms,
            reason: row.reason.clone(),
            failures: row.failures,
            epoch: row.epoch,
        }
    }
}

impl TryFrom<pb::Rows> for Rows {
    type Error = Invalid;

    fn try_from(wire: pb::Rows) -> Result<Self, Invalid> {
        Ok(Self {
            keys: all(wire.keys, "keys")?,
            users: all(wire.users, "users")?,
            providers: all(wire.providers, "providers")?,
            prices: all(wire.prices, "prices")?,
            owners: all(wire.owners, "owners")?,
            words: all(wire.words, "words")?,
            health: all(wire.health, "health")?,
        })
    }
}

impl From<&Rows> for pb::Rows {
    fn from(rows: &Rows) -> Self {
        Self {
            keys: rows.keys.iter().map(Into::into).collect(),
            users: rows.users.iter().map(Into::into).collect(),
            providers: rows.providers.iter().map(Into::into).collect(),
            prices: rows.prices.iter().map(Into::into).collect(),
            owners: rows.owners.iter().map(Into::into).collect(),
            words: rows.words.iter().map(Into::into).collect(),
            health: rows.health.iter().map(Into::into).collect(),
        }
    }
}
