//! The HTTP face of the control plane: logins, the actions API, the fleet. Handlers parse their form, check
//! it by `rules`, run one transaction of `db`, and answer.
//!
//! Depends on `rules`, `db`, `outbound` and the handles of `publish`. Never talks to a proxy or an upstream itself.

pub mod actions;
pub mod answer;
pub mod ask;
pub mod audit;
pub mod auth;
mod docs;
pub mod error;
pub mod fleet;
pub mod openapi;
mod rankings;
mod routes;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Done};
pub use ask::Ask;
pub use error::Failure;
pub use rankings::Rankings;
pub use routes::configure;

use crate::config::{KeyReveal, Secret};
use crate::db::Pool;
use crate::outbound::Outbound;
use crate::publish;
use chrono_tz::Tz;
use contract::seal::Sealer;
use contract::table::Unpriced;
use std::time::Duration;
use tokio::sync::Semaphore;

/// What every handler can reach. Made once, shared by all workers.
#[derive(Debug)]
pub struct State {
    /// Postgres.
    pub pool: Pool,
    /// Settings of the process.
    pub settings: Settings,
    /// Tells the reconciler of this replica that something was committed.
    pub wake: publish::Wake,
    /// Which proxy acts on what.
    pub fleet: publish::Fleet,
    /// The newest table, for the rows that it had to leave out.
    pub newest: publish::Newest,
    /// Failed logins by address.
    pub guard: auth::Guard,
    /// Turns of the requests that are handled at once.
    pub turns: Semaphore,
    /// Who has a series of his own in charts.
    pub rankings: Rankings,
}

/// The settings that handlers read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A credential of the root account.
    pub admin_token: Secret,
    /// Seals secrets at rest.
    pub sealer: Sealer,
    /// Whether a sealed copy of client keys is kept for admins.
    pub key_reveal: KeyReveal,
    /// How long a login lives.
    pub session_ttl: Duration,
    /// Decides days and times without a zone.
    pub time_zone: Tz,
    /// Largest request body, in bytes.
    pub max_body: usize,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// How many proxies in front of this process append to `X-Forwarded-For`; 0: none is believed.
    pub forwarded_hops: usize,
    /// How long a proxy that stayed away is still shown.
    pub forget: Duration,
    /// Requests handled at once.
    pub parallel: usize,
    /// How long one beyond that waits for its turn.
    pub queue: Duration,
    /// How long the answer to a change waits for the proxies.
    pub apply_wait: Duration,
    /// How long a refresh waits for the proxies.
    pub refresh_wait: Duration,
    /// How long it is remembered which users have a series of their own in charts.
    pub ranking_ttl: Duration,
    /// How long a conversation counts as active.
    pub conversation_ttl: Duration,
    /// How long what was said is shown; `None`: it is not kept.
    pub messages_ttl: Option<Duration>,
    /// Calls to the outside.
    pub outbound: Outbound,
    /// How long the health answer waits for Postgres.
    pub health_wait: Duration,
    /// What happens to requests without a price where an owner set nothing.
    pub unpriced: Unpriced,
    /// Days after which records may be gone; 0: never.
    pub retention_days: u32,
}

impl State {
    /// A state without failed logins.
    pub fn new(
        pool: Pool,
        settings: Settings,
        wake: publish::Wake,
        fleet: publish::Fleet,
        newest: publish::Newest,
    ) -> Self {
        let turns = Semaphore::new(settings.parallel);
        Self {
            pool,
            settings,
            wake,
            fleet,
            newest,
            guard: auth::Guard::default(),
            turns,
            rankings: Rankings::default(),
        }
    }
}
