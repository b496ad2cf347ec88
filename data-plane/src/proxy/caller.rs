//! Who calls: the credential from the head, looked up in the table. Memory only.

use super::refuse::Refusal;
use crate::table::Snapshot;
use contract::table::{DEFAULT_GROUP, Key, User};
use http::request::Parts;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

static DEFAULT_GROUPS: LazyLock<[Arc<str>; 1]> = LazyLock::new(|| [Arc::from(DEFAULT_GROUP)]);

/// An authenticated caller.
pub struct Caller {
    /// The key that was shown.
    pub key: Arc<Key>,
    /// Whose key it is.
    pub user: Arc<User>,
}

impl Caller {
    /// The groups whose providers may serve this caller: the key's, else the user's, else the default group.
    pub fn groups(&self) -> &[Arc<str>] {
        [&self.key.groups, &self.user.groups]
            .into_iter()
            .find(|groups| !groups.is_empty())
            .map_or(DEFAULT_GROUPS.as_slice(), Vec::as_slice)
    }
}

/// Reads the one credential of the request and finds its key.
pub fn authenticate(table: &Snapshot, head: &Parts, now_ms: i64) -> Result<Caller, Refusal> {
    let credential = credential(head)?;
    let hash: [u8; 32] = Sha256::digest(credential.as_bytes()).into();
    let key = table.key(&hash).ok_or(Refusal::UnknownKey)?;
    // A key whose user is missing from the table was left out fail-closed; the key alone opens nothing.
    let user = table.user(key.user_id).ok_or(Refusal::UnknownKey)?;
    let expired = |at: Option<i64>| at.is_some_and(|at| at <= now_ms);
    if !key.enabled {
        return Err(Refusal::KeyDisabled);
    }
    if expired(key.expires_at_ms) {
        return Err(Refusal::KeyExpired);
    }
    if !user.enabled {
        return Err(Refusal::UserDisabled);
    }
    if expired(user.expires_at_ms) {
        return Err(Refusal::UserExpired);
    }
    Ok(Caller { key: Arc::clone(key), user: Arc::clone(user) })
}

/// The one credential among the four places where clients put it. Several places with the same value are
/// fine (some clients send two headers); different values are refused rather than one of them ignored, in one place
/// twice as in two places.
fn credential(head: &Parts) -> Result<Cow<'_, str>, Refusal> {
    let mut found: SmallVec<[Cow<'_, str>; 4]> = SmallVec::new();
    for (name, value) in &head.headers {
        let is_bearer = match name.as_str() {
            "authorization" => true,
            "x-api-key" | "x-goog-api-key" | "api-key" => false,
            _ => continue,
        };
        let Ok(value) = value.to_str() else { continue };
        let value = value.trim();
        let token =
            value.split_once(' ').filter(|(scheme, _)| is_bearer && scheme.eq_ignore_ascii_case("bearer"));
        found.push(Cow::Borrowed(token.map_or(value, |(_, token)| token.trim())));
    }
    if let Some(query) = head.uri.query() {
        let pairs = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "key");
        found.extend(pairs.map(|(_, value)| value));
    }
    found.retain(|value| !value.is_empty());
    let mut values = found.into_iter();
    let first = values.next().ok_or(Refusal::NoCredential)?;
    if values.any(|other| other != first) {
        return Err(Refusal::AmbiguousCredential);
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_credential_from_four_places() {
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, Result<&'a str, &'a str>);
        let cases: [Case<'_>; 15] = [
            (&[("authorization", "Bearer sk-a")], "/v1/messages", Ok("sk-a")),
            (&[("authorization", "bearer sk-a ")], "/v1/messages", Ok("sk-a")),
            (&[("authorization", "sk-a")], "/v1/messages", Ok("sk-a")),
            (&[("x-api-key", "sk-a")], "/v1/messages", Ok("sk-a")),
            (&[("x-goog-api-key", "sk-a")], "/v1/messages", Ok("sk-a")),
            (&[], "/v1/models?x=1&key=sk%2Da", Ok("sk-a")),
            (&[("x-api-key", "sk-a"), ("authorization", "Bearer sk-a")], "/", Ok("sk-a")),
            (&[("x-api-key", "sk-a"), ("authorization", "Bearer sk-b")], "/", Err("ambiguous")),
            (&[("x-api-key", "")], "/v1/messages", Err("missing")),
            (&[("x-api-key", "sk-a"), ("x-api-key", "sk-b")], "/", Err("ambiguous")),
            (&[("authorization", "Bearer sk-a"), ("authorization", "Bearer sk-b")], "/", Err("ambiguous")),
            (&[("authorization", "Bearer sk-a"), ("authorization", "bearer sk-a")], "/", Ok("sk-a")),
            (&[("authorization", ""), ("x-api-key", "sk-a")], "/", Ok("sk-a")),
            (&[], "/v1/models?key=sk-a&key=sk-b", Err("ambiguous")),
            (&[("api-key", "sk-a")], "/?key=sk-a&key=sk-a", Ok("sk-a")),
        ];
        for (headers, uri, want) in cases {
            let mut request = http::Request::builder().uri(uri);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (head, ()) = request.body(()).expect("request").into_parts();
            let got = credential(&head).map_err(|refusal| refusal.kind().to_owned());
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{headers:?} {uri}");
        }
    }
}
