//! Limits of keys and users: exact over two proxies through Redis, and alike in the memory of one.

use crate::answers::{Dialect, Read, decimal, read};
use crate::scene::{CLAUDE, CLAUDE_CREDENTIAL, Scene};
use anyhow::{Context, Result};
use futures_util::future::join_all;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use testkit::chaos::{Chaos, Target};
use testkit::client::{Caller, turn};
use testkit::fleet::Fleet;
use testkit::redis::Redis;
use testkit::upstream::{Answer, Tokens};

/// How long a condition may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A request of this usage costs 0.01155 USD.
const COSTLY: Tokens = Tokens {
    input: Some(1000),
    output: Some(500),
    cache_write: Some(200),
    cache_write_1h: None,
    cache_read: Some(1000),
    reasoning: None,
};

async fn ask(caller: &Caller) -> Result<Read> {
    Ok(read(caller.message(CLAUDE, false).await?).await)
}

/// The error object of a refusal by a limit, in Anthropic's dialect.
fn refusal(answer: &Read, limit_type: &str) -> Result<Value> {
    let body = answer.json()?;
    let error = Dialect::Messages.error_in(&body)?.clone();
    let facts = (error["type"].as_str(), error["code"].as_str(), error["limit_type"].as_str());
    assert_eq!(facts, (Some("rate_limit_error"), Some("rate_limit_exceeded"), Some(limit_type)), "{body}");
    assert!(decimal(&error["current"])? >= decimal(&error["limit"])?, "{body}");
    assert_eq!(decimal(&answer.header("x-ratelimit-remaining").into())?, Decimal::ZERO);
    Ok(error)
}

#[tokio::test]
async fn of_200_at_once_exactly_60_pass_two_proxies() -> Result<()> {
    let scene = Scene::open_for(Fleet::plan(), json!({"rpm": 60})).await?;
    let callers = [scene.alice(0), scene.alice(1)];
    let answers = join_all((0..200).map(|n| ask(&callers[n % 2]))).await;
    let answers = answers.into_iter().collect::<Result<Vec<Read>>>()?;
    let of = |status| answers.iter().filter(move |answer| answer.status == status);
    assert_eq!((of(200).count(), of(429).count()), (60, 140));
    for answer in of(429) {
        let error = refusal(answer, "rpm")?;
        assert_eq!((decimal(&error["limit"])?, answer.header("x-ratelimit-limit")), (60.into(), "60"));
        assert!(answer.retry_after.is_some_and(|after| (1..=60).contains(&after)), "{:?}", answer.headers);
    }
    assert_eq!(scene.upstream.stats().total, 60);
    scene.fleet.expect_records("status = 200", 60).await?;
    scene.fleet.expect_records("true", 60).await?;
    // The refusal of each dialect has the same members.
    for dialect in [Dialect::Chat, Dialect::Responses] {
        let answer = read(callers[0].post(dialect.path()).json(&dialect.question(true)).send().await?).await;
        let body = answer.json()?;
        let error = dialect.error_in(&body)?;
        assert_eq!((answer.status, error["limit_type"].as_str()), (429, Some("rpm")), "{body}");
        assert_eq!(error["code"], "rate_limit_exceeded");
    }
    Ok(())
}

#[tokio::test]
async fn the_request_that_crosses_the_daily_quota_is_served_and_the_next_refused_everywhere() -> Result<()> {
    let scene = Scene::open_for(Fleet::plan(), json!({"dailyQuota": 0.01})).await?;
    scene.upstream.always([Answer::ok().usage(COSTLY)]);
    assert_eq!(ask(&scene.alice(0)).await?.status, 200);
    // The record is reported after the reservation was settled.
    scene.fleet.expect_records("cost = 0.01155", 1).await?;
    for at in [0, 1] {
        let answer = ask(&scene.alice(at)).await?;
        assert_eq!(answer.status, 402, "{}", answer.text);
        let error = refusal(&answer, "daily_quota")?;
        assert_eq!(
            (decimal(&error["current"])?, decimal(&error["limit"])?),
            ("0.01155".parse()?, "0.01".parse()?)
        );
        let reset =
            chrono::DateTime::parse_from_rfc3339(error["reset_time"].as_str().context("reset_time")?)?;
        assert_eq!(reset.to_utc().time(), chrono::NaiveTime::MIN, "midnight in the configured zone");
        assert_eq!(answer.header("x-ratelimit-reset"), reset.timestamp().to_string());
        assert!(answer.retry_after.is_some());
    }
    // A larger quota takes effect at once and does not forget what was spent.
    let edit = json!({"userId": scene.user, "dailyQuota": 0.02});
    scene.fleet.admin.action("users/editUser", edit).await?;
    scene.fleet.sync().await?;
    assert_eq!(ask(&scene.alice(1)).await?.status, 200);
    scene.fleet.expect_records("cost = 0.01155", 2).await?;
    assert_eq!(ask(&scene.alice(0)).await?.status, 402);
    assert_eq!(scene.upstream.stats().total, 2);
    Ok(())
}

