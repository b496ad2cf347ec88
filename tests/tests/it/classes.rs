//! Which calls reach an upstream, and what forms are held to. See `docs/paths.md`.

use crate::answers::{Dialect, Read, read};
use crate::scene::{GPT, extend};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use testkit::client::{Caller, response};
use testkit::fleet::Fleet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An upstream that answers everything alike and remembers what it was sent.
struct Echo {
    url: String,
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Echo {
    async fn start(answer: Value) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let seen: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let kept = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                if let Ok(request) = exchange(socket, &answer.to_string()).await {
                    kept.lock().expect("lock").push(request);
                }
            }
        });
        Ok(Self { url, seen })
    }

    /// Request lines and bodies.
    fn seen(&self) -> Vec<(String, String)> {
        self.seen.lock().expect("lock").clone()
    }
}

/// One request of a connection: its first line and its body.
async fn exchange(mut socket: TcpStream, answer: &str) -> Result<(String, String)> {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    let (head, body) = loop {
        let count = socket.read(&mut piece).await?;
        anyhow::ensure!(count > 0, "it went away");
        all.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&all).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
        });
        if body.len() >= length.unwrap_or_default() {
            break (head.lines().next().unwrap_or_default().to_owned(), body.to_owned());
        }
    };
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
        answer.len()
    );
    socket.write_all(answer.as_bytes()).await?;
    Ok((head, body))
}

/// A fleet of one proxy before an echo that serves all dialects of OpenAI and Anthropic.
async fn open(answer: Value, more: Value) -> Result<(Fleet, Echo)> {
    let fleet = Fleet::plan().proxies(1).without_redis().start().await?;
    let echo = Echo::start(answer).await?;
    let prices = json!({
        "gpt-image-1": {"mode": "image_generation", "litellm_provider": "openai",
            "input_cost_per_token": "0.001", "output_cost_per_token": "0.001"},
        "gpt-4o-mini": {"mode": "chat", "litellm_provider": "openai",
            "input_cost_per_token": "0.001", "output_cost_per_token": "0.001"},
        GPT: {"mode": "chat", "litellm_provider": "openai",
            "input_cost_per_token": "0.001", "output_cost_per_token": "0.001"},
    });
    fleet.admin.action("model-prices/uploadPriceTable", json!({"jsonContent": prices.to_string()})).await?;
    for kind in ["openai-compatible", "codex", "claude"] {
        let mut fields = json!({"name": kind});
        extend(&mut fields, &more);
        fleet.admin.provider(kind, &echo.url, fields).await?;
    }
    fleet.sync().await?;
    Ok((fleet, echo))
}

async fn caller(fleet: &Fleet, fields: Value) -> Result<Caller> {
    let (_, key) = fleet.admin.user(fields).await?;
    fleet.sync().await?;
    Ok(fleet.caller(0, &key))
}

const BOUNDARY: &str = "----form";

/// A form of one file and these fields, a field before the file and the others behind it.
fn form(fields: &[(&str, &str)]) -> String {
    let part = |(name, value): &(&str, &str)| {
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let file = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\
         Content-Type: image/png\r\n\r\n{}\r\n",
        "x".repeat(100_000)
    );
    let (first, rest) = fields.split_at(fields.len().min(1));
    let all = first.iter().map(part).chain([file]).chain(rest.iter().map(part));
    format!("{}--{BOUNDARY}--\r\n", all.collect::<String>())
}

async fn send(caller: &Caller, path: &str, body: String) -> Result<Read> {
    let request =
        caller.post(path).header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"));
    Ok(read(request.body(body).send().await?).await)
}

#[tokio::test]
async fn forms_are_held_to_models_prices_limits_and_words() -> Result<()> {
    let answer = json!({"data": [{"b64_json": "aa"}], "usage": {"input_tokens": 400, "output_tokens": 800, "total_tokens": 1200}});
    let redirect = json!({"modelRedirects": {"whisper-1": "gpt-4o-transcribe"}});
    let (fleet, echo) = open(answer, redirect).await?;
    let mini = json!({"name": "Mini", "allowedModels": ["gpt-4o-mini"], "dailyQuota": 1});
    let mini = caller(&fleet, mini).await?;
    let image = form(&[("prompt", "a cat"), ("model", "gpt-image-1"), ("n", "1")]);
    for path in ["/v1/images/edits", "/v1/images/variations", "/v1/audio/transcriptions"] {
        let refused = send(&mini, path, image.clone()).await?;
        let error = refused.json()?["error"].take();
        assert_eq!((refused.status, &error["code"]), (400, &json!("model_not_allowed")), "{path}: {error}");
    }
    for (what, body) in [
        ("no model", form(&[("prompt", "a cat")])),
        ("two models", form(&[("model", "gpt-4o-mini"), ("model", "gpt-image-1")])),
        ("an extended name", image.replace("name=\"model\"", "name=\"a\"; name*=utf-8''model")),
    ] {
        let refused = send(&mini, "/v1/images/edits", body).await?;
        assert_eq!(refused.status, 400, "{what}: {}", refused.text);
        assert!(refused.json()?["error"]["message"].is_string(), "{what}: {}", refused.text);
    }
    let json = mini.post("/v1/images/generations").json(&json!({"prompt": "a cat"})).send().await?;
    let refused = read(json).await;
    assert!(refused.status == 400 && refused.text.contains("`model`"), "{}", refused.text);
    assert!(echo.seen().is_empty(), "{:?}", echo.seen());

    // The first one costs 1.2 dollars, so that the second one is over the limit.
    let limited = caller(&fleet, json!({"name": "Limited", "dailyQuota": 1})).await?;
    assert_eq!(send(&limited, "/v1/images/edits", image.clone()).await?.status, 200);
    assert_eq!(echo.seen()[0], ("POST /v1/images/edits HTTP/1.1".to_owned(), image.clone()), "byte by byte");
    fleet.expect_records("model = 'gpt-image-1' AND cost = 1.2 AND usage_source = 'reported'", 1).await?;
    let refused = send(&limited, "/v1/images/edits", image.clone()).await?;
    assert_eq!((refused.status, refused.text.contains("daily_quota")), (402, true), "{}", refused.text);

    let free = caller(&fleet, json!({"name": "Free"})).await?;
    let speech = form(&[("language", "en"), ("model", "whisper-1")]);
    assert_eq!(send(&free, "/v1/audio/transcriptions", speech.clone()).await?.status, 200);
    let last = echo.seen().last().cloned().context("a request")?;
    assert_eq!(last.1, speech.replace("whisper-1", "gpt-4o-transcribe"), "the model is spliced in");

    let word = json!({"word": "tiger", "matchType": "contains"});
    fleet.admin.action("sensitive-words/createSensitiveWordAction", word).await?;
    let asked = echo.seen().len();
    let refused = send(&free, "/v1/images/edits", image.replace("a cat", "a TIGER")).await?;
    assert_eq!((refused.status, refused.text.contains("tiger")), (400, true), "{}", refused.text);
    assert_eq!(echo.seen().len(), asked, "what is blocked never leaves");
    Ok(())
}

