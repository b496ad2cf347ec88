//! Exact numbers: the log, charts, the overview and limits, against the records themselves.

use super::*;
use crate::db::rollup;
use crate::db::usage::{Filter, Part, Place, counted, page};
use bigdecimal::BigDecimal;
use chrono::{DateTime, TimeDelta, Utc};
use contract::pb;
use diesel_async::RunQueryDsl;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

const ENDPOINTS: [&str; 3] = ["/v1/messages", "/v1/chat/completions", "/v1/messages/count_tokens"];
const STATUSES: [u32; 4] = [200, 200, 429, 503];

/// A record of one of a few users, models, providers, ...
fn record(rng: &mut StdRng, at: DateTime<Utc>) -> pb::UsageRecord {
    let user = rng.random_range(2..5);
    let attempt = pb::Attempt {
        reason: "request_success".to_owned(),
        selected_by: "initial_selection".to_owned(),
        ..Default::default()
    };
    let blocked = rng.random_bool(0.1);
    pb::UsageRecord {
        id: uuid::Uuid::now_v7().as_bytes().to_vec().into(),
        proxy_id: "p".to_owned(),
        started_at_ms: at.timestamp_millis(),
        owner_id: 1,
        user_id: user,
        key_id: user * 10 + rng.random_range(0..2),
        provider_id: rng.random_bool(0.9).then(|| rng.random_range(1..4)),
        session_id: format!("s{}", rng.random_range(0..9)),
        dialect: "anthropic".to_owned(),
        endpoint: ENDPOINTS[rng.random_range(0..3)].to_owned(),
        model: format!("m{}", rng.random_range(0..3)),
        upstream_model: format!("m{}", rng.random_range(0..4)),
        outcome: if blocked { "blocked" } else { "completed" }.to_owned(),
        blocked_by: if blocked { "sensitive_word" } else { "" }.to_owned(),
        status: STATUSES[rng.random_range(0..4)],
        tokens: Some(pb::TokenCounts { input: rng.random_range(0..99), output: 3, ..Default::default() }),
        usage_source: "reported".to_owned(),
        cost: rng.random_bool(0.9).then(|| format!("0.{:015}", rng.random_range(0..10_u64.pow(15)))),
        cost_multiplier: "1".to_owned(),
        duration_ms: rng.random_range(0..1000),
        attempts: vec![attempt; rng.random_range(1..4)],
        ..Default::default()
    }
}

async fn write(api: &Api, records: Vec<pb::UsageRecord>) {
    for records in records.chunks(100) {
        let mut conn = api.state.pool.write().await.unwrap();
        let count = records.len();
        let written = crate::ingest::testing::write(&mut conn, records.to_vec()).await.unwrap();
        assert_eq!(written.inserted, count);
    }
}

#[derive(Debug, PartialEq, diesel::QueryableByName)]
struct Truth {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    requests: i64,
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    failed: i64,
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    input: i64,
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    duration: i64,
    #[diesel(sql_type = diesel::sql_types::Numeric)]
    cost: BigDecimal,
}

#[derive(diesel::QueryableByName)]
struct Id {
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    id: uuid::Uuid,
}

/// The same filter in other words, over the records.
fn conditions(filter: &Filter) -> String {
    let mut all = vec!["owner_id = 1".to_owned()];
    let mut add = |text: Option<String>| all.extend(text);
    add(filter.user.map(|id| format!("user_id = {id}")));
    add(filter.key.map(|id| format!("key_id = {id}")));
    add(filter.provider.map(|id| format!("provider_id = {id}")));
    add(filter.model.as_ref().map(|name| format!("'{name}' IN (model, coalesce(upstream_model, ''))")));
    add(Some(match &filter.endpoint {
        Some(endpoint) => format!("endpoint = '{endpoint}'"),
        None => "endpoint <> '/v1/messages/count_tokens'".to_owned(),
    }));
    add(filter.status.map(|status| format!("status = {status}")));
    add(filter.exclude_200.then(|| "NOT (status = 200)".to_owned()));
    add(filter.min_retries.map(|count| format!("jsonb_array_length(attempts) - 1 >= {count}")));
    add(filter.session.as_ref().map(|id| format!("session_id = '{id}'")));
    add(filter.exclude_blocked.then(|| "outcome <> 'blocked'".to_owned()));
    add(filter.from.map(|at| format!("created_at >= '{}'", at.to_rfc3339())));
    add(filter.until.map(|at| format!("created_at < '{}'", at.to_rfc3339())));
    all.join(" AND ")
}

