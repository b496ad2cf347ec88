//! `make bench ARGS=api`: the numbers of the admin API over a million records and 20,000 keys. p50 and p95 of each
//! question through a real control plane, then the plans by which Postgres answered.
//!
//! Records are made by SQL and spread over thirty days; the control plane counts the sums itself when it starts.

use super::load::quantile;
use crate::client::http;
use crate::eventually;
use crate::fleet::{ADMIN_TOKEN, Fleet};
use crate::postgres;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Records in the ledger.
const RECORDS: u32 = 1_000_000;
/// Users; each has ten keys.
const USERS: u32 = 2_000;
/// The first of them, whose first key makes a tenth of all requests.
const BUSIEST: u32 = 2;
/// Calls of each question that are measured, after a few that are not.
const CALLS: usize = 60;
const WARM: usize = 5;
/// Counting a million records takes its time.
const PATIENCE: Duration = Duration::from_secs(300);
const TARGET_MS: f64 = 50.0;

const LOGS: &str = "usage-logs/getUsageLogs";
const CHART: &str = "statistics/getUserStatistics";
const OVERVIEW: &str = "overview/getOverviewData";
/// Every user with every key and what it used today is one answer of many megabytes, which is measured but not promised.
const ALL_USERS: &str = "all users, 20,000 keys";

/// What is asked: a name, the action, its body.
fn questions() -> Vec<(&'static str, &'static str, Value)> {
    let day = |back: i64| (chrono::Utc::now() - chrono::TimeDelta::days(back)).format("%Y-%m-%d").to_string();
    let odd = |back: i64| (chrono::Utc::now() - chrono::TimeDelta::hours(back)).timestamp_millis();
    vec![
        ("everything", LOGS, json!({})),
        ("a week of days", LOGS, json!({"startDate": day(12), "endDate": day(5), "limit": 100})),
        ("between odd instants", LOGS, json!({"startTime": odd(500), "endTime": odd(75)})),
        ("page 10,000", LOGS, json!({"page": 10_000, "limit": 50})),
        ("a user", LOGS, json!({"userId": 77})),
        ("a user, odd instants", LOGS, json!({"userId": 77, "startTime": odd(500), "endTime": odd(75)})),
        ("a key", LOGS, json!({"keyId": 777})),
        ("a provider", LOGS, json!({"providerId": 3})),
        ("a common model", LOGS, json!({"model": "model-1"})),
        ("a rare model", LOGS, json!({"model": "model-rare"})),
        ("a model that nobody asked for", LOGS, json!({"model": "nothing"})),
        ("status 500", LOGS, json!({"statusCode": 500})),
        ("not 200", LOGS, json!({"excludeStatusCode200": true})),
        ("two retries", LOGS, json!({"minRetryCount": 2})),
        ("an endpoint", LOGS, json!({"endpoint": "/v1/messages/count_tokens"})),
        ("a session", LOGS, json!({"sessionId": "session-4711"})),
        ("model, status, provider", LOGS, json!({"model": "model-2", "statusCode": 429, "providerId": 2})),
        ("a provider, a model", LOGS, json!({"providerId": 2, "model": "model-2"})),
        ("a provider, hardly its model", LOGS, json!({"providerId": 8, "model": "model-0"})),
        ("a provider, an endpoint", LOGS, json!({"providerId": 2, "endpoint": "/v1/messages"})),
        ("a provider, not 200", LOGS, json!({"providerId": 2, "excludeStatusCode200": true})),
        ("a provider, status 200", LOGS, json!({"providerId": 2, "statusCode": 200})),
        ("a model, status 200", LOGS, json!({"model": "model-2", "statusCode": 200})),
        ("a model, an endpoint", LOGS, json!({"model": "model-2", "endpoint": "/v1/messages"})),
        ("a model, never its endpoint", LOGS, json!({"model": "model-2", "endpoint": "/v1/responses"})),
        ("a model, a retry", LOGS, json!({"model": "model-2", "minRetryCount": 1})),
        ("an endpoint, a retry", LOGS, json!({"endpoint": "/v1/messages", "minRetryCount": 1})),
        ("not 200, two retries", LOGS, json!({"excludeStatusCode200": true, "minRetryCount": 2})),
        ("a user, a model", LOGS, json!({"userId": 77, "model": "model-2"})),
        ("the busiest user", LOGS, json!({"userId": BUSIEST})),
        ("the busiest user, page 1,000", LOGS, json!({"userId": BUSIEST, "page": 1_000})),
        (
            "the busiest user, odd instants",
            LOGS,
            json!({"userId": BUSIEST, "startTime": odd(500), "endTime": odd(75)}),
        ),
        ("the busiest user, a model", LOGS, json!({"userId": BUSIEST, "model": "model-2"})),
        ("the busiest user, a rare model", LOGS, json!({"userId": BUSIEST, "model": "model-rare"})),
        ("the busiest user, not 200", LOGS, json!({"userId": BUSIEST, "excludeStatusCode200": true})),
        ("a key, not 200", LOGS, json!({"keyId": 777, "excludeStatusCode200": true})),
        ("not 200, page 400", LOGS, json!({"excludeStatusCode200": true, "page": 400})),
        ("today", CHART, json!({"timeRange": "today"})),
        ("7 days", CHART, json!({"timeRange": "7days"})),
        ("30 days", CHART, json!({"timeRange": "30days"})),
        ("this month", CHART, json!({"timeRange": "thisMonth"})),
        ("one user's keys, 30 days", CHART, json!({"timeRange": "30days", "userId": 77})),
        ("the busiest user's keys, 30 days", CHART, json!({"timeRange": "30days", "userId": BUSIEST})),
        ("overview", OVERVIEW, json!({})),
        ("models", "usage-logs/getModelList", json!({})),
        ("status codes", "usage-logs/getStatusCodeList", json!({})),
        ("limits of a user", "users/getUserLimitUsage", json!({"userId": 77})),
        ("limits of the busiest user", "users/getUserLimitUsage", json!({"userId": BUSIEST})),
        ("limits of a key", "keys/getKeyLimitUsage", json!({"keyId": 777})),
        ("limits of a provider", "providers/getProviderLimitUsage", json!({"providerId": 3})),
        ("a page of users", "users/getUsers", json!({"page": 7, "limit": 50})),
        ("users by a part of the name", "users/getUsers", json!({"searchTerm": "user 7", "limit": 50})),
        ("keys of a user", "keys/getKeys", json!({"userId": 77})),
        ("providers", "providers/getProviders", json!({})),
        ("prices, page 2", "model-prices/getModelPricesPaginated", json!({"page": 2, "pageSize": 50})),
        (ALL_USERS, "users/getUsers", json!({})),
    ]
}

