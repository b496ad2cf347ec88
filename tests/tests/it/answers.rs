//! Answers as tests look at them: events of a stream, errors in each dialect.

use anyhow::{Context, Result, ensure};
use reqwest::Response;
use rust_decimal::Decimal;
use serde_json::Value;

/// A protocol that a caller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Messages,
    Chat,
    Responses,
}

impl Dialect {
    pub const ALL: [Self; 3] = [Self::Messages, Self::Chat, Self::Responses];

    pub fn path(self) -> &'static str {
        match self {
            Self::Messages => "/v1/messages",
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
        }
    }

    /// A short question in this dialect.
    pub fn question(self, stream: bool) -> Value {
        use crate::scene::{CLAUDE, GPT};
        match self {
            Self::Messages => testkit::client::question(CLAUDE, stream),
            Self::Chat => testkit::client::chat(GPT, stream),
            Self::Responses => testkit::client::response(GPT, stream),
        }
    }

    /// The error object of an answer of this dialect, wherever it stands.
    pub fn error_in(self, body: &Value) -> Result<&Value> {
        if self == Self::Messages {
            ensure!(body["type"] == "error", "not an error of Anthropic's dialect: {body}");
        }
        let error = &body["error"];
        ensure!(
            error["message"].is_string() && error["type"].is_string(),
            "not an error of {self:?}: {body}"
        );
        Ok(error)
    }
}

/// An answer read to its end, or as far as it came.
#[derive(Debug)]
pub struct Read {
    pub status: u16,
    pub request_id: Option<String>,
    pub retry_after: Option<u64>,
    pub headers: http::HeaderMap,
    pub text: String,
    /// Whether the connection broke in the body.
    pub broken: bool,
}

/// Reads an answer.
pub async fn read(mut answer: Response) -> Read {
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text_of = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (request_id, retry_after) = (text_of("x-switchyard-request-id"), text_of("retry-after"));
    let (mut bytes, mut broken) = (Vec::new(), false);
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(_) => {
                broken = true;
                break;
            }
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Read {
        status,
        request_id,
        retry_after: retry_after.and_then(|text| text.parse().ok()),
        headers,
        text,
        broken,
    }
}

impl Read {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("status {}: {}", self.status, self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The events of a stream.
    pub fn events(&self) -> Vec<Event> {
        self.text.split("\n\n").filter_map(Event::parse).collect()
    }

    /// Whether the stream came to its proper end.
    pub fn is_whole(&self, dialect: Dialect) -> bool {
        let events = self.events();
        let Some(last) = events.last() else { return false };
        !self.broken
            && match dialect {
                Dialect::Messages => last.name == "message_stop",
                Dialect::Chat => last.raw == "[DONE]",
                Dialect::Responses => last.name == "response.completed",
            }
    }
}

/// One server-sent event.
#[derive(Debug)]
pub struct Event {
    pub name: String,
    pub raw: String,
    pub data: Value,
}

impl Event {
    fn parse(block: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|text| text.trim().to_owned())
        };
        let raw = field("data")?;
        let data = serde_json::from_str(&raw).unwrap_or_default();
        Some(Self { name: field("event").unwrap_or_default(), raw, data })
    }
}

/// A decimal in a JSON text or number.
pub fn decimal(value: &Value) -> Result<Decimal> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let exact = text.parse().or_else(|_| Decimal::from_scientific(&text));
    Ok(exact.with_context(|| format!("not a decimal: {text}"))?.normalize())
}