fn filter(rng: &mut StdRng, times: (DateTime<Utc>, DateTime<Utc>), zone: chrono_tz::Tz) -> Filter {
    let time = |rng: &mut StdRng| {
        let seconds = (times.1 - times.0).num_seconds();
        let at = times.0 + TimeDelta::seconds(rng.random_range(-5000..seconds + 5000));
        match rng.random_range(0..4) {
            0 => None,
            1 => Some(rollup::day_of(at, zone)),
            _ => Some(at),
        }
    };
    let (from, until) = (time(rng), time(rng));
    let (from, until) = match from.zip(until) {
        Some((a, b)) if rng.random_bool(0.9) => (Some(a.min(b)), Some(a.max(b))),
        _ => (from, until),
    };
    let user = rng.random_bool(0.3).then(|| rng.random_range(2..6));
    Filter {
        owner: 1,
        user,
        key: rng.random_bool(0.2).then(|| user.unwrap_or(3) * 10),
        provider: rng.random_bool(0.2).then(|| rng.random_range(1..5)),
        model: rng.random_bool(0.3).then(|| format!("m{}", rng.random_range(0..5))),
        endpoint: rng.random_bool(0.3).then(|| ENDPOINTS[rng.random_range(0..3)].to_owned()),
        status: rng.random_bool(0.2).then_some(429),
        exclude_200: rng.random_bool(0.2),
        min_retries: rng.random_bool(0.2).then(|| rng.random_range(0..3)),
        session: rng.random_bool(0.1).then(|| "s3".to_owned()),
        exclude_blocked: rng.random_bool(0.2),
        with_quiet: false,
        from,
        until,
    }
}

/// Sums and pages of one filter against the records.
async fn compare(api: &Api, filter: &Filter, offset: i64) {
    let mut conn = api.state.pool.read().await.unwrap();
    let (zone, conditions) = (api.state.settings.time_zone, conditions(filter));
    let truth = format!(
        "SELECT count(*) AS requests, count(*) FILTER (WHERE status >= 400) AS failed, \
         coalesce(sum(input_tokens), 0)::bigint AS input, coalesce(sum(duration_ms), 0)::bigint AS duration, \
         coalesce(sum(cost), 0) AS cost FROM usage_records WHERE {conditions}"
    );
    let truth: Truth = diesel::sql_query(truth).get_result(&mut conn).await.unwrap();
    let counted = counted(&mut conn, filter, zone).await.unwrap();
    let sums = counted.sums.clone();
    let sums = Truth {
        requests: sums.requests,
        failed: sums.failed,
        input: sums.input_tokens,
        duration: sums.duration_ms,
        cost: sums.cost,
    };
    assert_eq!(sums, truth, "{filter:?}");
    let truth = format!(
        "SELECT id FROM usage_records WHERE {conditions} ORDER BY created_at DESC, id DESC OFFSET {offset} LIMIT 10"
    );
    let truth: Vec<Id> = diesel::sql_query(truth).load(&mut conn).await.unwrap();
    let truth: Vec<uuid::Uuid> = truth.iter().map(|row| row.id).collect();
    let mut after = None;
    for skipped in [0, 3] {
        let part = Part { after, offset: if after.is_some() { 0 } else { offset }, limit: 7 };
        let records = page(&mut conn, filter, &counted, zone, part).await.unwrap();
        let ids: Vec<uuid::Uuid> = records.iter().map(|record| record.id).collect();
        let want: Vec<_> = truth.iter().copied().skip(skipped).take(7).collect();
        assert_eq!(ids, want, "{filter:?} from {offset}, after {after:?}");
        let Some(third) = records.get(2) else { return };
        after = Some(Place { created_at: third.created_at, id: third.id });
    }
}

