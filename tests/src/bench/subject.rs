//! Our proxy with all that belongs to it: control plane, Postgres, Redis, users, keys and a provider.

use super::bodies::Body;
use super::load::{self, Request};
use super::{LOAD_CORE, PROXY_CORE, machine};
use crate::client::Admin;
use crate::fleet::{ADMIN_TOKEN, Fleet};
use anyhow::{Context, Result};
use serde_json::json;
use std::net::SocketAddr;

/// Users with limits, and so keys, that the load is spread over: one key may not have more than a million
/// requests per minute.
pub const HOT_KEYS: usize = 10;
/// Keys added per user by [`Subject::grow`].
const KEYS_PER_USER: u64 = 10;

/// One fleet of one proxy.
pub struct Subject {
    fleet: Fleet,
    /// Keys that every kind of limit is checked for.
    governed: Vec<String>,
    /// A key that nothing is checked for.
    free: String,
}

impl Subject {
    /// Starts everything in front of `upstream`.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        Self::start_under(upstream, &[]).await
    }

    /// The same with the proxy run by a tool.
    pub async fn start_under(upstream: SocketAddr, tool: &[&str]) -> Result<Self> {
        // nginx writes no access log either; the spool must hold a run, since nothing is reported while a
        // slice runs (see `quiet`).
        let plan = Fleet::plan().proxies(1).proxy_env("ACCESS_LOG", "false").proxy_env("LOG_LEVEL", "warn");
        let plan = plan.proxy_env("SPOOL_MAX_BYTES", "17179869184").proxy_under(tool);
        let fleet = plan.start().await?;
        fleet.admin.provider("claude", &format!("http://{upstream}"), json!({})).await?;
        let mut governed = Vec::new();
        for at in 0..HOT_KEYS {
            governed.push(limited_key(&fleet, at).await?);
        }
        let (_, free) = fleet.admin.user(json!({"name": "without limits"})).await?;
        fleet.sync().await?;
        let subject = Self { fleet, governed, free };
        for pid in subject.pids() {
            machine::pin(pid, PROXY_CORE)?;
        }
        for pid in subject.helpers() {
            machine::pin(pid, LOAD_CORE)?;
        }
        Ok(subject)
    }

    /// Adds `count` keys straight to the database, and waits until the proxy has them.
    pub async fn grow(&self, count: u64) -> Result<()> {
        let users = count / KEYS_PER_USER;
        self.fleet.sql(&format!(
            "BEGIN;
             UPDATE generation SET value = value + 1;
             INSERT INTO users (id, owner_id, parent_id, dna, name, rpm, limit_daily_usd, generation)
             SELECT 1000000 + n, 1, 1, '.1.', 'crowd ' || n, 1000, 100, (SELECT value FROM generation)
             FROM generate_series(1, {users}) n;
             INSERT INTO keys (owner_id, user_id, name, hash, first_chars, last_chars, limit_daily_usd, generation)
             SELECT 1, 1000001 + n % {users}, 'key ' || n, sha256(('crowd' || n)::bytea), 'sk-c', 'rowd', 50,
                    (SELECT value FROM generation)
             FROM generate_series(1, {count}) n;
             COMMIT;"
        ))?;
        // Any write through the API wakes the reconciler. A new connection: the old one may have rested too long.
        let admin = Admin::new(&self.fleet.control_url(), ADMIN_TOKEN);
        admin.user(json!({"name": "after the crowd"})).await?;
        self.fleet.sync().await
    }

    /// Where callers connect.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.fleet.proxies[0].port()))
    }

    /// The proxy.
    pub fn pids(&self) -> Vec<u32> {
        self.fleet.proxies[0].process.iter().map(crate::process::Process::pid).collect()
    }

    /// Redis.
    pub fn helpers(&self) -> Vec<u32> {
        self.fleet.redis.iter().filter_map(crate::redis::Redis::pid).collect()
    }

    /// Proxy, Redis and control plane.
    pub fn all_pids(&self) -> Vec<u32> {
        let control = self.fleet.control.iter().map(crate::process::Process::pid);
        self.pids().into_iter().chain(self.helpers()).chain(control).collect()
    }

    /// Requests of `count` conversations, spread over the keys with limits.
    pub fn governed(&self, mode: &str, count: usize, body: Body) -> Vec<Request> {
        let keys = self.governed.iter().cycle().take(count).enumerate();
        keys.map(|(at, key)| conversation(mode, key, at, body)).collect()
    }

    /// The same with the key without limits.
    pub fn free(&self, mode: &str, count: usize, body: Body) -> Vec<Request> {
        (0..count).map(|at| conversation(mode, &self.free, at, body)).collect()
    }

    /// A key with limits.
    pub fn governed_key(&self) -> String {
        self.governed[0].clone()
    }

    /// The key without limits.
    pub fn free_key(&self) -> String {
        self.free.clone()
    }

    /// Stops the control plane in its tracks, so that the records wait in the spool and its work does not
    /// compete with the load; or lets it go on.
    pub fn quiet(&self, on: bool) -> Result<()> {
        let control = self.fleet.control.as_ref().context("the control plane does not run")?;
        control.signal(if on { "STOP" } else { "CONT" })
    }

    /// Records that have arrived.
    pub fn records(&self) -> Result<u64> {
        self.fleet.records("true")
    }
}

/// One request of the conversation number `at`.
pub fn conversation(mode: &str, key: &str, at: usize, body: Body) -> Request {
    let session = format!("{at:08x}-0000-4000-8000-000000000000");
    load::request(mode, key, &body(&session, mode != "json"))
}

/// A user with every limit that a user can have, and a key with every limit that a key can have.
async fn limited_key(fleet: &Fleet, at: usize) -> Result<String> {
    let user = json!({
        "name": format!("bench {at}"), "rpm": 1_000_000, "dailyQuota": 100_000, "limit5hUsd": 10_000,
        "limitWeeklyUsd": 50_000, "limitMonthlyUsd": 200_000, "limitTotalUsd": 10_000_000,
        "limitConcurrentSessions": 1000,
    });
    let (user, _) = fleet.admin.user(user).await?;
    let key = json!({
        "userId": user, "name": "bench", "limit5hUsd": 10_000, "limitDailyUsd": 10_000, "limitWeeklyUsd": 50_000,
        "limitMonthlyUsd": 200_000, "limitTotalUsd": 10_000_000, "limitConcurrentSessions": 1000,
    });
    let data = fleet.admin.action("keys/addKey", key).await?;
    data["generatedKey"].as_str().map(str::to_owned).context("the new key")
}
