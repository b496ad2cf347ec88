//! The LLM dialects as a gateway sees them: which endpoint, the few request fields that matter, streams,
//! usage, errors. Floor 1: depends on `contract`, serde_json and bytes; no runtime, no HTTP types, no I/O.
//!
//! Bodies pass through untouched; what is here looks at them and, where it must, splices.

pub mod dialect;
pub mod error_body;
pub mod estimate;
pub mod models;
pub mod request;
mod scan;
pub mod session;
pub mod sse;
pub mod texts;
pub mod usage;

#[cfg(test)]
mod fuzz;

pub use dialect::{EndpointKind, Route, route};
