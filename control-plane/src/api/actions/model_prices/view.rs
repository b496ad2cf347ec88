//! How a price is shown: in USD per million tokens, and as LiteLLM's fields.

use crate::db::prices::Price;
use crate::rules::time::iso;
use crate::rules::{Exact, price};
use contract::money::{CACHE_READ_SHARE, CACHE_WRITE_SHARE};
use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// Sources as they are shown, each with what the table calls them.
pub(super) const SOURCES: &[(&str, &[&str])] =
    &[("litellm", &["bundled", "litellm", "upload"]), ("manual", &["manual"]), ("cloud", &[])];

const CACHE_WRITE: [(&str, Decimal); 2] =
    [("cache_creation_input_token_cost", Decimal::ONE), ("input_cost_per_token", CACHE_WRITE_SHARE)];
const CACHE_READ: [(&str, Decimal); 3] = [
    ("cache_read_input_token_cost", Decimal::ONE),
    ("input_cost_per_token", CACHE_READ_SHARE),
    ("output_cost_per_token", CACHE_READ_SHARE),
];

/// The prices of a model, in USD per million tokens.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PriceView {
    id: i64,
    #[schema(example = "claude-3-5-sonnet-20241022")]
    model_name: String,
    #[schema(value_type = Option<f64>, example = 3)]
    input_price: Option<Exact>,
    #[schema(value_type = Option<f64>, example = 15)]
    output_price: Option<Exact>,
    /// 1.25 times the input price where the table names none, as it is billed.
    #[schema(value_type = Option<f64>, example = 3.75)]
    cache_creation_input_price: Option<Exact>,
    /// A tenth of the input price (without one, of the output price) where the table names none, as it is billed.
    #[schema(value_type = Option<f64>, example = 0.3)]
    cache_read_input_price: Option<Exact>,
    /// LiteLLM's fields, USD per token.
    #[schema(value_type = Object)]
    price_data: Litellm,
    #[schema(example = "litellm")]
    source: &'static str,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// Prices with all their digits, as JSON numbers.
#[derive(Debug)]
pub struct Litellm(Value);

impl Serialize for Litellm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        price::shown(&self.0).serialize(serializer)
    }
}

impl From<Price> for PriceView {
    fn from(row: Price) -> Self {
        let shown = SOURCES.iter().find(|(_, stored)| stored.contains(&row.source.as_str()));
        Self {
            id: row.id,
            model_name: row.model_name,
            input_price: price::per_million(&row.data, "input_cost_per_token"),
            output_price: price::per_million(&row.data, "output_cost_per_token"),
            cache_creation_input_price: price::per_million_of(&row.data, &CACHE_WRITE),
            cache_read_input_price: price::per_million_of(&row.data, &CACHE_READ),
            source: shown.map_or("litellm", |(shown, _)| shown),
            created_at: iso(row.created_at),
            updated_at: iso(row.updated_at),
            price_data: Litellm(row.data),
        }
    }
}
