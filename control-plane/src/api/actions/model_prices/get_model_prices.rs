//! All prices at once.

use super::view::PriceView;
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::ask::Nothing;
use crate::api::auth::LoggedIn;
use crate::api::{Answer, Ask, State};
use crate::db::prices::{self, Filter};
use actix_web::post;
use actix_web::web::Data;

/// Most rows of an answer; more than any table has.
const MAX: i64 = 100_000;

/// List all prices
///
/// For large tables take `getModelPricesPaginated`.
#[utoipa::path(tag = "model-prices", operation_id = "getModelPrices", request_body = Nothing, responses(
    (status = 200, description = "One entry per model", body = Envelope<Vec<PriceView>>), Failures))]
#[post("/actions/model-prices/getModelPrices")]
pub async fn get_model_prices(
    caller: LoggedIn,
    state: Data<State>,
    _ask: Ask<Nothing>,
) -> Reply<Vec<PriceView>> {
    let mut conn = state.pool.read().await?;
    let (rows, _) = prices::page(&mut conn, caller.0.owner, &Filter::default(), 0, MAX).await?;
    drop(conn);
    Ok(Answer::read(rows.into_iter().map(PriceView::from).collect()))
}
