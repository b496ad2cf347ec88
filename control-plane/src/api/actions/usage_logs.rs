//! The ledger, as a log of requests.

pub mod get_usage_logs;
mod view;

pub(in crate::api::actions) use view::LogView;
