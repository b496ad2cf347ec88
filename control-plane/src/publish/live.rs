//! What proxies say of their open requests: the newest of each is kept until it is written, so that every replica
//! can show the whole fleet's. And, only where it is configured, what callers say: sealed, and forgotten soon.

use crate::db::live::{Said, upsert};
use crate::db::messages::{self, New, aad};
use crate::db::{Error, Pool};
use crate::rules::messages::of_body;
use chrono::{TimeDelta, Utc};
use contract::pb;
use contract::seal::Sealer;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Pause between two transactions.
const PAUSE: Duration = Duration::from_millis(200);
/// How often what is too old is looked for.
const LOOK: Duration = Duration::from_secs(30);
/// Conversations whose last words may wait to be written.
const SPOKEN_MAX: usize = 1_000;
/// Largest message that is kept.
const MAX_BYTES: usize = 4 << 20;

/// How what callers say is kept.
#[derive(Clone, Debug)]
pub struct Keep {
    /// Seals it.
    pub sealer: Sealer,
    /// How long.
    pub ttl: Duration,
}

type Spoken = BTreeMap<(i64, String), pb::Spoken>;

/// Where they wait. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LiveInbox {
    waiting: Arc<Mutex<BTreeMap<String, Said>>>,
    spoken: Arc<Mutex<Spoken>>,
    came: Arc<Notify>,
    keep: Option<Keep>,
}

impl LiveInbox {
    /// Keeps what callers say, if it is told how.
    pub fn new(keep: Option<Keep>) -> Self {
        Self { keep, ..Self::default() }
    }

    /// Takes what was said in a conversation; dropped where nobody asked to keep it.
    pub fn hear(&self, spoken: pb::Spoken) {
        let is_text = !spoken.session_id.contains('\0') && spoken.session_id.len() <= 512;
        if self.keep.is_none() || !is_text {
            return;
        }
        let mut waiting = self.spoken.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (spoken.user_id, spoken.session_id.clone());
        if waiting.len() < SPOKEN_MAX || waiting.contains_key(&place) {
            waiting.insert(place, spoken);
        }
        drop(waiting);
        self.came.notify_one();
    }

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
        while shutdown.run_until_cancelled(timeout(LOOK, self.came.notified())).await.is_some() {
            if let Err(error) = self.write(&pool).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot write what is open");
            }
            shutdown.run_until_cancelled(sleep(PAUSE)).await;
        }
    }

    async fn write(&self, pool: &Pool) -> Result<(), Error> {
        let rows = self.take();
        if !rows.is_empty() {
            upsert(&mut *pool.write().await?, &rows).await?;
        }
        let Some(keep) = &self.keep else { return Ok(()) };
        let spoken = std::mem::take(&mut *self.spoken.lock().unwrap_or_else(PoisonError::into_inner));
        let rows: Vec<New> = spoken.into_values().filter_map(|spoken| sealed(keep, spoken)).collect();
        let mut conn = pool.write().await?;
        messages::upsert(&mut conn, &rows).await?;
        let ttl = TimeDelta::from_std(keep.ttl).unwrap_or(TimeDelta::MAX);
        if let Some(before) = Utc::now().checked_sub_signed(ttl) {
            messages::forget_before(&mut conn, before).await?;
        }
        Ok(())
    }
}

/// The turns alone: tools and instructions are the program's, not the conversation.
fn sealed(keep: &Keep, spoken: pb::Spoken) -> Option<New> {
    let turns = serde_json::to_vec(&of_body(&spoken.body)?).ok()?;
    let identity = aad(spoken.owner_id, spoken.user_id, &spoken.session_id);
    let sealed = keep.sealer.seal(&turns, &identity).ok()?;
    let (owner_id, user_id, session_id) = (spoken.owner_id, spoken.user_id, spoken.session_id);
    Some(New { owner_id, user_id, session_id, seen_at: Utc::now(), sealed })
}
