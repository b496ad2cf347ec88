use super::Ingest;
use super::testing::write;
use crate::config;
use crate::db::ledger::{rollup_mismatches, spent_by_bucket, spent_ended, spent_since};
use crate::db::schema::{sessions, usage_hourly, usage_records};
use crate::db::usage::Filter;
use crate::db::{Conn, held, testing};
use crate::tasks::Tasks;
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use contract::ids::{KeyId, ProviderId, UserId};
use contract::pb;
use contract::pb::usage_ingest_server::UsageIngest;
use contract::table::Scope;
use diesel::dsl::sum;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use prost::Message;
use std::time::Duration;
use tokio::runtime::Handle;
use tonic::Request;

const HOUR_MS: i64 = 3_600_000;
/// 2026-11-21 10:00 UTC.
const START_MS: i64 = 1_795_255_200_000;

fn record(number: u8, started_at_ms: i64, cost: &str) -> pb::UsageRecord {
    pb::UsageRecord {
        id: vec![number; 16].into(),
        proxy_id: "p1".to_owned(),
        started_at_ms,
        owner_id: 1,
        user_id: 7,
        key_id: 9,
        provider_id: Some(3),
        session_id: "s1".to_owned(),
        dialect: "anthropic".to_owned(),
        endpoint: "/v1/messages".to_owned(),
        model: "m".to_owned(),
        streamed: true,
        outcome: "completed".to_owned(),
        status: 200,
        tokens: Some(pb::TokenCounts { input: 10, output: 5, cache_read: 2, ..Default::default() }),
        usage_source: "reported".to_owned(),
        cost: Some(cost.to_owned()),
        cost_parts: [("input".to_owned(), cost.to_owned())].into(),
        cost_multiplier: "1".to_owned(),
        generation: 4,
        duration_ms: 100,
        ..Default::default()
    }
}

async fn count(conn: &mut Conn) -> i64 {
    usage_records::table.count().get_result(conn).await.expect("count")
}

#[tokio::test]
async fn a_batch_sent_twice_is_stored_and_summed_once() {
    let pool = testing::database().await;
    let mut conn = pool.write().await.expect("connection");
    let conn = &mut *conn;
    let first: Vec<_> = (1..=5).map(|n| record(n, START_MS + i64::from(n), "0.000000000000001")).collect();
    // The second batch repeats three, once even twice in itself, and brings two more of the next hour.
    let mut second: Vec<_> = first[2..].to_vec();
    second.push(first[4].clone());
    second.extend((6..=7).map(|n| record(n, START_MS + HOUR_MS + i64::from(n), "1.5")));

    let written = write(conn, first).await.expect("first");
    assert_eq!((written.inserted, written.known), (5, 0));
    let written = write(conn, second.clone()).await.expect("second");
    assert_eq!((written.inserted, written.known), (2, 4));
    let written = write(conn, second).await.expect("again");
    assert_eq!((written.inserted, written.known), (0, 6));

    assert_eq!(count(conn).await, 7);
    let sums: (Option<BigDecimal>, Option<BigDecimal>) = usage_hourly::table
        .select((sum(usage_hourly::requests), sum(usage_hourly::cost)))
        .first(conn)
        .await
        .expect("sums");
    assert_eq!(sums, ("7".parse().ok(), "3.000000000000005".parse().ok()));
    let session: (i64, i64, DateTime<Utc>, BigDecimal) = sessions::table
        .select((sessions::requests, sessions::input_tokens, sessions::last_seen_at, sessions::cost))
        .first(conn)
        .await
        .expect("session");
    assert_eq!((session.0, session.1), (7, 70));
    assert_eq!(session.2.timestamp_millis(), START_MS + HOUR_MS + 7);
    assert_eq!(session.3, "3.000000000000005".parse::<BigDecimal>().expect("decimal"));

    let at = |ms| DateTime::from_timestamp_millis(ms).expect("time");
    let until = at(START_MS + 24 * HOUR_MS);
    assert_eq!(rollup_mismatches(conn, at(START_MS), until).await.expect("check"), 0);
    diesel::update(usage_hourly::table).set(usage_hourly::requests.eq(1)).execute(conn).await.expect("spoil");
    assert_eq!(rollup_mismatches(conn, at(START_MS), until).await.expect("check"), 2);
}

