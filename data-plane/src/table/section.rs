//! One section, decoded: rows checked one by one, so that a broken row is left out alone.

use super::upstream::{Secret, Upstream};
use crate::clock::now_ms;
use crate::map::Map;
use bytes::Bytes;
use contract::convert::Invalid;
use contract::ids::ProviderId;
use contract::pb;
use contract::private;
use contract::seal::Sealer;
use contract::table::{Health, Key, Limit, ModelPrice, OwnerConfig, Provider, User, Word, credential_aad};
use prost::Message;
use std::collections::HashSet;
use std::sync::Arc;

/// The rows of one section that passed, and what was wrong with the others.
pub struct Part {
    pub version: Bytes,
    pub payload: Bytes,
    pub keys: Vec<Arc<Key>>,
    pub users: Vec<Arc<User>>,
    pub upstreams: Vec<Arc<Upstream>>,
    pub prices: Vec<ModelPrice>,
    pub owners: Vec<OwnerConfig>,
    pub words: Vec<Word>,
    pub health: Vec<Health>,
    pub problems: Vec<Invalid>,
}

/// Opens credentials; a provider that did not change keeps what was opened and compiled before.
pub struct Opener<'a> {
    pub sealer: &'a Sealer,
    pub known: &'a Map<ProviderId, Arc<Upstream>>,
}

impl Opener<'_> {
    fn open(&self, mut row: Provider) -> Result<Arc<Upstream>, Invalid> {
        if let Some(known) = self.known.get(&row.id) {
            came_back(Some(&known.row.limits), &mut row.limits);
            if private::is_same(&known.row, &row) {
                return Ok(Arc::clone(known));
            }
        }
        let refuse = |why: String| Invalid::new("credential", why);
        let clear = self
            .sealer
            .open(&row.credential, &credential_aad(row.id))
            .map_err(|error| refuse(error.to_string()))?;
        let clear = String::from_utf8(clear).map_err(|_| refuse("not text".to_owned()))?;
        private::open(&mut row, self.sealer).map_err(|error| Invalid::new("private", error.to_string()))?;
        Upstream::new(row, Secret::new(clear)).map(Arc::new)
    }
}

/// Decodes a section. `Err` if it is no section at all. `old` is what it takes the place of.
pub fn decode(
    version: Bytes,
    payload: Bytes,
    opener: &Opener<'_>,
    old: Option<&Part>,
) -> Result<Part, String> {
    let rows = pb::Rows::decode(payload.clone()).map_err(|error| error.to_string())?;
    let mut problems = Vec::new();
    let providers: Vec<Provider> = checked("providers", rows.providers, |row| row.id, &mut problems);
    let mut upstreams = Vec::with_capacity(providers.len());
    for row in providers {
        let name = format!("providers[id {}]", row.id);
        match opener.open(row) {
            Ok(upstream) => {
                problems.extend(upstream.problems().iter().map(|problem| problem.clone().within(&name)));
                upstreams.push(upstream);
            }
            Err(problem) => problems.push(problem.within(&name)),
        }
    }
    let mut keys: Vec<Key> = checked("keys", rows.keys, |row| row.id, &mut problems);
    let mut users: Vec<User> = checked("users", rows.users, |row| row.id, &mut problems);
    if let Some(old) = old {
        let known: Map<_, _> = old.keys.iter().map(|row| (row.id, &row.limits)).collect();
        keys.iter_mut().for_each(|row| came_back(known.get(&row.id).copied(), &mut row.limits));
        let known: Map<_, _> = old.users.iter().map(|row| (row.id, &row.limits)).collect();
        users.iter_mut().for_each(|row| came_back(known.get(&row.id).copied(), &mut row.limits));
    }
    Ok(Part {
        version,
        payload,
        keys: shared(keys),
        users: shared(users),
        upstreams,
        prices: prices(rows.prices, old, &mut problems),
        owners: checked("owners", rows.owners, |row| row.owner_id, &mut problems),
        words: checked("words", rows.words, |row| row.id, &mut problems),
        health: checked("health", rows.health, |row| row.provider_id, &mut problems),
        problems,
    })
}

/// Marks limits that the row did not have before: while there was none, nobody counted.
fn came_back(old: Option<&Vec<Limit>>, new: &mut [Limit]) {
    let Some(old) = old else { return };
    for limit in new {
        let same = old.iter().find(|one| one.measure == limit.measure && one.window == limit.window);
        limit.absent_until_ms = same.map_or_else(|| Some(now_ms()), |one| one.absent_until_ms);
    }
}

/// A price that is broken leaves the one before in force: without any its model would be served for nothing.
fn prices(rows: Vec<pb::Price>, old: Option<&Part>, problems: &mut Vec<Invalid>) -> Vec<ModelPrice> {
    let models: Vec<String> = rows.iter().map(|row| row.model.clone()).collect();
    let mut passed: Vec<ModelPrice> = checked("prices", rows, |row| row.model.clone(), problems);
    if passed.len() < models.len()
        && let Some(old) = old
    {
        let good: HashSet<&str> = passed.iter().map(|row| row.model.as_str()).collect();
        let broken: HashSet<&str> =
            models.iter().map(String::as_str).filter(|model| !good.contains(model)).collect();
        let kept = old.prices.iter().filter(|row| broken.contains(row.model.as_str()));
        let kept: Vec<ModelPrice> = kept.cloned().collect();
        passed.extend(kept);
    }
    passed
}

fn checked<W, D, I>(name: &str, rows: Vec<W>, id: impl Fn(&W) -> I, problems: &mut Vec<Invalid>) -> Vec<D>
where
    D: TryFrom<W, Error = Invalid>,
    I: std::fmt::Display,
{
    let mut passed = Vec::with_capacity(rows.len());
    for row in rows {
        let id = id(&row);
        match D::try_from(row) {
            Ok(row) => passed.push(row),
            Err(problem) => problems.push(problem.within(format_args!("{name}[id {id}]"))),
        }
    }
    passed
}

fn shared<T>(rows: Vec<T>) -> Vec<Arc<T>> {
    rows.into_iter().map(Arc::new).collect()
}
