//! Price tables.

pub mod get_available_models_by_provider_type;
pub mod get_model_prices;
pub mod get_model_prices_paginated;
pub mod has_price_table;
pub mod keep_synced;
mod merge;
pub mod sync_litellm_prices;
pub mod upload_price_table;
mod view;