#[tokio::test]
async fn what_was_spent_since_any_instant() {
    let pool = testing::database().await;
    let mut conn = pool.write().await.expect("connection");
    let conn = &mut *conn;
    // 1 USD every 20 minutes for four hours.
    let records = (0..12u8).map(|n| record(n + 1, START_MS + i64::from(n) * 1_200_000, "1")).collect();
    write(conn, records).await.expect("write");
    let at = |ms| DateTime::from_timestamp_millis(ms).expect("time");
    let cases =
        [(0, 12), (START_MS, 12), (START_MS + 1, 11), (START_MS + 1_200_000, 11), (START_MS + HOUR_MS, 9)];
    for (since, want) in cases {
        for scope in [Scope::Key(KeyId(9)), Scope::User(UserId(7)), Scope::Provider(ProviderId(3))] {
            let spent = spent_since(conn, scope, at(since), None).await.expect("sum");
            assert_eq!(spent.cost, BigDecimal::from(want), "{scope:?} since {since}");
            assert_eq!(spent.start_ms, since);
        }
    }
    // Over three midnights, from instants in all parts of a day.
    let times: Vec<i64> = (0..15).map(|n| START_MS + n * 5 * HOUR_MS).collect();
    let one = |(n, at): (u8, &i64)| contract::pb::UsageRecord {
        user_id: 8,
        key_id: 10,
        provider_id: Some(4),
        ..record(n, *at, "1")
    };
    write(conn, (100..).zip(&times).map(one).collect()).await.expect("write");
    for since in (0..60).map(|n| START_MS + n * 77 * 60_000) {
        let want = times.iter().filter(|time| **time >= since).count();
        for scope in [Scope::Key(KeyId(10)), Scope::User(UserId(8)), Scope::Provider(ProviderId(4))] {
            let spent = spent_since(conn, scope, at(since), None).await.expect("sum");
            assert_eq!(spent.cost, BigDecimal::from(want as i64), "{scope:?} since {since}");
        }
    }
    let nobody = spent_since(conn, Scope::Key(KeyId(1)), at(0), None).await.expect("sum");
    assert_eq!(nobody.cost, BigDecimal::from(0));
    let buckets = spent_by_bucket(conn, Scope::User(UserId(7)), (at(START_MS + 1), None), HOUR_MS)
        .await
        .expect("buckets");
    let buckets: Vec<_> =
        buckets.into_iter().map(|b| (b.start_ms - START_MS, b.cost.to_plain_string())).collect();
    let want: Vec<_> = [2, 3, 3, 3].iter().enumerate().map(|(at, n)| (at as i64 * HOUR_MS, n)).collect();
    assert_eq!(
        buckets.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
        want.iter().map(|(at, _)| *at).collect::<Vec<_>>()
    );
    assert_eq!(buckets.iter().map(|(_, n)| &n[..1]).collect::<String>(), "2333");
}

#[tokio::test]
async fn what_was_spent_by_requests_that_ended_in_time() {
    let pool = testing::database().await;
    let mut conn = pool.write().await.expect("connection");
    let conn = &mut *conn;
    // Began in minute 0, 20, 40 and 50, took 5, 50, 1 and 30 minutes; the last one is held.
    const MINUTE: i64 = 60_000;
    let long = |number, minute: i64, took: u32, cost| contract::pb::UsageRecord {
        duration_ms: took * 60_000,
        ..record(number, START_MS + minute * MINUTE, cost)
    };
    let held = pb::UsageRecord { cost: None, held_cost: Some("8".to_owned()), ..long(4, 50, 30, "0") };
    write(conn, vec![long(1, 0, 5, "1"), long(2, 20, 50, "2"), long(3, 40, 1, "4"), held])
        .await
        .expect("write");
    let at = |minute| DateTime::from_timestamp_millis(START_MS + minute * MINUTE).expect("time");
    // Since and until, in minutes; begun since, ended since.
    let cases = [
        (0, None, 15, 15),
        (0, Some(5), 0, 0),
        (0, Some(6), 1, 1),
        (0, Some(70), 5, 5),
        (0, Some(71), 7, 7),
        (0, Some(81), 15, 15),
        (10, Some(71), 6, 6),
        (41, Some(81), 8, 14),
        (42, None, 8, 10),
    ];
    for (since, until, begun, ended) in cases {
        for scope in [Scope::Key(KeyId(9)), Scope::User(UserId(7)), Scope::Provider(ProviderId(3))] {
            let until = until.map(at);
            let sum = spent_since(conn, scope, at(since), until).await.expect("sum");
            assert_eq!(sum.cost, BigDecimal::from(begun), "{scope:?} {since} {until:?}");
            let sum = spent_ended(conn, scope, at(since), until).await.expect("sum");
            assert_eq!(sum.cost, BigDecimal::from(ended), "{scope:?} {since} {until:?}");
            let buckets = spent_by_bucket(conn, scope, (at(since), until), HOUR_MS).await.expect("buckets");
            let sum: BigDecimal = buckets.iter().map(|bucket| &bucket.cost).sum();
            assert_eq!(sum, BigDecimal::from(begun), "{scope:?} {since} {until:?}");
        }
    }
}

