//! Takes committed changes into use: build off the traffic threads, swap one pointer, tell everybody.

use super::disk::{self, Saver, Stored};
use crate::clock::now_ms;
use crate::health::Book;
use crate::table::{Applied, Builder, Change, Mismatch, RawSection, Rejected, Table};
use crate::tasks::Tasks;
use crate::telemetry::metrics::Metrics;
use arc_swap::ArcSwap;
use bytes::Bytes;
use contract::ids::Generation;
use contract::pb;
use contract::seal::Sealer;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// Rejections that one ack names, and how long each reason may be; the rest is in the log of this proxy.
const MAX_REJECTED: usize = 100;
const MAX_REASON: usize = 300;

/// Where the table in use comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// There is none.
    Nowhere,
    /// This proxy's disk.
    Disk,
    /// The control plane.
    Stream,
}

/// How this proxy stands with the control plane, for the ops port.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Status {
    /// Where the table comes from.
    pub source: Source,
    /// Whether the stream stands.
    pub connected: bool,
    /// Unix milliseconds at which the control plane was last heard; 0: never.
    pub heard_ms: i64,
    /// Sections and rows that are refused.
    pub rejected: Vec<Rejected>,
}

impl Default for Status {
    fn default() -> Self {
        Self { source: Source::Nowhere, connected: false, heard_ms: 0, rejected: Vec::new() }
    }
}

/// A change that could not be taken into use; the next stream must begin from nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The sections do not add up.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// Building the table panicked; the log says where.
    #[error("the table could not be built")]
    Panicked,
}

/// What is held and who must hear of it.
pub struct Holder {
    pub sealer: Sealer,
    pub builder: Builder,
    pub table: Table,
    pub health: Book,
    pub metrics: Arc<Metrics>,
    pub tasks: Tasks,
    pub saver: Saver,
    pub status: Arc<ArcSwap<Status>>,
    pub ready: watch::Sender<bool>,
}

impl Holder {
    /// Starts with the newest usable table on disk, if there is one.
    pub async fn load(&mut self, dir: &Path) {
        for (path, stored) in disk::load(dir) {
            let file = path.display().to_string();
            let stored = match stored {
                Ok(stored) => stored,
                Err(error) => {
                    tracing::warn!(file, %error, "a table on disk is not usable");
                    continue;
                }
            };
            match self.commit(stored.into_change(), Source::Disk).await {
                Ok(ack) => {
                    tracing::info!(file, generation = ack.generation, "started with the last good table");
                    return;
                }
                Err(error) => tracing::warn!(file, %error, "a table on disk is not usable"),
            }
        }
    }

    /// The sections in use, for a `Hello`.
    pub fn held(&self) -> (Generation, Vec<pb::SectionVersion>) {
        let versions =
            self.builder.sections().map(|s| pb::SectionVersion { name: s.name, version: s.version });
        (self.builder.snapshot().generation, versions.collect())
    }

    /// Builds, swaps, and only then answers with the acknowledgement. Not cancel-safe: run to the end.
    pub async fn commit(&mut self, change: Change, source: Source) -> Result<pb::Ack, Refused> {
        let mut builder = std::mem::replace(&mut self.builder, Builder::new(self.sealer.clone()));
        let built = self.tasks.blocking("build-table", move || {
            let applied = builder.apply(change);
            (builder, applied)
        });
        let (builder, applied) = built.await.ok_or(Refused::Panicked)?;
        self.builder = builder;
        let applied = applied?;
        self.take(&applied, source);
        if source == Source::Stream {
            self.saver.send_replace(Some(Arc::new(self.stored(&applied))));
        }
        Ok(ack(&applied))
    }

    fn take(&self, applied: &Applied, source: Source) {
        let generation = applied.snapshot.generation;
        // Health first: a provider must not be used before it is known to be asleep.
        self.health.adopt(&applied.health, now_ms());
        self.table.store(Arc::clone(&applied.snapshot));
        self.health.follow(&applied.snapshot);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a gauge is a float; generations stay far below 2^53"
        )]
        self.metrics.table_generation.set(generation.0 as f64);
        self.metrics.table_updates.increment(1);
        self.metrics.table_from_disk.set(if source == Source::Disk { 1.0 } else { 0.0 });
        #[expect(clippy::cast_precision_loss, reason = "a count of rows")]
        self.metrics.table_rejected.set(applied.rejected.len() as f64);
        let before = self.status.load();
        let fresh: Vec<_> = applied.rejected.iter().filter(|r| !before.rejected.contains(r)).collect();
        self.metrics.sections_refused.increment(fresh.len() as u64);
        for Rejected { section, reason } in fresh {
            tracing::warn!(section, reason, generation = generation.0, "a part of the table is refused");
        }
        self.report(|status| {
            status.source = source;
            status.rejected.clone_from(&applied.rejected);
        });
        self.ready.send_replace(true);
        let counts = applied.snapshot.counts();
        tracing::debug!(generation = generation.0, ?counts, "table in use");
    }

    /// Changes what the ops port shows.
    pub fn report(&self, change: impl Fn(&mut Status)) {
        self.status.rcu(|status| {
            let mut status = Status::clone(status);
            change(&mut status);
            status
        });
    }

    fn stored(&self, applied: &Applied) -> Stored {
        let whole = |RawSection { name, version, payload }| (name, version, payload);
        Stored {
            generation: applied.snapshot.generation,
            table_hash: applied.table_hash,
            sections: self.builder.sections().map(whole).collect(),
        }
    }
}

fn ack(applied: &Applied) -> pb::Ack {
    let rejected = applied.rejected.iter().take(MAX_REJECTED).map(|rejected| pb::Rejected {
        section: rejected.section.clone(),
        reason: rejected.reason.chars().take(MAX_REASON).collect(),
    });
    pb::Ack {
        generation: applied.snapshot.generation.0,
        table_hash: Bytes::copy_from_slice(&applied.table_hash),
        rejected: rejected.collect(),
    }
}
