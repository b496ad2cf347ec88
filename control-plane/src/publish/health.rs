//! Transitions of provider health that proxies report: the newest per provider, of one epoch the more careful, is kept
//! until it is stored, so however much comes in, one transaction at a time goes out.

use super::Wake;
use crate::config;
use crate::db::{Error, Pool, health};
use crate::telemetry::metric;
use contract::pb;
use contract::table::Health;
use diesel_async::AsyncConnection;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Providers that can wait at once; more than anyone has, so that invented ids cost no memory.
const MAX_WAITING: usize = 10_000;

/// Where reports wait. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct HealthInbox {
    waiting: Arc<Mutex<BTreeMap<i64, Health>>>,
    came: Arc<Notify>,
}

impl HealthInbox {
    /// Takes what is well-formed and newer than what waits.
    pub fn put(&self, report: pb::HealthReport) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for wire in report.transitions {
            let id = wire.provider_id;
            let Ok(mut health) = Health::try_from(wire) else {
                metrics::counter!(metric::HEALTH_REFUSED).increment(1);
                continue;
            };
            health.reason.retain(|c| c != '\0');
            let is_known = waiting.get(&id);
            let is_newer = is_known.is_none_or(|known| known.order() < health.order());
            if is_newer && (is_known.is_some() || waiting.len() < MAX_WAITING) {
                waiting.insert(id, health);
            }
        }
        drop(waiting);
        self.came.notify_one();
    }

    fn take(&self) -> Vec<Health> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *waiting).into_values().collect()
    }

    /// Back into the inbox, unless something newer came meanwhile.
    fn put_back(&self, reports: Vec<Health>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for health in reports {
            let newer = waiting.get(&health.provider_id.0).is_some_and(|came| health.order() <= came.order());
            if !newer {
                waiting.insert(health.provider_id.0, health);
            }
        }
        self.came.notify_one();
    }

    /// Stores what comes in, until `shutdown`.
    pub async fn store(self, pool: Pool, settings: config::Publish, wake: Wake, shutdown: CancellationToken) {
        loop {
            if shutdown.run_until_cancelled(self.came.notified()).await.is_none() {
                return;
            }
            let reports = self.take();
            if reports.is_empty() {
                continue;
            }
            match write(&pool, &reports).await {
                Ok(0) => {}
                Ok(stored) => {
                    metrics::counter!(metric::HEALTH_STORED).increment(stored as u64);
                    wake.wake();
                }
                Err(error) if error.is_unavailable() => {
                    self.put_back(reports);
                    shutdown.run_until_cancelled(sleep(settings.retry_max)).await;
                }
                Err(error) => {
                    metrics::counter!(metric::HEALTH_REFUSED).increment(reports.len() as u64);
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "health reports were not stored"
                    );
                }
            }
            // The next transaction waits, so that a storm of reports is a few transactions a second.
            shutdown.run_until_cancelled(sleep(settings.health_pause)).await;
        }
    }
}

async fn write(pool: &Pool, reports: &[Health]) -> Result<usize, Error> {
    let mut conn = pool.write().await?;
    let newer = health::newer(&mut conn, reports).await?;
    if newer.is_empty() {
        return Ok(0);
    }
    conn.transaction(async |conn| health::store_in_tx(conn, &newer).await).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ids::ProviderId;
    use contract::table::CircuitState;

    #[test]
    fn of_one_epoch_the_more_careful_state_waits() {
        let health = |state, epoch| Health {
            provider_id: ProviderId(1),
            state,
            until_ms: (state == CircuitState::Open).then_some(5),
            reason: String::new(),
            failures: 0,
            epoch,
        };
        let (open, disabled) = (health(CircuitState::Open, 1), health(CircuitState::Disabled, 1));
        for order in [[&open, &disabled], [&disabled, &open]] {
            let inbox = HealthInbox::default();
            for one in order {
                inbox.put(pb::HealthReport { transitions: vec![one.into()] });
            }
            assert_eq!(inbox.take(), std::slice::from_ref(&disabled));
            inbox.put(pb::HealthReport { transitions: vec![order[0].into()] });
            inbox.put_back(vec![order[1].clone()]);
            assert_eq!(inbox.take(), std::slice::from_ref(&disabled));
        }
    }
}
