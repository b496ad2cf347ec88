//! Price tables: one row per owner and model. The root account's rows are the default of all owners.

use super::schema::prices::{self, dsl};
use super::{Conn, Error};
use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;
use serde_json::Value;
use std::collections::HashMap;

/// Rows of one statement; each has six values, and a statement takes 65,535.
const BATCH: usize = 1000;

/// A row.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = prices, check_for_backend(Pg))]
pub struct Price {
    pub id: i64,
    pub model_name: String,
    pub data: Value,
    pub source: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A row to write.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = prices)]
pub struct New<'a> {
    pub owner_id: i64,
    pub model_name: &'a str,
    pub data: &'a Value,
    pub source: &'static str,
    pub generation: i64,
}

/// Which prices.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Part of the model's name, without regard to case.
    pub search: Option<String>,
    /// The table's `source` is one of these.
    pub sources: Option<Vec<&'static str>>,
    /// LiteLLM's `litellm_provider`.
    pub vendor: Option<String>,
}

type Query<'a> = prices::BoxedQuery<'a, Pg>;

fn filtered(owner: i64, filter: &Filter) -> Query<'static> {
    let mut query = dsl::prices.filter(dsl::owner_id.eq(owner).and(dsl::deleted_at.is_null())).into_boxed();
    if let Some(search) = &filter.search {
        query = query.filter(dsl::model_name.ilike(super::sql::contains(search)));
    }
    if let Some(sources) = &filter.sources {
        query = query.filter(dsl::source.eq_any(sources.clone()));
    }
    if let Some(vendor) = &filter.vendor {
        let column = diesel::dsl::sql::<Text>("coalesce(data->>'litellm_provider', '')");
        query = query.filter(column.eq(vendor.clone()));
    }
    query
}

/// One page by model name, and how many there are in all.
pub async fn page(
    conn: &mut Conn,
    owner: i64,
    filter: &Filter,
    offset: i64,
    limit: i64,
) -> Result<(Vec<Price>, i64), Error> {
    let total = filtered(owner, filter).count().get_result(conn).await?;
    let rows = filtered(owner, filter).order(dsl::model_name).offset(offset).limit(limit);
    Ok((rows.select(Price::as_select()).load(conn).await?, total))
}

/// Whether there is any price.
pub async fn exist(conn: &mut Conn, owner: i64) -> Result<bool, Error> {
    let any = dsl::prices.filter(dsl::owner_id.eq(owner).and(dsl::deleted_at.is_null()));
    Ok(diesel::select(diesel::dsl::exists(any)).get_result(conn).await?)
}

/// Names of models that hold a conversation; of some vendors, or of all if none is named.
pub async fn chat_models(conn: &mut Conn, owner: i64, vendors: &[&str]) -> Result<Vec<String>, Error> {
    let mode = diesel::dsl::sql::<Text>("coalesce(data->>'mode', '')");
    let vendor = diesel::dsl::sql::<Text>("coalesce(data->>'litellm_provider', '')");
    let mut query = dsl::prices
        .filter(dsl::owner_id.eq(owner).and(dsl::deleted_at.is_null()))
        .filter(mode.eq_any(["chat", "responses", "completion"]))
        .order(dsl::model_name)
        .select(dsl::model_name)
        .into_boxed();
    if !vendors.is_empty() {
        query = query.filter(vendor.eq_any(vendors.to_vec()));
    }
    Ok(query.load(conn).await?)
}

/// What is stored under some names.
pub async fn of_models(
    conn: &mut Conn,
    owner: i64,
    models: &[&str],
) -> Result<HashMap<String, Price>, Error> {
    let query = dsl::prices
        .filter(dsl::owner_id.eq(owner).and(dsl::model_name.eq_any(models)).and(dsl::deleted_at.is_null()));
    let rows: Vec<Price> = query.select(Price::as_select()).load(conn).await?;
    Ok(rows.into_iter().map(|row| (row.model_name.clone(), row)).collect())
}

/// Writes rows; one that exists, or was deleted, takes the new values.
pub async fn upsert_in_tx(conn: &mut Conn, rows: &[New<'_>]) -> Result<(), Error> {
    use diesel::upsert::excluded;
    for batch in rows.chunks(BATCH) {
        let change = (
            dsl::data.eq(excluded(dsl::data)),
            dsl::source.eq(excluded(dsl::source)),
            dsl::generation.eq(excluded(dsl::generation)),
            dsl::updated_at.eq(now),
            dsl::deleted_at.eq(None::<DateTime<Utc>>),
        );
        let insert = diesel::insert_into(prices::table).values(batch);
        insert.on_conflict((dsl::owner_id, dsl::model_name)).do_update().set(change).execute(conn).await?;
    }
    Ok(())
}