#[tokio::test]
async fn what_accounts_keep_is_closed_until_its_owner_opens_it() -> Result<()> {
    let answer =
        json!({"id": "x", "object": "list", "data": [], "usage": {"input_tokens": 1, "output_tokens": 1}});
    let (fleet, echo) = open(answer, json!({})).await?;
    let free = caller(&fleet, json!({"name": "Free"})).await?;
    let held = caller(&fleet, json!({"name": "Held", "dailyQuota": 1})).await?;
    let get = async |caller: &Caller, path: &str| anyhow::Ok(read(caller.get(path).send().await?).await);
    let post = async |caller: &Caller, path: &str, body: Value| {
        anyhow::Ok(read(caller.post(path).json(&body).send().await?).await)
    };
    let mut stored = response(GPT, false);
    stored["background"] = true.into();

    for path in
        ["/v1/files", "/v1/batches", "/v1/organization/costs", "/v1/responses/resp_1", "/v1/messages/batches"]
    {
        let refused = get(&free, path).await?;
        assert_eq!(
            (refused.status, refused.text.contains("upstreamResources")),
            (403, true),
            "{path}: {}",
            refused.text
        );
    }
    let batch = json!({"input_file_id": "f", "endpoint": "/v1/chat/completions"});
    let refused = post(&free, "/v1/batches", batch.clone()).await?;
    assert_eq!(refused.status, 403, "{}", refused.text);
    let refused = post(&free, "/v1/responses", stored.clone()).await?;
    let error = Dialect::Responses.error_in(&refused.json()?)?.clone();
    assert!(
        refused.status == 400 && error["message"].as_str().is_some_and(|text| text.contains("`background`")),
        "{error}"
    );
    for path in ["/v1/Messages", "/v1/chat//completions", "/v1/%6dessages", "/v1/score"] {
        let answer = post(&free, path, response(GPT, false)).await?;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text);
    }
    assert!(echo.seen().is_empty(), "{:?}", echo.seen());

    let settings = fleet.admin.action("system/updateSettings", json!({"upstreamResources": true})).await?;
    assert_eq!(settings["upstreamResources"], true);
    for path in ["/v1/files", "/v1/batches", "/v1/organization/costs", "/v1/responses/resp_1"] {
        for who in [&free, &held] {
            assert_eq!(get(who, path).await?.status, 200, "{path}");
        }
    }
    assert_eq!(post(&free, "/v1/batches", batch.clone()).await?.status, 200);
    assert_eq!(post(&free, "/v1/responses", stored.clone()).await?.status, 200);
    let asked = echo.seen().len();
    for (path, body) in [("/v1/batches", batch), ("/v1/responses", stored)] {
        let refused = post(&held, path, body).await?;
        assert_eq!(
            (refused.status, refused.text.contains("spending limit")),
            (403, true),
            "{path}: {}",
            refused.text
        );
    }
    assert_eq!(echo.seen().len(), asked);
    // What costs nothing here is in the ledger as such.
    fleet.expect_records("endpoint = '/v1/batches' AND cost = 0", 3).await?;
    fleet.admin.action("system/updateSettings", json!({"upstreamResources": null})).await?;
    assert_eq!(get(&free, "/v1/files").await?.status, 403);
    Ok(())
}

#[tokio::test]
async fn a_websocket_is_told_to_come_by_http() -> Result<()> {
    let (fleet, _echo) = open(json!({}), json!({})).await?;
    let mut socket = TcpStream::connect(("127.0.0.1", fleet.proxies[0].port())).await?;
    let ask = "GET /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
               sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // The connection stays usable, for the same or another call.
    for _ in 0..2 {
        socket.write_all(ask.as_bytes()).await?;
        let (mut all, mut piece) = (String::new(), [0; 4096]);
        while !all.ends_with('}') {
            let count =
                tokio::time::timeout(std::time::Duration::from_secs(20), socket.read(&mut piece)).await??;
            anyhow::ensure!(count > 0, "it was closed: {all}");
            all.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        assert!(all.starts_with("HTTP/1.1 426 "), "{all}");
        assert!(all.contains("upgrade_required") && all.contains("POST"), "{all}");
    }
    Ok(())
}
