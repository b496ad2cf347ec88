//! The ledger, as a log of requests.

pub mod get_usage_logs;
pub mod lists;
mod view;

pub(in crate::api::actions) use view::LogView;
