//! Prices by page, as USD per million tokens and as LiteLLM's fields.

use super::view::{PriceView, SOURCES};
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::auth::LoggedIn;
use crate::api::{Answer, Ask, State};
use crate::db::prices::{self, Filter};
use crate::rules::Refusal;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use serde::Serialize;

/// Rows of a page, if nothing is said.
const PAGE: i64 = 50;
/// Most rows of a page.
const PAGE_MAX: i64 = 500;
form! {
    /// One page.
    #[schema(example = json!({"page": 1, "pageSize": 50, "search": "claude"}))]
    pub struct GetModelPricesPaginated {
        /// Number of the page, from 1 on.
        page: Option<i64> = ["page"] {minimum = 1, example = 1},
        /// Rows of a page.
        page_size: Option<i64> = ["pageSize", "limit"] {minimum = 1, maximum = 500, example = 50},
        /// Part of the model's name, without regard to case.
        search: Option<String> = ["search"] {max_length = 255, example = "claude"},
        /// `litellm`, `manual` or `cloud`.
        source: Option<String> = ["source"] {pattern = "^(litellm|manual|cloud)$"},
        /// The vendor, as LiteLLM calls it.
        vendor: Option<String> = ["litellmProvider", "vendor"] {max_length = 64},
    }
}

impl GetModelPricesPaginated {
    fn filter(&self) -> Result<Filter, Refusal> {
        let text = |text: Option<Option<String>>| text.flatten().filter(|text| !text.is_empty());
        let word = match text(self.source.text(16)?) {
            None => None,
            Some(_) => self.source.word(&["litellm", "manual", "cloud"])?,
        };
        let stored =
            |(shown, stored): &(&str, &[&'static str])| (Some(*shown) == word).then(|| stored.to_vec());
        Ok(Filter {
            search: text(self.search.text(255)?),
            sources: SOURCES.iter().find_map(stored),
            vendor: text(self.vendor.text(64)?),
        })
    }
}

/// A page of prices.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PricePage {
    prices: Vec<PriceView>,
    #[schema(example = 150)]
    total: i64,
    #[schema(example = 1)]
    page: i64,
    #[schema(example = 50)]
    page_size: i64,
    #[schema(example = 3)]
    total_pages: i64,
}

/// List prices by page
#[utoipa::path(tag = "model-prices", operation_id = "getModelPricesPaginated",
    request_body = GetModelPricesPaginated, responses(
    (status = 200, description = "A page of prices", body = Envelope<PricePage>), Failures))]
#[post("/actions/model-prices/getModelPricesPaginated")]
pub async fn get_model_prices_paginated(
    caller: LoggedIn,
    state: Data<State>,
    ask: Ask<GetModelPricesPaginated>,
) -> Reply<PricePage> {
    let page = ask.form.page.int(1..=1_000_000_000)?.flatten().unwrap_or(1);
    let page_size = ask.form.page_size.int(1..=PAGE_MAX)?.flatten().unwrap_or(PAGE);
    let filter = ask.form.filter()?;
    let offset = (page - 1).saturating_mul(page_size);
    let mut conn = state.pool.read().await?;
    let (rows, total) = prices::page(&mut conn, caller.0.owner, &filter, offset, page_size).await?;
    drop(conn);
    let prices = rows.into_iter().map(PriceView::from).collect();
    let total_pages = (total + page_size - 1) / page_size;
    Ok(Answer::read(PricePage { prices, total, page, page_size, total_pages }))
}
