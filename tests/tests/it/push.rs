//! From an admin write until every proxy acts on it: fast, with a full table too, and without what is broken.

use crate::scene::{CLAUDE, Scene};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testkit::client::Caller;
use testkit::fleet::Fleet;

/// What the system promises for a revocation. The median of a few is held to it, each of them to a second: one may
/// meet a machine that is busy with something else.
const PROMISE: Duration = Duration::from_millis(250);
const NEVER: Duration = Duration::from_secs(1);

/// Until a caller is refused, at most a few seconds.
async fn refused(caller: &Caller, since: Instant) -> Result<Duration> {
    loop {
        let status = caller.status(CLAUDE).await?;
        let elapsed = since.elapsed();
        if status == 401 || elapsed > Duration::from_secs(10) {
            return Ok(elapsed);
        }
    }
}

/// Revokes keys one by one.
async fn revocations(scene: &Scene, when: &str) -> Result<()> {
    let mut took = Vec::new();
    for round in 0..5 {
        took.push(revoke(scene, &format!("{when} {round}")).await?);
    }
    took.sort_unstable();
    assert!(took[2] <= PROMISE && took[4] <= NEVER, "{when}: refused after {took:?}");
    Ok(())
}

/// Removes a fresh key of Alice and measures from the request until both proxies refuse it.
async fn revoke(scene: &Scene, name: &str) -> Result<Duration> {
    let admin = &scene.fleet.admin;
    let (id, key) = admin.key(scene.user, name, json!({})).await?;
    scene.fleet.sync().await?;
    let callers = [scene.fleet.caller(0, &key), scene.fleet.caller(1, &key)];
    for caller in &callers {
        assert_eq!(caller.status(CLAUDE).await?, 200);
    }
    let since = Instant::now();
    let envelope = admin.envelope("keys/removeKey", json!({"keyId": id})).await?;
    let (first, second) = tokio::try_join!(refused(&callers[0], since), refused(&callers[1], since))?;
    let written = generation(&envelope).with_context(|| format!("a generation in {envelope}"))?;
    testkit::eventually(Duration::from_secs(10), || async {
        let Ok(fleet) = admin.fleet().await else { return false };
        let proxies = fleet["proxies"].as_array().cloned().unwrap_or_default();
        proxies.len() == 2 && proxies.iter().all(|proxy| proxy["generation"].as_i64() >= Some(written))
    })
    .await
    .context("both proxies at the generation that the write returned")?;
    for caller in &callers {
        assert_eq!(caller.status(CLAUDE).await?, 401);
    }
    Ok(first.max(second))
}

/// The generation that a write answered with.
fn generation(envelope: &Value) -> Option<i64> {
    envelope["generation"].as_i64().or_else(|| envelope["data"]["generation"].as_i64())
}

#[tokio::test]
async fn a_removed_key_is_refused_everywhere_within_250_ms_with_20_000_keys_too() -> Result<()> {
    // Waiting for keys to appear looks like guessing them.
    let scene = Scene::open(Fleet::plan().proxy_env("AUTH_FAILURE_LIMIT", "0")).await?;
    revocations(&scene, "among few").await?;
    let user = &scene.fleet.admin.action("users/addUser", json!({"name": "Bulk"})).await?["id"];
    scene.fleet.sql(&format!(
        "BEGIN; UPDATE generation SET value = value + 1; \
         INSERT INTO keys (owner_id, user_id, name, hash, first_chars, last_chars, generation) \
         SELECT 1, {user}, 'bulk ' || i, sha256(convert_to('sk-bulk-' || i, 'UTF8')), 'sk-b', 'xxxx', value \
         FROM generate_series(1, 20000) i, generation; COMMIT"
    ))?;
    testkit::eventually(Duration::from_secs(30), || async {
        let mut known = 0;
        for at in 0..2 {
            let status = scene.fleet.caller(at, "sk-bulk-20000").status(CLAUDE).await;
            known += usize::from(status.is_ok_and(|status| status == 200));
        }
        known == 2
    })
    .await
    .context("20,000 keys in both tables")?;
    revocations(&scene, "among many").await?;
    assert_eq!(scene.fleet.caller(1, "sk-bulk-777").status(CLAUDE).await?, 200);
    Ok(())
}

#[tokio::test]
async fn every_kind_of_revocation_takes_effect() -> Result<()> {
    let scene = Scene::open(Fleet::plan().without_redis()).await?;
    let admin = &scene.fleet.admin;
    let (id, key) = admin.key(scene.user, "second", json!({})).await?;
    scene.fleet.sync().await?;
    let callers = [scene.fleet.caller(0, &key), scene.fleet.caller(1, &key)];
    let steps = [
        ("keys/editKey", json!({"keyId": id, "name": "second", "isEnabled": false}), 401),
        ("keys/editKey", json!({"keyId": id, "name": "second", "isEnabled": true}), 200),
        ("keys/editKey", json!({"keyId": id, "name": "second", "expiresAt": "2020-01-01T00:00:00Z"}), 401),
        ("keys/editKey", json!({"keyId": id, "name": "second", "expiresAt": ""}), 200),
        ("users/editUser", json!({"userId": scene.user, "isEnabled": false}), 401),
        ("users/editUser", json!({"userId": scene.user, "isEnabled": true}), 200),
        ("users/removeUser", json!({"userId": scene.user}), 401),
    ];
    for (action, body, status) in steps {
        admin.action(action, body.clone()).await?;
        scene.fleet.sync().await?;
        for caller in &callers {
            assert_eq!(caller.status(CLAUDE).await?, status, "after {action} {body}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_broken_row_is_left_out_and_shown_and_the_rest_applies() -> Result<()> {
    let scene = Scene::open(Fleet::plan().without_redis()).await?;
    let write = |what: &str| {
        scene.fleet.sql(&format!("BEGIN; UPDATE generation SET value = value + 1; {what}; COMMIT"))
    };
    write(
        "INSERT INTO providers (owner_id, name, base_url, kind, credential, credential_mask, generation) \
         SELECT 1, 'Broken by hand', 'no url at all', 'nonsense', '\\x00', 'none', value FROM generation",
    )?;
    let (_, key) = scene.user(json!({"name": "Bob"})).await?;
    for at in [0, 1] {
        assert_eq!(scene.fleet.caller(at, &key).status(CLAUDE).await?, 200);
    }
    let fleet = scene.fleet.admin.fleet().await?;
    let problems = fleet["problems"].as_array().cloned().unwrap_or_default();
    assert!(!problems.is_empty(), "{fleet}");
    let id = scene.fleet.sql("SELECT id FROM providers WHERE name = 'Broken by hand'")?;
    let text = Value::from(problems).to_string();
    assert!(text.contains("provider") && text.contains(&id), "{text}");
    // Mended, it is no problem any more.
    write(
        "UPDATE providers SET deleted_at = now(), generation = (SELECT value FROM generation) \
           WHERE name = 'Broken by hand'",
    )?;
    testkit::eventually(Duration::from_secs(15), || async {
        let fleet = scene.fleet.admin.fleet().await;
        fleet.is_ok_and(|fleet| fleet["problems"].as_array().is_some_and(Vec::is_empty))
    })
    .await
}
