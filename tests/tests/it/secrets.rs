//! No secret in clear text anywhere: canaries are sent through everything, then everything is searched.

use crate::answers::read;
use crate::scene::{CLAUDE, prices};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use testkit::client::{http, question};
use testkit::fleet::{ADMIN_TOKEN, Fleet};
use testkit::postgres;
use testkit::upstream::{Answer, Upstream};

/// An upstream credential that occurs nowhere else.
const CANARY: &str = "sk-canary-4f1d-upstream-credential-9b7e-do-not-leak";

/// All forms in which a secret could lie around.
fn forms(secret: &str) -> Vec<(String, Vec<u8>)> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    // Without the ends, so that the alignment inside a longer text does not matter.
    let base64 = base64(&secret.as_bytes()[..secret.len() / 3 * 3]);
    let plain = secret.to_owned();
    [("in clear", plain), ("as hex", hex), ("as base64", base64)]
        .map(|(how, text)| (format!("{secret} {how}"), text.into_bytes()))
        .into()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |bits: u32| char::from(LETTERS[usize::try_from(bits & 63).unwrap_or_default()]);
    bytes
        .chunks_exact(3)
        .flat_map(|three| {
            let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
            [letter(bits >> 18), letter(bits >> 12), letter(bits >> 6), letter(bits)]
        })
        .collect()
}

/// Everything that was found somewhere, with its place.
struct Heap(Vec<(String, Vec<u8>)>);

impl Heap {
    fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.add_folder(&path)?;
            } else if path.is_file() {
                self.add(path.display().to_string(), std::fs::read(&path)?);
            }
        }
        Ok(())
    }

    /// Every place of every form of `secret`.
    fn find(&self, secret: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (form, needle) in forms(secret) {
            let holds = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
            let places = self.0.iter().filter(|(_, bytes)| holds(bytes));
            found.extend(places.map(|(place, _)| format!("{form} in {place}")));
        }
        found
    }
}

#[tokio::test]
async fn no_secret_lies_around_in_clear() -> Result<()> {
    let plan = Fleet::plan().proxy_env("LOG_LEVEL", "debug").control_env("LOG_LEVEL", "debug");
    let fleet = plan.start().await?;
    let upstream = Upstream::start().await;
    prices(&fleet).await?;
    let admin = &fleet.admin;
    let (user, first_key) = admin.user(json!({"name": "Alice", "dailyQuota": 100, "rpm": 1000})).await?;
    let (key_id, key) = admin.key(user, "second", json!({})).await?;
    let provider = json!({"apiKey": CANARY, "circuitBreakerFailureThreshold": 0});
    let provider = admin.provider("claude", &upstream.url(), provider).await?;
    fleet.sync().await?;
    use_everything(&fleet, &upstream, &key).await?;

    let mut heap = Heap(Vec::new());
    collect_answers(&fleet, &mut heap, [user, key_id, provider]).await?;
    fleet.expect_records("status = 200", 3).await?;
    heap.add("Postgres", postgres::dump(&fleet.database.name)?);
    heap.add("Redis", fleet.redis.as_ref().context("Redis")?.dump()?);
    // Logs, spools, tables.
    testkit::eventually(Duration::from_secs(10), || async {
        std::fs::read_dir(&fleet.proxies[0].volume).is_ok_and(|entries| entries.count() > 0)
    })
    .await?;
    heap.add_folder(fleet.folder())?;
    let sizes: Vec<(&str, usize)> =
        heap.0.iter().map(|(place, bytes)| (place.as_str(), bytes.len())).collect();
    assert!(sizes.iter().filter(|(_, size)| *size > 0).count() > 20, "too little to search: {sizes:?}");
    for secret in
        [CANARY, first_key.as_str(), key.as_str(), ADMIN_TOKEN, "test-control-token-with-some-length"]
    {
        assert_eq!(heap.find(secret), [""; 0]);
    }
    // The search itself works.
    heap.add("a test", CANARY);
    assert_eq!(heap.find(CANARY).len(), 1);
    Ok(())
}

/// Successes, failures and refusals, the key in each of its places, an upstream that repeats its credential.
async fn use_everything(fleet: &Fleet, upstream: &Upstream, key: &str) -> Result<()> {
    for at in [0, 1] {
        let caller = fleet.caller(at, key);
        let answer = read(caller.message(CLAUDE, true).await?).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let leak =
            format!(r#"{{"type":"error","error":{{"type":"api_error","message":"bad key {CANARY}"}}}}"#);
        for step in [Answer::status(500), Answer::status(529)] {
            upstream.script([step.clone().body(leak.clone()), step.body(leak.clone())]);
            let answer = read(caller.message(CLAUDE, false).await?).await;
            assert_eq!(answer.status, 503);
            assert!(!answer.text.contains(CANARY) && !answer.text.contains(key), "{}", answer.text);
        }
        caller.post("/v1/messages").body("{").send().await?;
        caller.get(&format!("/nowhere?key={key}")).send().await?;
        caller.get("/v1/models").send().await?;
    }
    let url = format!("{}/v1/messages?key={key}", fleet.proxies[0].url());
    assert_eq!(http().post(url).json(&question(CLAUDE, false)).send().await?.status(), 200);
    let strangers = [("authorization", format!("Bearer {key}x")), ("x-api-key", "sk-unknown".to_owned())];
    for (name, value) in strangers {
        let request = http().post(format!("{}/v1/messages", fleet.proxies[0].url())).header(name, value);
        assert_eq!(request.json(&question(CLAUDE, false)).send().await?.status(), 401);
    }
    Ok(())
}

/// What the admin API and the ops ports say.
async fn collect_answers(fleet: &Fleet, heap: &mut Heap, [user, key, provider]: [i64; 3]) -> Result<()> {
    let admin = &fleet.admin;
    let actions: [(&str, Value); 12] = [
        ("users/getUsers", json!({})),
        ("users/editUser", json!({"userId": user, "note": "seen"})),
        ("keys/getKeys", json!({"userId": user})),
        ("keys/editKey", json!({"keyId": key, "name": "renamed"})),
        ("providers/getProviders", json!({})),
        ("providers/editProvider", json!({"providerId": provider, "weight": 2})),
        ("providers/editProvider", json!({"providerId": provider, "apiKey": CANARY, "name": ""})),
        (
            "providers/addProvider",
            json!({"name": "wrong", "baseUrl": "abc", "apiKey": CANARY, "type": "claude"}),
        ),
        ("usage-logs/getUsageLogs", json!({})),
        ("model-prices/getModelPricesPaginated", json!({})),
        ("model-prices/hasPriceTable", json!({})),
        ("users/addUser", json!({"name": 5})),
    ];
    for (action, body) in actions {
        let (_, envelope) = admin.attempt(action, body).await?;
        heap.add(format!("the answer of {action}"), envelope.to_string());
    }
    heap.add("GET /api/fleet", admin.fleet().await?.to_string());
    let control = fleet.control_ops_url();
    let mut pages = vec![format!("{control}/metrics"), format!("{control}/readyz")];
    pages.push(format!("{}/api/actions/openapi.json", fleet.control_url()));
    for proxy in &fleet.proxies {
        pages.extend(["/metrics", "/table", "/readyz"].map(|path| format!("{}{path}", proxy.ops_url())));
    }
    for page in pages {
        let answer = http().get(&page).send().await?;
        assert!(answer.status().is_success(), "{page}: {}", answer.status());
        heap.add(page, answer.text().await?);
    }
    Ok(())
}
