//! A price table from a file.

use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::audit::Write;
use crate::api::auth::Admin;
use crate::api::{Answer, Ask, Failure, State};
use crate::db::prices;
use crate::rules::form::form;
use crate::rules::price::{Failed, Table, parse_table};
use crate::rules::{Code, Field};
use actix_web::post;
use actix_web::web::Data;
use diesel_async::AsyncConnection;
use serde::Serialize;
use serde_json::json;
use std::collections::{HashMap, HashSet};

/// Where these rows come from.
const SOURCE: &str = "upload";
/// Longest list of names.
const NAMES_MAX: usize = 10_000;

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

/// What became of each entry.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Uploaded {
    /// New models.
    added: Vec<String>,
    /// Models whose prices changed.
    updated: Vec<String>,
    /// Models whose prices are the same.
    unchanged: Vec<String>,
    /// Entries that cannot be used.
    failed: Vec<String>,
    /// Why, by model.
    failures: HashMap<String, String>,
    /// All entries.
    total: usize,
    /// Models with manual prices, which stay.
    skipped_conflicts: Vec<String>,
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
    let (state, caller) = (&state, &admin.0);
    let mut conn = state.pool.write().await?;
    let (uploaded, closed) = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            let models: Vec<&str> = table.entries.keys().map(String::as_str).collect();
            let known = prices::of_models(conn, caller.owner, &models).await?;
            let uploaded = compare(&table, &known, &manual.into_iter().collect());
            let row = |model: &'_ String| table.entries.get_key_value(model);
            let changed = uploaded.added.iter().chain(&uploaded.updated).filter_map(row);
            let rows: Vec<prices::New<'_>> = changed
                .map(|(model, data)| prices::New {
                    owner_id: caller.owner,
                    model_name: model,
                    data,
                    source: SOURCE,
                    generation: write.generation,
                })
                .collect();
            prices::upsert_in_tx(conn, &rows).await?;
            let details = json!({"added": uploaded.added.len(), "updated": uploaded.updated.len()});
            let closed = write.close_in_tx(conn, caller, ("price", None), details).await?;
            Ok((uploaded, closed))
        })
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

fn compare(table: &Table, known: &HashMap<String, prices::Price>, overwrite: &HashSet<String>) -> Uploaded {
    let mut uploaded = Uploaded { total: table.entries.len() + table.failed.len(), ..Uploaded::default() };
    for (model, data) in &table.entries {
        let list = match known.get(model) {
            None => &mut uploaded.added,
            Some(row) if row.source == "manual" && !overwrite.contains(model) => {
                &mut uploaded.skipped_conflicts
            }
            Some(row) if row.data == *data => &mut uploaded.unchanged,
            Some(_) => &mut uploaded.updated,
        };
        list.push(model.clone());
    }
    for Failed { model, why } in &table.failed {
        uploaded.failed.push(model.clone());
        uploaded.failures.insert(model.clone(), why.clone());
    }
    uploaded
}
