//! The senders against a real Postgres and sockets on loopback.

use super::*;
use crate::db::schema::{notifications, providers, users};
use crate::db::{Conn, health, testing};
use crate::outbound::testing::{Mock, outbound};
use crate::rules::notification::{Channel, Topic, webhook_aad};
use chrono::TimeDelta;
use contract::ids::ProviderId;
use contract::table::{CircuitState, Health};
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl};
use serde_json::{Value, json};
use std::time::Duration;

struct Scene {
    notifier: Notifier,
    mock: Mock,
}

impl Scene {
    async fn new(status: u16) -> Self {
        let mock = Mock::start(status, "{}").await;
        let notifier = Notifier {
            pool: testing::database().await,
            outbound: outbound("http://127.0.0.1:1/"),
            sealer: Sealer::from_hex(&"0f".repeat(32)).unwrap(),
            time_zone: chrono_tz::Asia::Shanghai,
            settings: Notify {
                poll: Duration::from_secs(1),
                attempts: 2,
                backoff: Duration::from_secs(1),
                keep: Duration::from_secs(86_400),
            },
        };
        Self { notifier, mock }
    }

    async fn conn(&self) -> impl std::ops::DerefMut<Target = Conn> {
        self.notifier.pool.write().await.unwrap()
    }

    /// Switches topics on, all to the mock.
    async fn set(&self, enabled: bool, topics: &[Topic]) {
        let mut stored = Stored { enabled, ..Stored::default() };
        for topic in topics {
            let sealed =
                self.notifier.sealer.seal(self.mock.url.as_bytes(), &webhook_aad(1, *topic)).unwrap();
            let channel = Channel { enabled: true, webhook: Some(hex::encode(sealed)), ..Channel::default() };
            stored.channels.insert(*topic, channel);
        }
        let value = serde_json::to_value(stored).unwrap();
        settings::put_in_tx(&mut *self.conn().await, 1, KEY, &value, 1).await.unwrap();
    }

    async fn run(&self, now: DateTime<Utc>) {
        self.notifier.run(now).await.unwrap();
    }

    /// Makes put-off messages due at once.
    async fn hurry(&self) {
        let due = notifications::due_at.eq(Utc::now() - TimeDelta::seconds(1));
        diesel::update(notifications::table).set(due).execute(&mut *self.conn().await).await.unwrap();
    }

    async fn outcomes(&self) -> Vec<Option<String>> {
        let rows = notifications::table.order(notifications::id).select(notifications::outcome);
        rows.load(&mut *self.conn().await).await.unwrap()
    }

    async fn provider(&self) {
        diesel::insert_into(providers::table)
            .values((
                providers::id.eq(3),
                providers::owner_id.eq(1),
                providers::name.eq("glm"),
                providers::base_url.eq("https://x"),
                providers::kind.eq("claude"),
                providers::credential.eq(Vec::<u8>::new()),
                providers::credential_mask.eq(""),
                providers::generation.eq(1),
            ))
            .execute(&mut *self.conn().await)
            .await
            .unwrap();
    }

    async fn report(&self, state: CircuitState, reason: &str, epoch: i64) {
        let reason = reason.to_owned();
        let health =
            Health { provider_id: ProviderId(3), state, until_ms: Some(9_000), reason, failures: 5, epoch };
        let mut conn = self.conn().await;
        conn.transaction(async |conn| health::store_in_tx(conn, &[health]).await).await.unwrap();
    }

    fn told(&self) -> Vec<Value> {
        let body =
            |request: &String| serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
        self.mock.requests().iter().map(body).collect()
    }
}