#[actix_web::test]
async fn sums_and_pages_are_those_of_the_records_in_every_zone() {
    let zones = [chrono_tz::Europe::Berlin, chrono_tz::Asia::Kolkata, chrono_tz::UTC];
    for (seed, zone) in (1..).zip(zones) {
        let api = Api::in_zone(zone).await;
        let mut rng = StdRng::seed_from_u64(seed);
        // Five days with a change of the clocks in Berlin.
        let first: DateTime<Utc> = "2026-10-22T20:00:00Z".parse().unwrap();
        let last = first + TimeDelta::days(5);
        let at = |rng: &mut StdRng| {
            first + TimeDelta::milliseconds(rng.random_range(0..(last - first).num_milliseconds()))
        };
        let records = (0..1500)
            .map(|_| {
                let at = at(&mut rng);
                record(&mut rng, at)
            })
            .collect();
        write(&api, records).await;
        for _ in 0..60 {
            let filter = filter(&mut rng, (first, last), zone);
            let offset = if rng.random_bool(0.5) { 0 } else { rng.random_range(0..1600) };
            compare(&api, &filter, offset).await;
        }
        // What was counted in another zone is counted again.
        let mut conn = api.state.pool.write().await.unwrap();
        assert_eq!(
            rollup::mismatches(&mut conn, first - TimeDelta::days(9), last + TimeDelta::days(9))
                .await
                .unwrap(),
            0
        );
        let other = chrono_tz::America::New_York;
        assert!(rollup::follow_zone(&mut conn, other).await.unwrap());
        assert!(!rollup::follow_zone(&mut conn, other).await.unwrap());
        assert!(rollup::follow_zone(&mut conn, zone).await.unwrap());
        drop(conn);
        for _ in 0..20 {
            let filter = filter(&mut rng, (first, last), zone);
            compare(&api, &filter, 600).await;
        }
    }
}

/// The sum of a chart, and of each of its points.
fn charted(data: &Value) -> (BigDecimal, i64) {
    let mut sums = (BigDecimal::default(), 0);
    for point in data["chartData"].as_array().unwrap() {
        for (name, value) in point.as_object().unwrap() {
            if name.ends_with("_cost") {
                sums.0 += value.as_str().unwrap().parse::<BigDecimal>().unwrap();
            } else if name.ends_with("_calls") {
                sums.1 += value.as_i64().unwrap();
            }
        }
    }
    sums
}

fn exact(value: &Value) -> BigDecimal {
    value.to_string().trim_matches('"').parse().unwrap()
}

