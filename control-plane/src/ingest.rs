//! From a proxy's spool to rows and numbers: a batch is one transaction, acknowledged after its commit.
//!
//! Depends on `db::ledger` and `contract`. Never prices anything: the record says what it cost.

mod row;
mod service;
mod writer;

pub use service::Ingest;
pub use writer::{Written, write};

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