#[tokio::test]
async fn an_opened_circuit_is_told_once_by_one_of_several_replicas() {
    let scene = Scene::new(200).await;
    scene.set(true, &[Topic::CircuitBreaker]).await;
    scene.provider().await;
    scene.report(CircuitState::Open, "rate_limited", 1).await;
    scene.run(Utc::now()).await;
    assert!(scene.told().is_empty(), "a rate limit is no news");
    scene.report(CircuitState::Open, "failures", 2).await;
    scene.report(CircuitState::HalfOpen, "failures", 3).await;
    scene.report(CircuitState::Open, "failures", 4).await;
    let now = Utc::now();
    let (a, b, c) = tokio::join!(scene.notifier.run(now), scene.notifier.run(now), scene.notifier.run(now));
    a.and(b).and(c).unwrap();
    scene.run(now).await;
    let told = scene.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (&told[0]["type"], &told[0]["data"]["providerName"]),
        (&json!("circuit-breaker"), &json!("glm"))
    );
    assert_eq!(scene.outcomes().await, [Some("delivered".to_owned())]);
}

#[tokio::test]
async fn the_switch_is_looked_at_when_it_is_sent() {
    let scene = Scene::new(200).await;
    scene.provider().await;
    scene.set(true, &[Topic::CircuitBreaker]).await;
    scene.report(CircuitState::Disabled, "credential", 1).await;
    scene.set(false, &[Topic::CircuitBreaker]).await;
    scene.run(Utc::now()).await;
    assert!(scene.told().is_empty());
    assert_eq!(scene.outcomes().await, [Some("skipped".to_owned())]);
    scene.set(true, &[Topic::CircuitBreaker]).await;
    scene.run(Utc::now()).await;
    assert!(scene.told().is_empty(), "old news is no news");
}

#[tokio::test]
async fn failed_deliveries_are_tried_again_and_then_given_up() {
    let scene = Scene::new(503).await;
    scene.provider().await;
    scene.set(true, &[Topic::CircuitBreaker]).await;
    scene.report(CircuitState::Open, "failures", 1).await;
    scene.run(Utc::now()).await;
    scene.run(Utc::now()).await;
    assert_eq!(scene.told().len(), 1, "not before its pause");
    scene.hurry().await;
    scene.run(Utc::now()).await;
    scene.hurry().await;
    scene.run(Utc::now()).await;
    assert_eq!(scene.told().len(), 2);
    assert_eq!(scene.told()[0]["id"], scene.told()[1]["id"]);
    assert_eq!(scene.outcomes().await, [Some("failed".to_owned())]);
}

async fn user(conn: &mut Conn, id: i64, name: &str, daily: Option<i32>) {
    diesel::insert_into(users::table)
        .values((
            users::id.eq(id),
            users::owner_id.eq(1),
            users::dna.eq(".1."),
            users::name.eq(name),
            users::limit_daily_usd.eq(daily.map(bigdecimal::BigDecimal::from)),
            users::generation.eq(1),
        ))
        .execute(conn)
        .await
        .unwrap();
}

