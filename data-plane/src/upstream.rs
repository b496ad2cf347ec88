//! The upstream side of an exchange: where a request goes, with which headers and credential (`request`), over
//! which connection (`client`, `pool`, `connect`), and what comes back (`body`). Knows one provider at a time;
//! never chooses, never retries at another one, never reads an answer's content.

mod body;
mod client;
mod connect;
mod failure;
mod join;
mod pool;
mod request;
mod tls;

pub use body::Body;
pub use client::{Client, Settings};
pub use failure::{Failure, FailureClass, Stage};
pub use request::request;
pub use tls::{Tls, TlsError};

#[cfg(test)]
pub(crate) mod tests;
