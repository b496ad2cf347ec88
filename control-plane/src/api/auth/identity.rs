//! From a credential to the account behind it.

use crate::api::{Failure, State};
use crate::db::logins::{self, Account, Credential};
use crate::db::rows::ROOT;
use crate::rules::key;
use chrono::Utc;
use subtle::ConstantTimeEq;

/// Characters of an ADMIN_TOKEN that cannot be guessed.
const LONG: usize = 16;

/// An account that may act, and the key that it came with; none for ADMIN_TOKEN.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) account: Account,
    pub(super) key: Option<Credential>,
}

/// What a credential is.
#[derive(Debug)]
pub(super) enum Found {
    /// Of an account that may act.
    Active(Identity),
    /// Known, but switched off, expired or deleted.
    Inactive,
    /// Nobody's.
    Unknown,
}

impl Identity {
    /// A key that may not use the web sees its own usage and nothing else, whoever owns it.
    pub(super) fn is_read_only(&self) -> bool {
        self.key.as_ref().is_some_and(|key| !key.can_login_web_ui)
    }

    pub(super) fn is_admin(&self) -> bool {
        self.account.role == "admin" && !self.is_read_only()
    }
}

/// Whether a text is ADMIN_TOKEN, in a time that does not depend on where they differ.
pub(super) fn is_admin_token(state: &State, credential: &str) -> bool {
    let wanted = state.settings.admin_token.expose();
    let is_set = !wanted.is_empty() && wanted != "change-me";
    // Hashes are compared, so that the length does not show either.
    is_set & bool::from(key::hash(wanted).ct_eq(&key::hash(credential)))
}

/// The same of one that nobody finds by trying.
pub(super) fn is_long_admin_token(state: &State, credential: &str) -> bool {
    state.settings.admin_token.expose().len() >= LONG && is_admin_token(state, credential)
}

/// The account behind ADMIN_TOKEN, a login's token or a client key.
pub(super) async fn find(state: &State, credential: &str) -> Result<Found, Failure> {
    if is_admin_token(state, credential) {
        let mut conn = state.pool.read().await?;
        let account = logins::account(&mut conn, ROOT).await?;
        return Ok(known(account.map(|account| (account, None))));
    }
    let mut conn = state.pool.read().await?;
    if !credential.starts_with(key::SESSION_PREFIX) {
        let hash = key::hash(credential);
        return match logins::by_key_hash(&mut conn, &hash).await? {
            None if logins::was_key(&mut conn, &hash).await? => Ok(Found::Inactive),
            found => Ok(known(found.map(|(account, key)| (account, Some(key))))),
        };
    }
    for by_admin_token in [false, true] {
        let hash = login_hash(state, credential, by_admin_token);
        let found = logins::by_session_hash(&mut conn, &hash).await?;
        if let Some(found) = found.filter(|(_, key)| key.is_none() == by_admin_token) {
            return Ok(known(Some(found)));
        }
    }
    Ok(Found::Unknown)
}

/// Under which hash a login is kept. One made with ADMIN_TOKEN hangs on it: when the token is changed, because it got
/// into wrong hands, the logins made with the old one are unknown at once.
pub(super) fn login_hash(state: &State, login: &str, by_admin_token: bool) -> [u8; 32] {
    if !by_admin_token {
        return key::hash(login);
    }
    // Neither holds a line feed: a header could not carry it.
    key::hash(&format!("{login}\n{}", state.settings.admin_token.expose()))
}

fn known(found: Option<(Account, Option<Credential>)>) -> Found {
    let Some((account, key)) = found else { return Found::Unknown };
    let now = Utc::now();
    match account.is_active(now) && key.as_ref().is_none_or(|key| key.is_active(now)) {
        true => Found::Active(Identity { account, key }),
        false => Found::Inactive,
    }
}
