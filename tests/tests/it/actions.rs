//! The actions API on real processes: what a change does at the proxies, every example of its documentation, and what
//! machines make of its document.

mod examples;
mod fuzz;

use crate::scene::{CLAUDE, Duel, Scene};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::client::{question, turn};
use testkit::eventually;
use testkit::fleet::Fleet;
use testkit::upstream::Answer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn case_36_words_hold_on_every_proxy_at_once() -> Result<()> {
    let scene = Scene::open(Fleet::plan()).await?;
    let admin = &scene.fleet.admin;
    let words = |action: &str, body: Value| {
        let action = format!("sensitive-words/{action}");
        async move { admin.action(&action, body).await }
    };
    let foo = words("createSensitiveWordAction", json!({"word": "foo", "matchType": "contains"})).await?;
    words("createSensitiveWordAction", json!({"word": "b.r", "matchType": "regex"})).await?;
    let say = async |at: usize, text: &str| -> Result<u16> {
        let mut body = question(CLAUDE, false);
        body["messages"][0]["content"] = text.into();
        Ok(scene.alice(at).post("/v1/messages").json(&body).send().await?.status().as_u16())
    };
    let before = scene.upstream.stats().total;
    // Nobody waits: the answer to a change means that the proxies act on it.
    for at in [0, 1] {
        for (text, status) in [("an xFOOx", 400), ("a BAR", 400), ("hello", 200)] {
            assert_eq!(say(at, text).await?, status, "{text} at proxy {at}");
        }
    }
    let stats = words("refreshCacheAction", json!({})).await?["stats"].take();
    assert_eq!((&stats["loaded"], &stats["isLoading"]), (&json!(2), &json!(false)), "{stats}");
    assert_eq!((&stats["containsCount"], &stats["totalCount"]), (&json!(1), &json!(2)));
    assert_eq!(scene.upstream.stats().total, before + 2, "what is blocked never leaves");
    scene.fleet.expect_records("blocked_by = 'sensitive_word' AND cost = 0", 4).await?;
    words("updateSensitiveWordAction", json!({"id": foo["id"], "isEnabled": false})).await?;
    assert_eq!((say(0, "foo").await?, say(1, "foo").await?), (200, 200));
    Ok(())
}

#[tokio::test]
async fn case_39_an_open_request_is_seen() -> Result<()> {
    let store = ("STORE_SESSION_MESSAGES", "true");
    let plan = Fleet::plan().proxies(1).control_env(store.0, store.1).proxy_env(store.0, store.1);
    let scene = Scene::open(plan).await?;
    // Content came, so the attempt is over and the answer is not.
    scene.upstream.script([Answer::ok().hang(6)]);
    let session = "0197f1c2-0000-7000-8000-00000000abcd";
    let alice = scene.alice(0);
    let asked = tokio::spawn(async move {
        let mut body = turn(CLAUDE, session);
        body["stream"] = true.into();
        alice.post("/v1/messages").json(&body).send().await?.bytes().await
    });
    let seen = || async {
        let sessions = scene.fleet.admin.action("active-sessions/getActiveSessions", json!({})).await.ok()?;
        sessions.as_array()?.iter().find(|row| row["status"] == "in_progress").cloned()
    };
    eventually(PATIENCE, || async { seen().await.is_some() }).await.context("the open request")?;
    let row = seen().await.context("it is still open")?;
    assert_eq!((&row["model"], &row["userName"]), (&json!(CLAUDE), &json!("Alice")));
    assert!(row["providerId"].is_i64() && row["concurrentCount"] == 1, "{row}");
    asked.abort();
    let ended = || async {
        let sessions = scene.fleet.admin.action("active-sessions/getActiveSessions", json!({})).await;
        sessions.is_ok_and(|rows| {
            rows.as_array().is_some_and(|rows| rows.len() == 1 && rows[0]["status"] != "in_progress")
        })
    };
    eventually(PATIENCE, ended).await.context("the end of the request")?;
    let id = row["sessionId"].clone();
    let details =
        scene.fleet.admin.action("active-sessions/getSessionDetails", json!({"sessionId": id})).await?;
    assert_eq!(details["requests"][0]["providerChain"].as_array().map(Vec::len), Some(1), "{details}");
    let said = || async {
        let asked = json!({"sessionId": id});
        scene.fleet.admin.action("active-sessions/getSessionMessages", asked).await.ok()
    };
    eventually(PATIENCE, || async { said().await.is_some() }).await.context("what was said")?;
    let said = said().await.context("what was said")?;
    assert_eq!((&said[0]["role"], said.as_array().map(Vec::len)), (&json!("user"), Some(1)), "{said}");
    Ok(())
}

