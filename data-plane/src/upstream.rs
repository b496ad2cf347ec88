//! The upstream side of an exchange: where a request goes, with which headers and credential (`request`), over
//! which connection (`client`, `pool`, `connect`), and what comes back (`exchange`, `head`, `framing`, `body`).
//! Knows one provider at a time; never chooses, never retries at another one, never reads an answer's content.
//!
//! HTTP/1.1 is spoken here and not by a library: the library's connection is a task of its own, and handing every
//! event of a stream from that task to ours, with its buffers, cost more than all other work on it.

mod body;
mod client;
mod connect;
mod decode;
mod exchange;
mod failure;
mod framing;
mod head;
mod join;
mod lookup;
mod names;
mod outgoing;
mod pool;
mod request;
mod tls;
mod trouble;
mod tunnel;

pub use body::{Body, Heard};
pub use client::{Client, Progress, Settings, was_sent_again};
pub use failure::{Failure, FailureClass, Local, Stage};
pub use names::Names;
pub use outgoing::Outgoing;
pub use request::request;
pub use tls::{Tls, TlsError};
pub use trouble::Trouble;

#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
pub(crate) mod tests;