#[tokio::test]
async fn what_is_held_counts_towards_limits_and_in_no_cost() {
    let pool = testing::database().await;
    let mut conn = pool.write().await.expect("connection");
    let conn = &mut *conn;
    let held = |number, at, held: &str| pb::UsageRecord {
        cost: None,
        unpriced: "no_price".to_owned(),
        held_cost: Some(held.to_owned()),
        ..record(number, at, "0")
    };
    let flagged = pb::UsageRecord {
        cost: None,
        unpriced: "other_unit".to_owned(),
        ..record(9, START_MS + 2 * HOUR_MS, "0")
    };
    // In each hour one that costs and two that are held.
    let mut records = vec![flagged];
    for n in 0..2u8 {
        let at = START_MS + i64::from(n) * HOUR_MS;
        records.extend([
            record(n * 3 + 1, at + 1_000, "1"),
            held(n * 3 + 2, at + 2_000, "0.25"),
            held(n * 3 + 3, at + 3_000, "0.000000000000001"),
        ]);
    }
    assert_eq!(write(conn, records.clone()).await.expect("write").inserted, 7);
    assert_eq!(write(conn, records).await.expect("again").inserted, 0);
    let at = |ms| DateTime::from_timestamp_millis(ms).expect("time");
    for (since, want) in [
        (0, "2.500000000000002"),
        (START_MS + 2_000, "1.500000000000002"),
        (START_MS + 2_001, "1.250000000000002"),
        (START_MS + HOUR_MS, "1.250000000000001"),
        (START_MS + HOUR_MS + 3_000, "0.000000000000001"),
        (START_MS + 2 * HOUR_MS, "0"),
    ] {
        for scope in [Scope::Key(KeyId(9)), Scope::User(UserId(7)), Scope::Provider(ProviderId(3))] {
            let spent = spent_since(conn, scope, at(since), None).await.expect("sum");
            assert_eq!(spent.cost, want.parse::<BigDecimal>().expect("decimal"), "{scope:?} since {since}");
        }
    }
    let buckets =
        spent_by_bucket(conn, Scope::User(UserId(7)), (at(START_MS), None), HOUR_MS).await.expect("buckets");
    let sums: Vec<_> = buckets.into_iter().map(|bucket| bucket.cost.normalized().to_string()).collect();
    assert_eq!(sums, ["1.250000000000001"; 2]);
    let filter = |user| Filter { owner: 1, user: Some(user), ..Filter::default() };
    for (user, want) in [(7, "0.500000000000002"), (8, "0")] {
        let sum = held::since(conn, &filter(user), at(START_MS)).await.expect("sum");
        assert_eq!(sum, want.parse::<BigDecimal>().expect("decimal"));
    }
    let (costs, unpriced): (Option<BigDecimal>, Option<BigDecimal>) = usage_hourly::table
        .select((sum(usage_hourly::cost), sum(usage_hourly::unpriced)))
        .first(conn)
        .await
        .expect("sums");
    assert_eq!((costs, unpriced), (Some(2.into()), Some(5.into())));
    assert_eq!(rollup_mismatches(conn, at(START_MS), at(START_MS + 24 * HOUR_MS)).await.expect("check"), 0);
}

