//! One subscription, from its `Hello` to its end.

use super::holder::{Holder, Refused, Source};
use super::link::{Link, brief};
use crate::clock::{Instant, now_ms};
use crate::health::book::Transitions;
use crate::live::Live;
use crate::table::{Change, RawSection};
use contract::ids::Generation;
use contract::pb;
use contract::pb::from_control::Message as Down;
use contract::pb::from_proxy::Message as Up;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, error::Elapsed, interval, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// How often it is looked which requests are open, and after how many looks they are said again unchanged: the
/// control plane forgets what it does not hear of.
const LIVE_EVERY: Duration = Duration::from_secs(1);
const LIVE_REPEAT: u32 = 5;
/// Open requests of one report, the oldest first: the others end soon.
const LIVE_MOST: usize = 5_000;
/// Messages that may wait to be sent; acknowledgements and health only.
const OUTBOX: usize = 16;
/// Sections of one commit that may be held before it comes. Far above any real table, below any real memory.
const MAX_PENDING_BYTES: usize = 512 << 20;

/// Why a subscription ended. Each is followed by another try.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The control plane answered with an error, or could not be reached.
    #[error("{}", brief(.0))]
    Status(#[from] Status),
    /// The control plane ended it, as it does when it restarts.
    #[error("closed by the control plane")]
    Closed,
    /// Nothing was heard, not even a heartbeat.
    #[error("silent for too long")]
    Silent(#[from] Elapsed),
    /// The table does not add up; the next stream begins from nothing.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// More sections than any table has, and no commit.
    #[error("too many sections without a commit")]
    Flood,
}

/// Who this proxy is, as it says in every `Hello`.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Stable over restarts.
    pub proxy_id: String,
    /// New with every start.
    pub boot_id: String,
    /// Where callers reach it.
    pub address: String,
}

/// See the module.
pub struct Subscription<'a> {
    pub holder: &'a mut Holder,
    pub transitions: &'a Transitions,
    pub live: &'a Live,
    pub reported: &'a AtomicI64,
    /// Longest time without any message.
    pub silence: Duration,
    /// Whether to ask for everything.
    pub from_nothing: bool,
    /// Set once a change was taken into use.
    pub progressed: &'a mut bool,
}

#[derive(Default)]
struct Pending {
    sections: Vec<RawSection>,
    bytes: usize,
}

