//! Webhooks and their secrets: checked, sealed, opened.

use crate::api::{Failure, State};
use crate::outbound::Target;
use crate::rules::notification::{Channel, Topic, secret_aad, webhook_aad};
use crate::rules::{Code, Field, Patch, Refusal, key};
use url::Url;

/// Longest webhook, and longest secret.
const URL_MAX: usize = 2048;
const SECRET_MAX: usize = 512;

/// A URL; null and "" clear it, and what was masked stays.
pub(super) fn webhook(field: &Field) -> Result<Patch<Url>, Refusal> {
    match field.text(URL_MAX)? {
        None => Ok(None),
        Some(Some(text)) if key::is_mask(&text) => Ok(None),
        Some(None) => Ok(Some(None)),
        Some(Some(text)) if text.is_empty() => Ok(Some(None)),
        Some(Some(text)) => {
            let wrong = || field.refuse(Code::Url).with("schemes", "http://, https://");
            let url = Url::parse(&text).map_err(|_| wrong())?;
            match matches!(url.scheme(), "http" | "https") && url.has_host() {
                true => Ok(Some(Some(url))),
                false => Err(wrong()),
            }
        }
    }
}

/// A secret, by the same rules.
pub(super) fn secret(field: &Field) -> Result<Patch<String>, Refusal> {
    Ok(match field.text(SECRET_MAX)? {
        Some(Some(text)) if key::is_mask(&text) => None,
        Some(Some(text)) if text.is_empty() => Some(None),
        other => other,
    })
}

/// Seals what a channel is given.
pub(super) fn seal(state: &State, text: &str, identity: &str) -> Result<String, Failure> {
    Ok(hex::encode(state.settings.sealer.seal(text.as_bytes(), identity)?))
}

/// Where a stored channel leads.
pub(super) fn open(
    state: &State,
    owner: i64,
    topic: Topic,
    channel: &Channel,
) -> Result<Option<Target>, Failure> {
    let text = |sealed: &Option<String>, identity: String| -> Result<Option<String>, Failure> {
        let Some(sealed) = sealed else { return Ok(None) };
        let bytes = hex::decode(sealed).map_err(Failure::internal)?;
        let clear = state.settings.sealer.open(&bytes, &identity)?;
        String::from_utf8(clear).map(Some).map_err(Failure::internal)
    };
    let Some(url) = text(&channel.webhook, webhook_aad(owner, topic))? else { return Ok(None) };
    let url = Url::parse(&url).map_err(Failure::internal)?;
    Ok(Some(Target { url, kind: channel.kind, secret: text(&channel.secret, secret_aad(owner, topic))? }))
}
