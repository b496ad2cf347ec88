//! What proxies say of their open requests: the newest of each is kept until it is written, so that every replica
//! can show the whole fleet's.

use crate::db::live::{Said, upsert};
use crate::db::{Error, Pool};
use chrono::Utc;
use contract::pb;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Pause between two transactions.
const PAUSE: Duration = Duration::from_millis(200);
/// Largest message that is kept.
const MAX_BYTES: usize = 4 << 20;

/// Where they wait. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LiveInbox {
    waiting: Arc<Mutex<BTreeMap<String, Said>>>,
    came: Arc<Notify>,
}

impl LiveInbox {
    /// Takes what a proxy says; what it said before is void.
    pub fn put(&self, proxy_id: &str, live: &pb::Live) {
        if live.encoded_len() > MAX_BYTES {
            return;
        }
        let said = Said { proxy_id: proxy_id.to_owned(), seen_at: Utc::now(), payload: live.encode_to_vec() };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(said.proxy_id.clone(), said);
        self.came.notify_one();
    }

    fn take(&self) -> Vec<Said> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *waiting).into_values().collect()
    }

    /// Writes what comes in, until `shutdown`. What cannot be written is dropped: the next comes soon.
    pub async fn store(self, pool: Pool, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(self.came.notified()).await.is_some() {
            let rows = self.take();
            if !rows.is_empty()
                && let Err(error) = write(&pool, &rows).await
            {
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot write what is open");
            }
            shutdown.run_until_cancelled(sleep(PAUSE)).await;
        }
    }
}

async fn write(pool: &Pool, rows: &[Said]) -> Result<(), Error> {
    upsert(&mut *pool.write().await?, rows).await
}