/// A record and its hour.
async fn spend(conn: &mut Conn, user: i64, at: DateTime<Utc>, cost: &str) {
    let sql = "INSERT INTO usage_records (id, created_at, owner_id, user_id, key_id, proxy_id, dialect, endpoint, model, \
         streamed, outcome, status, input_tokens, output_tokens, reasoning_tokens, cache_read_tokens, \
         cache_write_5m_tokens, cache_write_1h_tokens, usage_source, cost, cost_multiplier, generation, duration_ms, \
         request_bytes, response_bytes, messages_count) \
         VALUES (gen_random_uuid(), $1, 1, $2, 7, 'p', 'anthropic', '/v1/messages', 'm', false, 'success', 200, \
         10, 5, 0, 0, 0, 0, 'reported', $3::numeric, 1, 1, 1, 1, 1, 1)";
    diesel::sql_query(sql)
        .bind::<diesel::sql_types::Timestamptz, _>(at)
        .bind::<diesel::sql_types::BigInt, _>(user)
        .bind::<diesel::sql_types::Text, _>(cost)
        .execute(conn)
        .await
        .unwrap();
    let sql = "INSERT INTO usage_hourly (hour, owner_id, user_id, key_id, provider_id, model, requests, errors, blocked, \
         unpriced, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, cost, \
         duration_ms) VALUES (date_trunc('hour', $1), 1, $2, 7, 0, 'm', 1, 0, 0, 0, 10, 5, 0, 0, 0, $3::numeric, 1) \
         ON CONFLICT (hour, owner_id, user_id, key_id, provider_id, model) \
         DO UPDATE SET cost = usage_hourly.cost + excluded.cost";
    diesel::sql_query(sql)
        .bind::<diesel::sql_types::Timestamptz, _>(at)
        .bind::<diesel::sql_types::BigInt, _>(user)
        .bind::<diesel::sql_types::Text, _>(cost)
        .execute(conn)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_leaderboard_comes_once_a_day() {
    let scene = Scene::new(200).await;
    scene.set(true, &[Topic::DailyLeaderboard]).await;
    // 09:00 in Shanghai; the day before ran from 16:00 to 16:00.
    let nine: DateTime<Utc> = "2026-03-02T01:00:00Z".parse().unwrap();
    {
        let mut conn = scene.conn().await;
        user(&mut conn, 2, "Ann", None).await;
        user(&mut conn, 3, "Bob", None).await;
        for (user, at, cost) in [
            (2, "2026-02-28T16:00:00Z", "1.25"),
            (2, "2026-03-01T15:59:59Z", "0.5"),
            (3, "2026-03-01T10:00:00Z", "3"),
            (3, "2026-03-01T16:00:00Z", "100"),
            (2, "2026-02-28T15:59:59Z", "100"),
        ] {
            spend(&mut conn, user, at.parse().unwrap(), cost).await;
        }
    }
    scene.run(nine - TimeDelta::seconds(1)).await;
    assert!(scene.told().is_empty(), "not yet");
    scene.run(nine).await;
    scene.run(nine + TimeDelta::minutes(20)).await;
    scene.run(nine + TimeDelta::hours(2)).await;
    let told = scene.told();
    assert_eq!(told.len(), 1);
    let data = &told[0]["data"];
    assert_eq!((&data["date"], &data["cost"]), (&json!("2026-03-01"), &json!("4.75")));
    let entry = |at: usize| (data["entries"][at]["userName"].clone(), data["entries"][at]["cost"].clone());
    assert_eq!(entry(0), (json!("Bob"), json!("3")));
    assert_eq!(entry(1), (json!("Ann"), json!("1.75")));
    scene.run(nine + TimeDelta::days(1)).await;
    assert_eq!(scene.told().len(), 2, "the next day has its own");
}

#[tokio::test]
async fn a_limit_is_told_of_once_per_window() {
    let scene = Scene::new(200).await;
    scene.set(true, &[Topic::CostAlert]).await;
    let noon: DateTime<Utc> = "2026-03-02T04:00:00Z".parse().unwrap();
    {
        let mut conn = scene.conn().await;
        user(&mut conn, 2, "Ann", Some(10)).await;
        user(&mut conn, 3, "Bob", None).await;
        spend(&mut conn, 2, noon, "7.999999999").await;
        spend(&mut conn, 3, noon, "1000").await;
    }
    let minutes = |count| noon + TimeDelta::minutes(count);
    scene.run(minutes(1)).await;
    assert!(scene.told().is_empty(), "just below the share");
    spend(&mut *scene.conn().await, 2, minutes(2), "0.000000001").await;
    scene.run(minutes(3)).await;
    assert!(scene.told().is_empty(), "the next look is an hour after the last");
    scene.run(minutes(62)).await;
    scene.run(minutes(124)).await;
    let told = scene.told();
    assert_eq!(told.len(), 1, "{told:?}");
    let data = &told[0]["data"];
    assert_eq!(
        (&data["scope"], &data["name"], &data["window"]),
        (&json!("user"), &json!("Ann"), &json!("daily"))
    );
    assert_eq!(
        (&data["limit"], &data["current"], &data["percent"]),
        (&json!("10"), &json!("8"), &json!("80"))
    );
    let tomorrow = noon + TimeDelta::days(1);
    spend(&mut *scene.conn().await, 2, tomorrow, "9").await;
    scene.run(tomorrow + TimeDelta::minutes(1)).await;
    assert_eq!(scene.told().len(), 2, "another day, another window");
}
