//! What counts towards money limits in place of a cost that is not known, by hours: written with the records, read
//! where a limit's use is asked for. Sums of costs never hold it.

use super::schema::usage_held;
use super::usage::Filter;
use super::{Conn, Error};
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Numeric, Timestamptz};
use diesel::upsert::excluded;
use diesel_async::RunQueryDsl;

/// What is held of one hour; provider 0: no provider was reached.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Insertable)]
#[diesel(table_name = usage_held)]
pub struct HeldRow {
    pub user_id: i64,
    pub hour: DateTime<Utc>,
    pub key_id: i64,
    pub provider_id: i64,
    pub owner_id: i64,
    pub held_cost: BigDecimal,
}

/// Adds to the sums. `rows` in order of their key, so that two batches never wait for each other crosswise; each key
/// once.
pub async fn add_in_tx(conn: &mut Conn, rows: &[HeldRow]) -> Result<(), Error> {
    use usage_held::*;
    // Postgres takes 65,535 parameters.
    for rows in rows.chunks(10_000) {
        diesel::insert_into(table)
            .values(rows)
            .on_conflict((user_id, hour, key_id, provider_id, owner_id))
            .do_update()
            .set(held_cost.eq(held_cost + excluded(held_cost)))
            .execute(conn)
            .await?;
    }
    Ok(())
}

#[derive(QueryableByName)]
struct Sum {
    #[diesel(sql_type = Numeric)]
    held: BigDecimal,
}

/// What is held since an instant of an owner's user, key and provider, as far as the filter names them: whole hours from
/// the sums, the broken first one from the records.
pub async fn since(conn: &mut Conn, filter: &Filter, since: DateTime<Utc>) -> Result<BigDecimal, Error> {
    let whose = "owner_id = $1 AND ($2::bigint IS NULL OR user_id = $2) AND ($3::bigint IS NULL OR key_id = $3) \
         AND ($4::bigint IS NULL OR provider_id = $4)";
    let query = format!(
        "WITH edge AS (SELECT to_timestamp(ceil(extract(epoch FROM $5::timestamptz) / 3600) * 3600) AS at) \
         SELECT coalesce(sum(held_cost), 0) AS held FROM (\
            SELECT held_cost FROM usage_held WHERE {whose} AND hour >= (SELECT at FROM edge) \
            UNION ALL SELECT held_cost FROM usage_records WHERE {whose} AND held_cost > 0 \
                AND created_at >= $5 AND created_at < (SELECT at FROM edge)) AS parts"
    );
    let query = diesel::sql_query(query)
        .bind::<BigInt, _>(filter.owner)
        .bind::<Nullable<BigInt>, _>(filter.user)
        .bind::<Nullable<BigInt>, _>(filter.key)
        .bind::<Nullable<BigInt>, _>(filter.provider)
        .bind::<Timestamptz, _>(since);
    Ok(query.get_result::<Sum>(conn).await?.held)
}
