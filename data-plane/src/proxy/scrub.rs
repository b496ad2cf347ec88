//! What an upstream or a connection says, before anybody reads it. Callers get no part of a credential and nothing that
//! names the account, its people or the hosts behind this proxy; the trail, which only admins see, keeps all but
//! credentials. Pure; one pass over the text, whose length its callers bound.
//!
//! What is known exactly (a provider's credential and hosts) is replaced as it is; the rest is known by its look, so
//! that a text without such words stays byte for byte what it was.

mod look;

use crate::table::Upstream;
use look::{Context, Level};
use std::borrow::Cow;

/// Stands for what was taken out.
pub const GONE: &str = "***";
/// A literal shorter than this would be found in ordinary words.
const SHORTEST: usize = 4;

/// Texts that belong to one provider.
#[derive(Default)]
pub struct Known {
    secrets: Vec<String>,
    hosts: Vec<String>,
}

impl Known {
    /// The credential, with every text inside if it is JSON; the values of custom headers; the hosts.
    pub fn of(up: &Upstream) -> Self {
        let secret = up.secret.expose();
        let mut secrets = vec![secret.to_owned()];
        if secret.trim_start().starts_with('{')
            && let Ok(fields) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(secret)
        {
            secrets.extend(fields.values().filter_map(|value| value.as_str()).map(str::to_owned));
        }
        secrets.extend(up.row.custom_headers.values().filter(|value| value.len() >= 8).cloned());
        secrets.retain(|secret| secret.len() >= SHORTEST);
        // The whole before its parts.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let urls = [Some(&up.base), up.proxy.as_ref().map(|proxy| &proxy.url)];
        let hosts = urls.into_iter().flatten().filter_map(|url| url.host_str());
        Self { secrets, hosts: hosts.map(str::to_ascii_lowercase).collect() }
    }

    fn without_secrets<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        self.secrets.iter().fold(text, |text, secret| {
            if text.contains(secret.as_str()) {
                Cow::Owned(text.replace(secret.as_str(), GONE))
            } else {
                text
            }
        })
    }

    fn without_hosts<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        self.hosts.iter().fold(text, |text, host| match words_like(&text, host) {
            places if places.is_empty() => text,
            places => Cow::Owned(replaced(&text, &places)),
        })
    }
}

/// For callers.
pub fn for_callers<'a>(text: &'a str, known: &Known) -> Cow<'a, str> {
    let text = known.without_hosts(known.without_secrets(Cow::Borrowed(text)));
    looked_through(text, Level::Callers)
}

/// For the decision trail and the log.
pub fn for_admins<'a>(text: &'a str, known: &Known) -> Cow<'a, str> {
    looked_through(known.without_secrets(Cow::Borrowed(text)), Level::Admins)
}

/// Where `word`, in lower case, stands by itself.
fn words_like(text: &str, word: &str) -> Vec<(usize, usize)> {
    let lower = text.to_ascii_lowercase();
    let edge = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
    lower
        .match_indices(word)
        .map(|(at, _)| (at, at + word.len()))
        .filter(|(at, end)| {
            let before = at.checked_sub(1).and_then(|at| text.as_bytes().get(at));
            edge(before) && edge(text.as_bytes().get(*end))
        })
        .collect()
}

fn replaced(text: &str, places: &[(usize, usize)]) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut copied = 0;
    for (from, to) in places {
        whole.push_str(&text[copied..*from]);
        whole.push_str(GONE);
        copied = *to;
    }
    whole.push_str(&text[copied..]);
    whole
}

fn looked_through(text: Cow<'_, str>, level: Level) -> Cow<'_, str> {
    let mut places = Vec::new();
    let mut context = Context::default();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        while at < bytes.len() && look::in_run(bytes, at) {
            at += 1;
        }
        if at > start {
            look::run(&text, (start, at), level, &mut context, &mut places);
        } else {
            at += context.between(bytes, at);
        }
    }
    if places.is_empty() { text } else { Cow::Owned(replaced(&text, &places)) }
}

#[cfg(test)]
mod tests;