/// Takes every message that comes.
async fn webhook() -> Result<(String, Arc<Mutex<Vec<String>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://127.0.0.1:{}/hook?key=secret", listener.local_addr()?.port());
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (mut all, mut part) = (Vec::new(), [0; 4096]);
            while !all.ends_with(b"}") {
                match socket.read(&mut part).await {
                    Ok(count) if count > 0 => all.extend_from_slice(&part[..count]),
                    _ => break,
                }
            }
            let _ = socket
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
                .await;
            kept.lock().expect("lock").push(String::from_utf8_lossy(&all).into_owned());
        }
    });
    Ok((url, seen))
}

#[tokio::test]
async fn case_17_18_and_40_failures_are_counted_and_an_opened_circuit_is_told_once() -> Result<()> {
    let duel = Duel::open(json!({}), json!({})).await?;
    duel.a.always([Answer::status(500)]);
    let health = || async {
        let all = duel.fleet.admin.action("providers/getProvidersHealthStatus", json!({})).await;
        all.map(|mut all| all[duel.id_a.to_string()].take()).unwrap_or_default()
    };
    assert_eq!(duel.alice.status(CLAUDE).await?, 200);
    let counted = || async { health().await["failureCount"] == 1 };
    eventually(PATIENCE, counted).await.context("one failure of a closed circuit")?;
    assert_eq!(health().await["circuitState"], "closed");
    for _ in 0..4 {
        assert_eq!(duel.alice.status(CLAUDE).await?, 200);
    }
    eventually(PATIENCE, || async { health().await["circuitState"] == "open" }).await.context("open")?;
    let open = health().await;
    assert_eq!((&open["failureCount"], &open["recoveryMinutes"]), (&json!(5), &json!(30)), "{open}");
    let asked = duel.asked().0;
    assert_eq!(duel.alice.status(CLAUDE).await?, 200);
    assert_eq!(duel.asked().0, asked, "it rests");
    duel.a.always([Answer::ok()]);
    duel.fleet.admin.envelope("providers/resetProviderCircuit", json!({"providerId": duel.id_a})).await?;
    let closed = health().await;
    assert_eq!((&closed["circuitState"], &closed["failureCount"]), (&json!("closed"), &json!(0)), "{closed}");
    assert_eq!(duel.alice.status(CLAUDE).await?, 200);
    assert_eq!(duel.asked().0, asked + 1, "a reset reaches the proxies");
    Ok(())
}

#[tokio::test]
async fn case_40_one_alert_for_one_breakdown() -> Result<()> {
    let (url, seen) = webhook().await?;
    let plan = Fleet::plan().control_env("OUTBOUND_ALLOW", "127.0.0.1").control_env("NOTIFY_POLL_MS", "50");
    let scene = Scene::open(plan.proxy_env("RETRY_PAUSE", "1ms")).await?;
    let on = json!({"enabled": true, "circuitBreakerEnabled": true, "circuitBreakerWebhook": url});
    let settings = scene.fleet.admin.action("notifications/updateNotificationSettingsAction", on).await?;
    assert_eq!(settings["circuitBreakerWebhook"], "[REDACTED]");
    scene.upstream.always([Answer::status(500)]);
    for at in 0..20 {
        scene.alice(at % 2).status(CLAUDE).await?;
    }
    let told = || seen.lock().expect("lock").clone();
    eventually(PATIENCE, || async { !told().is_empty() }).await.context("an alert")?;
    let open = || async { scene.fleet.sql("SELECT count(*) FROM notifications WHERE ended_at IS NULL") };
    eventually(PATIENCE, || async { open().await.is_ok_and(|count| count == "0") })
        .await
        .context("all told")?;
    assert_eq!(told().len(), 1, "{:?}", told());
    assert!(told()[0].contains(r#""type":"circuit-breaker""#), "{:?}", told());
    assert!(!scene.fleet.all_logs()?.contains("key=secret"), "a webhook is a secret");
    Ok(())
}