/// Users, keys, providers and records.
fn rows() -> Vec<String> {
    let (keys, users, records) = (USERS * 10, USERS, RECORDS);
    let mut all = vec![
        format!(
            "INSERT INTO users (id, owner_id, parent_id, dna, name, generation) \
             SELECT 1 + n, 1, 1, '.1.', 'user ' || n, 1 FROM generate_series(1, {users}) AS n"
        ),
        format!(
            "INSERT INTO keys (id, owner_id, user_id, name, hash, first_chars, last_chars, generation) \
             SELECT n, 1, 2 + (n - 1) / 10, 'key ' || n, sha256(n::text::bytea), 'sk-0', '0000', 1 \
             FROM generate_series(1, {keys}) AS n"
        ),
        "INSERT INTO providers (id, owner_id, name, base_url, kind, credential, credential_mask, enabled, generation) \
         SELECT n, 1, 'provider ' || n, 'https://p.example', 'claude', '', '', false, 1 FROM generate_series(1, 8) AS n"
            .to_owned(),
    ];
    // Last month's partition, which a control plane of that time would have made.
    all.push(
        "DO $$ DECLARE first date := date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month'; BEGIN \
         EXECUTE format('CREATE TABLE usage_records_%s PARTITION OF usage_records FOR VALUES FROM (%L) TO (%L)', \
         to_char(first, 'YYYY_MM'), first || 'Z', (first + interval '1 month')::date || 'Z'); END $$"
            .to_owned(),
    );
    // Numbers that look random but are the same in every run. Provider 8 hardly ever serves model-0, though both are
    // common.
    all.push(
        "CREATE FUNCTION mix(n int, salt int, below int) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE \
         AS 'SELECT (hashint8(n::bigint * 64 + salt) & 2147483647) % below'"
            .to_owned(),
    );
    all.push(format!(
        "INSERT INTO usage_records (id, created_at, owner_id, user_id, key_id, provider_id, proxy_id, session_id, \
         dialect, endpoint, model, upstream_model, streamed, outcome, status, input_tokens, output_tokens, \
         reasoning_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, usage_source, cost, \
         cost_parts, cost_multiplier, generation, duration_ms, ttft_ms, attempts, retry_count, user_agent, \
         client_ip, request_bytes, response_bytes, messages_count) \
         SELECT gen_random_uuid(), now() - interval '30 days' * (n::float8 / {records}), 1, 2 + (key - 1) / 10, key, \
         1 + mix(n, 1, 8), 'proxy-0', 'session-' || n / 20, 'anthropic', \
         (ARRAY['/v1/messages', '/v1/messages', '/v1/chat/completions', '/v1/messages/count_tokens'])[1 + mix(n, 2, 4)], \
         CASE WHEN n % 200000 = 77 THEN 'model-rare' ELSE model END, \
         CASE WHEN mix(n, 4, 10) = 0 THEN 'model-mapped' ELSE model END, true, \
         CASE WHEN mix(n, 5, 20) = 0 THEN 'exhausted' ELSE 'completed' END, \
         CASE WHEN mix(n, 5, 20) > 0 THEN 200 ELSE (ARRAY[429, 500, 503, 499])[1 + mix(n, 6, 4)] END, \
         mix(n, 7, 5000), mix(n, 8, 900), 0, mix(n, 9, 20000), mix(n, 10, 300), 0, 'reported', \
         mix(n, 11, 100000) * 0.000000123, jsonb_build_object('input', '0.003', 'output', '0.01'), 1, 1, \
         300 + mix(n, 12, 9000), 200 + mix(n, 13, 2000), \
         jsonb_build_array(jsonb_build_object('provider_id', 1 + mix(n, 1, 8), 'provider_name', 'provider', 'reason', \
         'request_success', 'selected_by', 'initial_selection', 'status', 200, 'detail', '', 'model', 'model')), \
         CASE WHEN mix(n, 14, 25) = 0 THEN mix(n, 15, 3) ELSE 0 END, 'claude-cli/2.0', '10.0.0.1', 4000, 9000, 12 \
         FROM (SELECT n, CASE WHEN mix(n, 17, 10) = 0 THEN 1 ELSE 1 + mix(n, 16, {keys}) END AS key, \
         CASE WHEN mix(n, 1, 8) = 7 AND mix(n, 3, 12) = 0 AND n % 1000 <> 0 THEN 'model-1' \
         ELSE 'model-' || mix(n, 3, 12) END AS model FROM generate_series(1, {records}) AS n) AS made"
    ));
    all
}

