//! One subscriber's stream: what it holds, what is on its way, what it said. Ends itself at shutdown, when
//! the proxy goes away, and when the proxy stops reading.

use super::subscribers::{Held, Rejection, Seat};
use super::{Heard, Newest, Published};
use crate::config;
use crate::telemetry::metric;
use contract::pb;
use contract::pb::from_control::Message as Down;
use contract::pb::from_proxy::Message as Up;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// Rejections kept of one acknowledgement, and characters of each text.
const MAX_REJECTED: usize = 100;
const MAX_TEXT: usize = 500;

/// What a stream needs of the process.
pub(super) struct Around {
    pub(super) settings: config::Publish,
    pub(super) newest: Newest,
    pub(super) heard: Heard,
    pub(super) shutdown: CancellationToken,
}

/// A commit that the proxy has not acknowledged.
struct Outstanding {
    generation: i64,
    table_hash: [u8; 32],
    deadline: Instant,
}

/// Why a stream ended.
enum End {
    Shutdown,
    Gone,
    TooSlow,
}

pub(super) struct Session {
    around: Around,
    seat: Seat,
    proxy_id: String,
    held: Held,
    outstanding: Option<Outstanding>,
    down: mpsc::Sender<Result<pb::FromControl, Status>>,
}

impl Session {
    pub(super) fn new(
        around: Around,
        seat: Seat,
        hello: &pb::Hello,
        down: mpsc::Sender<Result<pb::FromControl, Status>>,
    ) -> Self {
        let held = Held::of(hello);
        Self { around, seat, proxy_id: hello.proxy_id.clone(), held, outstanding: None, down }
    }

    /// Serves the stream to its end.
    pub(super) async fn run(mut self, mut up: Streaming<pb::FromProxy>) {
        let why = match self.serve(&mut up).await {
            End::Shutdown => {
                let _ = self.down.try_send(Err(Status::unavailable("this replica is shutting down")));
                "shutdown"
            }
            End::Gone => "closed by the proxy",
            End::TooSlow => "the proxy does not read",
        };
        tracing::info!(proxy_id = self.proxy_id, why, "subscription ended");
    }

    async fn serve(&mut self, up: &mut Streaming<pb::FromProxy>) -> End {
        let shutdown = self.around.shutdown.clone();
        let mut newest = self.around.newest.clone();
        newest.mark_changed();
        let mut beat = interval(self.around.settings.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let deadline = self.outstanding.as_ref().map(|out| out.deadline);
            let late = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // All of these are cancel-safe; the work is in the arms.
            let sent = tokio::select! {
                () = shutdown.cancelled() => return End::Shutdown,
                message = up.message() => match message {
                    Ok(Some(message)) => {
                        self.hear(message);
                        Ok(())
                    }
                    Ok(None) | Err(_) => return End::Gone,
                },
                // Not while a commit is on its way: the proxy gets the newest once it has answered.
                changed = newest.changed(), if self.outstanding.is_none() => match changed {
                    Ok(()) => {
                        let table = newest.borrow_and_update().clone();
                        self.push(table).await
                    }
                    Err(_) => return End::Shutdown,
                },
                () = late => {
                    tracing::warn!(proxy_id = self.proxy_id, "a commit was not acknowledged in time");
                    self.outstanding = None;
                    Ok(())
                }
                _ = beat.tick() => {
                    let generation = newest.borrow().as_ref().map_or(0, |table| table.generation.0);
                    let now_ms = chrono::Utc::now().timestamp_millis();
                    self.send(Down::Heartbeat(pb::Heartbeat { generation, now_ms })).await
                }
            };
            if let Err(end) = sent {
                return end;
            }
        }
    }

    async fn push(&mut self, table: Option<Arc<Published>>) -> Result<(), End> {
        let Some(table) = table else { return Ok(()) };
        let (names, removed) = self.held.advance(&table.sections);
        let mut bytes = 0;
        for name in &names {
            let Some(section) = table.sections.get(name) else { continue };
            bytes += section.payload.len();
            let section = pb::Section {
                name: name.to_string(),
                version: section.version.to_vec().into(),
                payload: section.payload.clone(),
            };
            self.send(Down::Section(section)).await?;
        }
        metrics::counter!(metric::PUSHED_SECTIONS).increment(names.len() as u64);
        metrics::counter!(metric::PUSHED_BYTES).increment(bytes as u64);
        let generation = table.generation.0;
        let table_hash = table.table_hash;
        let commit = pb::Commit { generation, table_hash: table_hash.to_vec().into(), removed };
        self.send(Down::Commit(commit)).await?;
        let deadline = Instant::now() + self.around.settings.ack_timeout;
        self.outstanding = Some(Outstanding { generation, table_hash, deadline });
        Ok(())
    }

    async fn send(&self, message: Down) -> Result<(), End> {
        let message = Ok(pb::FromControl { message: Some(message) });
        let limit = self.around.settings.ack_timeout;
        let shutdown = self.around.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => Err(End::Shutdown),
            sent = self.down.send_timeout(message, limit) => match sent {
                Ok(()) => Ok(()),
                Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(End::Gone),
                Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(End::TooSlow),
            },
        }
    }

    fn hear(&mut self, message: pb::FromProxy) {
        match message.message {
            Some(Up::Ack(ack)) => self.acked(ack),
            Some(Up::Health(report)) => self.around.heard.health.put(report),
            Some(Up::Spoken(spoken)) => self.around.heard.live.hear(spoken),
            Some(Up::Live(live)) => self.around.heard.live.put(&self.proxy_id, &live),
            Some(Up::WithoutPrice(said)) => self.around.heard.unpriced.put(said),
            Some(Up::Reported(reported)) => self.seat.reported(reported.until_ms),
            // A second Hello and messages of a later version have no meaning here.
            Some(Up::Hello(_)) | None => {}
        }
    }

    fn acked(&mut self, ack: pb::Ack) {
        if let Some(out) = self.outstanding.take_if(|out| out.generation <= ack.generation)
            && ack.rejected.is_empty()
            && ack.table_hash.as_ref() != out.table_hash
        {
            // The proxy sees it too and subscribes anew with nothing in hand.
            metrics::counter!(metric::TABLE_MISMATCHES).increment(1);
            tracing::warn!(
                proxy_id = self.proxy_id,
                generation = ack.generation,
                "a proxy holds another table"
            );
        }
        let rejected: Vec<Rejection> = ack.rejected.into_iter().take(MAX_REJECTED).map(shortened).collect();
        if !rejected.is_empty() {
            metrics::counter!(metric::REJECTED_SECTIONS).increment(rejected.len() as u64);
            let first = &rejected[0];
            tracing::warn!(
                proxy_id = self.proxy_id,
                generation = ack.generation,
                count = rejected.len(),
                section = first.section,
                reason = first.reason,
                "a proxy refused sections"
            );
        }
        self.seat.acked(ack.generation, rejected);
    }
}

fn shortened(rejected: pb::Rejected) -> Rejection {
    let short = |text: String| text.chars().filter(|c| *c != '\0').take(MAX_TEXT).collect();
    Rejection { section: short(rejected.section), reason: short(rejected.reason) }
}
