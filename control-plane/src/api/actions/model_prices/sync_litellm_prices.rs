//! LiteLLM's table, as the configured URL serves it now; if it cannot be had, the one that ships with us.

use super::merge::{Rule, Uploaded, merge_in_tx};
use super::upload_price_table::NAMES_MAX;
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::auth::Admin;
use crate::api::{Answer, Ask, Failure, State};
use crate::db::first_start::BUNDLED_PRICES;
use crate::outbound::Outbound;
use crate::rules::form::form;
use crate::rules::price::{Table, parse_table};
use actix_web::post;
use actix_web::web::Data;
use diesel_async::AsyncConnection;
use serde::Serialize;

form! {
    /// Nothing need be said.
    #[schema(example = json!({}))]
    pub struct SyncPrices {
        /// Models whose manual prices may be overwritten; all others stay.
        overwrite_manual: Option<Vec<String>> = ["overwriteManual"],
    }
}

/// What became of each entry, and whose they are.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Synced {
    #[serde(flatten)]
    uploaded: Uploaded,
    /// `remote`, or `bundled` when the configured URL did not give a table.
    source: &'static str,
    /// Why the bundled table was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Sync prices with LiteLLM (admin)
///
/// Takes the table at `PRICE_URL`. If that fails, the bundled table adds what is missing and changes nothing
/// that came from elsewhere. Manual prices stay, unless they are listed.
#[utoipa::path(tag = "model-prices", operation_id = "syncLiteLLMPrices", request_body = SyncPrices, responses(
    (status = 200, description = "What became of each entry", body = Envelope<Synced>), Failures))]
#[post("/actions/model-prices/syncLiteLLMPrices")]
pub async fn sync_litellm_prices(admin: Admin, state: Data<State>, ask: Ask<SyncPrices>) -> Reply<Synced> {
    let manual = ask.form.overwrite_manual.list(NAMES_MAX, 255)?.unwrap_or_default();
    let (table, reason) = match remote(&state.settings.outbound).await {
        Ok(table) => (table, None),
        Err(reason) => (parse_table(BUNDLED_PRICES)?, Some(reason)),
    };
    let overwrite = manual.into_iter().collect();
    let rule = match reason {
        None => Rule { source: "litellm", overwrite, only: None, pins: false },
        Some(_) => Rule { source: "bundled", overwrite, only: Some(&["bundled"]), pins: false },
    };
    let (state, caller) = (&state, &admin.0);
    let mut conn = state.pool.write().await?;
    let (uploaded, closed) = conn
        .transaction::<_, Failure, _>(async |conn| merge_in_tx(conn, caller, &table, &rule).await)
        .await?;
    let source = if reason.is_none() { "remote" } else { "bundled" };
    Ok(Answer::written(Synced { uploaded, source, reason }, closed.committed(state)))
}

/// The table, or why there is none.
pub(super) async fn remote(outbound: &Outbound) -> Result<Table, String> {
    let bytes = outbound.price_table().await.map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "the table is not UTF-8".to_owned())?;
    let table = parse_table(&text).map_err(|refusal| refusal.to_string())?;
    match table.entries.is_empty() {
        true => Err("the table has no usable entry".to_owned()),
        false => Ok(table),
    }
}
