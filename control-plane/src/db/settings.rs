//! An owner's value for a config key. All statements are scoped by the owner.

use super::schema::settings::{self, dsl};
use super::{Conn, Error};
use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;

/// The value, if it was ever set.
pub async fn get(conn: &mut Conn, owner: i64, key: &str) -> Result<Option<Value>, Error> {
    let query =
        dsl::settings.filter(dsl::owner_id.eq(owner).and(dsl::key.eq(key)).and(dsl::deleted_at.is_null()));
    Ok(query.select(dsl::value).first(conn).await.optional()?)
}

/// The value of every owner that has one.
pub async fn of_all(conn: &mut Conn, key: &str) -> Result<Vec<(i64, Value)>, Error> {
    let query = dsl::settings.filter(dsl::key.eq(key).and(dsl::deleted_at.is_null())).order(dsl::owner_id);
    Ok(query.select((dsl::owner_id, dsl::value)).load(conn).await?)
}

/// The values of one owner for several keys.
pub async fn of_keys(conn: &mut Conn, owner: i64, keys: &[&str]) -> Result<Vec<(String, Value)>, Error> {
    let query = dsl::settings
        .filter(dsl::owner_id.eq(owner).and(dsl::key.eq_any(keys)).and(dsl::deleted_at.is_null()))
        .order(dsl::key);
    Ok(query.select((dsl::key, dsl::value)).load(conn).await?)
}

/// Takes the value back, so that the default holds again.
pub async fn clear_in_tx(conn: &mut Conn, owner: i64, key: &str, generation: i64) -> Result<(), Error> {
    let row =
        dsl::settings.filter(dsl::owner_id.eq(owner).and(dsl::key.eq(key)).and(dsl::deleted_at.is_null()));
    let change = (dsl::generation.eq(generation), dsl::updated_at.eq(now), dsl::deleted_at.eq(now));
    diesel::update(row).set(change).execute(conn).await?;
    Ok(())
}

/// Sets the value.
pub async fn put_in_tx(
    conn: &mut Conn,
    owner: i64,
    key: &str,
    value: &Value,
    generation: i64,
) -> Result<(), Error> {
    let row =
        (dsl::owner_id.eq(owner), dsl::key.eq(key), dsl::value.eq(value), dsl::generation.eq(generation));
    let none = None::<DateTime<Utc>>;
    let change = (
        dsl::value.eq(value),
        dsl::generation.eq(generation),
        dsl::updated_at.eq(now),
        dsl::deleted_at.eq(none),
    );
    diesel::insert_into(settings::table)
        .values(row)
        .on_conflict((dsl::owner_id, dsl::key))
        .do_update()
        .set(change)
        .execute(conn)
        .await?;
    Ok(())
}