#[tokio::test]
async fn a_key_at_its_five_hour_limit_leaves_other_keys_alone_until_the_users_limit() -> Result<()> {
    let scene = Scene::open_for(Fleet::plan(), json!({"limit5hUsd": 0.03})).await?;
    let small = json!({"limit5hUsd": 0.01});
    let (_, limited) = scene.fleet.admin.key(scene.user, "limited", small).await?;
    scene.fleet.sync().await?;
    scene.upstream.always([Answer::ok().usage(COSTLY)]);
    let (limited, free) = (scene.fleet.caller(0, &limited), scene.alice(1));
    assert_eq!(ask(&limited).await?.status, 200);
    scene.fleet.expect_records("true", 1).await?;
    for at in [0, 1] {
        let answer = ask(&limited.at(&scene.fleet.proxies[at].url())).await?;
        assert_eq!(answer.status, 402, "{}", answer.text);
        assert_eq!(
            refusal(&answer, "usd_5h")?["reset_time"],
            Value::Null,
            "a rolling window has no fixed end"
        );
    }
    for count in [2, 3] {
        assert_eq!(ask(&free).await?.status, 200);
        scene.fleet.expect_records("true", count).await?;
    }
    let answer = ask(&free).await?;
    assert_eq!(answer.status, 402, "0.03465 of 0.03 over both keys: {}", answer.text);
    refusal(&answer, "usd_5h").map(drop)
}

#[tokio::test]
async fn a_third_conversation_waits_while_two_are_alive() -> Result<()> {
    let scene = Scene::open_for(Fleet::plan(), json!({"limitConcurrentSessions": 2})).await?;
    let ask = async |at: usize, session: &str| -> Result<Read> {
        let session = format!("00000000-0000-4000-8000-{session}");
        Ok(read(scene.alice(at).post("/v1/messages").json(&turn(CLAUDE, &session)).send().await?).await)
    };
    assert_eq!(ask(0, "000000000001").await?.status, 200);
    assert_eq!(ask(1, "000000000002").await?.status, 200);
    for at in [0, 1] {
        let third = ask(at, "000000000003").await?;
        assert_eq!(third.status, 429, "{}", third.text);
        refusal(&third, "concurrent_sessions")?;
    }
    assert_eq!(ask(1, "000000000001").await?.status, 200);
    assert_eq!(ask(0, "000000000002").await?.status, 200);
    assert_eq!(scene.upstream.stats().total, 4);
    Ok(())
}

/// The same in memory, and with the status that some clients understand better.
#[tokio::test]
async fn one_proxy_without_redis_counts_alike() -> Result<()> {
    let plan = Fleet::plan().proxies(1).without_redis().proxy_env("QUOTA_STATUS", "429");
    let scene = Scene::open_for(plan, json!({"rpm": 20})).await?;
    let alice = scene.alice(0);
    let answers = join_all((0..60).map(|_| ask(&alice))).await;
    let answers = answers.into_iter().collect::<Result<Vec<Read>>>()?;
    let of = |status| answers.iter().filter(move |answer| answer.status == status).count();
    assert_eq!((of(200), of(429)), (20, 40));

    scene.upstream.always([Answer::ok().usage(COSTLY)]);
    let (_, key) = scene.user(json!({"name": "Bob", "dailyQuota": 0.01})).await?;
    let bob = scene.fleet.caller(0, &key);
    assert_eq!(ask(&bob).await?.status, 200);
    scene.fleet.expect_records("cost = 0.01155", 1).await?;
    let answer = ask(&bob).await?;
    assert_eq!(answer.status, 429, "{}", answer.text);
    refusal(&answer, "daily_quota")?;

    let (_, key) = scene.user(json!({"name": "Carol", "limitConcurrentSessions": 1})).await?;
    let carol = scene.fleet.caller(0, &key);
    let mut statuses = Vec::new();
    for session in ["a", "b", "a"] {
        let answer = carol.post("/v1/messages").json(&turn(CLAUDE, session)).send().await?;
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses, [200, 429, 200]);
    Ok(())
}

