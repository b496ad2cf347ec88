//! Every change: one transaction that holds the change, its generation and its audit entry. Only a closed
//! [`Write`] yields the [`Written`] that an answer to a change needs, so none goes without.

use super::auth::Caller;
use super::{Failure, State};
use crate::db::{Conn, audit, generation};
use crate::publish::Wake;
use contract::ids::Generation;
use serde_json::Value;

/// A change that has begun.
#[must_use = "a change needs its audit entry: close it"]
#[derive(Debug)]
pub struct Write {
    /// To be stamped on every row that is written.
    pub generation: i64,
}

/// A change with its entry; it counts once the transaction is committed.
#[must_use = "proxies wait for the wake-up: answer with it"]
#[derive(Debug)]
pub struct Closed(Generation);

/// A committed change.
#[must_use = "proxies wait for the wake-up: answer with it"]
#[derive(Debug)]
pub struct Written {
    generation: Generation,
    wake: Wake,
}

impl Write {
    /// Takes the next generation. Later writers wait here for the end of this transaction, so what is read
    /// from now on stays true until the commit.
    pub async fn begin_in_tx(conn: &mut Conn) -> Result<Self, Failure> {
        Ok(Self { generation: generation::bump_in_tx(conn).await?.0 })
    }

    /// Adds the audit entry: who, which action, on what, and what is safe to say about it.
    pub async fn close_in_tx(
        self,
        conn: &mut Conn,
        caller: &Caller,
        target: (&str, Option<i64>),
        details: Value,
    ) -> Result<Closed, Failure> {
        let entry = audit::New {
            owner_id: caller.owner,
            operator_id: Some(caller.id),
            action: &caller.action,
            target_kind: target.0,
            target_id: target.1,
            details,
            client_ip: caller.client_ip.as_deref(),
            generation: Some(self.generation),
        };
        audit::insert_in_tx(conn, entry).await?;
        Ok(Closed(Generation(self.generation)))
    }
}

impl Closed {
    /// After the commit.
    pub fn committed(self, state: &State) -> Written {
        Written { generation: self.0, wake: state.wake.clone() }
    }
}

impl Written {
    /// Wakes the reconciler of this replica; the others hear Postgres.
    pub(super) fn publish(self) -> Generation {
        self.wake.wake();
        self.generation
    }
}
