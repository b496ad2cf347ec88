//! Whether there are prices.

use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::ask::Nothing;
use crate::api::auth::LoggedIn;
use crate::api::{Answer, Ask, State};
use crate::db::prices;
use actix_web::post;
use actix_web::web::Data;

/// Is there a price table?
#[utoipa::path(tag = "model-prices", operation_id = "hasPriceTable", request_body = Nothing, responses(
    (status = 200, description = "Whether there is any price", body = Envelope<bool>), Failures))]
#[post("/actions/model-prices/hasPriceTable")]
pub async fn has_price_table(caller: LoggedIn, state: Data<State>, _ask: Ask<Nothing>) -> Reply<bool> {
    let mut conn = state.pool.read().await?;
    Ok(Answer::read(prices::exist(&mut conn, caller.0.owner).await?))
}
