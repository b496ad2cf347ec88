//! Upstream credentials. They are sealed before they are stored and never shown again.

pub mod add_provider;
pub mod edit_provider;
mod form;
pub mod get_provider_limit_usage;
pub mod get_providers;
pub mod get_providers_health_status;
pub mod remove_provider;
pub mod reset_provider_circuit;
mod view;