/// Measures and prints.
pub async fn run() -> Result<()> {
    let mut fleet = Fleet::plan().proxies(0).without_redis().start().await?;
    fleet.kill_control();
    let began = Instant::now();
    for statement in rows() {
        fleet.sql(&statement)?;
    }
    eprintln!("{RECORDS} records in {:.0} s", began.elapsed().as_secs_f64());
    // Days that were never counted: the start of the control plane counts them.
    fleet.sql("UPDATE usage_zone SET zone = ''")?;
    let began = Instant::now();
    restart(&mut fleet).await?;
    eprintln!("sums counted in {:.0} s", began.elapsed().as_secs_f64());
    fleet.sql("VACUUM (ANALYZE)")?;
    println!("{}; {RECORDS} records, {} keys of {USERS} users", super::machine::describe(), USERS * 10);
    println!(
        "\n{:<32} {:<30} {:>9} {:>9}  target p95 {TARGET_MS} ms",
        "action", "question", "p50 ms", "p95 ms"
    );
    for (name, action, body) in questions() {
        for _ in 0..WARM {
            ask(&fleet, action, &body).await?;
        }
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let took = ask(&fleet, action, &body).await?;
            times.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        }
        times.sort_unstable();
        let (p50, p95) = (quantile(&times, 0.5) / 1e3, quantile(&times, 0.95) / 1e3);
        let verdict = if p95 < TARGET_MS || name == ALL_USERS { "" } else { "  MISSED" };
        println!("{action:<32} {name:<30} {p50:>9.1} {p95:>9.1}{verdict}");
    }
    plans(&mut fleet).await
}

async fn restart(fleet: &mut Fleet) -> Result<()> {
    fleet.kill_control();
    // The fleet's own patience is that of an empty ledger.
    if fleet.start_control().await.is_err() {
        let url = format!("{}/readyz", fleet.control_ops_url());
        let ready =
            || async { http().get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) };
        eventually(PATIENCE, ready).await.with_context(|| fleet.logs())?;
    }
    Ok(())
}

async fn ask(fleet: &Fleet, action: &str, body: &Value) -> Result<Duration> {
    // Once: a browser keeps its connection as well.
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(http);
    let request = CLIENT.post(format!("{}/api/actions/{action}", fleet.control_url()));
    let request = request.header("authorization", format!("Bearer {ADMIN_TOKEN}")).body(body.to_string());
    let began = Instant::now();
    let answer = request.send().await?;
    let status = answer.status();
    let text = answer.bytes().await?;
    let took = began.elapsed();
    ensure!(status == 200, "{action} {body}: {status} {}", String::from_utf8_lossy(&text));
    Ok(took)
}

/// Each question once more, with Postgres writing its plans into its log.
async fn plans(fleet: &mut Fleet) -> Result<()> {
    let name = fleet.database.name.clone();
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_analyze = on",
        "auto_explain.log_buffers = on",
    ] {
        fleet.sql(&format!("ALTER DATABASE {name} SET {setting}"))?;
    }
    restart(fleet).await?;
    for (question, action, body) in questions() {
        let before = postgres::log()?.len();
        ask(fleet, action, &body).await?;
        let log = postgres::log()?;
        println!("\n== {action}: {question} {body}");
        let wanted = ["usage_", "sessions"];
        for plan in log[before..].split("duration: ").skip(1) {
            if wanted.iter().any(|table| plan.contains(table)) {
                println!("{}", plan.trim_end());
            }
        }
    }
    Ok(())
}
