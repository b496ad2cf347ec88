//! What must hold between a key and its user.

use crate::db::keys::Key;
use crate::db::users::User;
use crate::rules::{Code, Refusal, amount};
use bigdecimal::{BigDecimal, Zero};
use contract::table::{ALL_GROUPS, DEFAULT_GROUP};
use std::collections::BTreeSet;

/// No limit of a key above the one of its user. A user's 0 or null is no limit. Of a key that was there before,
/// only what changes is asked for: an older limit is no reason to refuse a new name.
pub(super) fn within_user(old: Option<&Key>, key: &Key, user: &User) -> Result<(), Refusal> {
    type Limit = fn(&Key) -> &Option<BigDecimal>;
    let pairs: [(Code, Limit, &Option<BigDecimal>); 5] = [
        (Code::Limit5h, |key| &key.limit_5h_usd, &user.limit_5h_usd),
        (Code::LimitDaily, |key| &key.limit_daily_usd, &user.limit_daily_usd),
        (Code::LimitWeekly, |key| &key.limit_weekly_usd, &user.limit_weekly_usd),
        (Code::LimitMonthly, |key| &key.limit_monthly_usd, &user.limit_monthly_usd),
        (Code::LimitTotal, |key| &key.limit_total_usd, &user.limit_total_usd),
    ];
    for (code, limit, of_user) in pairs {
        if old.is_none_or(|old| limit(old) != limit(key)) {
            above(code, limit(key).as_ref(), of_user.as_ref())?;
        }
    }
    if old.is_some_and(|old| old.limit_concurrent_sessions == key.limit_concurrent_sessions) {
        return Ok(());
    }
    let sessions = user.limit_concurrent_sessions.map(BigDecimal::from);
    above(Code::LimitConcurrent, Some(&BigDecimal::from(key.limit_concurrent_sessions)), sessions.as_ref())
}

fn above(code: Code, key: Option<&BigDecimal>, user: Option<&BigDecimal>) -> Result<(), Refusal> {
    match (key, user) {
        (Some(key), Some(user)) if !user.is_zero() && key > user => Err(Refusal::new(code)
            .with("keyLimit", amount::plain(key))
            .with("userLimit", amount::plain(user))),
        _ => Ok(()),
    }
}

/// The groups that a user is in.
fn groups(user: &User) -> BTreeSet<&str> {
    match user.groups.is_empty() {
        true => BTreeSet::from([DEFAULT_GROUP]),
        false => user.groups.iter().map(String::as_str).collect(),
    }
}

/// A user may give its keys only groups that it is in itself.
pub(super) fn may_use(user: &User, asked: &[String]) -> Result<(), Refusal> {
    let own = groups(user);
    if own.contains(ALL_GROUPS) {
        return Ok(());
    }
    match asked.iter().find(|group| !own.contains(group.as_str())) {
        None => Ok(()),
        Some(group) if group == DEFAULT_GROUP => Err(Code::NoDefaultGroupPermission.into()),
        Some(group) => Err(Refusal::new(Code::NoGroupPermission).with("group", group.as_str())),
    }
}

/// What an admin gives a key, the user has too; `None` if it already has it.
pub(super) fn widened(user: &User, asked: &[String]) -> Option<Vec<String>> {
    let own = groups(user);
    let all: BTreeSet<&str> = own.iter().copied().chain(asked.iter().map(String::as_str)).collect();
    (all.len() > own.len()).then(|| all.into_iter().map(str::to_owned).collect())
}

/// Whether `key` is the only enabled one.
pub(super) fn is_last_enabled(key: &Key, all: &[Key]) -> bool {
    key.enabled && !all.iter().any(|other| other.id != key.id && other.enabled)
}

/// A group that no other key carries.
pub(super) fn sole_group<'a>(key: &'a Key, all: &[Key]) -> Option<&'a str> {
    let elsewhere =
        |group: &String| all.iter().any(|other| other.id != key.id && other.groups.contains(group));
    key.groups.iter().find(|group| !elsewhere(group)).map(String::as_str)
}