#[tokio::test]
async fn an_interrupted_request_counts_as_an_error_and_never_beside_its_true_record() {
    let pool = testing::database().await;
    let mut conn = pool.write().await.expect("connection");
    let interrupted = |number: u8| pb::UsageRecord {
        outcome: "interrupted".to_owned(),
        usage_source: "estimated".to_owned(),
        status: 502,
        duration_ms: 0,
        ..record(number, START_MS, "0.5")
    };
    // The first one's true record came before the kill.
    write(&mut conn, vec![record(1, START_MS, "1")]).await.expect("write");
    let written = write(&mut conn, vec![interrupted(1), interrupted(2)]).await.expect("write");
    assert_eq!((written.inserted, written.known, written.refused.len()), (1, 1, 0));
    let outcomes: Vec<String> = usage_records::table
        .order(usage_records::cost)
        .select(usage_records::outcome)
        .load(&mut conn)
        .await
        .expect("rows");
    assert_eq!(outcomes, ["interrupted", "completed"]);
    let sums: (i64, i64, BigDecimal) = usage_hourly::table
        .select((usage_hourly::requests, usage_hourly::errors, usage_hourly::cost))
        .get_result(&mut conn)
        .await
        .expect("sums");
    assert_eq!((sums.0, sums.1, sums.2.normalized().to_string().as_str()), (2, 1, "1.5"));
}

type Spoil = fn(&mut pb::UsageRecord);

#[tokio::test]
async fn a_record_that_cannot_be_stored_is_refused_alone() {
    let pool = testing::database().await;
    let mut conn = pool.write().await.expect("connection");
    let spoilt: [(&str, Spoil); 9] = [
        ("id", |r| r.id = vec![1; 3].into()),
        ("outcome", |r| r.outcome = "nice".to_owned()),
        ("started_at_ms", |r| r.started_at_ms = i64::MAX),
        ("tokens", |r| r.tokens = Some(pb::TokenCounts { input: u64::MAX, ..Default::default() })),
        ("cost", |r| r.cost = Some("99999999999999".to_owned())),
        ("unpriced", |r| r.unpriced = "gift".to_owned()),
        ("held_cost", |r| r.held_cost = Some("-1".to_owned())),
        ("cost_multiplier", |r| r.cost_multiplier = "-1".to_owned()),
        ("status", |r| r.status = 60_000),
    ];
    let mut records = Vec::new();
    for (number, (_, spoil)) in spoilt.iter().enumerate() {
        let mut bad = record(100 + number as u8, START_MS, "1");
        spoil(&mut bad);
        records.push(bad);
    }
    // Odd, but storable: text that Postgres does not take as it is, and names longer than an index key may be.
    let mut odd = record(1, START_MS, "0");
    odd.model = "x".repeat(5_000);
    odd.error = "a\0b".to_owned();
    odd.session_id = "\u{1F600}".repeat(1_000);
    odd.attempts = vec![pb::Attempt {
        provider_name: "\0".to_owned(),
        reason: "retry_failed".to_owned(),
        selected_by: "initial_selection".to_owned(),
        ..Default::default()
    }];
    // A word that only a later proxy knows costs its line alone.
    odd.skipped = vec![skipped(1, "for no reason")];
    odd.skipped.extend((0..99).map(|number| skipped(number, "at_limit")));
    records.push(odd);
    let written = write(&mut conn, records).await.expect("write");
    assert_eq!(written.inserted, 1);
    let fields: Vec<_> = written.refused.iter().map(|r| r.reason.split(':').next().unwrap_or("")).collect();
    assert_eq!(fields, spoilt.map(|(field, _)| field));
    assert_eq!(count(&mut conn).await, 1);
    // One trail, bounded: who was not asked, then the attempts, which alone are tries.
    let trail = usage_records::table.select((usage_records::attempts, usage_records::retry_count));
    let (trail, retries): (serde_json::Value, i16) = trail.first(&mut *conn).await.expect("trail");
    assert_eq!((trail.as_array().map(Vec::len), retries), (Some(17), 0));
    assert_eq!((&trail[0]["reason"], &trail[0]["detail"]), (&"skipped".into(), &"at_limit".into()));
    assert_eq!(trail[16]["reason"], "retry_failed");
}

fn skipped(provider_id: i64, why: &str) -> pb::Skipped {
    pb::Skipped { provider_id, provider_name: "P".to_owned(), why: why.to_owned() }
}

