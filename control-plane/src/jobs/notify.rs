//! Tells people: looks whether a leaderboard or a cost alert is due, and delivers what is to be told. Every replica
//! runs it; the table of notifications makes each cause told once, by one of them. Whether a topic is switched on
//! is looked at when its message is sent.

mod cost;
mod deliver;
mod leaderboard;
#[cfg(test)]
mod tests;

use crate::config::Notify;
use crate::db::{Pool, notifications, settings};
use crate::outbound::Outbound;
use crate::rules::notification::{KEY, Stored};
use crate::tasks::Tasks;
use anyhow::Context as _;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use contract::seal::Sealer;
use std::collections::HashMap;

/// What the senders need.
#[derive(Clone, Debug)]
pub struct Notifier {
    /// Postgres.
    pub pool: Pool,
    /// Calls to the outside.
    pub outbound: Outbound,
    /// Opens webhooks.
    pub sealer: Sealer,
    /// Decides days.
    pub time_zone: Tz,
    /// Bounds.
    pub settings: Notify,
}

/// Runs until shutdown.
pub fn start(tasks: &Tasks, notifier: &Notifier) {
    let run = |notifier: Notifier| async move { notifier.run(Utc::now()).await };
    super::every(tasks, "notify", notifier.settings.poll, notifier, run);
}

impl Notifier {
    /// One look.
    pub async fn run(&self, now: DateTime<Utc>) -> anyhow::Result<()> {
        let mut conn = self.pool.read().await?;
        let owners = settings::of_all(&mut conn, KEY).await.context("read the settings")?;
        drop(conn);
        let owners: HashMap<i64, Stored> =
            owners.into_iter().map(|(owner, value)| (owner, Stored::read(Some(&value)))).collect();
        for (owner, stored) in &owners {
            leaderboard::look(self, *owner, stored, now).await.context("make the leaderboard")?;
            cost::look(self, *owner, stored, now).await.context("look at the limits")?;
        }
        deliver::all(self, now).await.context("deliver")?;
        let keep = chrono::TimeDelta::from_std(self.settings.keep).unwrap_or(chrono::TimeDelta::MAX);
        if let Some(before) = now.checked_sub_signed(keep) {
            notifications::forget_before(&mut *self.pool.write().await?, before).await.context("forget")?;
        }
        Ok(())
    }
}
