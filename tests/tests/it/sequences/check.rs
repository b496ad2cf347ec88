//! What callers saw against the ledger, its sums and the counters.

use super::play::{Cast, Stage};
use super::steps::Sequence;
use crate::answers::{Dialect, Read};
use anyhow::{Context, Result, ensure};
use rust_decimal::Decimal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long records may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the comparison of one user's counters may take: some rounds of it.
const COUNTERS: Duration = Duration::from_secs(60);

/// What a caller saw of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saw {
    /// A whole answer, the id of its record and what its usage costs.
    Whole { id: String, cost: Decimal },
    /// The upstream's 400.
    Refused,
    /// A limit.
    Limited,
    /// Nobody could serve it.
    Exhausted,
    /// An answer that broke off, or none.
    Broken,
    /// Nobody listened.
    Nobody,
    /// The caller left.
    Left,
}

/// What came of a whole answer.
pub fn saw(answer: &Read, stream: bool) -> Result<Saw> {
    let limited = |answer: &Read| answer.text.contains("rate_limit_exceeded");
    Ok(match answer.status {
        200 if answer.broken || stream && !answer.is_whole(Dialect::Messages) => Saw::Broken,
        200 => Saw::Whole {
            id: answer.request_id.clone().context("an answer without an id")?,
            cost: cost(answer, stream)?,
        },
        _ if answer.broken => Saw::Broken,
        400 => Saw::Refused,
        402 | 429 if limited(answer) => Saw::Limited,
        503 => Saw::Exhausted,
        status => anyhow::bail!("a caller saw {status}: {}", answer.text),
    })
}

/// Three dollars for a million of input, fifteen for one of output.
fn cost(answer: &Read, stream: bool) -> Result<Decimal> {
    let count = |usage: &Value, name: &str| usage[name].as_i64().context("a count of tokens");
    let (input, output) = if stream {
        let events = answer.events();
        let start = events.iter().find(|event| event.name == "message_start").context("a start")?;
        let end = events.iter().rfind(|event| event.name == "message_delta").context("an end")?;
        (count(&start.data["message"]["usage"], "input_tokens")?, count(&end.data["usage"], "output_tokens")?)
    } else {
        let usage = &answer.json()?["usage"];
        (count(usage, "input_tokens")?, count(usage, "output_tokens")?)
    };
    Ok((Decimal::from(input) * Decimal::from(3) + Decimal::from(output) * Decimal::from(15))
        / Decimal::from(1_000_000))
}

/// A request by the session that it alone belongs to.
pub type Sights = BTreeMap<String, (usize, Saw)>;

/// One row of the ledger.
struct Row {
    session: String,
    id: String,
    key: i64,
    outcome: String,
    cost: Option<Decimal>,
}

fn text(row: &Value, name: &str) -> Result<String> {
    Ok(row[name].as_str().with_context(|| format!("{name} in {row}"))?.to_owned())
}

fn read(row: &Value) -> Result<Row> {
    let cost = row["cost_text"].as_str().map(str::parse).transpose()?;
    let key = row["key_id"].as_i64().context("key_id")?;
    Ok(Row {
        session: text(row, "session_id")?,
        id: text(row, "id")?,
        key,
        outcome: text(row, "outcome")?,
        cost,
    })
}

impl Stage {
    /// Waits until everything that was seen is in the ledger, and looks at all that is there.
    pub async fn check(&self, cast: &Cast, sights: &Sights) -> Result<BTreeMap<String, usize>> {
        let whole =
            sights.values().filter(|(_, saw)| matches!(saw, Saw::Whole { .. } | Saw::Refused)).count();
        let condition = format!("user_id IN ({}, {})", cast.users[0], cast.users[1]);
        let waited = testkit::eventually(PATIENCE, || async {
            let known = format!("{condition} AND outcome IN ('completed', 'rejected')");
            self.fleet.records(&known).is_ok_and(|count| count >= whole as u64)
        });
        let outcome = waited.await;
        // Whatever became of it, what an upstream had in full is in the ledger, and that once.
        let had = self.had();
        let due: Vec<String> =
            sights.keys().filter(|name| had.contains(*name)).map(|name| format!("'{name}'")).collect();
        let condition_of_due = format!("{condition} AND session_id IN ({})", due.join(", "));
        let sessions =
            format!("SELECT count(DISTINCT session_id) FROM usage_records WHERE {condition_of_due}");
        // A stream is read on for seconds when its caller has left.
        let all = testkit::eventually(PATIENCE, || async {
            let found = || self.fleet.sql(&sessions).ok()?.trim().parse::<usize>().ok();
            due.is_empty() || found() >= Some(due.len())
        });
        let all = all.await;
        let rows = self.fleet.rows(&condition)?.iter().map(read).collect::<Result<Vec<Row>>>()?;
        let mut records = BTreeMap::new();
        for row in &rows {
            *records.entry(row.session.clone()).or_default() += 1;
            let (key, saw) =
                sights.get(&row.session).with_context(|| format!("{} was never asked", row.session))?;
            ensure!(row.key == cast.keys[*key].0, "{} is of another key", row.session);
            fits(row, saw)?;
        }
        for (session, (_, saw)) in sights {
            let found = records.get(session).copied().unwrap_or_default();
            let right = match saw {
                Saw::Whole { .. } | Saw::Refused => found == 1,
                Saw::Limited | Saw::Nobody => found == 0,
                Saw::Exhausted | Saw::Broken | Saw::Left if had.contains(session) => found == 1,
                Saw::Exhausted | Saw::Broken | Saw::Left => found <= 1,
            };
            ensure!(right, "{session}: {found} records, and the caller saw {saw:?} ({outcome:?}, {all:?})");
        }
        for user in cast.users {
            self.check_sums(user).await?;
        }
        Ok(records)
    }

