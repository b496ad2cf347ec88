//! Queries: one file per table with its rows and its statements. Functions take a connection, the caller
//! owns the transaction; what runs inside a caller's transaction ends in `_in_tx`.
//!
//! Depends on diesel and `contract`. Never names an HTTP type, never publishes, never logs a value.

pub mod audit;
pub mod dead_letters;
pub mod first_start;
pub mod generation;
pub mod health;
pub mod held;
pub mod keys;
pub mod ledger;
pub mod live;
pub mod logins;
pub mod messages;
pub mod migrations;
pub mod notifications;
pub mod partitions;
pub mod pool;
pub mod prices;
pub mod providers;
pub mod proxies;
pub mod rollup;
pub mod rows;
pub mod schema;
pub mod sessions;
pub mod settings;
mod sql;
#[cfg(test)]
pub mod testing;
pub mod usage;
pub mod users;
pub mod watched;
pub mod words;

pub use pool::{Conn, Pool};

use diesel::result::{DatabaseErrorKind, Error as Diesel};

/// Why a query has no answer. The text never holds a value of a row.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres cannot be reached, or the connection broke; another try may succeed.
    #[error("the database cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// All connections stayed busy for the configured wait.
    #[error("no database connection became free in time")]
    Busy,
    /// Postgres answered with an error.
    #[error("the database refused a statement")]
    Query(#[source] Diesel),
    /// A migration did not run through.
    #[error("a migration failed")]
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A stored value has no meaning.
    #[error("{table}.{column} of row {id} has no meaning")]
    Row {
        /// Which table.
        table: &'static str,
        /// Which column.
        column: &'static str,
        /// The row's identity.
        id: i64,
    },
}

impl Error {
    /// Whether it is the state of the database and not the statement: answered 503, and worth another try.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy)
    }

    /// Whether Postgres refused the statement, so that the same one will be refused again.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Query(_))
    }

    /// Whether it was refused for a value in it, and not for the statement itself.
    pub fn is_about_data(&self) -> bool {
        use DatabaseErrorKind::{CheckViolation, ForeignKeyViolation, NotNullViolation, UniqueViolation};
        match self {
            Self::Query(Diesel::DatabaseError(
                CheckViolation | ForeignKeyViolation | NotNullViolation | UniqueViolation,
                _,
            )) => true,
            Self::Query(Diesel::DatabaseError(_, details)) => {
                DATA.iter().any(|part| details.message().contains(part))
            }
            _ => false,
        }
    }

    /// The unique or foreign-key constraint that a write broke, if that is what happened.
    pub fn broken_constraint(&self) -> Option<&str> {
        match self {
            Self::Query(Diesel::DatabaseError(
                DatabaseErrorKind::UniqueViolation | DatabaseErrorKind::ForeignKeyViolation,
                details,
            )) => Some(details.constraint_name().unwrap_or_default()),
            _ => None,
        }
    }
}

impl From<Diesel> for Error {
    fn from(error: Diesel) -> Self {
        match is_passing(&error) {
            true => Self::Unavailable(error.into()),
            false => Self::Query(error),
        }
    }
}

/// How Postgres begins to say that a statement was stopped by its limits or by a shutdown, and not by what it
/// asked. The driver does not hand on the code behind it.
const STOPPED: [&str; 4] =
    ["canceling statement due to", "terminating connection", "deadlock detected", "the database system is"];

/// How Postgres speaks of values (SQLSTATE classes 22 and 54), whose codes the driver does not hand on either.
const DATA: [&str; 6] =
    ["out of range", "overflow", "value too long", "invalid ", "unsupported Unicode", "exceeds"];

/// Whether the state of the database is the cause, so that the same statement may succeed later.
fn is_passing(error: &Diesel) -> bool {
    use DatabaseErrorKind::{ClosedConnection, SerializationFailure, UnableToSendCommand, Unknown};
    match error {
        Diesel::BrokenTransactionManager => true,
        Diesel::DatabaseError(ClosedConnection | SerializationFailure | UnableToSendCommand, _) => true,
        Diesel::DatabaseError(Unknown, details) => {
            STOPPED.iter().any(|beginning| details.message().starts_with(beginning))
        }
        _ => false,
    }
}

impl From<diesel::ConnectionError> for Error {
    fn from(error: diesel::ConnectionError) -> Self {
        Self::Unavailable(error.into())
    }
}
