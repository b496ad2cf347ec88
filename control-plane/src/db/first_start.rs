//! What must be there before anyone can log in: account 1 with its settings, and the bundled prices.
//! Idempotent; replicas that start at the same time wait for each other.

use super::generation::{bump_in_tx, raise_counter_naming};
use super::rows::{BILLING_MODEL, ROOT};
use super::schema::{proxies, settings, users};
use super::{Conn, Error};
use chrono::Utc;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel_async::{AsyncConnection, RunQueryDsl};

/// The price table that ships with the product.
pub const BUNDLED_PRICES: &str = include_str!("../../assets/prices.json");

/// Any number: one replica at a time.
const LOCK: i64 = 0x5357_4653;

#[derive(QueryableByName)]
struct Flag {
    #[diesel(sql_type = Bool)]
    is_set: bool,
}

/// Creates what is missing; says whether anything was.
pub async fn prepare(conn: &mut Conn, prices: &str) -> Result<bool, Error> {
    conn.transaction(async |conn| {
        diesel::sql_query(format!("SELECT pg_advisory_xact_lock({LOCK})")).execute(conn).await?;
        let owner_made = root_in_tx(conn).await?;
        let prices_changed = prices_in_tx(conn, prices).await?;
        // A house without proxies begins with the newest names. Those that there were may not have come back yet.
        let proxies = proxies::table.select(proxies::proxy_id);
        if !diesel::select(diesel::dsl::exists(proxies)).get_result::<bool>(conn).await? {
            raise_counter_naming(conn, Utc::now()).await?;
        }
        Ok(owner_made || prices_changed)
    })
    .await
}

async fn root_in_tx(conn: &mut Conn) -> Result<bool, Error> {
    let root = users::table.filter(users::id.eq(ROOT));
    if diesel::select(diesel::dsl::exists(root)).get_result::<bool>(conn).await? {
        return Ok(false);
    }
    let generation = bump_in_tx(conn).await?.0;
    diesel::insert_into(users::table)
        .values((
            users::id.eq(ROOT),
            users::owner_id.eq(ROOT),
            users::dna.eq("."),
            users::role.eq("admin"),
            users::name.eq("Admin"),
            users::generation.eq(generation),
        ))
        .execute(conn)
        .await?;
    // The id was given, so the sequence must be told.
    diesel::sql_query("SELECT setval(pg_get_serial_sequence('users', 'id'), (SELECT max(id) FROM users))")
        .execute(conn)
        .await?;
    diesel::insert_into(settings::table)
        .values((
            settings::owner_id.eq(ROOT),
            settings::key.eq(BILLING_MODEL),
            settings::value.eq(serde_json::json!("original")),
            settings::generation.eq(generation),
        ))
        .on_conflict_do_nothing()
        .execute(conn)
        .await?;
    Ok(true)
}

/// New models are added, bundled prices follow the product's version; what a person or a sync wrote stays.
async fn prices_in_tx(conn: &mut Conn, prices: &str) -> Result<bool, Error> {
    let differs = "SELECT EXISTS (SELECT FROM jsonb_each($1::jsonb) AS new \
        LEFT JOIN prices AS old ON old.owner_id = $2 AND old.model_name = new.key \
        WHERE old.id IS NULL OR (old.source = 'bundled' AND old.deleted_at IS NULL \
            AND old.data IS DISTINCT FROM new.value)) AS is_set";
    let query = diesel::sql_query(differs).bind::<Text, _>(prices).bind::<BigInt, _>(ROOT);
    if !query.get_result::<Flag>(conn).await?.is_set {
        return Ok(false);
    }
    let generation = bump_in_tx(conn).await?.0;
    let upsert = "INSERT INTO prices (owner_id, model_name, data, source, generation) \
        SELECT $2, key, value, 'bundled', $3 FROM jsonb_each($1::jsonb) ORDER BY key \
        ON CONFLICT (owner_id, model_name) DO UPDATE \
        SET data = excluded.data, generation = excluded.generation, updated_at = now() \
        WHERE prices.source = 'bundled' AND prices.deleted_at IS NULL AND prices.data IS DISTINCT FROM excluded.data";
    diesel::sql_query(upsert)
        .bind::<Text, _>(prices)
        .bind::<BigInt, _>(ROOT)
        .bind::<BigInt, _>(generation)
        .execute(conn)
        .await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::generation::{self, current};
    use crate::db::schema::prices;
    use crate::db::testing;
    use contract::table::CounterNaming;

    #[tokio::test]
    async fn counters_keep_their_names_while_proxies_may_come_back() {
        let pool = testing::database().await;
        let mut conn = pool.write().await.expect("connection");
        let conn = &mut *conn;
        let naming = async |conn: &mut Conn| generation::counter_naming(conn).await.expect("naming");
        let old = naming(conn).await;
        assert_ne!(old, CounterNaming::NEWEST);
        // One of an older version, which the control plane has not seen for as long as it was away itself.
        diesel::sql_query(
            "INSERT INTO proxies (proxy_id, boot_id, version, address, generation, rejected, connected, connected_at, \
             last_seen_at, counter_naming) VALUES ('old', '', '', '', 0, '[]', false, now() - interval '1 day', \
             now() - interval '1 day', 1)",
        )
        .execute(conn)
        .await
        .expect("insert");
        prepare(conn, BUNDLED_PRICES).await.expect("start");
        assert_eq!(naming(conn).await, old);
        diesel::delete(proxies::table).execute(conn).await.expect("delete");
        prepare(conn, BUNDLED_PRICES).await.expect("start");
        assert_eq!(naming(conn).await, CounterNaming::NEWEST);
    }

    #[tokio::test]
    async fn bundled_prices_follow_the_product_and_manual_ones_stay() {
        let pool = testing::database().await;
        let mut conn = pool.write().await.expect("connection");
        let conn = &mut *conn;
        assert!(prepare(conn, BUNDLED_PRICES).await.expect("first start"));
        let before = current(conn).await.expect("generation");
        assert!(!prepare(conn, BUNDLED_PRICES).await.expect("second start"));
        assert_eq!(current(conn).await.expect("generation"), before, "nothing changed, nothing is pushed");

        let table =
            r#"{"a":{"mode":"chat","input_cost_per_token":"0.1"},"b":{"input_cost_per_token":"0.2"}}"#;
        prepare(conn, table).await.expect("new prices");
        diesel::update(prices::table.filter(prices::model_name.eq("a")))
            .set(prices::source.eq("manual"))
            .execute(conn)
            .await
            .expect("edit");
        assert!(prepare(conn, &table.replace("0.1", "0.7").replace("0.2", "0.8")).await.expect("update"));
        let read = async |conn: &mut Conn, model: &str| -> serde_json::Value {
            let row = prices::table.filter(prices::model_name.eq(model)).select(prices::data);
            row.first(conn).await.expect("price")
        };
        assert_eq!(read(conn, "a").await["input_cost_per_token"], "0.1");
        assert_eq!(read(conn, "b").await["input_cost_per_token"], "0.8");

        let next: i64 = diesel::insert_into(users::table)
            .values((
                users::owner_id.eq(1),
                users::dna.eq(".1."),
                users::name.eq("n"),
                users::generation.eq(1),
            ))
            .returning(users::id)
            .get_result(conn)
            .await
            .expect("the next user");
        assert_eq!(next, 2);
    }
}
