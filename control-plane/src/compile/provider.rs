//! A provider's columns → what a proxy needs to call it.

use super::read::{groups, matcher};
use super::{Broken, limits, options};
use crate::db::rows::ProviderRow;
use contract::ids::{ProviderId, UserId};
use contract::private;
use contract::seal::Sealer;
use contract::table::{Breaker, ModelRule, Provider, ProviderKind, Rows};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use url::Url;

/// Headers that belong to the transport or to authentication.
const RESERVED: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
];

pub(super) fn read(row: &ProviderRow, sealer: &Sealer) -> Result<Rows, Broken> {
    let mut provider = Provider {
        id: ProviderId(row.id),
        owner_id: UserId(row.owner_id),
        name: row.name.clone(),
        base_url: base_url(&row.base_url)?,
        kind: ProviderKind::parse(&row.kind).ok_or_else(|| Broken::new("kind", "is unknown"))?,
        credential: row.credential.clone(),
        enabled: row.enabled,
        weight: number(row.weight, "weight")?,
        priority: row.priority,
        groups: groups(&row.groups),
        group_priorities: group_priorities(row.group_priorities.as_ref())?,
        cost_multiplier: limits::decimal(&row.cost_multiplier, "cost_multiplier")?,
        redirects: redirects(row.model_redirects.as_ref())?,
        allowed_models: allowed_models(row.allowed_models.as_ref())?,
        limits: limits::of_provider(&row.limits)?,
        max_attempts: row.max_retry_attempts.map(|count| number(count, "max_retry_attempts")).transpose()?,
        breaker: Breaker {
            failure_threshold: number(row.breaker_failure_threshold, "breaker_failure_threshold")?,
            open: millis(row.breaker_open_ms, "breaker_open_ms")?,
            half_open_successes: number(row.breaker_half_open_successes, "breaker_half_open_successes")?
                .max(1),
        },
        first_byte_timeout: millis(row.first_byte_timeout_ms.into(), "first_byte_timeout_ms")?,
        idle_timeout: millis(row.idle_timeout_ms.into(), "idle_timeout_ms")?,
        total_timeout: millis(row.total_timeout_ms.into(), "total_timeout_ms")?,
        level: row.level,
        custom_headers: custom_headers(row.custom_headers.as_ref())?,
        active: active(row)?,
        preserve_client_ip: row.preserve_client_ip,
        disable_session_reuse: row.disable_session_reuse,
        allowed_clients: row.allowed_clients.clone(),
        blocked_clients: row.blocked_clients.clone(),
        options: options::read(&row.extra)?,
        private: Vec::new(),
    };
    private::seal(&mut provider, sealer).map_err(|error| Broken::new("custom_headers", error.to_string()))?;
    Ok(Rows { providers: vec![provider], ..Rows::default() })
}

fn number(value: i32, field: &str) -> Result<u32, Broken> {
    u32::try_from(value).map_err(|_| Broken::new(field, "cannot be negative"))
}

fn millis(value: i64, field: &str) -> Result<Duration, Broken> {
    let millis = u64::try_from(value).map_err(|_| Broken::new(field, "cannot be negative"))?;
    Ok(Duration::from_millis(millis))
}

fn base_url(text: &str) -> Result<String, Broken> {
    let url = Url::parse(text).map_err(|_| Broken::new("base_url", "is not an absolute URL"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(Broken::new("base_url", "is not an http or https URL with a host"));
    }
    Ok(text.to_owned())
}

/// Null and the empty container mean that there is nothing.
fn present(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !value.is_null())
}

fn group_priorities(value: Option<&Value>) -> Result<BTreeMap<String, i32>, Broken> {
    let field = "group_priorities";
    let Some(value) = present(value) else { return Ok(BTreeMap::new()) };
    let map = value.as_object().ok_or_else(|| Broken::new(field, "is not an object"))?;
    let priority = |value: &Value| value.as_i64().and_then(|number| i32::try_from(number).ok());
    map.iter()
        .map(|(group, value)| Some((group.clone(), priority(value)?)))
        .collect::<Option<_>>()
        .ok_or_else(|| Broken::new(field, "has a priority that is not a whole number"))
}

