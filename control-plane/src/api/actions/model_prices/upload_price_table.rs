//! A price table from a file.

use super::merge::{Rule, Uploaded, merge_in_tx};
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::auth::Admin;
use crate::api::{Answer, Ask, Failure, State};
use crate::rules::form::form;
use crate::rules::price::parse_table;
use crate::rules::{Code, Field};
use actix_web::post;
use actix_web::web::Data;
use diesel_async::AsyncConnection;

/// Where these rows come from.
const SOURCE: &str = "upload";
/// Longest list of names.
pub(super) const NAMES_MAX: usize = 10_000;

form! {
    /// A price table.
    #[schema(example = json!({"jsonContent": "{\"m\":{\"mode\":\"chat\",\"input_cost_per_token\":3e-6}}"}))]
    pub struct UploadPriceTable {
        /// A map of model name to LiteLLM's fields, as JSON text: USD per token; `mode` is needed.
        json_content: String = ["jsonContent"],
        /// Models whose manual prices may be overwritten.
        overwrite_manual: Option<Vec<String>> = ["overwriteManual"],
    }
}

/// Upload a price table (admin)
///
/// Models that are not in it stay. Entries are read digit for digit.
#[utoipa::path(tag = "model-prices", operation_id = "uploadPriceTable", request_body = UploadPriceTable, responses(
    (status = 200, description = "What became of each entry", body = Envelope<Uploaded>), Failures))]
#[post("/actions/model-prices/uploadPriceTable")]
pub async fn upload_price_table(
    admin: Admin,
    state: Data<State>,
    ask: Ask<UploadPriceTable>,
) -> Reply<Uploaded> {
    let table = parse_table(&content(&ask.form.json_content)?)?;
    let manual = ask.form.overwrite_manual.list(NAMES_MAX, 255)?.unwrap_or_default();
    let rule = Rule { source: SOURCE, overwrite: manual.into_iter().collect(), only: None, pins: true };
    let (state, caller) = (&state, &admin.0);
    let mut conn = state.pool.write().await?;
    let (uploaded, closed) = conn
        .transaction::<_, Failure, _>(async |conn| merge_in_tx(conn, caller, &table, &rule).await)
        .await?;
    Ok(Answer::written(uploaded, closed.committed(state)))
}

/// The text; a table that came as JSON itself is taken as well.
fn content(field: &Field) -> Result<String, Failure> {
    match field.json() {
        None | Some(None) => Err(field.refuse(Code::Required).into()),
        Some(Some(text)) if text.starts_with('"') => {
            serde_json::from_str(text).map_err(|_| field.refuse(Code::NotText).into())
        }
        Some(Some(text)) if text.starts_with('{') => Ok(text.to_owned()),
        Some(Some(_)) => Err(field.refuse(Code::NotText).into()),
    }
}