    async fn check_sums(&self, user: i64) -> Result<()> {
        let records = format!(
            "SELECT count(*) || ' ' || trim_scale(coalesce(sum(cost), 0)) FROM usage_records WHERE user_id = {user}"
        );
        let sums = format!(
            "SELECT coalesce(sum(requests), 0) || ' ' || trim_scale(coalesce(sum(cost), 0)) \
             FROM usage_hourly WHERE user_id = {user}"
        );
        // One transaction writes both, but these are two questions.
        let same = testkit::eventually(PATIENCE, || async {
            matches!((self.fleet.sql(&records), self.fleet.sql(&sums)), (Ok(one), Ok(other)) if one == other)
        });
        let outcome = same.await;
        let (records, sums) = (self.fleet.sql(&records)?, self.fleet.sql(&sums)?);
        outcome.with_context(|| format!("user {user}: records and their cost {records}, sums {sums}"))
    }

    /// What a counter of a day in Redis and the ledger know, in nano-USD. No counter: it is seeded when it is asked for.
    fn counted(&self, user: i64) -> Result<(Option<i64>, i64)> {
        let keys = self.redis.command(&["--scan", "--pattern", &format!("sw:{{o1}}:u{user}:$d*")])?;
        let counters = keys.lines().filter(|key| !key.ends_with(":l") && !key.ends_with(":a"));
        let mut counted = None;
        for key in counters {
            let spent = self.redis.command(&["HGET", key, "spent"])?;
            counted = spent.trim().parse().ok().or(counted);
        }
        let nano = format!(
            "SELECT (coalesce(sum(cost), 0) * 1000000000)::bigint FROM usage_records WHERE user_id = {user}"
        );
        Ok((counted, self.fleet.sql(&nano)?.trim().parse()?))
    }

    /// Waits until the counters of a sequence are what the ledger says. Counters that are not known are made good when they
    /// are used, so both proxies are asked meanwhile, in a way that costs nothing.
    pub async fn check_counters(&self, sequence: &Sequence, cast: &Cast) -> Result<()> {
        for (user, key) in cast.users.into_iter().zip([0, 2]) {
            let reached = testkit::eventually(COUNTERS, || async {
                let equal =
                    || matches!(self.counted(user), Ok((counted, ledger)) if counted.unwrap_or(0) == ledger);
                for proxy in 0..self.fleet.proxies.len() {
                    if !equal() {
                        let _ = self.touch(cast, key, proxy).await;
                    }
                }
                equal()
            });
            if reached.await.is_err() {
                let (counted, ledger) = self.counted(user)?;
                anyhow::bail!("user {user}: Redis counts {counted:?}, the ledger {ledger}\n{sequence}");
            }
        }
        Ok(())
    }
}

fn fits(row: &Row, saw: &Saw) -> Result<()> {
    let outcome = row.outcome.as_str();
    let right = match saw {
        Saw::Whole { id, cost } => outcome == "completed" && row.id == *id && row.cost == Some(*cost),
        Saw::Refused => outcome == "rejected",
        Saw::Exhausted => outcome == "exhausted",
        // Who did not see the end may have missed it.
        Saw::Broken => ["cut", "interrupted", "aborted", "completed"].contains(&outcome),
        Saw::Left => ["aborted", "completed", "interrupted", "cut", "exhausted"].contains(&outcome),
        Saw::Limited | Saw::Nobody => false,
    };
    ensure!(right, "{}: recorded as {outcome} at {:?}, and the caller saw {saw:?}", row.session, row.cost);
    Ok(())
}