#[actix_web::test]
async fn case_35_dashboards_agree_to_the_last_digit_while_records_come_in() {
    for zone in [chrono_tz::Asia::Shanghai, chrono_tz::Asia::Kathmandu] {
        let api = Api::in_zone(zone).await;
        for name in ["A", "B", "C"] {
            api.data("users/addUser", &json!({"name": name}).to_string()).await;
        }
        let today = rollup::day_of(Utc::now(), zone);
        let into = (Utc::now() - today).num_milliseconds().max(1);
        let batch = |seed: u64| -> Vec<pb::UsageRecord> {
            let mut rng = StdRng::seed_from_u64(seed);
            let one = |_| {
                let at = today + TimeDelta::milliseconds(rng.random_range(0..into));
                pb::UsageRecord {
                    endpoint: "/v1/messages".to_owned(),
                    outcome: "completed".to_owned(),
                    blocked_by: String::new(),
                    cost: Some(format!("0.{:015}", rng.random_range(1..10_u64.pow(15)))),
                    ..record(&mut rng, at)
                }
            };
            (0..100).map(one).collect()
        };
        let writing = futures_util::future::join_all((1..=4).map(|seed| write(&api, batch(seed))));
        let asking = async {
            // Whatever moment it is: the rows of a log are those that were counted.
            for _ in 0..5 {
                let data = api.data("usage-logs/getUsageLogs", r#"{"limit":200}"#).await;
                let shown = data["logs"].as_array().unwrap().len() as i64;
                assert_eq!(data["total"].as_i64().unwrap().min(200), shown);
            }
        };
        futures_util::future::join(writing, asking).await;

        let answer = api.act("usage-logs/getUsageLogs", r#"{"limit":1}"#).await;
        let raw = answer.text.split("\"totalCost\":").nth(1).unwrap().split(',').next().unwrap();
        let total: BigDecimal = raw.parse().unwrap();
        let mut pages = BigDecimal::default();
        for page in 1..=2 {
            let body = json!({"limit": 200, "page": page}).to_string();
            let data = api.data("usage-logs/getUsageLogs", &body).await;
            let costs = data["logs"].as_array().unwrap().iter().map(|log| exact(&log["costUsd"]));
            pages += costs.sum::<BigDecimal>();
        }
        assert_eq!(pages, total);
        for range in ["today", "hour", "7days", "week", "30days", "thisMonth"] {
            let body = json!({"timeRange": range}).to_string();
            let data = api.data("statistics/getUserStatistics", &body).await;
            assert_eq!(charted(&data), (total.clone(), 400), "{range}");
        }
        let overview = api.act("overview/getOverviewData", "").await;
        let raw = overview.text.split("\"todayCost\":").nth(1).unwrap().split(',').next().unwrap();
        assert_eq!(raw.parse::<BigDecimal>().unwrap(), total);
        assert_eq!(overview.body["data"]["todayRequests"], 400);

        // One user: its limits, its log and its charts.
        let body = json!({"userId": 3, "limit": 1}).to_string();
        let log = api.act("usage-logs/getUsageLogs", &body).await;
        let raw = log.text.split("\"totalCost\":").nth(1).unwrap().split(',').next().unwrap();
        let usage = api.act("users/getUserLimitUsage", r#"{"userId":3}"#).await;
        assert!(usage.text.contains(&format!("\"dailyCost\":{{\"current\":{raw},")), "{raw} {}", usage.text);
        let keys = api.data("statistics/getUserStatistics", r#"{"userId":3,"timeRange":"30days"}"#).await;
        assert_eq!((charted(&keys).0, &keys["mode"]), (raw.parse().unwrap(), &json!("keys")));
    }
}

#[actix_web::test]
async fn charts_and_the_overview_show_empty_buckets_and_own_data_only() {
    let api = Api::in_zone(chrono_tz::Asia::Shanghai).await;
    let a = api.data("users/addUser", r#"{"name":"A","rpm":60,"dailyQuota":10}"#).await;
    let b = api.data("users/addUser", r#"{"name":"B"}"#).await;
    let alice = api.by(a["defaultKey"]["key"].as_str().unwrap());
    let now = Utc::now();
    let mut rng = StdRng::seed_from_u64(7);
    let mut of = |user: &Value, cost: &str| pb::UsageRecord {
        user_id: user["id"].as_i64().unwrap(),
        key_id: user["defaultKey"]["id"].as_i64().unwrap(),
        provider_id: Some(1),
        endpoint: "/v1/messages".to_owned(),
        outcome: "completed".to_owned(),
        blocked_by: String::new(),
        status: 200,
        session_id: "s".to_owned(),
        model: "m1".to_owned(),
        upstream_model: String::new(),
        duration_ms: 100,
        cost: Some(cost.to_owned()),
        ..record(&mut rng, now)
    };
    let failed = pb::UsageRecord { status: 503, cost: None, ..of(&b, "0") };
    let quiet = pb::UsageRecord { endpoint: ENDPOINTS[2].to_owned(), ..of(&b, "0") };
    let blocked =
        pb::UsageRecord { blocked_by: "word".to_owned(), outcome: "blocked".to_owned(), ..of(&b, "0") };
    let records = vec![of(&a, "0.1"), of(&a, "0.2"), of(&b, "0.5"), failed, quiet, blocked];
    write(&api, records).await;

    let week = api.data("statistics/getUserStatistics", r#"{"timeRange":"7days"}"#).await;
    assert_eq!(week["chartData"].as_array().unwrap().len(), 7);
    assert_eq!((&week["resolution"], &week["mode"]), (&json!("day"), &json!("users")));
    let key = |user: &Value| format!("user-{}", user["id"]);
    assert_eq!(week["users"][0], json!({"id": b["id"], "name": "B", "dataKey": key(&b)}));
    let (first, last) = (&week["chartData"][0], &week["chartData"][6]);
    assert_eq!(first[format!("{}_cost", key(&a))], "0");
    assert_eq!(last[format!("{}_cost", key(&a))], "0.3");
    assert_eq!(last[format!("{}_calls", key(&b))], 2, "blocked and quiet requests are no calls");
    let users = api.data("users/getUsers", "").await;
    let calls = |user: &Value| {
        let found = users.as_array().unwrap().iter().find(|shown| shown["id"] == user["id"]).unwrap();
        found["keys"][0]["todayCallCount"].clone()
    };
    assert_eq!((calls(&a), calls(&b)), (json!(2), json!(2)), "nor are they for keys");
    let today = api.data("statistics/getUserStatistics", "").await;
    assert_eq!((today["chartData"].as_array().unwrap().len(), &today["resolution"]), (24, &json!("hour")));

    let own = alice.data("statistics/getUserStatistics", &json!({"userId": b["id"]}).to_string()).await;
    assert_eq!((&own["mode"], own["users"].as_array().unwrap().len()), (&json!("keys"), 1));
    assert_eq!(charted(&own), ("0.3".parse().unwrap(), 2));
    let all = api.data("overview/getOverviewData", "").await;
    for (field, want) in [
        ("concurrentSessions", json!(2)),
        ("todayRequests", json!(4)),
        ("todayCost", json!(0.8)),
        ("avgResponseTime", json!(100)),
        ("todayErrorRate", json!(25)),
        ("yesterdaySamePeriodRequests", json!(0)),
        ("recentMinuteRequests", json!(4)),
    ] {
        assert_eq!(all[field], want, "{field}");
    }
    let own = alice.data("overview/getOverviewData", "").await;
    assert_eq!((&own["todayRequests"], &own["concurrentSessions"]), (&json!(2), &json!(0)));
    assert_eq!(own["todayCost"], json!(0.3));

    assert_eq!(api.data("usage-logs/getModelList", "").await, json!(["m1"]));
    assert_eq!(api.data("usage-logs/getStatusCodeList", "").await, json!([200, 503]));
    assert_eq!(alice.data("usage-logs/getStatusCodeList", "").await, json!([200]));
    assert_eq!(api.refused("statistics/getUserStatistics", r#"{"timeRange":"year"}"#).await.0, 400);
    assert_eq!(
        api.refused("statistics/getUserStatistics", r#"{"userId":999}"#).await,
        code(400, "NOT_FOUND")
    );
}

#[actix_web::test]
async fn what_is_used_of_limits() {
    let api = Api::in_zone(chrono_tz::Asia::Shanghai).await;
    let a = api
        .data("users/addUser", r#"{"name":"A","rpm":60,"dailyQuota":10,"limitConcurrentSessions":4}"#)
        .await;
    let b = api.data("users/addUser", r#"{"name":"B"}"#).await;
    let provider = r#"{"name":"P","baseUrl":"https://api.example.com","apiKey":"sk-1","limitWeeklyUsd":7}"#;
    let provider = api.data("providers/addProvider", provider).await["id"].as_i64().unwrap();
    let alice = api.by(a["defaultKey"]["key"].as_str().unwrap());
    let now = Utc::now();
    let mut rng = StdRng::seed_from_u64(7);
    let mut of = |user: &Value, at: DateTime<Utc>, cost: &str| pb::UsageRecord {
        user_id: user["id"].as_i64().unwrap(),
        key_id: user["defaultKey"]["id"].as_i64().unwrap(),
        provider_id: Some(provider),
        outcome: "completed".to_owned(),
        blocked_by: String::new(),
        endpoint: "/v1/messages".to_owned(),
        session_id: "s".to_owned(),
        cost: Some(cost.to_owned()),
        ..record(&mut rng, at)
    };
    let long_ago = now - TimeDelta::days(400);
    let hours = |count| now - TimeDelta::hours(count);
    write(
        &api,
        vec![
            of(&a, now, "0.25"),
            of(&a, hours(4), "0.5"),
            of(&a, hours(6), "1"),
            of(&a, long_ago, "64"),
            of(&b, now, "8"),
        ],
    )
    .await;

    let user = api.data("users/getUserLimitUsage", &json!({"userId": a["id"]}).to_string()).await;
    assert_eq!(user["rpm"], json!({"current": 1, "limit": 60, "window": "per_minute"}));
    assert_eq!(user["dailyCost"]["limit"], 10);
    assert!(user["dailyCost"]["resetAt"].as_str().unwrap().ends_with("T16:00:00.000Z"));
    let key = json!({"keyId": a["defaultKey"]["id"]}).to_string();
    let rolling = alice.data("keys/getKeyLimitUsage", &key).await;
    assert_eq!(rolling["cost5h"], json!({"current": 0.75, "limit": null}));
    assert_eq!(rolling["costTotal"], json!({"current": 65.75, "limit": null}));
    assert_eq!(rolling["concurrentSessions"], json!({"current": 1, "limit": 4}), "the user's limit");
    // Fixed: a window began six hours ago and held the request of four hours ago; the next begins now.
    let fixed = json!({"keyId": a["defaultKey"]["id"], "limit5hResetMode": "fixed", "limit5hUsd": 3,
        "dailyResetMode": "rolling"});
    api.data("keys/editKey", &fixed.to_string()).await;
    let fixed = alice.data("keys/getKeyLimitUsage", &key).await;
    assert_eq!((&fixed["cost5h"]["current"], &fixed["cost5h"]["limit"]), (&json!(0.25), &json!(3)));
    assert!(fixed["cost5h"]["resetAt"].is_string());
    assert_eq!(fixed["costDaily"], json!({"current": 1.75, "limit": null}));

    let ask = json!({"providerId": provider}).to_string();
    let all = api.data("providers/getProviderLimitUsage", &ask).await;
    assert_eq!((&all["limitTotalUsd"]["current"], &all["costWeekly"]["limit"]), (&json!(73.75), &json!(7)));
    assert_eq!(all["cost5h"]["resetInfo"], "rolling");
    let own = alice.act("providers/getProviderLimitUsage", &ask).await;
    assert_eq!(own.body["data"]["limitTotalUsd"]["current"], 65.75);
    assert!(!own.text.contains("example.com") && !own.text.contains("sk-"));

    let denied = code(403, "PERMISSION_DENIED");
    assert_eq!(
        alice.refused("users/getUserLimitUsage", &json!({"userId": b["id"]}).to_string()).await,
        denied
    );
    let of_b = json!({"keyId": b["defaultKey"]["id"]}).to_string();
    assert_eq!(alice.refused("keys/getKeyLimitUsage", &of_b).await, denied);
    assert_eq!(alice.refused("keys/getKeyLimitUsage", r#"{"keyId":999}"#).await, denied);
    assert_eq!(api.refused("users/getUserLimitUsage", r#"{"userId":999}"#).await, code(400, "NOT_FOUND"));
    assert_eq!(api.refused("keys/getKeyLimitUsage", r#"{"keyId":999}"#).await, code(400, "KEY_NOT_FOUND"));
    assert_eq!(
        api.refused("providers/getProviderLimitUsage", r#"{"providerId":999}"#).await,
        code(400, "NOT_FOUND")
    );
    assert_eq!(api.refused("users/getUserLimitUsage", "{}").await, code(400, "REQUIRED_FIELD"));
}

#[actix_web::test]
async fn an_upgrade_finds_the_margins_in_the_facets() {
    let api = Api::in_zone(chrono_tz::Europe::Berlin).await;
    let mut rng = StdRng::seed_from_u64(11);
    let first: DateTime<Utc> = "2026-10-22T20:00:00Z".parse().unwrap();
    let one = |at| record(&mut rng, first + TimeDelta::minutes(at * 7));
    write(&api, (0_i64..500).map(one).collect()).await;
    let migration = include_str!("../../../../migrations/2026-11-21-300001_margins/up.sql");
    let fill = &migration[migration.find("INSERT INTO usage_margins").unwrap()..];
    let fill = &fill[..fill.find(';').unwrap()];
    let mut conn = api.state.pool.write().await.unwrap();
    for statement in
        ["CREATE TEMP TABLE written AS SELECT * FROM usage_margins", "DELETE FROM usage_margins", fill]
    {
        diesel::sql_query(statement).execute(&mut conn).await.unwrap();
    }
    let differ = "SELECT count(*) AS requests, 0::bigint AS failed, 0::bigint AS input, 0::bigint AS duration, 0::numeric AS cost \
        FROM ((TABLE written EXCEPT TABLE usage_margins) UNION ALL (TABLE usage_margins EXCEPT TABLE written)) AS odd";
    let differ: Truth = diesel::sql_query(differ).get_result(&mut conn).await.unwrap();
    assert_eq!(differ.requests, 0);
}
