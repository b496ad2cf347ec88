//! The ledger, as a log of requests.

pub mod get_usage_logs;
mod view;
