//! Who calls: the credential from the head, looked up in the table. Memory only.

use super::refuse::Refusal;
use crate::table::Snapshot;
use contract::table::{ALL_GROUPS, DEFAULT_GROUP, Key, User};
use http::request::Parts;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

/// No provider is in it: names of groups are not empty.
static NO_GROUPS: LazyLock<[Arc<str>; 1]> = LazyLock::new(|| [Arc::from("")]);
static DEFAULT_GROUPS: LazyLock<[Arc<str>; 1]> = LazyLock::new(|| [Arc::from(DEFAULT_GROUP)]);

/// An authenticated caller.
pub struct Caller {
    /// The key that was shown.
    pub key: Arc<Key>,
    /// Whose key it is.
    pub user: Arc<User>,
    /// The key's groups without those that its user is not in; `None` where all are the user's too.
    narrowed: Option<Box<[Arc<str>]>>,
}

impl Caller {
    /// `key` must be one of `user`.
    pub fn new(key: Arc<Key>, user: Arc<User>) -> Self {
        let own = of_user(&user);
        let may = |group: &Arc<str>| own.contains(group) || own.iter().any(|own| &**own == ALL_GROUPS);
        let narrowed = match key.groups.iter().all(may) {
            true => None,
            false if key.groups.iter().any(|group| &**group == ALL_GROUPS) => Some(own.into()),
            false => Some(key.groups.iter().filter(|group| may(group)).cloned().collect()),
        };
        Self { key, user, narrowed }
    }

    /// The groups whose providers may serve this caller: those of the key's that its user is in, too. A key without groups
    /// has its user's, a user without groups the default one; a key whose groups were all taken away has none.
    pub fn groups(&self) -> &[Arc<str>] {
        match (self.narrowed.as_deref(), &*self.key.groups) {
            (Some([]), _) => NO_GROUPS.as_slice(),
            (Some(groups), _) => groups,
            (None, []) => of_user(&self.user),
            (None, groups) => groups,
        }
    }
}

fn of_user(user: &User) -> &[Arc<str>] {
    if user.groups.is_empty() { DEFAULT_GROUPS.as_slice() } else { &user.groups }
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
    Ok(Caller::new(Arc::clone(key), Arc::clone(user)))
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
    fn a_key_reaches_no_group_that_its_user_is_not_in() {
        let cases: [(&[&str], &[&str], &[&str]); 8] = [
            (&[], &[], &["default"]),
            (&[], &["a", "b"], &["a", "b"]),
            (&["a"], &["a", "b"], &["a"]),
            (&["a", "premium"], &["a", "b"], &["a"]),
            (&["premium"], &["a"], &[""]),
            (&["premium"], &[], &[""]),
            (&["premium"], &["*"], &["premium"]),
            (&["*"], &["a"], &["a"]),
        ];
        let groups = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<Arc<str>>>();
        for (of_key, of_user, want) in cases {
            let key = Key { groups: groups(of_key), ..crate::table::fixtures::key(1) };
            let user = User { groups: groups(of_user), ..crate::table::fixtures::user(2, "u") };
            let caller = Caller::new(Arc::new(key), Arc::new(user));
            assert_eq!(caller.groups(), groups(want), "{of_key:?} {of_user:?}");
        }
    }

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
