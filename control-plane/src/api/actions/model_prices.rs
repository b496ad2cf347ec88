//! Price tables.

pub mod get_model_prices_paginated;
pub mod has_price_table;
pub mod upload_price_table;