#[tokio::test]
async fn zero_and_nothing_are_unlimited_and_a_provider_at_its_limit_is_skipped() -> Result<()> {
    let plan = Fleet::plan().proxies(1);
    let scene = Scene::open_for(plan, json!({"rpm": 0, "dailyQuota": 0, "limit5hUsd": null})).await?;
    let cheap = json!({"apiKey": "sk-cheap-9999", "limitDailyUsd": 0.01, "groupTag": "g"});
    let dear = json!({"apiKey": "sk-dear-8888", "priority": 1, "groupTag": "g"});
    for more in [cheap, dear] {
        scene.fleet.admin.provider("claude", &scene.upstream.url(), more).await?;
    }
    let (_, key) = scene.user(json!({"name": "Bob", "providerGroup": "g", "dailyQuota": null})).await?;
    let bob = scene.fleet.caller(0, &key);
    scene.upstream.script_for("sk-cheap-9999", [Answer::ok().usage(COSTLY)], true);
    assert_eq!(ask(&bob).await?.status, 200);
    scene.fleet.expect_records("cost = 0.01155", 1).await?;
    // What proxies know of a provider's spending may be a second old.
    testkit::eventually(std::time::Duration::from_secs(10), || async {
        ask(&bob).await.is_ok_and(|answer| answer.status == 200) && scene.upstream.stats().of("8888").ok > 0
    })
    .await?;
    let spent = scene.upstream.stats().of("9999").requests;
    assert_eq!(ask(&bob).await?.status, 200);
    assert_eq!(scene.upstream.stats().of("9999").requests, spent, "skipped for good");
    assert_eq!(scene.upstream.stats().of(CLAUDE_CREDENTIAL).requests, 0, "another group's provider");
    assert_eq!(ask(&scene.alice(0)).await?.status, 200);
    Ok(())
}

/// Two providers of a group of its own, the first with `more`; and a user of that group.
async fn two_providers(scene: &Scene, more: Value) -> Result<String> {
    let mut first = json!({"apiKey": "sk-first-9999", "groupTag": "g", "circuitBreakerFailureThreshold": 0});
    if let (Some(first), Some(more)) = (first.as_object_mut(), more.as_object()) {
        first.extend(more.clone());
    }
    let second = json!({"apiKey": "sk-second-8888", "priority": 1, "groupTag": "g"});
    for provider in [first, second] {
        scene.fleet.admin.provider("claude", &scene.upstream.url(), provider).await?;
    }
    Ok(scene.user(json!({"name": "Bob", "providerGroup": "g"})).await?.1)
}

async fn say(caller: &Caller, session: usize) -> Result<Read> {
    let session = format!("00000000-0000-4000-8000-{session:012}");
    Ok(read(caller.post("/v1/messages").json(&turn(CLAUDE, &session)).send().await?).await)
}

#[tokio::test]
async fn of_200_conversations_at_once_exactly_60_go_to_a_provider_of_60() -> Result<()> {
    let scene = Scene::open(Fleet::plan()).await?;
    let key = two_providers(&scene, json!({"limitConcurrentSessions": 60})).await?;
    let callers = [scene.fleet.caller(0, &key), scene.fleet.caller(1, &key)];
    let answers = join_all((0..200).map(|n| say(&callers[n % 2], n))).await;
    assert!(answers.into_iter().collect::<Result<Vec<Read>>>()?.iter().all(|answer| answer.status == 200));
    let stats = scene.upstream.stats();
    assert_eq!((stats.of("9999").requests, stats.of("8888").requests), (60, 140));
    // Who is there stays there, and nobody else comes in.
    for n in 0..200 {
        assert_eq!(say(&callers[(n + 1) % 2], n).await?.status, 200);
    }
    let stats = scene.upstream.stats();
    assert_eq!((stats.of("9999").requests, stats.of("8888").requests), (120, 280));
    Ok(())
}

#[tokio::test]
async fn ten_requests_that_failed_over_leave_no_session_at_the_first_provider() -> Result<()> {
    let scene = Scene::open(Fleet::plan()).await?;
    let key = two_providers(&scene, json!({"limitConcurrentSessions": 10, "maxRetryAttempts": 1})).await?;
    let callers = [scene.fleet.caller(0, &key), scene.fleet.caller(1, &key)];
    scene.upstream.script_for("sk-first-9999", [Answer::status(500)], true);
    for n in 0..10 {
        assert_eq!(say(&callers[n % 2], n).await?.status, 200);
    }
    let stats = scene.upstream.stats();
    assert_eq!((stats.of("9999").requests, stats.of("8888").ok), (10, 10));
    scene.upstream.script_for("sk-first-9999", [Answer::ok()], true);
    let answers = join_all((10..30).map(|n| say(&callers[n % 2], n))).await;
    assert!(answers.into_iter().collect::<Result<Vec<Read>>>()?.iter().all(|answer| answer.status == 200));
    assert_eq!(scene.upstream.stats().of("9999").ok, 10, "all of its ten seats were free");
    Ok(())
}

