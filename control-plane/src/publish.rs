//! From a commit in Postgres to every proxy: the reconciler compiles what changed, a `watch` holds the
//! newest table, each subscriber is sent what it does not have. Latest wins; nothing queues.
//!
//! Depends on `db`, `compile`, `contract`. Never knows who wrote a change or why.

mod health;
mod live;
mod reconciler;
mod service;
mod session;
mod subscribers;
mod unpriced;

pub use health::HealthInbox;
pub use live::{Keep, LiveInbox};
pub use reconciler::{Reconciler, listen};
pub use service::{Discovery, Gate, Heard};
pub use subscribers::{Fleet, ProxyState, Rejection};
pub use unpriced::UnpricedInbox;

use crate::compile::{Problem, Sections};
use contract::ids::Generation;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// The table as all proxies shall hold it.
#[derive(Debug)]
pub struct Published {
    /// The state of the configuration that it was compiled from.
    pub generation: Generation,
    /// Encoded once, shared by all subscribers.
    pub sections: Sections,
    /// Over all sections.
    pub table_hash: [u8; 32],
    /// Rows that were left out.
    pub problems: Vec<Problem>,
}

/// The newest table; `None` until the first was compiled.
pub type Newest = watch::Receiver<Option<Arc<Published>>>;

/// Tells the reconciler of this replica that something was committed. Cheap to clone; never waits.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// To be called after the commit. Several calls before the reconciler looks are one.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Returns once `wake` was called since the last time. Cancel-safe.
    pub async fn woken(&self) {
        self.0.notified().await;
    }
}

#[cfg(test)]
mod tests;