impl Subscription<'_> {
    /// Runs until something ends it; never returns otherwise. Not cancel-safe while a table is being built;
    /// dropped at shutdown only.
    pub async fn run(mut self, link: &Link, identity: &Identity) -> End {
        match self.serve(link, identity).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn serve(&mut self, link: &Link, identity: &Identity) -> Result<std::convert::Infallible, End> {
        let (outbox, outgoing) = mpsc::channel(OUTBOX);
        self.send(&outbox, Up::Hello(self.hello(identity))).await?;
        let mut client = link.discovery();
        let subscribe = client.subscribe(ReceiverStream::new(outgoing));
        let mut incoming = timeout(link.timeout(), subscribe).await??.into_inner();
        self.holder.metrics.control_connects.increment(1);
        self.holder.metrics.control_connected.set(1.0);
        self.holder.report(|status| status.connected = true);
        tracing::info!("subscribed to the control plane");
        self.transitions.repeat();
        self.exchange(&mut incoming, &outbox).await
    }

    async fn exchange(
        &mut self,
        incoming: &mut Streaming<pb::FromControl>,
        outbox: &mpsc::Sender<pb::FromProxy>,
    ) -> Result<std::convert::Infallible, End> {
        let mut pending = Pending::default();
        let mut reported_ms = 0;
        let (mut said, mut looks) = (None, interval(LIVE_EVERY));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline = Instant::now() + self.silence;
        loop {
            tokio::select! {
                heard = timeout_at(deadline, incoming.message()) => {
                    deadline = Instant::now() + self.silence;
                    let message = heard??.ok_or(End::Closed)?;
                    let heard_ms = now_ms();
                    self.holder.report(|status| status.heard_ms = heard_ms);
                    self.receive(message, &mut pending, outbox).await?;
                }
                rows = self.transitions.next() => {
                    let transitions = rows.iter().map(Into::into).collect();
                    self.send(outbox, Up::Health(pb::HealthReport { transitions })).await?;
                }
                _ = looks.tick() => {
                    for spoken in self.live.spoken() {
                        self.send(outbox, Up::Spoken(spoken.into())).await?;
                    }
                    let models = self.live.unpriced();
                    if !models.is_empty() {
                        self.send(outbox, Up::WithoutPrice(pb::WithoutPrice { models })).await?;
                    }
                    let until_ms = self.reported.load(Ordering::Relaxed);
                    if std::mem::replace(&mut reported_ms, until_ms) != until_ms {
                        self.send(outbox, Up::Reported(pb::Reported { until_ms })).await?;
                    }
                    if let Some(live) = self.news(&mut said) {
                        self.send(outbox, Up::Live(live)).await?;
                    }
                }
            }
        }
    }

    /// What is open, if that is not what was said a moment ago.
    fn news(&self, said: &mut Option<(pb::Live, u32)>) -> Option<pb::Live> {
        let open = self.live.open(LIVE_MOST).iter().map(Into::into).collect();
        let failing = self.transitions.failing().into_iter().map(|(row, failed_ms)| pb::Failing {
            provider_id: row.provider_id.0,
            failures: row.failures,
            epoch: row.epoch,
            failed_ms,
        });
        let failing = failing.collect();
        let live = pb::Live { open, failing };
        match said {
            Some((last, ago)) if *last == live && (*ago < LIVE_REPEAT || live == pb::Live::default()) => {
                *ago += 1;
                None
            }
            _ => {
                *said = Some((live.clone(), 1));
                Some(live)
            }
        }
    }

    async fn receive(
        &mut self,
        message: pb::FromControl,
        pending: &mut Pending,
        outbox: &mpsc::Sender<pb::FromProxy>,
    ) -> Result<(), End> {
        match message.message {
            Some(Down::Section(pb::Section { name, version, payload })) => {
                pending.bytes += payload.len();
                pending.sections.push(RawSection { name, version, payload });
                if pending.bytes > MAX_PENDING_BYTES { Err(End::Flood) } else { Ok(()) }
            }
            Some(Down::Commit(commit)) => {
                let change = self.change(commit, std::mem::take(pending));
                let ack = self.holder.commit(change, Source::Stream).await?;
                self.from_nothing = false;
                *self.progressed = true;
                self.send(outbox, Up::Ack(ack)).await
            }
            // A heartbeat is heard, and that is all it is for; a message of a later version is no concern.
            Some(Down::Heartbeat(_)) | None => Ok(()),
        }
    }

    fn change(&self, commit: pb::Commit, pending: Pending) -> Change {
        Change {
            generation: Generation(commit.generation),
            sections: pending.sections,
            removed: commit.removed,
            replace: self.from_nothing,
            table_hash: Some(commit.table_hash),
        }
    }

    fn hello(&self, identity: &Identity) -> pb::Hello {
        let (generation, held) =
            if self.from_nothing { (Generation(0), Vec::new()) } else { self.holder.held() };
        pb::Hello {
            proxy_id: identity.proxy_id.clone(),
            boot_id: identity.boot_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            schema: contract::TABLE_SCHEMA,
            generation: generation.0,
            held,
            address: identity.address.clone(),
            counter_naming: contract::table::CounterNaming::NEWEST.number(),
        }
    }

    /// A control plane that does not even take an acknowledgement is as good as silent.
    async fn send(&self, outbox: &mpsc::Sender<pb::FromProxy>, message: Up) -> Result<(), End> {
        let message = pb::FromProxy { message: Some(message) };
        timeout(self.silence, outbox.send(message)).await?.map_err(|_| End::Closed)
    }
}
