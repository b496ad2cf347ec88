//! The walk: one function shows a whole request in order, each step is a line, each step is a file.
//!
//! Uses everything below it (table, limit, health, store, upstream, spool, telemetry); nothing below knows it.

pub mod admit;
pub mod attempt;
pub mod body;
pub mod budget;
pub mod caller;
pub mod choose;
pub mod failover;
mod force;
pub mod guard;
pub mod head;
pub mod inbound;
pub mod interrupted;
pub mod leave;
pub mod meter;
pub mod models;
pub mod opening;
pub mod price;
pub mod read;
pub mod refuse;
pub mod relay;
pub mod respond;
pub mod screen;
pub mod scrub;
mod seats;
pub mod serve;
pub mod sift;
pub mod silence;
pub mod withheld;

pub use body::{Body, BodyError};

use crate::bill::LastClasses;
use crate::config::Config;
use crate::health::Book;
use crate::limit::plans::Plans;
use crate::live::Live;
use crate::spool::Spool;
use crate::store::Limiter;
use crate::table::Table;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Client;
use budget::Budget;
use bytes::Bytes;
use choose::Rotation;
use guard::Guard;
use http::Request;
use leave::Readers;
use silence::Handling;
use std::fmt::Display;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

pub use respond::{head_refused, is_stranger};

/// What all worker threads share.
pub struct Shared {
    /// Settings.
    pub config: Arc<Config>,
    /// The routing table.
    pub table: Table,
    /// Health of all providers.
    pub health: Book,
    /// Which requests are open.
    pub live: Live,
    /// Where records go.
    pub spool: Spool,
    /// Cached metric handles.
    pub metrics: Arc<Metrics>,
    /// Request bodies in memory.
    pub budget: Arc<Budget>,
    /// Addresses that guess keys.
    pub guard: Guard,
    /// Whose turn it is among equals.
    pub rotation: Rotation,
    /// How the input of each conversation's last answer was priced.
    pub last_classes: LastClasses,
}

impl Shared {
    /// A model without a price was asked for: an alarm, and the control plane looks for a price.
    #[cold]
    fn lacks_price(&self, model: &str) {
        self.metrics.lacks_price(model);
        self.live.lacks_price(model);
    }
}

/// The proxy of one worker thread.
pub struct Proxy {
    shared: Arc<Shared>,
    limiter: Limiter,
    client: Client,
    plans: Plans,
    lists: models::Lists,
    /// Who reads on where callers left.
    readers: Rc<Readers>,
}

impl Proxy {
    /// For one worker thread; `limiter` and `client` belong to its runtime.
    pub fn new(shared: Arc<Shared>, limiter: Limiter, client: Client) -> Rc<Self> {
        let readers = Rc::new(Readers::new(&shared.config));
        Rc::new(Self {
            shared,
            limiter,
            client,
            plans: Plans::default(),
            lists: models::Lists::default(),
            readers,
        })
    }

    /// Answers one request. Cancel-safe: hyper drops it when the caller hangs up, and the meter inside ends
    /// the request.
    pub fn handle<B>(self: Rc<Self>, request: Request<B>, peer: SocketAddr) -> Handling
    where
        B: http_body::Body<Data = Bytes, Error: Display> + Unpin + 'static,
    {
        Handling::new(|silence| async move { self.serve(request, peer, &silence).await })
    }
}

#[cfg(test)]
mod tests;