fn custom_headers(value: Option<&Value>) -> Result<BTreeMap<String, String>, Broken> {
    let field = "custom_headers";
    let Some(value) = present(value) else { return Ok(BTreeMap::new()) };
    let map = value.as_object().ok_or_else(|| Broken::new(field, "is not an object"))?;
    let mut headers = BTreeMap::new();
    for (name, value) in map {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let visible = |b: u8| b == b'\t' || (b' '..=b'~').contains(&b);
        let text = value.as_str().filter(|text| text.bytes().all(visible));
        let named = !name.is_empty() && name.bytes().all(token);
        let name = name.to_ascii_lowercase();
        match text {
            Some(text) if named && !RESERVED.contains(&name.as_str()) => {
                headers.insert(name, text.to_owned());
            }
            _ => return Err(Broken::new(field, "has a header that cannot be sent")),
        }
    }
    Ok(headers)
}

/// `[{matchType, source, target}]`, or the older plain map of source to target.
fn redirects(value: Option<&Value>) -> Result<Vec<ModelRule>, Broken> {
    let field = "model_redirects";
    match present(value) {
        None => Ok(Vec::new()),
        Some(Value::Object(map)) => {
            map.iter().map(|(source, target)| rule("exact", Some(source), Some(target), field)).collect()
        }
        Some(Value::Array(items)) => {
            let read = |(at, item): (usize, &Value)| {
                let target = item.get("target").unwrap_or(&Value::Null);
                rule(match_type(item), source(item), Some(target), &format!("{field}[{at}]"))
            };
            items.iter().enumerate().map(read).collect()
        }
        Some(_) => Err(Broken::new(field, "is neither a list nor an object")),
    }
}

/// A list of names or of `{matchType, pattern}`; an empty list allows all.
fn allowed_models(value: Option<&Value>) -> Result<Vec<ModelRule>, Broken> {
    let field = "allowed_models";
    let Some(value) = present(value) else { return Ok(Vec::new()) };
    let items = value.as_array().ok_or_else(|| Broken::new(field, "is not a list"))?;
    let read = |(at, item): (usize, &Value)| {
        let field = format!("{field}[{at}]");
        match item {
            Value::String(name) => rule("exact", Some(name), None, &field),
            item => rule(match_type(item), source(item), None, &field),
        }
    };
    items.iter().enumerate().map(read).collect()
}

fn match_type(item: &Value) -> &str {
    item.get("matchType")
        .or_else(|| item.get("match_type"))
        .map_or("exact", |kind| kind.as_str().unwrap_or(""))
}

fn source(item: &Value) -> Option<&String> {
    match item.get("source").or_else(|| item.get("pattern")) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn rule(
    kind: &str,
    pattern: Option<&String>,
    target: Option<&Value>,
    field: &str,
) -> Result<ModelRule, Broken> {
    let pattern = pattern.ok_or_else(|| Broken::new(field, "has no pattern"))?;
    let match_type = matcher(kind, pattern, field)?;
    let target = match target.map(Value::as_str) {
        None => None,
        Some(Some(target)) if !target.is_empty() => Some(target.to_owned()),
        Some(_) => return Err(Broken::new(field, "has no target")),
    };
    Ok(ModelRule { match_type, pattern: pattern.clone(), target })
}

fn active(row: &ProviderRow) -> Result<Option<(u16, u16)>, Broken> {
    match (&row.active_time_start, &row.active_time_end) {
        (None, None) => Ok(None),
        (Some(start), Some(end)) => {
            let from = limits::minute(start, "active_time_start")?;
            Ok(Some((from, limits::minute(end, "active_time_end")?)))
        }
        _ => Err(Broken::new("active_time_start", "needs both ends or neither")),
    }
}
