//! Upstream credentials. They are sealed before they are stored and never shown again.

pub mod add_provider;
pub mod edit_provider;
mod form;
pub mod get_providers;
pub mod remove_provider;
mod view;
