//! Steps as people write them: JSON for `POST /_script`, directives for a header or a model name. Errors name the
//! behaviour that cannot be understood.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::{Answer, Break, Kind};

/// A step that cannot be understood; its text names the behaviour.
#[derive(Debug, PartialEq, Eq)]
pub struct BadStep(String);

impl std::fmt::Display for BadStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadStep {}

impl BadStep {
    pub(in crate::upstream) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    fn unknown(name: &str) -> Self {
        Self(format!("{name}: no such behaviour"))
    }
}

impl Answer {
    /// Reads one step of a script, such as `{"status": 429, "retry_after": 3}`.
    pub fn from_json(step: &Value) -> Result<Self, BadStep> {
        let fields = step.as_object().ok_or(BadStep::new("a step is an object of behaviours"))?;
        let mut answer = Self::default();
        for (name, value) in fields {
            answer.set(name, value)?;
        }
        Ok(answer)
    }

    /// Reads a directive, such as `status=500,delay=200` or `silence`.
    pub fn from_directive(text: &str) -> Result<Self, BadStep> {
        let mut fields = Map::new();
        for part in text.split([',', ';']).map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => {
                    (name, value.parse::<u64>().map_or_else(|_| value.into(), Value::from))
                }
                None => (part, Value::Bool(true)),
            };
            fields.insert(name.trim().to_owned(), value);
        }
        if fields.is_empty() {
            return Err(BadStep::new("a directive names at least one behaviour"));
        }
        Self::from_json(&Value::Object(fields))
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), BadStep> {
        match name {
            "status" => self.status = Some(status(name, value)?),
            "body" => self.body = Some(body(value)),
            "headers" => self.headers.extend(headers(name, value)?),
            "retry_after" => *self = std::mem::take(self).retry_after(number(name, value)?),
            "delay" => self.delay = millis(name, value)?,
            "delay_body" => self.delay_body = millis(name, value)?,
            "gap" => self.gap = millis(name, value)?,
            "cut" => self.break_at = Some((count(name, value)?, Break::Cut)),
            "hang" => self.break_at = Some((count(name, value)?, Break::Hang)),
            "end_early" => self.break_at = Some((count(name, value)?, Break::Stop)),
            "error_event" => self.break_at = Some((count(name, value)?, Break::Error)),
            "events" => self.events = Some(count(name, value)?),
            "text" => self.text = Some(value.as_str().ok_or_else(|| wrong(name, "a text"))?.to_owned()),
            "silence" => self.kind = Kind::Silence,
            "refuse" => self.kind = Kind::Refuse,
            "fake200" => self.kind = Kind::Html,
            "fake200json" => self.kind = Kind::ErrorObject,
            "empty200" => self.kind = Kind::Empty,
            "no_usage" => self.no_usage = true,
            "usage" => {
                let fields = value.as_object().ok_or_else(|| wrong(name, "an object of token counts"))?;
                for (name, value) in fields {
                    *self.token_field(name)? = Some(number(name, value)?);
                }
            }
            _ => *self.token_field(name)? = Some(number(name, value)?),
        }
        Ok(())
    }

    fn token_field(&mut self, name: &str) -> Result<&mut Option<u64>, BadStep> {
        match name {
            "input" => Ok(&mut self.tokens.input),
            "output" => Ok(&mut self.tokens.output),
            "cache_read" => Ok(&mut self.tokens.cache_read),
            "cache_write" => Ok(&mut self.tokens.cache_write),
            "cache_write_1h" => Ok(&mut self.tokens.cache_write_1h),
            "reasoning" => Ok(&mut self.tokens.reasoning),
            _ => Err(BadStep::unknown(name)),
        }
    }
}

fn wrong(name: &str, expected: &'static str) -> BadStep {
    BadStep::new(format!("{name}: expected {expected}"))
}

fn number(name: &str, value: &Value) -> Result<u64, BadStep> {
    value.as_u64().ok_or_else(|| wrong(name, "a whole number"))
}

/// A number of events; a bare flag means none.
fn count(name: &str, value: &Value) -> Result<usize, BadStep> {
    let events = if value == &Value::Bool(true) { 0 } else { number(name, value)? };
    usize::try_from(events).ok().filter(|n| *n <= 1_000_000).ok_or_else(|| wrong(name, "at most 1000000"))
}

fn millis(name: &str, value: &Value) -> Result<Duration, BadStep> {
    let millis = value.as_u64().ok_or_else(|| wrong(name, "a number of milliseconds"))?;
    Ok(Duration::from_millis(millis))
}

fn status(name: &str, value: &Value) -> Result<u16, BadStep> {
    let status = value.as_u64().and_then(|n| u16::try_from(n).ok());
    status.filter(|n| (200..600).contains(n)).ok_or_else(|| wrong(name, "a status from 200 to 599"))
}

fn body(value: &Value) -> Bytes {
    match value {
        Value::String(text) => Bytes::from(text.clone()),
        other => Bytes::from(other.to_string()),
    }
}

fn headers(name: &str, value: &Value) -> Result<Vec<(HeaderName, HeaderValue)>, BadStep> {
    let fields = value.as_object().ok_or_else(|| wrong(name, "an object of texts"))?;
    let mut found = Vec::with_capacity(fields.len());
    for (header, text) in fields {
        let text = text.as_str().ok_or_else(|| wrong(name, "an object of texts"))?;
        let header = header.parse().map_err(|_| wrong(name, "valid header names"))?;
        found.push((header, text.parse().map_err(|_| wrong(name, "valid header values"))?));
    }
    Ok(found)
}