#[tokio::test]
async fn a_record_that_postgres_refuses_is_kept_aside_and_does_not_hold_up_the_others() {
    use crate::db::schema::usage_dead_letters::dsl;
    let pool = testing::database().await;
    let mut conn = pool.write().await.expect("connection");
    let conn = &mut *conn;
    // A value that only Postgres knows to be wrong.
    let rule = "ALTER TABLE usage_records ADD CHECK (model <> 'poison')";
    diesel::sql_query(rule).execute(conn).await.expect("rule");
    let mut records: Vec<_> = (1..=20).map(|n| record(n, START_MS + i64::from(n), "1")).collect();
    for at in [3, 17] {
        records[at].model = "poison".to_owned();
    }
    records[5].outcome = "nice".to_owned();
    for (inserted, known) in [(17, 0), (0, 17)] {
        let written = write(conn, records.clone()).await.expect("write");
        assert_eq!((written.inserted, written.known, written.refused.len()), (inserted, known, 3));
    }
    assert_eq!(count(conn).await, 17);
    let letters: Vec<(Vec<u8>, String)> = dsl::usage_dead_letters
        .select((dsl::record_id, dsl::reason))
        .order(dsl::record_id)
        .load(conn)
        .await
        .expect("letters");
    let ids: Vec<u8> = letters.iter().map(|(id, _)| id[0]).collect();
    assert_eq!(ids, [4, 6, 18]);
    assert!(letters[1].1.starts_with("outcome"), "{letters:?}");

    // Where nothing at all can be stored, and no value is at fault, everything comes again.
    diesel::sql_query("ALTER TABLE usage_hourly RENAME TO gone").execute(conn).await.expect("break");
    let fresh: Vec<_> = (30..33).map(|n| record(n, START_MS, "1")).collect();
    assert!(write(conn, fresh.clone()).await.is_err());
    diesel::sql_query("ALTER TABLE gone RENAME TO usage_hourly").execute(conn).await.expect("mend");
    assert_eq!(write(conn, fresh).await.expect("write").inserted, 3);
    assert_eq!(dsl::usage_dead_letters.count().get_result::<i64>(conn).await.expect("count"), 3);
}

#[tokio::test]
async fn bytes_that_are_no_record_are_put_aside_and_hold_up_nobody() {
    use crate::db::schema::usage_dead_letters::dsl;
    use prost::Message;
    let pool = testing::database().await;
    let mut conn = pool.write().await.expect("connection");
    let conn = &mut *conn;
    let wires =
        || vec![bytes::Bytes::from_static(b"\xff\xff"), record(1, START_MS, "1").encode_to_vec().into()];
    for (inserted, known) in [(1, 0), (0, 1)] {
        let written = super::write(conn, wires()).await.expect("write");
        assert_eq!((written.inserted, written.known, written.refused.len()), (inserted, known, 1));
        assert!(written.refused[0].reason.starts_with("no usage record"), "{:?}", written.refused);
    }
    let kept: Vec<Vec<u8>> = dsl::usage_dead_letters.select(dsl::record).load(conn).await.expect("letters");
    assert_eq!(kept, [b"\xff\xff"]);
}

#[tokio::test]
async fn questions_keep_no_batch_from_being_written() {
    let pool = testing::database().await;
    let timeout = Duration::from_secs(5);
    let settings = config::Ingest { max_records: 10, concurrency: 1, spent_concurrency: 1, timeout };
    let ingest = Ingest::new(pool.clone(), settings, Tasks::new(Handle::current()));
    let mut conn = pool.write().await.expect("connection");
    for statement in ["BEGIN", "LOCK TABLE proxies"] {
        diesel::sql_query(statement).execute(&mut *conn).await.expect(statement);
    }
    let query = pb::SpentQuery { scope: pb::Scope::User.into(), id: 7, ..Default::default() };
    let ask = || ingest.spent(Request::new(pb::SpentRequest { queries: vec![query] }));
    let records = vec![record(1, START_MS, "1").encode_to_vec().into()];
    let report = ingest.report(Request::new(pb::ReportRequest { proxy_id: "p1".to_owned(), records }));
    tokio::select! {
        biased;
        _ = ask() => panic!("it cannot be answered now"),
        reply = report => assert_eq!(reply.expect("committed").into_inner().inserted, 1),
    }
    diesel::sql_query("COMMIT").execute(&mut *conn).await.expect("commit");
    // Who asked has gone, and so has the work.
    let reply = ask().await.expect("answer").into_inner();
    assert_eq!((reply.answers.len(), reply.settled), (1, true));
}