#[tokio::test]
async fn a_conversation_counts_for_as_long_as_its_answer_takes() -> Result<()> {
    let plan = Fleet::plan().proxy_env("SESSION_TTL", "1s").proxy_env("RESERVATION_TTL", "1s");
    let scene = Scene::open_for(plan, json!({"limitConcurrentSessions": 1})).await?;
    scene.upstream.script([Answer::ok().events(40).gap(std::time::Duration::from_millis(100))]);
    let mut stream = turn(CLAUDE, "00000000-0000-4000-8000-000000000001");
    stream["stream"] = true.into();
    let mut long = scene.alice(0).post("/v1/messages").json(&stream).send().await?;
    assert_eq!(long.status(), 200);
    // Three lives of a session later, at both proxies.
    let mut chunks = 0;
    while chunks < 30 && long.chunk().await?.is_some() {
        chunks += 1;
    }
    for at in [0, 1] {
        assert_eq!(say(&scene.alice(at), 2).await?.status, 429);
    }
    while long.chunk().await?.is_some() {}
    testkit::eventually(std::time::Duration::from_secs(10), || async {
        say(&scene.alice(1), 2).await.is_ok_and(|answer| answer.status == 200)
    })
    .await?;
    Ok(())
}

/// What Redis has counted of a user's day, in nano-USD.
fn counted(redis: &Redis, user: i64) -> Result<i64> {
    let keys = redis.command(&["--scan", "--pattern", &format!("sw:{{o1}}:u{user}:$d*")])?;
    let key = keys.lines().next().context("the day's counter")?;
    Ok(redis.command(&["HGET", key, "spent"])?.trim().parse()?)
}

#[tokio::test]
async fn after_an_outage_of_redis_and_a_restart_the_counters_equal_the_ledger() -> Result<()> {
    let redis = Redis::start().await?;
    let chaos = Chaos::start(Target::Port(redis.port)).await?;
    let url = format!("redis://127.0.0.1:{}", chaos.port);
    let plan = Fleet::plan().without_redis().proxy_env("REDIS_URL", &url).proxy_env("SETTLE_BACKLOG", "1");
    let mut scene = Scene::open_for(plan, json!({"dailyQuota": 0.16})).await?;
    scene.upstream.always([Answer::ok().usage(COSTLY)]);
    assert_eq!(ask(&scene.alice(0)).await?.status, 200);
    scene.fleet.expect_records("true", 1).await?;
    testkit::eventually(PATIENCE, || async {
        counted(&redis, scene.user).is_ok_and(|nano| nano == 11_550_000)
    })
    .await?;

    // Redis keeps its data. Nearly all settlements overflow the backlog of one proxy, or end with the other.
    chaos.cut();
    for _ in 0..7 {
        assert_eq!(ask(&scene.alice(0)).await?.status, 200);
    }
    for _ in 0..6 {
        assert_eq!(ask(&scene.alice(1)).await?.status, 200);
    }
    scene.fleet.expect_records("true", 14).await?;
    scene.fleet.stop_proxy(0, PATIENCE).await?;
    scene.fleet.start_proxy(0).await?;
    chaos.restore();

    let ledger = |scene: &Scene| -> Result<i64> {
        let nano = "SELECT (coalesce(sum(cost), 0) * 1000000000)::bigint FROM usage_records";
        Ok(scene.fleet.sql(nano)?.trim().parse()?)
    };
    // The quota is used up, but Redis does not know it yet: a request touches the counter.
    testkit::eventually(PATIENCE, || async {
        ask(&scene.alice(0)).await.is_ok_and(|answer| answer.status == 402)
            && ask(&scene.alice(1)).await.is_ok_and(|answer| answer.status == 402)
    })
    .await?;
    testkit::eventually(PATIENCE, || async {
        matches!((counted(&redis, scene.user), ledger(&scene)), (Ok(counted), Ok(spent)) if counted == spent)
    })
    .await?;
    for at in [0, 1] {
        refusal(&ask(&scene.alice(at)).await?, "daily_quota")?;
    }
    Ok(())
}
